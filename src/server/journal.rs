//! What people asked for, as events of the cluster: pure, so that every sentence can be tested.

use crate::api::annotations::{ACCEPT_LOSS, CLOSE, FENCE, MASTER, MIGRATE, REJOIN};
use crate::api::difference::{self, FieldChange, How};
use crate::api::events::EventReason;
use crate::api::types::RedisCluster;

/// What differs between an object as it was and as it is, each with its reason; nothing where
/// nothing does. No secret is in it.
pub(super) fn told(old: Option<&RedisCluster>, new: &RedisCluster) -> Vec<(EventReason, String)> {
    let Some(old) = old else {
        let (name, nodes) = (&new.metadata.name, new.spec.nodes);
        return vec![(
            EventReason::ClusterCreated,
            format!("{name} was created with {nodes} nodes"),
        )];
    };
    let mut events = Vec::new();
    let mut others = Vec::new();
    for change in difference::differences(&old.spec, &new.spec) {
        match special(&change) {
            Some(event) => events.push(event),
            None => others.push(change),
        }
    }
    if !others.is_empty() {
        events.insert(0, (EventReason::ClusterConfigured, difference::sentence(&others)));
    }
    for (annotation, what) in [
        (MIGRATE, "to move to another provider"),
        (MASTER, "to become master"),
        (REJOIN, "to join again with a new key"),
        (CLOSE, "to be closed, being in no record"),
        (FENCE, "to take no writes and to become no master"),
        (
            ACCEPT_LOSS,
            "is the epoch in which the loss of what no node that answers holds was accepted",
        ),
    ] {
        let of = |cluster: &RedisCluster| cluster.metadata.annotations.get(annotation).cloned();
        match (of(old), of(new)) {
            (before, Some(value)) if before.as_ref() != Some(&value) && !value.is_empty() => {
                events.push((EventReason::ActionRequested, format!("{value} {what}")));
            }
            (Some(before), after)
                if after.as_deref().is_none_or(str::is_empty) && !before.is_empty() =>
            {
                events.push((EventReason::ActionRequested, format!("{before} no longer {what}")));
            }
            _ => {}
        }
    }
    events
}

/// A change that has a word of its own.
fn special(change: &FieldChange) -> Option<(EventReason, String)> {
    match (change.path.as_str(), &change.how) {
        ("spec.nodes", How::Changed { old, new }) => {
            Some((EventReason::ClusterScaled, format!("from {old} to {new} nodes")))
        }
        ("spec.paused", How::Changed { new, .. }) if new == "true" => Some((
            EventReason::ClusterPaused,
            "the operator watches and changes nothing".to_owned(),
        )),
        ("spec.paused", _) => {
            Some((EventReason::ClusterResumed, "the operator goes on".to_owned()))
        }
        (path, How::Hidden) => {
            let user = path.strip_prefix("spec.redis.users[")?.split(']').next()?;
            Some((EventReason::PasswordChanged, format!("user {user} has another password")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(spec: &serde_json::Value) -> RedisCluster {
        let manifest = serde_json::json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
            "metadata": {"name": "cache"}, "spec": spec,
        });
        serde_json::from_value(manifest).expect("a manifest")
    }

    #[test]
    fn each_change_is_told_with_its_word_and_without_secrets() {
        use EventReason as E;
        let user = |hash: &str| serde_json::json!([{"name": "app", "passwordSha256": hash}]);
        let old = cluster(&serde_json::json!({
            "nodes": 3, "redis": {"users": user("aaaa"), "config": {"timeout": "5"}}
        }));
        let mut new = cluster(&serde_json::json!({
            "nodes": 5, "paused": true, "budget": {"maxPerMonth": "9act"},
            "redis": {"users": user("bbbb"), "config": {"timeout": "6"}},
        }));
        new.metadata.annotations.insert(MIGRATE.into(), "cache-1-b".into());
        let expected = [
            (
                E::ClusterConfigured,
                "spec.budget.maxPerMonth none -> 9act, spec.redis.config.timeout 5 -> 6",
            ),
            (E::ClusterScaled, "from 3 to 5 nodes"),
            (E::ClusterPaused, "the operator watches and changes nothing"),
            (E::PasswordChanged, "user app has another password"),
            (E::ActionRequested, "cache-1-b to move to another provider"),
        ];
        let events = told(Some(&old), &new);
        let seen: Vec<_> = events.iter().map(|(reason, text)| (*reason, text.as_str())).collect();
        assert_eq!(seen, expected);
        let back = told(Some(&new), &old);
        assert!(back.contains(&(E::ClusterResumed, "the operator goes on".into())), "{back:?}");
        assert!(back.contains(&(
            E::ActionRequested,
            "cache-1-b no longer to move to another provider".into()
        )));
        assert_eq!(told(Some(&old), &old), []);
        assert_eq!(
            told(None, &old),
            [(E::ClusterCreated, "cache was created with 3 nodes".into())]
        );
        assert!(!format!("{events:?}{back:?}").contains("bbbb"));
    }
}
