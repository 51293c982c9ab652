//! The messages that the chain takes: their decoding, their signer and what is refused at a glance.

use prost::{Message as _, Name};
use prost_types::Any;

use super::amount::{ONE, UAKT, coin, dec};
use super::error::{TxError, cert, deployment, market, provider, sdk};
use crate::devnet::account::address_bytes;
use crate::wire::akash::bme::v1::MsgMintAct;
use crate::wire::akash::cert::v1::{MsgCreateCertificate, MsgRevokeCertificate};
use crate::wire::akash::deployment::v1::{DeploymentId, GroupId};
use crate::wire::akash::deployment::v1beta4::{
    GroupSpec, MsgCloseDeployment, MsgCloseGroup, MsgCreateDeployment, MsgPauseGroup,
    MsgStartGroup, MsgUpdateDeployment,
};
use crate::wire::akash::escrow::v1::MsgAccountDeposit;
use crate::wire::akash::market::v1::BidId;
use crate::wire::akash::market::v1beta5::{
    MsgCloseBid, MsgCloseLease, MsgCreateBid, MsgCreateLease, MsgLeaseStartReclaim,
    MsgWithdrawLease,
};
use crate::wire::akash::provider::v1beta4::{MsgCreateProvider, MsgUpdateProvider};
use crate::wire::cosmos::authz::v1beta1::MsgGrant;
use crate::wire::cosmos::feegrant::v1beta1::MsgGrantAllowance;

/// The most that a group may offer for a unit and a block.
const MAX_PRICE: i128 = 10_000_000 * ONE;
/// The most units of one service.
const MAX_COUNT: u32 = 50;

/// The wire's name of a message.
macro_rules! paste_type {
    (CreateDeployment) => {
        MsgCreateDeployment
    };
    (UpdateDeployment) => {
        MsgUpdateDeployment
    };
    (CloseDeployment) => {
        MsgCloseDeployment
    };
    (CloseGroup) => {
        MsgCloseGroup
    };
    (PauseGroup) => {
        MsgPauseGroup
    };
    (StartGroup) => {
        MsgStartGroup
    };
    (CreateBid) => {
        MsgCreateBid
    };
    (CloseBid) => {
        MsgCloseBid
    };
    (CreateLease) => {
        MsgCreateLease
    };
    (CloseLease) => {
        MsgCloseLease
    };
    (WithdrawLease) => {
        MsgWithdrawLease
    };
    (StartReclaim) => {
        MsgLeaseStartReclaim
    };
    (Deposit) => {
        MsgAccountDeposit
    };
    (CreateProvider) => {
        MsgCreateProvider
    };
    (UpdateProvider) => {
        MsgUpdateProvider
    };
    (CreateCertificate) => {
        MsgCreateCertificate
    };
    (RevokeCertificate) => {
        MsgRevokeCertificate
    };
    (Grant) => {
        MsgGrant
    };
    (GrantAllowance) => {
        MsgGrantAllowance
    };
    (MintAct) => {
        MsgMintAct
    };
}

macro_rules! messages {
    ($($kind:ident),+ $(,)?) => {
        /// One message.
        #[derive(Clone, Debug)]
        pub(super) enum Msg {
            $($kind(paste_type!($kind))),+
        }

        /// Decodes a message by its type URL.
        pub(super) fn decode(any: &Any) -> Result<Msg, TxError> {
            $(
                if any.type_url == <paste_type!($kind)>::type_url() {
                    let msg = <paste_type!($kind)>::decode(any.value.as_slice());
                    return msg.map(Msg::$kind).map_err(|error| sdk::TX_DECODE.because(error));
                }
            )+
            Err(sdk::TX_DECODE.because(format_args!("unable to resolve type URL {}", any.type_url)))
        }
    };
}

messages!(
    CreateDeployment,
    UpdateDeployment,
    CloseDeployment,
    CloseGroup,
    PauseGroup,
    StartGroup,
    CreateBid,
    CloseBid,
    CreateLease,
    CloseLease,
    WithdrawLease,
    StartReclaim,
    Deposit,
    CreateProvider,
    UpdateProvider,
    CreateCertificate,
    RevokeCertificate,
    Grant,
    GrantAllowance,
    MintAct,
);

impl Msg {
    /// Whose signature it needs.
    pub(super) fn signer(&self) -> &str {
        let signer = match self {
            Self::CreateDeployment(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::UpdateDeployment(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::CloseDeployment(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::CloseGroup(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::PauseGroup(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::StartGroup(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::CreateBid(msg) => msg.id.as_ref().map(|id| &id.provider),
            Self::CloseBid(msg) => msg.id.as_ref().map(|id| &id.provider),
            Self::CreateLease(msg) => msg.bid_id.as_ref().map(|id| &id.owner),
            Self::CloseLease(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::WithdrawLease(msg) => msg.id.as_ref().map(|id| &id.provider),
            Self::StartReclaim(msg) => msg.id.as_ref().map(|id| &id.provider),
            Self::Deposit(msg) => Some(&msg.signer),
            Self::CreateProvider(msg) => Some(&msg.owner),
            Self::UpdateProvider(msg) => Some(&msg.owner),
            Self::CreateCertificate(msg) => Some(&msg.owner),
            Self::RevokeCertificate(msg) => msg.id.as_ref().map(|id| &id.owner),
            Self::Grant(msg) => Some(&msg.granter),
            Self::GrantAllowance(msg) => Some(&msg.granter),
            Self::MintAct(msg) => Some(&msg.owner),
        };
        signer.map_or("", String::as_str)
    }

    /// What can be refused without looking at the chain's state.
    pub(super) fn validate(&self) -> Result<(), TxError> {
        address(self.signer())?;
        match self {
            Self::CreateDeployment(msg) => create_deployment(msg),
            Self::UpdateDeployment(msg) => {
                deployment_id(msg.id.as_ref()).and_then(|()| hash(&msg.hash))
            }
            Self::CloseDeployment(msg) => deployment_id(msg.id.as_ref()),
            Self::CloseGroup(msg) => group_id(msg.id.as_ref()),
            Self::PauseGroup(msg) => group_id(msg.id.as_ref()),
            Self::StartGroup(msg) => group_id(msg.id.as_ref()),
            Self::CreateBid(msg) => create_bid(msg),
            Self::CloseBid(msg) => {
                bid_id(msg.id.as_ref()).and_then(|()| provider_reason(msg.reason))
            }
            Self::CreateLease(msg) => bid_id(msg.bid_id.as_ref()),
            Self::CloseLease(msg) => bid_id(msg.id.as_ref().map(lease_as_bid).as_ref()),
            Self::WithdrawLease(msg) => bid_id(msg.id.as_ref().map(lease_as_bid).as_ref()),
            Self::StartReclaim(msg) => bid_id(msg.id.as_ref().map(lease_as_bid).as_ref())
                .and_then(|()| provider_reason(msg.reason)),
            Self::Deposit(msg) => deposit(msg.deposit.as_ref()),
            Self::CreateProvider(msg) => host_uri(&msg.host_uri),
            Self::UpdateProvider(msg) => host_uri(&msg.host_uri),
            Self::CreateCertificate(msg) => {
                if msg.pubkey.is_empty() {
                    return Err(cert::INVALID_PUBKEY.into());
                }
                super::registry::serial_of(&msg.cert, &msg.owner).map(|_| ())
            }
            Self::RevokeCertificate(_) => Ok(()),
            Self::Grant(msg) => address(&msg.grantee),
            Self::GrantAllowance(msg) => address(&msg.grantee),
            Self::MintAct(msg) => match coin(msg.coins_to_burn.as_ref()) {
                Some((UAKT, amount)) if amount > 0 && msg.to == msg.owner => Ok(()),
                _ => Err(sdk::INVALID_COINS.into()),
            },
        }
    }
}

fn lease_as_bid(id: &crate::wire::akash::market::v1::LeaseId) -> BidId {
    BidId {
        owner: id.owner.clone(),
        dseq: id.dseq,
        gseq: id.gseq,
        oseq: id.oseq,
        provider: id.provider.clone(),
        bseq: id.bseq,
    }
}

fn address(address: &str) -> Result<(), TxError> {
    match address_bytes(address) {
        Some(_) => Ok(()),
        None => Err(sdk::INVALID_ADDRESS.because("decoding bech32 failed")),
    }
}

fn deployment_id(id: Option<&DeploymentId>) -> Result<(), TxError> {
    let id = id.ok_or(sdk::INVALID_ADDRESS)?;
    address(&id.owner)?;
    sequence(id.dseq)
}

fn group_id(id: Option<&GroupId>) -> Result<(), TxError> {
    let id = id.ok_or(sdk::INVALID_ADDRESS)?;
    address(&id.owner)?;
    sequence(id.dseq)?;
    sequence(id.gseq.into())
}

fn bid_id(id: Option<&BidId>) -> Result<(), TxError> {
    let id = id.ok_or(sdk::INVALID_ADDRESS)?;
    address(&id.owner)?;
    sequence(id.dseq)?;
    sequence(id.gseq.into())?;
    sequence(id.oseq.into())?;
    address(&id.provider)?;
    if id.owner == id.provider {
        return Err(sdk::CONFLICT.because("self-bid"));
    }
    if id.bseq != 0 {
        return Err(sdk::CONFLICT.because("invalid bseq"));
    }
    Ok(())
}

fn sequence(number: u64) -> Result<(), TxError> {
    if number == 0 { Err(sdk::INVALID_SEQUENCE.into()) } else { Ok(()) }
}

fn hash(hash: &[u8]) -> Result<(), TxError> {
    match hash.len() {
        0 => Err(deployment::EMPTY_HASH.into()),
        32 => Ok(()),
        _ => Err(deployment::INVALID_HASH.into()),
    }
}

fn provider_reason(reason: i32) -> Result<(), TxError> {
    if (10_000..20_000).contains(&reason) {
        return Ok(());
    }
    Err(market::INVALID_REASON.because(format_args!("value \"{reason}\" range 10000..19999")))
}

fn host_uri(uri: &str) -> Result<(), TxError> {
    let host = uri.strip_prefix("https://").unwrap_or_default();
    if host.is_empty() || host.contains('/') { Err(provider::INVALID_URI.into()) } else { Ok(()) }
}

fn deposit(
    deposit: Option<&crate::wire::akash::base::deposit::v1::Deposit>,
) -> Result<(), TxError> {
    let deposit = deposit.ok_or(sdk::INVALID_COINS)?;
    let (_, amount) = coin(deposit.amount.as_ref()).ok_or(sdk::INVALID_COINS)?;
    if amount == 0 || deposit.sources.is_empty() {
        return Err(sdk::INVALID_COINS.into());
    }
    Ok(())
}

fn create_deployment(msg: &MsgCreateDeployment) -> Result<(), TxError> {
    deployment_id(msg.id.as_ref())?;
    deposit(msg.deposit.as_ref())?;
    if msg.groups.is_empty() {
        return Err(deployment::INVALID_GROUPS.into());
    }
    hash(&msg.hash)?;
    let (denom, _) =
        coin(msg.deposit.as_ref().and_then(|deposit| deposit.amount.as_ref())).unwrap_or_default();
    for (at, group) in msg.groups.iter().enumerate() {
        let price_denom = self::group(group)?;
        if price_denom != denom {
            return Err(deployment::DEPOSIT_INVALID
                .because(format_args!("Mismatched denominations ({denom} != {price_denom})")));
        }
        if msg.groups.iter().take(at).any(|other| other.name == group.name) {
            return Err(deployment::DUPLICATE_GROUP.into());
        }
    }
    Ok(())
}

/// Checks a group and gives the denomination of its prices.
fn group(group: &GroupSpec) -> Result<&str, TxError> {
    if group.name.is_empty() || group.resources.is_empty() {
        return Err(TxError::plain("empty group: name and resources are required"));
    }
    let mut denom = "";
    for (at, unit) in group.resources.iter().enumerate() {
        let resource =
            unit.resource.as_ref().ok_or_else(|| TxError::plain("resources cannot be nil"))?;
        let id_of = |other: &crate::wire::akash::deployment::v1beta4::ResourceUnit| {
            other.resource.as_ref().map_or(0, |it| it.id)
        };
        if resource.id == 0
            || group.resources.iter().take(at).any(|other| id_of(other) == resource.id)
        {
            return Err(TxError::plain(format_args!(
                "invalid resource id {}: must be unique and above 0",
                resource.id
            )));
        }
        for (name, there) in [
            ("CPU", resource.cpu.is_some()),
            ("GPU", resource.gpu.is_some()),
            ("memory", resource.memory.is_some()),
            ("storage", !resource.storage.is_empty()),
        ] {
            if !there {
                return Err(TxError::plain(format_args!("invalid unit {name}, cannot be nil")));
            }
        }
        if unit.count == 0 || unit.count > MAX_COUNT {
            return Err(TxError::plain(format_args!(
                "invalid unit count (0 < {} <= {MAX_COUNT})",
                unit.count
            )));
        }
        let (unit_denom, price) =
            dec(unit.price.as_ref()).ok_or_else(|| TxError::plain("invalid price object"))?;
        if price > MAX_PRICE {
            return Err(TxError::plain(format_args!(
                "invalid unit price ({} > {} fails)",
                price / ONE,
                MAX_PRICE / ONE
            )));
        }
        denom = unit_denom;
    }
    Ok(denom)
}

fn create_bid(msg: &MsgCreateBid) -> Result<(), TxError> {
    bid_id(msg.id.as_ref())?;
    deposit(msg.deposit.as_ref())?;
    match dec(msg.price.as_ref()) {
        None | Some((_, 0)) => Err(market::ZERO_PRICE.into()),
        Some(_) => Ok(()),
    }
}
