//! The operator's key: from a phrase to an address and signatures.

use std::fmt;
use std::str::FromStr;

use bip39::{Language, Mnemonic};
use cosmrs::bip32::{DerivationPath, XPrv};
use k256::ecdsa::signature::Signer;
use k256::ecdsa::{Signature, SigningKey};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// Human-readable part of the addresses of the network.
const PREFIX: &str = "akash";

/// Why a phrase is not a wallet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WalletError {
    /// Wrong number of words.
    #[error(
        "the wallet's phrase has {0} words; it must have 12, 15, 18, 21 or 24: check `wallet.mnemonicFile`"
    )]
    WordCount(usize),
    /// A word that is not in the English list; which one is not said, it may be a typing slip in a
    /// secret.
    #[error(
        "word {0} of the wallet's phrase is not one of the English BIP-39 list: check its spelling"
    )]
    UnknownWord(usize),
    /// All words are known, and yet they do not belong together.
    #[error("the checksum of the wallet's phrase is wrong: a word is mistyped or two are swapped")]
    Checksum,
    /// The path leads to no key; happens for one index in 2^127.
    #[error("account {0} of the wallet has no key; choose another index")]
    Underivable(u32),
}

/// A key of the chain with its account. It never leaves this type and is wiped when dropped.
pub struct Wallet {
    key: SigningKey,
    public_key: [u8; 33],
    address: String,
}

impl Wallet {
    /// Derives account `index` (path `m/44'/118'/0'/0/index`) of an English BIP-39 phrase of 12 to
    /// 24 words, without pass phrase.
    pub fn from_phrase(phrase: &SecretString, index: u32) -> Result<Self, WalletError> {
        let mnemonic = parse(phrase.expose_secret())?;
        let seed = Zeroizing::new(mnemonic.to_seed(""));
        let missing = |_| WalletError::Underivable(index);
        let path =
            DerivationPath::from_str(&format!("m/44'/118'/0'/0/{index}")).map_err(missing)?;
        let key = SigningKey::from(XPrv::derive_from_path(*seed, &path).map_err(missing)?);
        let public = cosmrs::crypto::PublicKey::from(*key.verifying_key());
        let address =
            public.account_id(PREFIX).map_err(|_| WalletError::Underivable(index))?.to_string();
        let public_key =
            public.to_bytes().try_into().map_err(|_| WalletError::Underivable(index))?;
        Ok(Self { key, public_key, address })
    }

    /// The account, `akash1...`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The compressed public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 33] {
        self.public_key
    }

    /// Signs the SHA-256 of `message`: `r || s` with low `s`, the same bytes each time (RFC 6979).
    /// This is what a `SignDoc` needs and what ES256K means in a token.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().into()
    }
}

impl fmt::Debug for Wallet {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A new phrase of 24 words, of 32 bytes that nobody can guess.
///
/// # Panics
/// When the system gives no random bytes.
#[must_use]
pub fn new_phrase() -> SecretString {
    let mut entropy = Zeroizing::new([0u8; 32]);
    rand::RngCore::fill_bytes(&mut rand::rngs::OsRng, entropy.as_mut());
    let mnemonic = Mnemonic::from_entropy(entropy.as_ref()).expect("32 bytes are 24 words");
    SecretString::from(Zeroizing::new(mnemonic.to_string()).as_str())
}

/// Reads the words, blanks and line ends as they come; no word ever appears in an error.
fn parse(phrase: &str) -> Result<Mnemonic, WalletError> {
    let words = phrase.split_whitespace().count();
    let phrase =
        Zeroizing::new(phrase.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
    Mnemonic::parse_in(Language::English, phrase.as_str()).map_err(|e| match e {
        bip39::Error::UnknownWord(index) => WalletError::UnknownWord(index + 1),
        bip39::Error::InvalidChecksum => WalletError::Checksum,
        _ => WalletError::WordCount(words),
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    /// Public test data of the network's own software development kit.
    const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch \
                              improve setup stuff frost spirit smart alien";

    fn wallet(index: u32) -> Wallet {
        Wallet::from_phrase(&PHRASE.into(), index).expect("a good phrase")
    }

    #[test]
    fn a_phrase_becomes_its_account() {
        let wallet = wallet(0);
        assert_eq!(wallet.address(), "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh");
        assert_eq!(
            hex::encode(wallet.public_key()),
            "03e1fde5cc17f56501ed53d87718df76c135b9a6401dceb53d198111a1eaf85f76"
        );
        assert_eq!(
            super::tests::wallet(1).address(),
            "akash1z4qd59mw86uvcqaazfcy3a3jvyu3c3rnvfxne9"
        );
        assert_eq!(
            super::tests::wallet(2).address(),
            "akash19f7ecjuzy0vcpew3w5uv6frllfvymhpwfc3psm"
        );
    }

    #[test]
    fn a_token_is_signed_as_the_providers_expect() {
        let input = "eyJhbGciOiJFUzI1NksiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJha2FzaDFxdWZhM3h6cmYzNHF2d3llamtodm5jNHBzZjQ5ZmZ0YXcwYXNtaCIsImV\
                     4cCI6MjA0NjY2NzEwMywibmJmIjoxNzQ2NjY2MTAzLCJpYXQiOjE3NDY2NjYxMDMsInZlcnNpb24iOiJ2MSIsImxlYXNlcyI6eyJhY2Nlc3MiOiJmdWxs\
                     In19";
        assert_eq!(
            URL_SAFE_NO_PAD.encode(wallet(0).sign(input.as_bytes())),
            "MZr8b9Q-hcnAUAFbdAVcZpetppP0YDFxJwkRncgE8mEM20woFB2yJuFbfv6YMAUZk8DNORoLaP8hUP8q2FnznQ"
        );
    }

    #[test]
    fn blanks_and_capitals_do_not_matter() {
        let untidy = format!("\n  {}\n", PHRASE.to_uppercase().replace(' ', "  "));
        assert_eq!(
            Wallet::from_phrase(&untidy.into(), 0).expect("the same phrase").address(),
            wallet(0).address()
        );
    }

    #[test]
    fn a_bad_phrase_is_refused_by_a_sentence_without_its_words() {
        let swapped = PHRASE.replace("worth drip", "drip worth");
        let error = Wallet::from_phrase(&swapped.into(), 0).expect_err("two words are swapped");
        assert_eq!(error, WalletError::Checksum);
        let error =
            Wallet::from_phrase(&PHRASE.replace("violin", "violn").into(), 0).expect_err("a slip");
        assert_eq!(error, WalletError::UnknownWord(4));
        assert!(!error.to_string().contains("violn"));
        assert_eq!(
            Wallet::from_phrase(&"addict worth".into(), 0).expect_err("too short"),
            WalletError::WordCount(2)
        );
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(
            format!("{:?}", wallet(0)),
            "Wallet { address: \"akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh\", .. }"
        );
    }
}
