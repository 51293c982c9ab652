//! Transactions as bytes: pure, the same input gives the same bytes.
//!
//! All of ours are unordered: no sequence number to fight over, and a time-out after which they can
//! never land.

use prost::{Message, Name};
use prost_types::Timestamp;
use sha2::{Digest, Sha256};

use crate::model::chain::ChainMsg;
use crate::model::group::{Endpoint, GroupSpec, Resources};
use crate::model::ids::LeaseId;
use crate::model::money::{UACT, UAKT, Uact, akt};
use crate::wire::akash::base::attributes::v1::{Attribute, PlacementRequirements, SignedBy};
use crate::wire::akash::base::deposit::v1::{Deposit, Source};
use crate::wire::akash::base::resources::v1beta4 as resources;
use crate::wire::akash::bme::v1::MsgMintAct;
use crate::wire::akash::deployment::v1::DeploymentId;
use crate::wire::akash::deployment::v1beta4 as deployment;
use crate::wire::akash::escrow::id::v1 as escrow_id;
use crate::wire::akash::escrow::v1::MsgAccountDeposit;
use crate::wire::akash::market::v1::BidId;
use crate::wire::akash::market::v1beta5 as market;
use crate::wire::cosmos::base::v1beta1::{Coin, DecCoin};
use crate::wire::cosmos::crypto::secp256k1::PubKey;
use crate::wire::cosmos::tx::signing::v1beta1::SignMode;
use crate::wire::cosmos::tx::v1beta1::{
    AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, TxBody, TxRaw, mode_info,
};

/// What a transaction may burn and who pays for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeeOffer {
    /// Fee in uakt.
    pub uakt: u64,
    /// Gas that it may use; all of it is paid for.
    pub gas: u64,
    /// Account that pays instead of the signer.
    pub granter: Option<String>,
}

/// The part of a transaction that says what is to be done, and until when.
#[must_use]
pub fn body(owner: &str, msg: &ChainMsg, timeout: Timestamp) -> Vec<u8> {
    body_paid_by(Payer::Wallet, owner, msg, timeout)
}

/// Whose coins a deposit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// The signer's own.
    Wallet,
    /// Those of an account that granted it, and no others.
    Grant,
}

/// The same, with deposits of this payer's coins.
#[must_use]
pub fn body_paid_by(payer: Payer, owner: &str, msg: &ChainMsg, timeout: Timestamp) -> Vec<u8> {
    TxBody {
        messages: vec![pack(payer, owner, msg)],
        unordered: true,
        timeout_timestamp: Some(timeout),
        ..TxBody::default()
    }
    .encode_to_vec()
}

/// The part that says who signs and pays. The sequence of an unordered transaction is zero.
#[must_use]
pub fn auth_info(public_key: [u8; 33], fee: &FeeOffer) -> Vec<u8> {
    let key = any(&PubKey { key: public_key.to_vec() });
    let single = mode_info::Single { mode: SignMode::Direct.into() };
    let signer = SignerInfo {
        public_key: Some(key),
        mode_info: Some(ModeInfo { sum: Some(mode_info::Sum::Single(single)) }),
        sequence: 0,
    };
    let amount = if fee.uakt == 0 {
        Vec::new()
    } else {
        vec![Coin { denom: UAKT.into(), amount: fee.uakt.to_string() }]
    };
    let fee = Fee {
        amount,
        gas_limit: fee.gas,
        payer: String::new(),
        granter: fee.granter.clone().unwrap_or_default(),
    };
    AuthInfo { signer_infos: vec![signer], fee: Some(fee) }.encode_to_vec()
}

/// The bytes to be signed.
#[must_use]
pub fn sign_doc(body: &[u8], auth_info: &[u8], chain_id: &str, account_number: u64) -> Vec<u8> {
    SignDoc {
        body_bytes: body.to_vec(),
        auth_info_bytes: auth_info.to_vec(),
        chain_id: chain_id.into(),
        account_number,
    }
    .encode_to_vec()
}

/// The transaction as it is broadcast; an empty signature is good for a simulation only.
#[must_use]
pub fn raw(body: Vec<u8>, auth_info: Vec<u8>, signature: Vec<u8>) -> Vec<u8> {
    TxRaw { body_bytes: body, auth_info_bytes: auth_info, signatures: vec![signature] }
        .encode_to_vec()
}

/// The name under which the chain finds a transaction: upper-case hex.
#[must_use]
pub fn hash(raw: &[u8]) -> String {
    hex::encode_upper(Sha256::digest(raw))
}

/// What a message does, for people.
#[must_use]
pub fn purpose(msg: &ChainMsg) -> String {
    match msg {
        ChainMsg::CreateDeployment { dseq, deposit, .. } => {
            format!("create deployment {dseq} with a deposit of {deposit}")
        }
        ChainMsg::CreateLease(id) => format!("lease deployment {} from {}", id.dseq, id.provider),
        ChainMsg::UpdateDeployment { dseq, .. } => {
            format!("store a new manifest hash for deployment {dseq}")
        }
        ChainMsg::Deposit { dseq, amount } => {
            format!("pay {amount} into the escrow of deployment {dseq}")
        }
        ChainMsg::CloseDeployment { dseq } => format!("close deployment {dseq}"),
        ChainMsg::MintAct { burn } => format!("burn {} for ACT", akt(*burn)),
    }
}

fn pack(payer: Payer, owner: &str, msg: &ChainMsg) -> prost_types::Any {
    let id = |dseq: u64| Some(DeploymentId { owner: owner.into(), dseq });
    match msg {
        ChainMsg::CreateDeployment { dseq, group, hash, deposit } => {
            any(&deployment::MsgCreateDeployment {
                id: id(*dseq),
                groups: vec![group_spec(group)],
                hash: hash.to_vec(),
                deposit: Some(paid(payer, *deposit)),
                reclamation: None,
            })
        }
        ChainMsg::CreateLease(lease) => {
            any(&market::MsgCreateLease { bid_id: Some(bid_id(lease)) })
        }
        ChainMsg::UpdateDeployment { dseq, hash } => {
            any(&deployment::MsgUpdateDeployment { id: id(*dseq), hash: hash.to_vec() })
        }
        ChainMsg::Deposit { dseq, amount } => any(&MsgAccountDeposit {
            signer: owner.into(),
            id: Some(escrow_id::Account {
                scope: escrow_id::Scope::Deployment.into(),
                xid: format!("{owner}/{dseq}"),
            }),
            deposit: Some(paid(payer, *amount)),
        }),
        ChainMsg::CloseDeployment { dseq } => {
            any(&deployment::MsgCloseDeployment { id: id(*dseq) })
        }
        ChainMsg::MintAct { burn } => any(&MsgMintAct {
            owner: owner.into(),
            to: owner.into(),
            coins_to_burn: Some(Coin { denom: UAKT.into(), amount: burn.to_string() }),
        }),
    }
}

fn any<M: Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: format!("/{}", M::full_name()), value: message.encode_to_vec() }
}

fn paid(payer: Payer, amount: Uact) -> Deposit {
    let source = match payer {
        Payer::Wallet => Source::Balance,
        Payer::Grant => Source::Grant,
    };
    Deposit {
        amount: Some(Coin { denom: UACT.into(), amount: amount.0.to_string() }),
        sources: vec![source.into()],
    }
}

fn bid_id(lease: &LeaseId) -> BidId {
    BidId {
        owner: lease.owner.clone(),
        dseq: lease.dseq,
        gseq: lease.gseq,
        oseq: lease.oseq,
        provider: lease.provider.clone(),
        bseq: 0,
    }
}

fn group_spec(group: &GroupSpec) -> deployment::GroupSpec {
    let signed_by =
        SignedBy { all_of: group.signed_by_all_of.clone(), any_of: group.signed_by_any_of.clone() };
    let signed_by = (signed_by != SignedBy::default()).then_some(signed_by);
    deployment::GroupSpec {
        name: group.name.clone(),
        requirements: Some(PlacementRequirements {
            signed_by,
            attributes: attributes(&group.attributes),
        }),
        resources: vec![deployment::ResourceUnit {
            resource: Some(unit(&group.resources)),
            count: 1,
            price: Some(DecCoin { denom: UACT.into(), amount: group.price.0.to_string() }),
        }],
    }
}

fn unit(of: &Resources) -> resources::Resources {
    let storage = of.storage.iter().map(|volume| resources::Storage {
        name: volume.name.clone(),
        quantity: Some(amount(volume.bytes)),
        attributes: attributes(&volume.attributes),
    });
    let endpoints = of.endpoints.iter().map(|endpoint| {
        let kind = match endpoint {
            Endpoint::SharedHttp => resources::endpoint::Kind::SharedHttp,
            Endpoint::RandomPort => resources::endpoint::Kind::RandomPort,
        };
        resources::Endpoint { kind: kind.into(), sequence_number: 0 }
    });
    resources::Resources {
        id: of.id,
        cpu: Some(resources::Cpu { units: Some(amount(of.cpu_milli)), attributes: Vec::new() }),
        memory: Some(resources::Memory {
            quantity: Some(amount(of.memory_bytes)),
            attributes: Vec::new(),
        }),
        storage: storage.collect(),
        // The chain refuses a group that does not say that it wants no GPU.
        gpu: Some(resources::Gpu { units: Some(amount(0)), attributes: Vec::new() }),
        endpoints: endpoints.collect(),
    }
}

/// Resource amounts travel as decimal digits.
fn amount(n: u64) -> resources::ResourceValue {
    resources::ResourceValue { val: n.to_string().into_bytes() }
}

fn attributes(pairs: &[(String, String)]) -> Vec<Attribute> {
    pairs.iter().map(|(key, value)| Attribute { key: key.clone(), value: value.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::wallet::Wallet;
    use crate::model::group::Storage;
    use crate::model::money::{DEC_ONE, PricePerBlock};

    const OWNER: &str = "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh";
    const PROVIDER: &str = "akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63";
    const DSEQ: u64 = 1_234_567;
    /// Public test data of the network's own software development kit.
    const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch improve \
                          setup stuff frost spirit smart alien";
    /// Hash of a manifest, as Akash's own library computes it.
    const HASH: &str = "fe8f4f155a4f6cb7b26862ac8450bc1bd161ef40358d0b16eed0dd38bf9cd368";
    /// `MsgCloseDeployment` as others encode it.
    const CLOSE: &str = "0a320a2c616b617368317175666133787a7266333471767779656a6b68766e6334707366343966667461773061736d681087ad4b";

    /// `MsgCreateDeployment` of two services, as the reference library encodes it.
    const CREATE: &str = "\
        0a320a2c616b617368317175666133787a7266333471767779656a6b68766e6334707366343966667461773061736d681087ad4b1282030a03646331\
        12430a2e122c616b6173683133363579766d63347337617764796a336e3273617637786678373661646336646e6d6c78363312110a06726567696f6e\
        120775732d776573741a9a010a76080112070a050a033530301a0d0a0b0a0935333638373039313222170a0764656661756c74120c0a0a3130373337\
        343138323422380a0464617461120c0a0a323134373438333634381a0e0a05636c617373120562657461331a120a0a70657273697374656e74120474\
        7275652a050a030a0130320010011a1e0a04756163741216313030303030303030303030303030303030303030301a98010a74080212070a050a0335\
        30301a0d0a0b0a0935333638373039313222170a0764656661756c74120c0a0a3130373337343138323422380a0464617461120c0a0a323134373438\
        333634381a0e0a05636c617373120562657461331a120a0a70657273697374656e741204747275652a050a030a013010011a1e0a0475616374121631\
        3030303030303030303030303030303030303030301a20fe8f4f155a4f6cb7b26862ac8450bc1bd161ef40358d0b16eed0dd38bf9cd36822140a0f0a\
        04756163741207353030303030302a0101";

    fn hash() -> [u8; 32] {
        hex::decode(HASH).expect("hex").try_into().expect("32 bytes")
    }

    fn packed(msg: &ChainMsg) -> (String, String) {
        let any = pack(Payer::Wallet, OWNER, msg);
        (any.type_url, hex::encode(any.value))
    }

    #[test]
    fn messages_are_encoded_as_others_do() {
        let close = ("/akash.deployment.v1beta4.MsgCloseDeployment".into(), CLOSE.into());
        assert_eq!(packed(&ChainMsg::CloseDeployment { dseq: DSEQ }), close);
        let update =
            ("/akash.deployment.v1beta4.MsgUpdateDeployment".into(), format!("{CLOSE}1a20{HASH}"));
        assert_eq!(packed(&ChainMsg::UpdateDeployment { dseq: DSEQ, hash: hash() }), update);
        let lease = LeaseId {
            owner: OWNER.into(),
            dseq: DSEQ,
            gseq: 1,
            oseq: 1,
            provider: PROVIDER.into(),
        };
        let lease_hex = "0a640a2c616b617368317175666133787a7266333471767779656a6b68766e6334707366343966667461773061736d681087ad4b180120012a2\
                         c616b6173683133363579766d63347337617764796a336e3273617637786678373661646336646e6d6c783633";
        assert_eq!(
            packed(&ChainMsg::CreateLease(lease)),
            ("/akash.market.v1beta5.MsgCreateLease".into(), lease_hex.into())
        );
        let mint = "0a2c616b617368317175666133787a7266333471767779656a6b68766e6334707366343966667461773061736d68122c616b617368317175\
                    666133787a7266333471767779656a6b68766e6334707366343966667461773061736d681a100a0475616b7412083230303030303030";
        assert_eq!(
            packed(&ChainMsg::MintAct { burn: 20_000_000 }),
            ("/akash.bme.v1.MsgMintACT".into(), mint.into())
        );
        let deposit = ChainMsg::Deposit { dseq: DSEQ, amount: Uact(2_500_000) };
        let granted = hex::encode(pack(Payer::Grant, OWNER, &deposit).value);
        assert!(granted.ends_with("2a0102"), "from the grant alone: {granted}");
    }

    #[test]
    fn a_group_is_encoded_as_the_reference_library_does() {
        let group = GroupSpec {
            name: "dc1".into(),
            attributes: vec![("region".into(), "us-west".into())],
            signed_by_all_of: Vec::new(),
            signed_by_any_of: vec![PROVIDER.into()],
            resources: Resources {
                id: 1,
                cpu_milli: 500,
                memory_bytes: 512 << 20,
                storage: vec![
                    Storage { name: "default".into(), bytes: 1 << 30, attributes: Vec::new() },
                    Storage {
                        name: "data".into(),
                        bytes: 2 << 30,
                        attributes: vec![
                            ("class".into(), "beta3".into()),
                            ("persistent".into(), "true".into()),
                        ],
                    },
                ],
                endpoints: vec![Endpoint::SharedHttp],
            },
            price: PricePerBlock(1000 * DEC_ONE),
        };
        let msg = ChainMsg::CreateDeployment {
            dseq: DSEQ,
            group,
            hash: hash(),
            deposit: Uact(5_000_000),
        };
        let mut expected =
            deployment::MsgCreateDeployment::decode(hex::decode(CREATE).expect("hex").as_slice())
                .expect("a message");
        assert_eq!(hex::encode(expected.encode_to_vec()), CREATE);
        // Ours has one service in a group.
        expected.groups[0].resources.truncate(1);
        assert_eq!(
            packed(&msg),
            (
                "/akash.deployment.v1beta4.MsgCreateDeployment".into(),
                hex::encode(expected.encode_to_vec())
            )
        );
    }

    /// Signature and hash made by another implementation, over the same unordered transaction.
    #[test]
    fn an_unordered_transaction_is_signed_as_others_do() {
        let wallet = Wallet::from_phrase(&PHRASE.into(), 0).expect("a good phrase");
        let body = body(
            OWNER,
            &ChainMsg::CloseDeployment { dseq: DSEQ },
            Timestamp { seconds: 1_795_521_600, nanos: 0 },
        );
        let auth_info =
            auth_info(wallet.public_key(), &FeeOffer { uakt: 5000, gas: 200_000, granter: None });
        assert_eq!(
            hex::encode(&auth_info),
            "0a4e0a460a1f2f636f736d6f732e63727970746f2e736563703235366b312e5075624b657912230a2103e1fde5cc17f56501ed53d87718df76c135b9a6401dceb53d\
             198111a1eaf85f7612040a02080112120a0c0a0475616b7412043530303010c09a0c"
        );
        let doc = sign_doc(&body, &auth_info, "akashnet-2", 12345);
        assert_eq!(
            hex::encode(Sha256::digest(&doc)),
            "77db76e5915568bbe0e0b3aed99d2a432d166119ae82fe006b6d883b16b6aa0c"
        );
        let signature = wallet.sign(&doc);
        assert_eq!(
            hex::encode(signature),
            "2ea2b64cb514c1b2b0dbf89b930be333fa27ef0e88a2d2b3f4539d1c0dddaa4907f191ad7136133ba171d3c9c1cddf6037a5a6b6270a50ebba169e6de411c12f"
        );
        let raw = raw(body, auth_info, signature.to_vec());
        assert_eq!(
            super::hash(&raw),
            "17E261CD79BA0356022CCC5D6CC638F9E99AE77CDE59ABE8E6A35BACFABAABC2"
        );
    }
}
