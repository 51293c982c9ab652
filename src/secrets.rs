//! Everything that is derived from the one root secret: installation id, CA, certificates,
//! replication passwords.
//!
//! Nothing of it is stored. The same root secret gives the same CA, ids and passwords for ever: it
//! has to be kept safe, and kept.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hkdf::Hkdf;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::model::announcement::Announcement;
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::time::UnixMs;

/// Name that the operator's client certificate carries and agents ask for.
pub const OPERATOR_NAME: &str = "operator";

/// Beginning of a secret that stands encrypted in an object.
pub const SEALED: &str = "sealed:";

/// Fewer bytes could be guessed.
const LEAST_BYTES: usize = 32;
/// Letters and digits that are hard to confuse, allowed in host names and key descriptions: exactly
/// 32.
const ID_CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// A node's clock may be wrong by less than this.
const BACK_DATE: Duration = Duration::from_hours(24);
/// No certificate outlives its lease; this is longer than any.
const LIFE: Duration = Duration::from_hours(24 * 3650);
/// The CA's dates are fixed, so that it is the same certificate each time it is derived: 2020 to
/// 2120.
const CA_YEARS: (i32, i32) = (2020, 2120);

/// The root secret is too short.
#[derive(Debug, thiserror::Error)]
#[error(
    "the root secret has {0} bytes and at least 32 are needed; make one with `head -c 32 /dev/urandom`"
)]
pub struct TooShort(usize);

/// The root secret.
#[derive(Clone)]
pub struct RootSecret(Arc<SecretSlice<u8>>);

/// A certificate with its key, PEM.
pub struct CertifiedPem {
    /// PEM, of the node and signed by the installation.
    pub certificate: String,
    /// PKCS#8 PEM of the certificate's key.
    pub key: SecretString,
}

/// A user of the master's ACL for one replica in one epoch.
pub struct ReplicationCredentials {
    /// `repl-<incarnation>-<epoch>`
    pub user: String,
    /// Derived, so that a later process of the operator knows it too.
    pub password: SecretString,
}

impl RootSecret {
    /// Takes the bytes of the root secret file.
    ///
    /// # Errors
    /// There are fewer than 32 of them.
    pub fn new(bytes: SecretSlice<u8>) -> Result<Self, TooShort> {
        let length = bytes.expose_secret().len();
        if length < LEAST_BYTES { Err(TooShort(length)) } else { Ok(Self(Arc::new(bytes))) }
    }

    /// 32 bytes for one purpose; `parts` are told apart by their lengths.
    fn derive(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut info = format!("akash-redis/v1/{purpose}");
        for part in parts {
            info.extend(["/", &part.len().to_string(), ":", part]);
        }
        let mut out = [0; 32];
        Hkdf::<Sha256>::new(None, self.0.expose_secret())
            .expand(info.as_bytes(), &mut out)
            .expect("32 bytes are within HKDF's limit");
        out
    }

    /// Marks everything of this installation in the outside world. It is no secret.
    #[must_use]
    pub fn installation_id(&self) -> InstallationId {
        let bytes = self.derive("installation-id", &[]);
        InstallationId(
            bytes[..6].iter().map(|b| char::from(ID_CHARACTERS[usize::from(b % 32)])).collect(),
        )
    }

    /// A P-256 key; the few values that are no key are skipped by counting on.
    fn key(&self, purpose: &str, part: &str) -> (SameKey, SecretString) {
        let secret = (0u32..)
            .find_map(|n| {
                p256::SecretKey::from_slice(&self.derive(purpose, &[part, &n.to_string()])).ok()
            })
            .expect("almost every value is a key");
        let pem = secret.to_pkcs8_pem(LineEnding::LF).expect("a P-256 key has a PKCS#8 form");
        (SameKey::new(SigningKey::from(secret)), SecretString::from(pem.as_str()))
    }

    fn issuer(&self) -> Issuer<'static, SameKey> {
        Issuer::new(ca_params(), self.key("ca", "").0)
    }

    /// The CA's certificate, PEM; the same each time.
    ///
    /// # Panics
    /// Never: the parameters are fixed.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        let (key, _) = self.key("ca", "");
        ca_params().self_signed(&key).expect("fixed parameters can be signed").pem()
    }

    /// A node's certificate: server only, for the name of the incarnation.
    #[must_use]
    pub fn node_certificate(&self, incarnation: &IncarnationName, now: UnixMs) -> CertifiedPem {
        self.leaf("node", &incarnation.0, ExtendedKeyUsagePurpose::ServerAuth, now)
    }

    /// The key in a node's certificate, by which its status page is proved.
    #[must_use]
    pub fn node_public_key(&self, incarnation: &IncarnationName) -> VerifyingKey {
        *self.key("node", &incarnation.0).0.secret.verifying_key()
    }

    /// Signs what nodes keep for an operator that lost its store; the same content has the same
    /// signature. What was signed is to name the installation and what it is about.
    #[must_use]
    pub fn sign_copy(&self, content: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.key("kept-copy", "").0.secret.sign(content);
        signature.as_bytes().to_vec()
    }

    /// Whether [`Self::sign_copy`] of this root secret made the signature.
    #[must_use]
    pub fn is_own_copy(&self, content: &[u8], signature: &[u8]) -> bool {
        let key = self.key("kept-copy", "").0;
        DerSignature::from_bytes(signature)
            .is_ok_and(|signature| key.secret.verifying_key().verify(content, &signature).is_ok())
    }

    /// Signs the content of an announcement with the CA's key, whose public part every node has: see
    /// [`Announcement`]. The same content has the same signature.
    #[must_use]
    pub fn sign_announcement(&self, content: &[u8]) -> Vec<u8> {
        let key = self.key("ca", "").0;
        let signature: DerSignature = key.secret.sign(&Announcement::signed_bytes(content));
        signature.as_bytes().to_vec()
    }

    /// The key by which one backup is encrypted: who has it can read no other.
    #[must_use]
    pub fn backup_key(&self, id: &str) -> [u8; 32] {
        self.derive("backup", &[id])
    }

    /// Authenticates what is written beside a backup.
    #[must_use]
    pub fn backup_code(&self, content: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("backup-manifest", &[]));
        hmac::sign(&key, content).as_ref().to_vec()
    }

    /// Whether [`Self::backup_code`] of this root secret made the code.
    #[must_use]
    pub fn is_own_backup_code(&self, content: &[u8], code: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("backup-manifest", &[]));
        hmac::verify(&key, content, code).is_ok()
    }

    /// Encrypts a secret that stands in the object of a cluster. The same secret of the same cluster
    /// gives the same text each time, so that an object that is applied again is unchanged; two
    /// secrets that are equal are known to be so by who sees both texts.
    ///
    /// # Panics
    /// Never: a short text can be encrypted.
    #[must_use]
    pub fn seal(&self, cluster: &str, secret: &SecretString) -> String {
        let mut bytes = secret.expose_secret().as_bytes().to_vec();
        let code = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("sealed-nonce", &[cluster]));
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&hmac::sign(&code, &bytes).as_ref()[..NONCE_LEN]);
        self.sealing_key(cluster)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes)
            .expect("a short text can be encrypted");
        format!("{SEALED}{}", BASE64.encode([&nonce[..], &bytes].concat()))
    }

    /// What [`Self::seal`] encrypted for this cluster; `None` when it did not.
    #[must_use]
    pub fn unseal(&self, cluster: &str, text: &str) -> Option<SecretString> {
        let bytes = BASE64.decode(text.strip_prefix(SEALED)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain =
            self.sealing_key(cluster).open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        Some(SecretString::from(std::str::from_utf8(plain).ok()?))
    }

    fn sealing_key(&self, cluster: &str) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.derive("sealed", &[cluster]));
        LessSafeKey::new(key.expect("a key of AES-256 has 32 bytes"))
    }

    /// The operator's certificate: client only.
    #[must_use]
    pub fn operator_certificate(&self, now: UnixMs) -> CertifiedPem {
        self.leaf("operator", OPERATOR_NAME, ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    fn leaf(
        &self,
        purpose: &str,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        now: UnixMs,
    ) -> CertifiedPem {
        let (pair, key) = self.key(purpose, name);
        let mut params = CertificateParams::new(vec![name.to_owned()])
            .expect("an incarnation's name is a DNS name");
        params.distinguished_name = distinguished(name);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = OffsetDateTime::from_unix_timestamp(i64::try_from(now.0 / 1000).unwrap_or(0))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        params.not_before = now - BACK_DATE;
        params.not_after = now + LIFE;
        let certificate = params.signed_by(&pair, &self.issuer()).expect("a P-256 key signs").pem();
        CertifiedPem { certificate, key }
    }

    /// Leave to replicate, for one incarnation in one epoch.
    #[must_use]
    pub fn replication_credentials(
        &self,
        incarnation: &IncarnationName,
        epoch: u64,
    ) -> ReplicationCredentials {
        let password = self.derive("replication", &[&incarnation.0, &epoch.to_string()]);
        ReplicationCredentials {
            user: format!("repl-{incarnation}-{epoch}"),
            password: SecretString::from(hex::encode(password)),
        }
    }

    /// What a master says in the stream of replication when it hands over to `target`, which becomes
    /// master of `epoch` by it. Known to these two alone, until it is said.
    #[must_use]
    pub fn handover_word(&self, target: &IncarnationName, epoch: u64) -> String {
        hex::encode(self.derive("handover", &[&target.0, &epoch.to_string()]))
    }
}

/// A key that signs the same bytes always the same way (RFC 6979). The certificate library's own
/// keys sign at random, and then the CA's certificate would be another one each time.
struct SameKey {
    secret: SigningKey,
    public: Vec<u8>,
}

impl SameKey {
    fn new(secret: SigningKey) -> Self {
        let public = secret.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self { secret, public }
    }
}

impl PublicKeyData for SameKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for SameKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.secret.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished("akash-redis");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(SerialNumber::from_slice(&[1]));
    params.not_before = rcgen::date_time_ymd(CA_YEARS.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(CA_YEARS.1, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootSecret {
        RootSecret::new(vec![byte; 32].into()).unwrap()
    }

    #[test]
    fn everything_is_the_same_each_time_and_differs_between_installations() {
        let (a, b, other) = (root(1), root(1), root(2));
        assert_eq!(a.installation_id(), b.installation_id());
        assert_ne!(a.installation_id(), other.installation_id());
        let name = IncarnationName("cache-0-x7k2".to_owned());
        assert_eq!(a.ca_pem(), b.ca_pem());
        assert_ne!(a.ca_pem(), other.ca_pem());
        let password = |r: &RootSecret, epoch| {
            r.replication_credentials(&name, epoch).password.expose_secret().to_owned()
        };
        assert_eq!(password(&a, 1), password(&b, 1));
        assert_ne!(password(&a, 1), password(&a, 2));
        assert_ne!(password(&a, 1), password(&other, 1));
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let root = root(1);
        assert_ne!(root.derive("x", &["ab", "c"]), root.derive("x", &["a", "bc"]));
    }

    #[test]
    fn a_sealed_secret_is_the_same_text_each_time_and_opens_for_its_cluster_alone() {
        let (ours, theirs) = (root(1), root(2));
        let secret = SecretString::from("AKIA1:s3cr3t");
        let sealed = ours.seal("cache", &secret);
        assert_eq!(sealed, root(1).seal("cache", &secret));
        assert!(sealed.starts_with(SEALED) && !sealed.contains("AKIA1"));
        let opened = ours.unseal("cache", &sealed).unwrap();
        assert_eq!(opened.expose_secret(), "AKIA1:s3cr3t");
        assert!(ours.unseal("other", &sealed).is_none());
        assert!(theirs.unseal("cache", &sealed).is_none());
        for wrong in ["", "sealed:", "sealed:AAAA", "AKIA1:s3cr3t"] {
            assert!(ours.unseal("cache", wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(RootSecret::new(vec![1; 31].into()).is_err());
    }

    /// A CA derived by a later process vouches for certificates of an earlier one, and roles are
    /// not interchangeable.
    #[tokio::test]
    async fn mutual_tls_holds_between_processes() {
        let name = IncarnationName("cache-0-x7k2".to_owned());
        let (node, operator) = (
            root(1).node_certificate(&name, UnixMs::now()),
            root(1).operator_certificate(UnixMs::now()),
        );
        let ca = root(1).ca_pem();
        assert!(
            handshake(&ca, &node, &operator, &name.0).await,
            "node and operator of one root secret"
        );
        assert!(
            !handshake(&ca, &node, &root(2).operator_certificate(UnixMs::now()), &name.0).await,
            "an operator of another one"
        );
        assert!(!handshake(&ca, &node, &node, &name.0).await, "a node that poses as the operator");
        assert!(
            !handshake(&ca, &node, &operator, "cache-1-x7k2").await,
            "a node that poses as another"
        );
    }

    async fn handshake(ca: &str, server: &CertifiedPem, client: &CertifiedPem, name: &str) -> bool {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let pair = |p: &CertifiedPem| {
            (
                vec![CertificateDer::from_pem_slice(p.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(p.key.expose_secret().as_bytes()).unwrap(),
            )
        };
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            roots.clone(),
            provider.clone(),
        )
        .build()
        .unwrap();
        let (chain, key) = pair(server);
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let (chain, key) = pair(client);
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let (a, b) = tokio::io::duplex(64 * 1024);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let (c, s) = tokio::join!(connector.connect(name, a), acceptor.accept(b));
        c.is_ok() && s.is_ok()
    }
}
