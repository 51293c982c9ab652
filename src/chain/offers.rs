//! The chain's list of providers, with what auditors signed of them.

use std::collections::BTreeMap;

use super::endpoint::Node;
use super::{ChainError, codes, view};
use crate::model::chain::{ProviderOffer, ProviderView};
use crate::wire::akash::audit::v1 as audit;
use crate::wire::akash::provider::v1beta4::{Provider, QueryProvidersRequest};

/// All registered providers; what auditors signed of them only when that is asked for.
pub(super) async fn offers(node: &Node, audited: bool) -> Result<Vec<ProviderOffer>, ChainError> {
    let listed = registered(node).await?;
    let mut signed: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    if audited {
        for one in audits(node).await? {
            let attributes = view::attributes(one.attributes);
            signed.entry(one.owner).or_default().insert(one.auditor, attributes);
        }
    }
    let offer = |view: ProviderView| ProviderOffer {
        audits: signed.remove(&view.address).unwrap_or_default(),
        view,
    };
    Ok(listed.into_iter().map(offer).collect())
}

/// All registered providers.
pub(super) async fn registered(node: &Node) -> Result<Vec<ProviderView>, ChainError> {
    const WHAT: &str = "the list of providers";
    let listed = node
        .pages(WHAT, |node, page| async move {
            let request = QueryProvidersRequest { pagination: Some(page) };
            let answer = node.call(WHAT, node.providers().providers(request)).await?;
            Ok((answer.providers, answer.pagination))
        })
        .await?;
    Ok(listed.into_iter().map(shown).collect())
}

/// A registration as it is read.
pub(super) fn shown(provider: Provider) -> ProviderView {
    ProviderView {
        address: provider.owner,
        host_uri: codes::shorten(&provider.host_uri),
        attributes: view::attributes(provider.attributes),
    }
}

async fn audits(node: &Node) -> Result<Vec<audit::AuditedProvider>, ChainError> {
    const WHAT: &str = "what auditors signed";
    node.pages(WHAT, |node, page| async move {
        let request = audit::QueryAllProvidersAttributesRequest { pagination: Some(page) };
        let answer = node.call(WHAT, node.audits().all_providers_attributes(request)).await?;
        Ok((answer.providers, answer.pagination))
    })
    .await
}
