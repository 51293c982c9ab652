//! The second way to see a node: its public page, believed only with the node's own signature over
//! a nonce of ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Verifier as _;

use crate::gateway;
use crate::model::ids::IncarnationName;
use crate::model::status_page::PageView;
use crate::model::text::{clipped, few};
use crate::node::status_page::{SIGNATURE_HEADER, StatusPage};
use crate::operator::agent_protocol::{SENTENCE, SENTENCES};
use crate::operator::ports::Ports;
use crate::secrets::RootSecret;

/// Asks the page at `host`, one of the names that a provider gave the lease of `name`. The error is
/// a sentence for people.
pub async fn ask(
    ports: &Ports,
    root: &RootSecret,
    name: &IncarnationName,
    host: &str,
) -> Result<PageView, String> {
    // Not the numbers of `Ports`: this one has to be new, and is told to everybody on the way.
    let nonce = hex::encode(rand::random::<[u8; 16]>());
    let at = (ports.now)();
    let page = ports.gateway.status_page(host, &nonce).await.map_err(|error| error.to_string())?;
    let content = believe(root, name, &nonce, &page)?;
    Ok(PageView {
        at,
        boot_id: clipped(content.boot_id, SENTENCE),
        clock: crate::model::time::UnixMs(content.time),
        mesh: clipped(content.mesh, SENTENCE),
        health: few(content.health, SENTENCES, SENTENCE),
        process: content.process,
        role: content.role,
        fenced: content.fenced,
        epoch: content.epoch,
        lacks: few(content.lacks, SENTENCES, SENTENCE),
    })
}

/// The content, when this node signed it for this question.
fn believe(
    root: &RootSecret,
    name: &IncarnationName,
    nonce: &str,
    page: &gateway::StatusPage,
) -> Result<StatusPage, String> {
    let forged = || {
        format!(
            "whoever answers at the status page of {name} is not that node: the signature is wrong; the page is ignored"
        )
    };
    let signature = page
        .headers
        .get(SIGNATURE_HEADER)
        .and_then(|value| STANDARD.decode(value).ok())
        .ok_or_else(forged)?;
    let signature = Signature::from_der(&signature).map_err(|_| forged())?;
    root.node_public_key(name).verify(&page.body, &signature).map_err(|_| forged())?;
    let content: StatusPage = serde_json::from_slice(&page.body)
        .map_err(|error| format!("the status page of {name} is not understood ({error}); is its agent of another version?"))?;
    // Signed, but for another question: an old page could be shown for ever.
    if content.nonce != nonce || content.incarnation != name.0 {
        Err(forged())
    } else {
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::UnixMs;
    use crate::node::status_page::{sign, signing_key};
    use http::HeaderMap;
    use secrecy::ExposeSecret as _;

    fn root(byte: u8) -> RootSecret {
        RootSecret::new(vec![byte; 32].into()).unwrap()
    }

    fn name(text: &str) -> IncarnationName {
        IncarnationName(text.to_owned())
    }

    /// A page of `who` for `nonce`, signed with the key that `signer` derives for it.
    fn page(signer: &RootSecret, who: &str, nonce: &str) -> gateway::StatusPage {
        let content = StatusPage {
            nonce: nonce.to_owned(),
            incarnation: who.to_owned(),
            mesh: "Running".to_owned(),
            ..StatusPage::default()
        };
        let body = serde_json::to_vec(&content).unwrap();
        let key =
            signing_key(signer.node_certificate(&name(who), UnixMs::now()).key.expose_secret())
                .unwrap();
        let headers = HeaderMap::from_iter([(
            SIGNATURE_HEADER.parse().unwrap(),
            sign(&key, &body).parse().unwrap(),
        )]);
        gateway::StatusPage { headers, body }
    }

    #[test]
    fn a_page_is_believed_with_the_nodes_signature_over_our_nonce_only() {
        let ours = root(1);
        let node = name("cache-0-x7k2");
        assert_eq!(
            believe(&ours, &node, "n1", &page(&ours, &node.0, "n1")).unwrap().mesh,
            "Running"
        );
        for (what, page) in [
            ("an answer to an older question", page(&ours, &node.0, "n0")),
            ("another node of ours", page(&ours, "cache-1-y8m3", "n1")),
            ("a node of somebody else", page(&root(2), &node.0, "n1")),
        ] {
            assert!(believe(&ours, &node, "n1", &page).is_err(), "{what}");
        }
        let mut changed = page(&ours, &node.0, "n1");
        changed.body =
            String::from_utf8(changed.body).unwrap().replace("Running", "Stopped").into_bytes();
        assert!(
            believe(&ours, &node, "n1", &changed).is_err(),
            "a body that was changed on its way"
        );
        let mut bare = page(&ours, &node.0, "n1");
        bare.headers.clear();
        assert!(believe(&ours, &node, "n1", &bare).is_err(), "no signature at all");
    }
}
