//! Everything secret of an installation, derived from one root secret: nothing else has to be stored.
//!
//! A derived secret is HKDF-SHA256(root, purpose/cluster/incarnation/epoch). Whoever holds the root secret holds all of them, in
//! every process the same.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rand::RngCore;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};
use secrecy::zeroize::{Zeroize, Zeroizing};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::time::UnixMs;

/// Fewer bytes than this cannot be guessed by trying; more add nothing.
const MIN_ROOT: usize = 32;
/// A file larger than this is not a secret but a mistake.
const MAX_ROOT: u64 = 4096;
/// Letters and digits that are hard to confuse, 32 of them: base32 in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// The name in the operator's certificate that agents look for.
pub const OPERATOR_NAME: &str = "operator";

/// Why there is no root secret, or nothing can be made of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the root secret cannot be read from {path} ({source}); check `rootSecretFile`")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It can be guessed, or it is not a secret at all.
    #[error("the root secret has {bytes} bytes; it must have {MIN_ROOT} to {MAX_ROOT}: make one with `openssl rand -hex 32`")]
    Size {
        /// After blanks at both ends were cut off.
        bytes: u64,
    },
    /// A new one could not be kept.
    #[error("a new root secret cannot be written to {path} ({source}); an existing file is never replaced")]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate could not be made of the name.
    #[error("no certificate can be made for {name} ({source}); the name must be a host name")]
    Certificate {
        /// For whom.
        name: String,
        /// What the library said.
        source: rcgen::Error,
    },
}

/// The one secret that is stored. Wiped when dropped, never printed.
pub struct RootSecret(SecretSlice<u8>);

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// PEM of the certificate.
    pub cert_pem: String,
    /// PEM (PKCS#8) of the key.
    pub key_pem: SecretString,
}

/// A name and password of Redis.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password: 64 hex digits.
    pub password: SecretString,
}

impl RootSecret {
    /// Takes the bytes, without blanks and line ends at both ends; 32 to 4096 must remain.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Result<Self, SecretError> {
        let trimmed = bytes.trim_ascii().to_vec();
        bytes.zeroize();
        let size = trimmed.len() as u64;
        let secret = SecretSlice::from(trimmed);
        if secret.expose_secret().len() < MIN_ROOT || size > MAX_ROOT {
            return Err(SecretError::Size { bytes: size });
        }
        Ok(Self(secret))
    }

    /// Reads it from a file.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_ROOT + 1).read_to_end(&mut bytes));
        read.map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
        Self::from_bytes(bytes)
    }

    /// Writes a new one of 256 random bits, as hex, to a file that must not exist yet and that its owner alone may read.
    pub fn generate(path: &Path) -> Result<Self, SecretError> {
        let mut random = Zeroizing::new([0u8; MIN_ROOT]);
        rand::rngs::OsRng.fill_bytes(random.as_mut());
        let text = Zeroizing::new(hex::encode(*random) + "\n");
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| SecretError::Unwritable { path: path.to_owned(), source })?;
        Self::from_bytes(text.as_bytes().to_vec())
    }

    /// The mark of everything that belongs to this installation: six characters of `a-z2-7`. Not a secret.
    #[must_use]
    pub fn installation_id(&self) -> InstallationId {
        let bytes = self.derive("installation", "", "", 0);
        InstallationId(bytes.iter().take(6).map(|b| char::from(BASE32[usize::from(b % 32)])).collect())
    }

    /// The certificate of the installation's authority, in PEM. Byte for byte the same whenever it is derived, so that nodes trust
    /// an operator that was started after them.
    pub fn ca_pem(&self) -> Result<String, SecretError> {
        let ca = ca_params().self_signed(&self.key("ca", "", ""));
        Ok(ca.map_err(|source| SecretError::Certificate { name: "the authority".into(), source })?.pem())
    }

    /// A server certificate for one incarnation: good for TLS as a server under its own name, and for nothing else.
    pub fn node_certificate(&self, incarnation: &IncarnationName, now: UnixMs) -> Result<Certificate, SecretError> {
        let key = self.key("node", incarnation.cluster(), &incarnation.0);
        self.issue(&incarnation.0, ExtendedKeyUsagePurpose::ServerAuth, &key, now)
    }

    /// The operator's client certificate, by which agents know who may command them.
    pub fn operator_certificate(&self, now: UnixMs) -> Result<Certificate, SecretError> {
        self.issue(OPERATOR_NAME, ExtendedKeyUsagePurpose::ClientAuth, &self.key("operator", "", ""), now)
    }

    /// The login with which one incarnation replicates from the master of one epoch.
    #[must_use]
    pub fn replication_grant(&self, incarnation: &IncarnationName, epoch: u64) -> Login {
        let password = self.derive("replication", incarnation.cluster(), &incarnation.0, epoch);
        Login { user: format!("repl-{incarnation}-{epoch}"), password: hex::encode(*password).into() }
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose, key: &Key, now: UnixMs) -> Result<Certificate, SecretError> {
        let ca = Issuer::new(ca_params(), self.key("ca", "", ""));
        let signed = leaf_params(name, usage, now).and_then(|params| params.signed_by(key, &ca));
        let cert = signed.map_err(|source| SecretError::Certificate { name: name.to_owned(), source })?;
        Ok(Certificate { cert_pem: cert.pem(), key_pem: key.pem() })
    }

    /// A P-256 key for one purpose.
    fn key(&self, purpose: &str, cluster: &str, incarnation: &str) -> Key {
        // One in 2^32 values is not a key of the curve; then the next one is taken, which is as deterministic.
        let keys = (0..).find_map(|n| SigningKey::from_slice(&*self.derive(purpose, cluster, incarnation, n)).ok());
        Key::new(keys.unwrap_or_else(|| unreachable!("the range does not end")))
    }

    /// 256 bits for one purpose. No part may contain a slash: names of clusters and incarnations are host names.
    fn derive(&self, purpose: &str, cluster: &str, incarnation: &str, epoch: u64) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0u8; 32]);
        let info = format!("{purpose}/{cluster}/{incarnation}/{epoch}");
        let hkdf = Hkdf::<Sha256>::new(Some(b"akash-redis/v1"), self.0.expose_secret());
        hkdf.expand(info.as_bytes(), out.as_mut()).unwrap_or_else(|_| unreachable!("32 bytes are within the limit of HKDF-SHA256"));
        out
    }
}

/// A key that signs the same bytes always the same way, which the certificate library's own keys do not.
struct Key {
    secret: SigningKey,
    public: Vec<u8>,
}

impl Key {
    fn new(secret: SigningKey) -> Self {
        let public = secret.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self { secret, public }
    }

    fn pem(&self) -> SecretString {
        let pem = self.secret.to_pkcs8_pem(LineEnding::LF).unwrap_or_else(|_| unreachable!("a P-256 key has a PKCS#8 form"));
        pem.as_str().into()
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.secret.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

/// The authority: everything about it is fixed but its key. It signs leaves only.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2124, 1, 1);
    params.serial_number = Some(SerialNumber::from(1u64));
    params.distinguished_name = common_name("akash-redis installation");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Valid from 24 h ago, because the clock of a leased machine may be behind, for ten years: it ends with its incarnation.
fn leaf_params(name: &str, usage: ExtendedKeyUsagePurpose, now: UnixMs) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    let now = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| rcgen::Error::Time)?;
    params.not_before = now.saturating_sub(time::Duration::DAY);
    params.not_after = now.saturating_add(time::Duration::days(3650));
    params.distinguished_name = common_name(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn root(byte: u8) -> RootSecret {
        RootSecret::from_bytes(vec![byte; 32]).expect("long enough")
    }

    fn node() -> IncarnationName {
        IncarnationName::new("cache", 0, "x7k2")
    }

    fn roots(ca: &str) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("an authority");
        Arc::new(store)
    }

    fn chain(of: &Certificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let cert = CertificateDer::from_pem_slice(of.cert_pem.as_bytes()).expect("a certificate");
        (vec![cert], PrivateKeyDer::from_pem_slice(of.key_pem.expose_secret().as_bytes()).expect("a key"))
    }

    /// A mutual handshake over a pipe in memory; one byte each way proves that both sides accept.
    async fn handshake(ca: &str, server: &Certificate, client: &Certificate, name: &str) -> Result<(), std::io::Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider.clone()).build().expect("a verifier");
        let (certs, key) = chain(server);
        let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("versions");
        let server = server.with_client_cert_verifier(verifier).with_single_cert(certs, key).expect("a pair");
        let (certs, key) = chain(client);
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let client = client.with_root_certificates(roots(ca)).with_client_auth_cert(certs, key).expect("a pair");
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let near_end = async {
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(near).await?;
            stream.write_all(b"s").await?;
            stream.read_u8().await
        };
        let far_end = async {
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, far).await?;
            stream.write_all(b"c").await?;
            stream.read_u8().await
        };
        tokio::try_join!(near_end, far_end).map(|_| ())
    }

    #[tokio::test]
    async fn operator_and_node_trust_each_other() {
        let now = UnixMs::now();
        let server = root(1).node_certificate(&node(), now).expect("a certificate");
        // Another process of the same installation.
        let client = root(1).operator_certificate(now).expect("a certificate");
        let ca = root(1).ca_pem().expect("an authority");
        handshake(&ca, &server, &client, "cache-0-x7k2").await.expect("both accept");
        handshake(&ca, &server, &client, "cache-1-x7k2").await.expect_err("another node's name");
    }

    #[tokio::test]
    async fn roles_and_installations_are_kept_apart() {
        let now = UnixMs::now();
        let ca = root(1).ca_pem().expect("an authority");
        let server = root(1).node_certificate(&node(), now).expect("a certificate");
        handshake(&ca, &server, &server, "cache-0-x7k2").await.expect_err("a node is not a client");
        let stranger = root(2).operator_certificate(now).expect("a certificate");
        handshake(&ca, &server, &stranger, "cache-0-x7k2").await.expect_err("an operator of another installation");
        let operator = root(1).operator_certificate(now).expect("a certificate");
        handshake(&ca, &operator, &operator, OPERATOR_NAME).await.expect_err("the operator is not a server");
    }

    #[test]
    fn what_is_derived_stays_the_same() {
        assert_eq!(root(1).ca_pem().expect("an authority"), root(1).ca_pem().expect("an authority"));
        assert_ne!(root(1).ca_pem().expect("an authority"), root(2).ca_pem().expect("an authority"));
        let (one, two) = (root(1).installation_id(), root(2).installation_id());
        assert_eq!(one, root(1).installation_id());
        assert_ne!(one, two);
        assert!(one.0.len() == 6 && one.0.bytes().all(|b| BASE32.contains(&b)));
        // Live installations depend on these values: a change here orphans all of them.
        insta::assert_snapshot!(format!("{one} {}", root(1).replication_grant(&node(), 7).password.expose_secret()), @"g2tzxw cd0218ce6a590268a47230934c6184dc7c48e2a1821b9d4a447340237f51d231");
    }

    #[test]
    fn each_grant_is_its_own() {
        let (first, next) = (root(1).replication_grant(&node(), 7), root(1).replication_grant(&node(), 8));
        assert_eq!(first.user, "repl-cache-0-x7k2-7");
        assert_ne!(first.password.expose_secret(), next.password.expose_secret());
        assert!(!format!("{first:?}").contains(first.password.expose_secret()));
    }

    #[test]
    fn a_generated_secret_is_private_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("root");
        let made = RootSecret::generate(&path).expect("a new secret");
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        assert_eq!(RootSecret::from_file(&path).expect("the same").installation_id(), made.installation_id());
        assert!(matches!(RootSecret::generate(&path), Err(SecretError::Unwritable { .. })));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(matches!(RootSecret::from_bytes(b"  hunter2\n".to_vec()), Err(SecretError::Size { bytes: 7 })));
    }
}
