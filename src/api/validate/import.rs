//! What an import from a running Redis needs.

use std::net::IpAddr;

use super::{Problems, redis};
use crate::api::from_redis::FromRedis;
use crate::api::types::{PasswordFrom, RedisCluster};

const PATH: &str = "spec.bootstrap.fromRedis";
/// No password, and no user's name, is longer, bytes.
const LONGEST: usize = 512;

/// Rules of one manifest about the Redis that it begins with.
pub(super) fn check(cluster: &RedisCluster, problems: &mut Problems) {
    let Some(bootstrap) = &cluster.spec.bootstrap else { return };
    let Some(from) = &bootstrap.from_redis else { return };
    problems.add_if(bootstrap.from_backup.is_some(), PATH, || {
        "a cluster begins with one thing; keep fromBackup or fromRedis".into()
    });
    if let Err(why) = host(&from.host) {
        problems.add(format!("{PATH}.host"), why);
    }
    problems.add_if(from.port == 0, &format!("{PATH}.port"), || {
        "0 is no port; write 1 to 65535".into()
    });
    login(from, problems);
    if let Some(entry) = from.password_from.as_ref().and_then(PasswordFrom::secret) {
        redis::secret(&format!("{PATH}.passwordFrom.secretKeyRef"), entry, problems);
    }
    let Some(tls) = &from.tls else { return };
    let pem = tls.ca.as_ref().is_none_or(|ca| ca.contains("-----BEGIN CERTIFICATE-----"));
    problems.add_if(!pem, &format!("{PATH}.tls.ca"), || {
        "holds no certificate; write PEM, from -----BEGIN CERTIFICATE----- on".into()
    });
    let named = tls.server_name.as_ref().is_none_or(|name| is_host_name(name));
    problems.add_if(!named, &format!("{PATH}.tls.serverName"), || {
        "is no name of a host; write the name that the certificate has".into()
    });
}

fn login(from: &FromRedis, problems: &mut Problems) {
    let has_password = from.password_from.is_some() || from.password.is_some();
    if let Some(user) = &from.user {
        let plain = !user.is_empty()
            && user.len() <= LONGEST
            && !user.contains(|c: char| c.is_whitespace() || c.is_control());
        problems.add_if(!plain, &format!("{PATH}.user"), || {
            "is no name of a user; write it as in AUTH".into()
        });
        problems.add_if(!has_password, &format!("{PATH}.passwordFrom"), || {
            "is needed for a user; name a variable, a file or the entry of a Secret with the password".into()
        });
    }
    problems.add_if(
        from.password_from.is_some() && from.password.is_some(),
        &format!("{PATH}.password"),
        || "is written by the operator; keep passwordFrom alone".into(),
    );
    let good = from.password.as_ref().is_none_or(|password| {
        let one_line = password.trim_end_matches(['\r', '\n']);
        !one_line.is_empty() && !one_line.contains(['\r', '\n']) && one_line.len() <= 2 * LONGEST
    });
    problems.add_if(!good, &format!("{PATH}.password"), || {
        "is no password of one line; name another one in passwordFrom".into()
    });
}

fn host(host: &str) -> Result<(), String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return if ip.is_loopback() || ip.is_unspecified() {
            Err(format!("{host} is the node itself; write an address that the nodes reach"))
        } else {
            Ok(())
        };
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Err("localhost is the node itself; write a name that the nodes reach".to_owned());
    }
    if is_host_name(host) {
        Ok(())
    } else {
        Err(format!(
            "`{host}` is no host; write a name or an address, without a scheme, user or port"
        ))
    }
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len())
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use crate::api::validate;

    fn problems(from: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: {{ name: cache }}\nspec:\n  nodes: 3\n  bootstrap: {{ {from} }}\n"
        );
        match validate::parse(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_source_is_an_address_that_nodes_reach_and_who_replicates() {
        for good in [
            "fromRedis: { host: redis.example.org }",
            "fromRedis: { host: 203.0.113.5, port: 6380, user: replica, passwordFrom: { env: X }, tls: {} }",
            "fromRedis: { host: '2001:db8::5', password: 'sealed:x', tls: { serverName: db.example.org } }",
            "fromRedis: { host: old-db.tail1234.ts.net, passwordFrom: { file: /run/p } }",
        ] {
            assert_eq!(problems(good), Vec::<String>::new(), "{good}");
        }
        for (wrong, field) in [
            ("fromRedis: { host: '' }", ".host"),
            ("fromRedis: { host: 'redis://x' }", ".host"),
            ("fromRedis: { host: 'x:6379' }", ".host"),
            ("fromRedis: { host: localhost }", ".host"),
            ("fromRedis: { host: 127.0.0.1 }", ".host"),
            ("fromRedis: { host: '::1' }", ".host"),
            ("fromRedis: { host: x, port: 0 }", ".port"),
            ("fromRedis: { host: x, user: a }", ".passwordFrom"),
            ("fromRedis: { host: x, user: 'a b', password: x }", ".user"),
            ("fromRedis: { host: x, password: '' }", ".password"),
            ("fromRedis: { host: x, password: y, passwordFrom: { env: X } }", ".password"),
            ("fromRedis: { host: x, tls: { ca: x } }", ".tls.ca"),
            ("fromRedis: { host: x, tls: { serverName: 'a b' } }", ".tls.serverName"),
            ("fromRedis: { host: x }, fromBackup: {}", ""),
        ] {
            let (told, path) = (problems(wrong), format!("spec.bootstrap.fromRedis{field}"));
            assert!(told.iter().any(|p| p.starts_with(&path)), "{wrong}: {told:?}");
        }
    }
}
