//! The certificates of providers, by the chain's word.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::ChainError;
use super::client::ChainClient;
use crate::wire::akash::cert::v1::{CertificateFilter, QueryCertificatesRequest};

/// What is asked for, in errors.
const WHAT: &str = "the certificates of a provider";

impl ChainClient {
    /// Certificates in state valid of an account, each as DER: all of them, or an error. One that
    /// is not PEM is left out: nobody can show it.
    pub async fn certificates(&self, owner: &str) -> Result<Vec<Vec<u8>>, ChainError> {
        let filter = CertificateFilter {
            owner: owner.to_owned(),
            state: "valid".to_owned(),
            ..CertificateFilter::default()
        };
        let listed = self
            .nodes()
            .ask(|node| {
                let filter = filter.clone();
                async move {
                    node.pages(WHAT, |node, page| {
                        let request = QueryCertificatesRequest {
                            filter: Some(filter.clone()),
                            pagination: Some(page),
                        };
                        async move {
                            let answer =
                                node.call(WHAT, node.certificates().certificates(request)).await?;
                            Ok((answer.certificates, answer.pagination))
                        }
                    })
                    .await
                }
            })
            .await?;
        let pems = listed.into_iter().filter_map(|listed| listed.certificate).map(|c| c.cert);
        let ders = pems.filter_map(|pem| CertificateDer::from_pem_slice(&pem).ok());
        Ok(ders.map(|der| der.to_vec()).collect())
    }
}
