//! The certificates of providers, by the chain's word.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::ChainError;
use super::client::ChainClient;
use crate::wire::akash::cert::v1::{CertificateFilter, QueryCertificatesRequest};
use crate::wire::cosmos::base::query::v1beta1::PageRequest;

/// A provider with more certificates than this is not believed to need them.
const MAX_PAGES: usize = 10;

impl ChainClient {
    /// Certificates in state valid of an account, each as DER. One that is not PEM is left out:
    /// nobody can show it.
    pub async fn certificates(&self, owner: &str) -> Result<Vec<Vec<u8>>, ChainError> {
        self.nodes()
            .ask(|node| async move {
                let mut found = Vec::new();
                let mut key = Vec::new();
                for _ in 0..MAX_PAGES {
                    let filter = CertificateFilter {
                        owner: owner.to_owned(),
                        state: "valid".to_owned(),
                        ..CertificateFilter::default()
                    };
                    let pagination = Some(PageRequest {
                        key: std::mem::take(&mut key),
                        limit: 100,
                        ..PageRequest::default()
                    });
                    let request = QueryCertificatesRequest { filter: Some(filter), pagination };
                    let answer = node
                        .call(
                            "the certificates of a provider",
                            node.certificates().certificates(request),
                        )
                        .await?;
                    let pems = answer
                        .certificates
                        .into_iter()
                        .filter_map(|c| c.certificate)
                        .map(|c| c.cert);
                    found.extend(
                        pems.filter_map(|pem| CertificateDer::from_pem_slice(&pem).ok())
                            .map(|der| der.to_vec()),
                    );
                    key = answer.pagination.map(|p| p.next_key).unwrap_or_default();
                    if key.is_empty() {
                        break;
                    }
                }
                Ok(found)
            })
            .await
    }
}
