//! The certificate of a provider, as odd as the real ones: it may not sign, by its own word, and
//! carries critical name constraints.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
    SerialNumber,
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
    /// Makes a self-signed P-256 certificate of a provider account for a host, valid for a year
    /// from `now`.
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
        params.key_usages =
            vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DataEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(host.to_owned())],
            excluded_subtrees: Vec::new(),
        });
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
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    #[test]
    fn it_is_as_odd_as_a_real_one() {
        let made = ProviderCertificate::make("akash1p", "p.test", SystemTime::now()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&made.der).unwrap();
        let names: Vec<_> = [parsed.subject(), parsed.issuer()].map(ToString::to_string).to_vec();
        assert_eq!(names[0], names[1]);
        assert!(
            names[0].contains("CN=akash1p") && names[0].contains("OID(2.23.133.2.6)=v0.0.1"),
            "{}",
            names[0]
        );
        assert_eq!(parsed.serial.to_string(), made.serial.to_string());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(
            usage.key_encipherment() && usage.data_encipherment() && !usage.digital_signature()
        );
        let critical: BTreeMap<String, bool> =
            parsed.extensions().iter().map(|one| (one.oid.to_id_string(), one.critical)).collect();
        let recorded = [
            ("2.5.29.15", true),
            ("2.5.29.37", false),
            ("2.5.29.19", true),
            ("2.5.29.17", false),
            ("2.5.29.30", true),
        ];
        for (oid, expected) in recorded {
            assert_eq!(critical.get(oid), Some(&expected), "{oid}");
        }
    }
}
