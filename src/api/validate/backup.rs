//! What a backup needs, and what a new cluster may begin with.

use super::{Problems, is_name, redis};
use crate::api::backup::{Backup, FromBackup, OnTotalLoss};
use crate::api::types::{DeletionPolicy, PasswordFrom, RedisCluster};
use crate::model::backup::{StorageKeys, location};
use crate::model::time::UnixMs;

/// Rules of one manifest about all of its backups.
pub(super) fn check(cluster: &RedisCluster, problems: &mut Problems) {
    let spec = &cluster.spec;
    if let Some(backup) = &spec.backup {
        target(backup, problems);
    }
    let last = spec.deletion_policy == DeletionPolicy::Backup;
    problems.add_if(last && spec.backup.is_none(), "spec.deletionPolicy", || {
        "`Backup` takes a last backup before the end; write spec.backup too".into()
    });
    let Some(bootstrap) = &spec.bootstrap else { return };
    let on_loss = bootstrap.on_total_loss != OnTotalLoss::default();
    problems.add_if(on_loss && spec.backup.is_none(), "spec.bootstrap.onTotalLoss", || {
        "is about backups; write spec.backup too".into()
    });
    let Some(from) = &bootstrap.from_backup else {
        let nothing = !on_loss && bootstrap.from_redis.is_none();
        problems.add_if(nothing, "spec.bootstrap", || {
            "says nothing; write fromBackup, fromRedis or onTotalLoss, or leave it out".into()
        });
        return;
    };
    problems.add_if(spec.backup.is_none(), "spec.bootstrap.fromBackup", || {
        "is read below spec.backup.to; write spec.backup too".into()
    });
    source(from, problems);
}

fn target(backup: &Backup, problems: &mut Problems) {
    if let Some(entry) = backup.credentials_from.as_ref().and_then(PasswordFrom::secret) {
        redis::secret("spec.backup.credentialsFrom.secretKeyRef", entry, problems);
    }
    let keys = backup.credentials_from.is_some() || backup.credentials.is_some();
    match location(&backup.to) {
        Err(why) => problems.add("spec.backup.to", why),
        Ok((Some(_), _)) => problems.add_if(!keys, "spec.backup.credentialsFrom", || {
            "is needed for a bucket; name a variable or a file with ACCESS_KEY_ID:SECRET_ACCESS_KEY".into()
        }),
        Ok((None, _)) => {
            for (there, field) in [
                (keys, "credentialsFrom"),
                (backup.endpoint.is_some(), "endpoint"),
                (backup.region.is_some(), "region"),
                (backup.ca.is_some(), "ca"),
            ] {
                problems.add_if(there, &format!("spec.backup.{field}"), || {
                    "is of no use for a directory; leave it out".into()
                });
            }
        }
    }
    if let Some(endpoint) = &backup.endpoint {
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        let good = rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(host));
        problems.add_if(!good, "spec.backup.endpoint", || {
            format!("`{endpoint}` is no endpoint; write https://HOST, without a path")
        });
    }
    if let Some(region) = &backup.region {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        problems.add_if(
            region.is_empty() || !region.chars().all(plain),
            "spec.backup.region",
            || format!("`{region}` is no region; write it like eu-central-1"),
        );
    }
    if let Some(ca) = &backup.ca {
        problems.add_if(!ca.contains("-----BEGIN CERTIFICATE-----"), "spec.backup.ca", || {
            "holds no certificate; write PEM, from -----BEGIN CERTIFICATE----- on".into()
        });
    }
    problems.add_if(
        backup.credentials_from.is_some() && backup.credentials.is_some(),
        "spec.backup.credentials",
        || "is written by the operator; keep credentialsFrom alone".into(),
    );
    if let Some(credentials) = &backup.credentials {
        let sealed = credentials.starts_with("sealed:") || StorageKeys::read(credentials).is_some();
        problems.add_if(!sealed, "spec.backup.credentials", || {
            "is written by the operator; write credentialsFrom in its place".into()
        });
    }
    problems.add_if(backup.point_in_time && backup.schedule.is_none(), "spec.backup.schedule", || {
        "is needed for pointInTime: a restore replays all that was written since a backup; write it like `0 3 * * *`".into()
    });
    problems.add_if(
        !backup.point_in_time && !Backup::is_default_window(&backup.window),
        "spec.backup.window",
        || "is about pointInTime; write `pointInTime: true` too".into(),
    );
    problems.add_if(backup.window.0.as_secs() < 3600, "spec.backup.window", || {
        format!("{} is too short to notice a mistake; write 1h or more", backup.window)
    });
    let retention = &backup.retention;
    problems.add_if(
        !(1..=1000).contains(&retention.keep_last),
        "spec.backup.retention.keepLast",
        || format!("{} backups cannot be kept; write 1 to 1000", retention.keep_last),
    );
    problems.add_if(retention.keep_daily > 1000, "spec.backup.retention.keepDaily", || {
        format!("{} days are too many; write 1000 at most", retention.keep_daily)
    });
    if let Some(age) = retention.max_age {
        problems.add_if(age.0.as_secs() < 3600, "spec.backup.retention.maxAge", || {
            format!("{age} would delete backups as soon as they are taken; write 1h or more")
        });
    }
}

fn source(from: &FromBackup, problems: &mut Problems) {
    let path = "spec.bootstrap.fromBackup";
    if let Some(cluster) = &from.cluster {
        problems.add_if(!is_name(cluster), &format!("{path}.cluster"), || {
            format!("`{cluster}` is no name of a cluster")
        });
    }
    problems.add_if(from.id.is_some() && from.at.is_some(), &format!("{path}.at"), || {
        "and id both say which backup; keep one of them".into()
    });
    if let Some(id) = &from.id {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let good = (1..=64).contains(&id.len()) && id.chars().all(plain);
        problems.add_if(!good, &format!("{path}.id"), || {
            format!("`{id}` is no backup; `akash-redis backups NAME` lists them")
        });
    }
    if let Some(at) = &from.at {
        problems.add_if(UnixMs::parse(at).is_none(), &format!("{path}.at"), || {
            format!("`{at}` is no time; write it like 2026-11-25T10:15:00Z")
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::api::validate;

    fn problems(spec: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: {{ name: cache }}\nspec:\n  nodes: 3\n{spec}"
        );
        match validate::parse(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn good_targets_and_sources_are_taken() {
        for good in [
            "  backup: { to: s3://backups/prod, credentialsFrom: { env: KEYS }, schedule: '0 3 * * *' }\n",
            "  backup: { to: s3://backups, endpoint: 'https://s3.example.org:9000', region: eu-1, credentialsFrom: { file: /k }, retention: { keepLast: 3, keepDaily: 7, maxAge: 30d } }\n",
            "  backup: { to: file:///var/backups }\n  deletionPolicy: Backup\n",
            "  deletionPolicy: Delete\n",
            "  backup: { to: file:///var/backups }\n  bootstrap: { fromBackup: {} }\n",
            "  backup: { to: file:///b, schedule: '0 3 * * *', pointInTime: true, window: 2d }\n",
            "  backup: { to: file:///var/backups }\n  bootstrap: { fromBackup: { cluster: old, at: '2026-11-25T10:15:00Z', users: keep } }\n",
        ] {
            assert_eq!(problems(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_field() {
        for (wrong, path) in [
            ("backup: { to: https://x }", "spec.backup.to"),
            ("backup: { to: s3://backups }", "spec.backup.credentialsFrom"),
            ("backup: { to: file:///b, region: x }", "spec.backup.region"),
            ("backup: { to: file:///b, schedule: daily }", "spec.backup.schedule"),
            (
                "backup: { to: file:///b, retention: { keepLast: 0 } }",
                "spec.backup.retention.keepLast",
            ),
            (
                "backup: { to: file:///b, retention: { maxAge: 5m } }",
                "spec.backup.retention.maxAge",
            ),
            ("backup: { to: s3://backups, credentials: x }", "spec.backup.credentials"),
            ("backup: { to: file:///b, pointInTime: true }", "spec.backup.schedule"),
            ("backup: { to: file:///b, window: 2d }", "spec.backup.window"),
            (
                "backup: { to: file:///b, schedule: '0 3 * * *', pointInTime: true, window: 10m }",
                "spec.backup.window",
            ),
            ("deletionPolicy: Backup", "spec.deletionPolicy"),
            ("deletionPolicy: refuse", "spec.deletionPolicy"),
            ("bootstrap: {}", "spec.bootstrap"),
            ("bootstrap: { onTotalLoss: restore }", "spec.bootstrap.onTotalLoss"),
            ("bootstrap: { fromBackup: {} }", "spec.bootstrap.fromBackup"),
            (
                "backup: { to: file:///b }\n  bootstrap: { fromBackup: { id: a, at: '2026-11-25T10:15:00Z' } }",
                "spec.bootstrap.fromBackup.at",
            ),
            (
                "backup: { to: file:///b }\n  bootstrap: { fromBackup: { at: yesterday } }",
                "spec.bootstrap.fromBackup.at",
            ),
            (
                "backup: { to: file:///b }\n  bootstrap: { fromBackup: { id: ../x } }",
                "spec.bootstrap.fromBackup.id",
            ),
        ] {
            let told = problems(&format!("  {wrong}\n"));
            assert!(told.iter().any(|p| p.starts_with(path)), "{wrong}: {told:?}");
        }
    }
}
