//! Files of other programs that describe a Redis: what to write instead.

use serde_json::Value;

use crate::api::redis_settings;
use crate::api::types::KIND;

/// Names of images that hold a Redis or speak its protocol.
const REDIS: [&str; 4] = ["redis", "valkey", "keydb", "dragonfly"];
/// Lines of a file that are looked at.
const LINES: usize = 200;

/// What to do with an Akash SDL; `None` where the document is none.
pub(super) fn sdl(document: &Value) -> Option<String> {
    let services = document["services"].as_object()?;
    if document.get("profiles").is_none() && document.get("deployment").is_none() {
        return None;
    }
    let is_redis = |service: &Value| {
        let image = service["image"].as_str().unwrap_or_default().to_ascii_lowercase();
        REDIS.iter().any(|name| image.contains(name))
    };
    let Some((name, _)) = services.iter().find(|(_, service)| is_redis(service)) else {
        let names: Vec<_> = services.keys().map(String::as_str).collect();
        return Some(format!(
            "this is an Akash SDL without a Redis (services: {}), and this operator runs Redis alone; deploy it with the Akash command line",
            names.join(", ")
        ));
    };
    let others = if services.len() > 1 {
        "; its other services are deployed with the Akash command line"
    } else {
        ""
    };
    Some(format!(
        "this is an Akash SDL, and the operator writes one for each node by itself; write a {KIND} with {} for its service `{name}`: settings and users go into spec.redis, the price into budget.maxPerMonth; image, env, command and expose have no place, because the image is the operator's and Redis is on no public port{others}",
        resources(document, name)
    ))
}

/// The resources of a service, as a manifest has them.
fn resources(document: &Value, service: &str) -> String {
    let placements = document["deployment"][service].as_object();
    let profile =
        placements.and_then(|all| all.values().next()?["profile"].as_str()).unwrap_or(service);
    let wanted = &document["profiles"]["compute"][profile]["resources"];
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let one = wanted["storage"].as_object().map(|_| wanted["storage"].clone());
    let volumes = one.into_iter().chain(wanted["storage"].as_array().cloned().unwrap_or_default());
    let kept = |volume: &Value| {
        let persistent = &volume["attributes"]["persistent"];
        persistent.as_bool() == Some(true) || persistent.as_str() == Some("true")
    };
    let data = volumes.into_iter().find(kept).and_then(|volume| word(&volume["size"]));
    let parts: Vec<_> = [
        word(&wanted["cpu"]["units"]).map(|cpu| format!("cpu: {cpu}")),
        word(&wanted["memory"]["size"]).map(|memory| format!("memory: {memory}")),
        data.map(|size| format!("data: {{ size: {size} }}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "resources".to_owned()
    } else {
        format!("`resources: {{ {} }}`", parts.join(", "))
    }
}

/// What to do with a redis.conf or an ACL file; `None` where the text is neither.
pub(super) fn redis_file(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let (mut settings, mut users, mut others) = (0, 0, 0);
    for line in lines.take(LINES) {
        match line.split_once(char::is_whitespace) {
            Some(("user", rest)) if rest.split_whitespace().count() > 1 => users += 1,
            Some((name, _)) if is_setting(name) => settings += 1,
            _ => others += 1,
        }
    }
    let places = "`akash-redis apply` takes a manifest";
    if users > settings && users > others {
        return Some(format!(
            "this is an ACL file of Redis; {places}: write each user under spec.redis.users of a {KIND}, with its rules and passwordFrom or passwordSha256"
        ));
    }
    (settings > others).then(|| {
        format!(
            "this is a redis.conf; {places}: write its settings under spec.redis.config of a {KIND}, each as `name: \"value\"`, and leave out what the operator sets (docs/reference/manifest.md)"
        )
    })
}

fn is_setting(name: &str) -> bool {
    let ours = |beginning: &&str| name.starts_with(*beginning);
    redis_settings::find(name).is_some()
        || redis_settings::OURS.iter().any(|(names, _)| names.iter().any(ours))
        || redis_settings::FIXED.iter().any(|(fixed, _)| *fixed == name)
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    /// All that is said about a file.
    fn said(text: &str) -> String {
        let problems = parse(text).expect_err("it is no manifest");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    const HEAD: &str = "version: '2.0'\nservices:\n";

    fn profile(name: &str, storage: &str) -> String {
        format!(
            "profiles:
  compute:
    {name}: {{ resources: {{ cpu: {{ units: 0.5 }}, memory: {{ size: 512Mi }}, storage: {storage} }} }}
  placement:
    anywhere: {{ pricing: {{ {name}: {{ denom: uact, amount: 10000 }} }} }}
deployment:
  cache: {{ anywhere: {{ profile: {name}, count: 1 }} }}
"
        )
    }

    #[test]
    fn an_sdl_of_a_redis_is_told_what_becomes_of_it() {
        let rows = [
            (
                "a public one without a volume",
                "  cache: { image: 'redis:8.2.2', env: [REDIS_PASSWORD=x], expose: [{ port: 6379, to: [{ global: true }] }] }\n",
                profile("cache", "{ size: 1Gi }"),
                "`resources: { cpu: 0.5, memory: 512Mi }` for its service `cache`",
            ),
            (
                "with a volume, a profile of another name and a command",
                "  cache: { image: 'docker.io/bitnami/Redis@sha256:00', command: [redis-server], params: { storage: { data: { mount: /data } } } }\n",
                profile(
                    "big",
                    "[{ size: 512Mi }, { name: data, size: 10Gi, attributes: { persistent: true, class: beta3 } }]",
                ),
                "`resources: { cpu: 0.5, memory: 512Mi, data: { size: 10Gi } }`",
            ),
            (
                "beside an application",
                "  cache: { image: valkey/valkey }\n  web: { image: nginx, depends-on: [cache] }\n",
                profile("cache", "{ size: 1Gi }"),
                "; its other services are deployed with the Akash command line",
            ),
        ];
        for (what, services, rest, expected) in rows {
            let text = said(&format!("{HEAD}{services}{rest}"));
            assert!(text.starts_with("this is an Akash SDL"), "{what}: {text}");
            assert!(text.contains(expected) && text.contains("no public port"), "{what}: {text}");
        }
        let other = said(&format!("{HEAD}  web: {{ image: nginx }}\n{}", profile("web", "{}")));
        assert!(other.contains("without a Redis (services: web)"), "{other}");
        let bare = said("services: { r: { image: redis } }\ndeployment: {}\n");
        assert!(bare.contains("with resources for its service `r`"), "{bare}");
    }

    #[test]
    fn files_of_redis_are_told_where_their_lines_go() {
        let conf = "# of a server\nbind 0.0.0.0\nmaxmemory 2gb\nmaxmemory-policy allkeys-lru\nsave 900 1\n";
        assert!(said(conf).contains("this is a redis.conf"), "{}", said(conf));
        let acl = "user default off\nuser app on #00 ~* +@read\n";
        assert!(said(acl).contains("this is an ACL file"), "{}", said(acl));
        for text in ["just words of nobody\n", "hello\n"] {
            assert!(said(text).contains("this is not a RedisCluster"), "{}", said(text));
        }
    }
}
