//! Redis' own settings and its users.

use std::collections::BTreeSet;

use super::{Problems, acl};
use crate::api::defaults::{self, MAXMEMORY, redis_memory};
use crate::api::redis_settings::{
    self, BACKLOG, BUFFER_LIMITS, FIXED, NEWER, OLDER_NAMES, OURS, SETTINGS, in_units,
};
use crate::api::rules;
use crate::api::types::{Password, PasswordFrom, Redis, SecretKeyRef, Spec, User};
use crate::model::memory::{LEAST_REPLICA_BUFFER, MIB, room_beside_data};

pub(super) fn check(redis: &Redis, problems: &mut Problems) {
    for (key, value) in &redis.config {
        setting(key, value, problems);
    }
    for (older, newer) in OLDER_NAMES {
        let both = redis.config.contains_key(*older) && redis.config.contains_key(*newer);
        problems.add_if(both, &format!("spec.redis.config.{older}"), || {
            format!("is the older name of `{newer}`, which is given too; keep one of them")
        });
    }
    let mut names = BTreeSet::new();
    for (i, user) in redis.users.iter().enumerate() {
        let path = format!("spec.redis.users[{i}]");
        problems.add_if(!names.insert(&user.name), &format!("{path}.name"), || {
            format!("`{}` is given twice", user.name)
        });
        self::user(&path, user, problems);
    }
}

fn setting(key: &str, value: &str, problems: &mut Problems) {
    let path = format!("spec.redis.config.{key}");
    let lower = key.to_ascii_lowercase();
    let Some(setting) = redis_settings::find(key) else {
        not_taken(path, key, &lower, value, problems);
        return;
    };
    // The value goes to Redis: a line end in it might be a second setting, unchecked.
    if value.chars().any(char::is_control) || value.len() > 512 {
        problems
            .add(path, "must be one line of at most 512 characters, without control characters");
        return;
    }
    if key == MAXMEMORY && redis_memory(value) == Some(0) {
        problems.add(
            path,
            "`0` is no limit, and a node's memory is one; leave it out, or write a size like 512mb",
        );
    } else if let Some(sentence) = redis_settings::wrong(setting, value) {
        problems.add(path, sentence);
    }
}

/// A setting that the manifest cannot change. It may be named with the value that it has.
fn not_taken(path: String, key: &str, lower: &str, value: &str, problems: &mut Problems) {
    if key != lower && redis_settings::find(lower).is_some() {
        problems.add(path, format!("settings are written in small letters: `{lower}`"));
        return;
    }
    let has = fixed(lower);
    if has.is_some_and(|has| has.eq_ignore_ascii_case(value)) {
        return;
    }
    let ours =
        OURS.iter().find(|(beginnings, _)| beginnings.iter().any(|one| lower.starts_with(one)));
    if let Some((_, why)) = ours {
        let has = match has {
            Some("") => "; it is empty".to_owned(),
            Some(has) => format!("; it is `{has}`"),
            None => String::new(),
        };
        problems.add(path, format!("`{key}` cannot be set: {why}{has}"));
    } else if let Some((_, version)) = NEWER.iter().find(|(name, _)| *name == lower) {
        problems.add(
            path,
            format!("`{key}` is a setting of Redis {version}, and the nodes run 7.0; leave it out"),
        );
    } else {
        let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        problems.add(path, super::shape::unknown("setting", key, &names));
    }
}

fn fixed(name: &str) -> Option<&'static str> {
    FIXED.iter().find(|(fixed, _)| *fixed == name).map(|(_, value)| *value)
}

/// What replicas may be behind fits the memory; see `model/memory.rs`.
pub(super) fn replication(spec: &Spec, problems: &mut Problems) {
    let config = &spec.redis.config;
    let maxmemory = defaults::maxmemory(spec);
    let backlog = config.get(BACKLOG).and_then(|text| redis_memory(text));
    let most = maxmemory / 4;
    problems.add_if(backlog.is_some_and(|bytes| bytes > most), &at(BACKLOG), || {
        format!(
            "is more than a quarter of maxmemory, to which Redis counts it; write at most {}",
            in_units(whole(most))
        )
    });
    let room = room_beside_data(spec.resources.memory.0, maxmemory);
    let limit = config.get(BUFFER_LIMITS).and_then(|text| redis_settings::replica_limit(text));
    let Some(limit) = limit else { return };
    let (least, most) = (LEAST_REPLICA_BUFFER, room.max(LEAST_REPLICA_BUFFER));
    problems.add_if(!(least..=most).contains(&limit.hard), &at(BUFFER_LIMITS), || {
        format!(
            "the hard limit of replicas is {} to {} here: what the memory holds beside maxmemory",
            in_units(least),
            in_units(whole(most))
        )
    });
    problems.add_if(limit.soft > 0 && limit.soft < limit.hard, &at(BUFFER_LIMITS), || {
        "a soft limit of replicas ends every full sync that takes longer under load; write 0 for it"
            .into()
    });
}

fn at(key: &str) -> String {
    format!("spec.redis.config.{key}")
}

/// Rounded down, so that writing what is shown is allowed.
fn whole(bytes: u64) -> u64 {
    bytes / MIB * MIB
}

fn user(path: &str, user: &User, problems: &mut Problems) {
    let at = |field: &str| format!("{path}.{field}");
    let name = &user.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':');
    if name.starts_with("repl-") || name.starts_with('_') {
        problems.add(
            at("name"),
            format!(
                "`{name}`: names that begin with repl- or _ are the operator's; choose another name"
            ),
        );
    } else if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        problems.add(
            at("name"),
            format!("`{name}` cannot be a user; write 1 to 64 letters, digits or . _ - @ :"),
        );
    }
    passwords(path, user, problems);
    for message in acl::check(&rules::expand(&user.rules)) {
        problems.add(at("rules"), message);
    }
}

fn passwords(path: &str, user: &User, problems: &mut Problems) {
    /// More passwords of one user are a list of users.
    const MOST: usize = 4;
    let at = |field: &str| format!("{path}.{field}");
    let ways = [
        user.password_from.is_some().then_some("passwordFrom"),
        user.password_sha256.is_some().then_some("passwordSha256"),
        (!user.passwords.is_empty()).then_some("passwords"),
    ];
    let given: Vec<&str> = ways.into_iter().flatten().collect();
    match given.as_slice() {
        [] => {
            problems.add(path, "has no password; write passwordFrom, passwordSha256 or passwords");
        }
        [_] => {}
        [first, .., last] => {
            problems.add(at(last), format!("is given beside {first}; keep one of them"));
            return;
        }
    }
    let hash = |at: &str, hash: &str, problems: &mut Problems| {
        problems.add_if(!is_sha256(hash), at, || {
            "is not the SHA-256 of a password in 64 digits of lower-case hex; `printf %s PASSWORD | sha256sum` makes it".into()
        });
    };
    if let Some(text) = &user.password_sha256 {
        hash(&at("passwordSha256"), text, problems);
    }
    match &user.password_from {
        Some(PasswordFrom::Env(place) | PasswordFrom::File(place)) => {
            problems.add_if(place.is_empty(), &at("passwordFrom"), || "names nothing".into());
        }
        Some(PasswordFrom::SecretKeyRef(entry)) => {
            secret(&at("passwordFrom.secretKeyRef"), entry, problems);
        }
        None => {}
    }
    problems.add_if(user.passwords.len() > MOST, &at("passwords"), || {
        format!("are more than {MOST}; a user has an old and a new one while it changes over")
    });
    for (i, password) in user.passwords.iter().enumerate() {
        let at = at(&format!("passwords[{i}]"));
        match password {
            Password::Sha256(text) => hash(&at, text, problems),
            Password::Env(place) | Password::File(place) => {
                problems.add_if(place.is_empty(), &at, || "names nothing".into());
            }
            Password::SecretKeyRef(entry) => {
                secret(&format!("{at}.secretKeyRef"), entry, problems);
            }
        }
        problems.add_if(user.passwords[..i].contains(password), &at, || "is given twice".into());
    }
}

/// Names as Kubernetes takes them.
pub(super) fn secret(path: &str, entry: &SecretKeyRef, problems: &mut Problems) {
    let name = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
    let good = (1..=253).contains(&entry.name.len()) && entry.name.chars().all(name);
    problems.add_if(!good, &format!("{path}.name"), || {
        format!("`{}` is no name of a Secret; write 1 to 253 of a-z, 0-9, - and .", entry.name)
    });
    let key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = (1..=253).contains(&entry.key.len()) && entry.key.chars().all(key);
    problems.add_if(!good, &format!("{path}.key"), || {
        format!("`{}` is no key of a Secret; write 1 to 253 letters, digits or - _ .", entry.key)
    });
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
