//! The registers of providers and of certificates.

use x509_parser::prelude::{FromDer as _, X509Certificate, parse_x509_pem};

use super::error::{TxError, cert, provider as says};
use super::handle::Ctx;
use crate::devnet::account::address_bytes;
use crate::wire::akash::cert::v1::certificate::State as CertificateState;
use crate::wire::akash::cert::v1::{Certificate, Id, MsgCreateCertificate};
use crate::wire::akash::provider::v1beta4::Provider;

impl Ctx<'_> {
    pub(super) fn provider(&self, address: &str) -> Option<&Provider> {
        self.state.providers.get(&address_bytes(address)?)
    }

    pub(super) fn create_provider(&mut self, provider: Provider) -> Result<(), TxError> {
        if self.provider(&provider.owner).is_some() {
            return Err(says::EXISTS.because(format_args!("id: {}", provider.owner)));
        }
        self.put_provider(provider)
    }

    pub(super) fn update_provider(&mut self, provider: Provider) -> Result<(), TxError> {
        if self.provider(&provider.owner).is_none() {
            return Err(says::NOT_FOUND.because(format_args!("id: {}", provider.owner)));
        }
        self.put_provider(provider)
    }

    fn put_provider(&mut self, provider: Provider) -> Result<(), TxError> {
        let key = address_bytes(&provider.owner).ok_or(says::NOT_FOUND)?;
        self.state.providers.put(key, provider);
        Ok(())
    }

    pub(super) fn create_certificate(&mut self, msg: &MsgCreateCertificate) -> Result<(), TxError> {
        let serial = serial_of(&msg.cert, &msg.owner)?;
        let key = (msg.owner.clone(), serial);
        if self.state.certificates.contains(&key) {
            return Err(cert::EXISTS.into());
        }
        let row = Certificate {
            state: CertificateState::Valid.into(),
            cert: msg.cert.clone(),
            pubkey: msg.pubkey.clone(),
        };
        self.state.certificates.put(key, row);
        Ok(())
    }

    pub(super) fn revoke_certificate(&mut self, id: &Id) -> Result<(), TxError> {
        let key = (id.owner.clone(), id.serial.clone());
        match self.state.certificates.get(&key).map(Certificate::state) {
            None => Err(cert::NOT_FOUND.into()),
            Some(CertificateState::Revoked) => Err(cert::REVOKED.into()),
            Some(_) => {
                self.state
                    .certificates
                    .change(&key, |row| row.state = CertificateState::Revoked.into());
                Ok(())
            }
        }
    }
}

/// Serial number of a PEM certificate in decimal digits, if it is one of this owner.
pub(super) fn serial_of(pem: &[u8], owner: &str) -> Result<String, TxError> {
    let (_, block) = parse_x509_pem(pem).map_err(|_| cert::INVALID_VALUE)?;
    let (_, certificate) =
        X509Certificate::from_der(&block.contents).map_err(|_| cert::INVALID_VALUE)?;
    let subject =
        certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if subject != Some(owner) {
        return Err(cert::INVALID_VALUE.into());
    }
    Ok(certificate.serial.to_string())
}
