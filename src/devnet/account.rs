//! Keys of those who act on the local chain, their addresses, and how they sign.

use cosmrs::AccountId;
use cosmrs::bip32::{DerivationPath, XPrv};
use cosmrs::crypto::PublicKey;
use k256::ecdsa::signature::Signer as _;
use k256::ecdsa::{Signature, SigningKey, VerifyingKey};
use prost::{Message as _, Name as _};
use prost_types::{Any, Timestamp};

use crate::wire::cosmos::base::v1beta1::Coin;
use crate::wire::cosmos::crypto::secp256k1::PubKey;
use crate::wire::cosmos::tx::signing::v1beta1::SignMode;
use crate::wire::cosmos::tx::v1beta1::{
    AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, TxBody, TxRaw, mode_info,
};

const PREFIX: &str = "akash";

/// Why a key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Not a phrase of 12 to 24 known words with a right checksum.
    #[error("the mnemonic is not valid ({0}); check its words and their order")]
    Mnemonic(#[from] bip39::Error),
    /// The derived or given bytes are no private key.
    #[error("these bytes are no private key of secp256k1; give another key")]
    Key,
}

/// A key with its address.
#[derive(Clone)]
pub struct Account {
    key: SigningKey,
    address: String,
}

impl std::fmt::Debug for Account {
    /// The address alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How a transaction is kept from being applied twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the account's order: its next sequence number.
    Sequence(u64),
    /// In any order, until this time in nanoseconds since 1970; each transaction of a key needs
    /// another one.
    Until(u64),
}

/// What is signed, besides the messages.
#[derive(Clone, Debug)]
pub struct TxTerms<'a> {
    /// Chain id.
    pub chain_id: &'a str,
    /// Number of the signer's account.
    pub account_number: u64,
    /// Order of this transaction.
    pub order: Order,
    /// Gas that it may use; all of it is paid for.
    pub gas: u64,
    /// Fee in `uakt`.
    pub fee: u64,
}

impl Account {
    /// The key at `m/44'/118'/0'/0/index` of a phrase.
    pub fn from_mnemonic(phrase: &str, index: u32) -> Result<Self, AccountError> {
        let seed = bip39::Mnemonic::parse(phrase)?.to_seed("");
        let path: DerivationPath =
            format!("m/44'/118'/0'/0/{index}").parse().map_err(|_| AccountError::Key)?;
        let key = XPrv::derive_from_path(seed, &path).map_err(|_| AccountError::Key)?;
        Self::from_bytes(&key.to_bytes())
    }

    /// This private key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AccountError> {
        let key = SigningKey::from_slice(bytes).map_err(|_| AccountError::Key)?;
        let address = address_of(&key.verifying_key().to_sec1_bytes()).ok_or(AccountError::Key)?;
        Ok(Self { key, address })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its public key, compressed, 33 bytes.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.key.verifying_key().to_sec1_bytes().into_vec()
    }

    /// Signature over the SHA-256 of `message`: r then s, s in its lower half.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().into()
    }

    /// A signed transaction with these messages, as it is broadcast.
    #[must_use]
    pub fn sign_tx(&self, messages: Vec<Any>, terms: &TxTerms<'_>) -> Vec<u8> {
        let (sequence, unordered, timeout_timestamp) = match terms.order {
            Order::Sequence(sequence) => (sequence, false, None),
            Order::Until(nanos) => (0, true, Some(timestamp(nanos))),
        };
        let body = TxBody { messages, unordered, timeout_timestamp, ..TxBody::default() };
        let key = PubKey { key: self.public_key() };
        let signer = SignerInfo {
            public_key: Some(Any { type_url: PubKey::type_url(), value: key.encode_to_vec() }),
            mode_info: Some(ModeInfo {
                sum: Some(mode_info::Sum::Single(mode_info::Single {
                    mode: SignMode::Direct.into(),
                })),
            }),
            sequence,
        };
        let amount = vec![Coin { denom: "uakt".into(), amount: terms.fee.to_string() }];
        let fee = Fee { amount, gas_limit: terms.gas, ..Fee::default() };
        let auth = AuthInfo { signer_infos: vec![signer], fee: Some(fee) };
        let (body_bytes, auth_info_bytes) = (body.encode_to_vec(), auth.encode_to_vec());
        let doc = SignDoc {
            body_bytes: body_bytes.clone(),
            auth_info_bytes: auth_info_bytes.clone(),
            chain_id: terms.chain_id.to_owned(),
            account_number: terms.account_number,
        };
        let signature = self.sign(&doc.encode_to_vec()).to_vec();
        TxRaw { body_bytes, auth_info_bytes, signatures: vec![signature] }.encode_to_vec()
    }
}

/// The message as a transaction carries it.
#[must_use]
pub fn any<M: prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Address of a compressed public key, `None` when it is none.
#[must_use]
pub fn address_of(public_key: &[u8]) -> Option<String> {
    let key = VerifyingKey::from_sec1_bytes(public_key).ok()?;
    PublicKey::from(key).account_id(PREFIX).ok().map(|id| id.to_string())
}

/// The bytes behind an address, `None` when it is none of this chain.
#[must_use]
pub fn address_bytes(address: &str) -> Option<Vec<u8>> {
    let id: AccountId = address.parse().ok()?;
    (id.prefix() == PREFIX).then(|| id.to_bytes())
}

/// Nanoseconds since 1970 as the wire says it.
#[must_use]
pub fn timestamp(nanos: u64) -> Timestamp {
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(rest).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::akash::deployment::v1::DeploymentId;
    use crate::wire::akash::deployment::v1beta4::MsgCloseDeployment;

    const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit \
                          dutch improve setup stuff frost spirit smart alien";
    const OWNER: &str = "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh";

    #[test]
    fn the_known_phrase_gives_the_known_addresses() {
        assert_eq!(Account::from_mnemonic(PHRASE, 0).unwrap().address(), OWNER);
        assert_eq!(
            Account::from_mnemonic(PHRASE, 3).unwrap().address(),
            "akash1nxm333kdfwk6mty4423xsefd4t7r64efg826jt"
        );
        assert_eq!(address_bytes(OWNER).map(|bytes| bytes.len()), Some(20));
    }

    #[test]
    fn the_known_signatures_come_out() {
        let account = Account::from_mnemonic(PHRASE, 0).unwrap();
        let msg =
            MsgCloseDeployment { id: Some(DeploymentId { owner: OWNER.into(), dseq: 1_234_567 }) };
        let signature = |order| {
            let terms = TxTerms {
                chain_id: "akashnet-2",
                account_number: 12345,
                order,
                gas: 200_000,
                fee: 5000,
            };
            let raw = TxRaw::decode(account.sign_tx(vec![any(&msg)], &terms).as_slice()).unwrap();
            hex::encode(&raw.signatures[0])
        };
        assert!(
            signature(Order::Sequence(7))
                .starts_with("57e6f4a9dcc176406674c4de38c6d65d18cb4b5f6c425b3c5d0f4fa1dc480433")
        );
        let noon = 1_795_521_600_000_000_000;
        assert!(
            signature(Order::Until(noon))
                .starts_with("2ea2b64cb514c1b2b0dbf89b930be333fa27ef0e88a2d2b3f4539d1c0dddaa49")
        );
    }
}
