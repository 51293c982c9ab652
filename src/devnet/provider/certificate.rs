//! The certificate of a provider, as odd as the real ones: it may not sign, by its own word, and carries critical name constraints.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// Marks certificates of the market; its value is a version.
const MARKET_NAME: [u64; 5] = [2, 23, 133, 2, 6];

/// A provider's certificate with its key.
pub struct ProviderCertificate {
    /// Certificate, DER.
    pub der: Vec<u8>,
    /// Private key, PKCS#8 DER.
    pub key_der: Vec<u8>,
    /// Certificate as published on the chain.
    pub cert_pem: String,
    /// Public key as published on the chain.
    pub pubkey_pem: String,
    /// Serial number: nanoseconds of its making.
    pub serial: u64,
}

impl ProviderCertificate {
    /// Makes a self-signed P-256 certificate of a provider account for a host, valid for a year from `now`.
    pub fn make(address: &str, host: &str, now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let serial = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, address);
        name.push(DnType::CustomDnType(MARKET_NAME.to_vec()), "v0.0.1");
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DataEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![GeneralSubtree::DnsName(host.to_owned())], excluded_subtrees: Vec::new() });
        params.not_before = OffsetDateTime::from(now) - Duration::minutes(1);
        params.not_after = params.not_before + Duration::days(365);
        let certificate = params.self_signed(&key)?;
        let der = certificate.der().to_vec();
        Ok(Self {
            cert_pem: pem("CERTIFICATE", &der),
            pubkey_pem: pem("EC PUBLIC KEY", &key.subject_public_key_info()),
            key_der: key.serialize_der(),
            serial,
            der,
        })
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
