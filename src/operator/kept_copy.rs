//! The copy that nodes keep: signed when it is given to them, checked when it comes back.

use crate::api::kept_copy::KeptCopy;
use crate::model::kept_copy::LARGEST;
use crate::secrets::RootSecret;
use crate::wire::akash_redis::agent::v1 as wire;

/// As it is sent.
pub fn signed(root: &RootSecret, content: &str) -> wire::KeptCopy {
    let content = content.as_bytes().to_vec();
    let signature = root.sign_copy(&content);
    wire::KeptCopy { content, signature }
}

/// What a node handed back, when it is of this installation and of this cluster; else a phrase that
/// says why it counts for nothing.
pub fn verified(
    root: &RootSecret,
    cluster: &str,
    copy: &wire::KeptCopy,
) -> Result<KeptCopy, String> {
    if copy.content.len() > LARGEST {
        return Err("is larger than any that was ever made".to_owned());
    }
    if !root.is_own_copy(&copy.content, &copy.signature) {
        return Err("is not signed by this installation".to_owned());
    }
    let copy = KeptCopy::read(&copy.content)?;
    if copy.installation != root.installation_id() {
        return Err(format!("is of installation {}", copy.installation));
    }
    let named = &copy.manifest.metadata.name;
    if named != cluster {
        return Err(format!("is of the cluster {named}"));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::InstallationId;
    use crate::model::record::Record;

    fn root(byte: u8) -> RootSecret {
        RootSecret::new(vec![byte; 32].into()).unwrap()
    }

    fn content(installation: &InstallationId) -> String {
        let cluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": "cache"}, "spec": {"nodes": 3}
        }))
        .unwrap();
        KeptCopy::of(&cluster, &Record::default(), installation).text()
    }

    #[test]
    fn a_copy_counts_only_as_it_was_signed_for_this_cluster() {
        let (ours, theirs) = (root(1), root(2));
        let good = signed(&ours, &content(&ours.installation_id()));
        assert_eq!(verified(&ours, "cache", &good).unwrap().manifest.spec.nodes, 3);
        let says = |copy: &wire::KeptCopy, cluster: &str, what: &str| {
            let why = verified(&ours, cluster, copy).unwrap_err();
            assert!(why.contains(what), "{why}");
        };
        let mut touched = good.clone();
        touched.content[20] ^= 1;
        says(&touched, "cache", "not signed by this installation");
        says(&signed(&theirs, &content(&ours.installation_id())), "cache", "not signed");
        says(&wire::KeptCopy { signature: Vec::new(), ..good.clone() }, "cache", "not signed");
        says(&good, "other", "of the cluster cache");
        says(&signed(&ours, &content(&theirs.installation_id())), "cache", "of installation");
        says(&signed(&ours, "{}"), "cache", "cannot be read");
        says(&signed(&ours, &"x".repeat(LARGEST + 1)), "cache", "larger");
    }
}
