//! Brings users, quorum and settings of a running Redis to what the manifest says.
//!
//! Who may come in and how many replicas a write needs never wait for a setting: they are first, and
//! what Redis does not take is told by name while everything else comes into force.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::acl;
use super::redis_config::{self, FENCE};
use super::redis_control::{Applied, ControlError, Session, WantedSettings, checked};
use crate::model::memory::{replica_buffer, replication_backlog};
use crate::model::node::{RefusedSetting, Role};
use crate::model::step::{Quorum, SettingsUser};
use crate::model::text::clipped;

/// Connections on top of the manifest's `maxclients`: those of the agent, of replicas and of the
/// mesh. Redis keeps no place for anybody.
pub const CLIENTS_RESERVE: u64 = 32;
/// Refused settings that are told, and bytes of each of their texts.
const TOLD: usize = 16;
const VALUE: usize = 100;
const REASON: usize = 300;

const BACKLOG: &str = "repl-backlog-size";
const BUFFER_LIMITS: &str = "client-output-buffer-limit";

/// Settings that are the operator's own: a value of the manifest for one of them is refused.
const OURS: &[&str] = &[
    "port",
    "dir",
    "dbfilename",
    "aclfile",
    "user",
    "requirepass",
    "include",
    "loadmodule",
    "rename-command",
    "appendfilename",
    "appenddirname",
];
/// Beginnings of such settings.
const OURS_PREFIX: &[&str] = &[
    "bind",
    "unixsocket",
    "replica",
    "repl-",
    "slave",
    "min-replicas",
    "min-slaves",
    "master",
    "enable-",
    "tls-",
];
/// Those of them that a manifest may set all the same.
const OURS_BUT: &[&str] = &[BACKLOG];

/// What was not taken, each once and cut to what fits into a state.
#[derive(Debug, Default)]
pub struct Refusals(Vec<RefusedSetting>);

impl Refusals {
    /// Notes one; `name` is that of a setting.
    pub fn setting(&mut self, name: &str, value: &str, reason: impl Into<String>) {
        self.add(format!("config.{name}"), value, reason.into());
    }

    fn user(&mut self, name: &str, rules: &str, reason: impl Into<String>) {
        self.add(format!("users.{name}"), rules, reason.into());
    }

    fn add(&mut self, name: String, value: &str, reason: String) {
        if self.0.len() < TOLD {
            self.0.push(RefusedSetting {
                name: clipped(name, VALUE),
                value: clipped(value.to_owned(), VALUE),
                reason: clipped(reason, REASON),
            });
        }
    }

    /// What was noted.
    #[must_use]
    pub fn into_list(self) -> Vec<RefusedSetting> {
        self.0
    }
}

/// Where Redis runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Memory of the container, bytes.
    pub container_bytes: u64,
    /// Port on 127.0.0.1 for clients.
    pub port: u16,
}

impl Session {
    /// Brings quorum, users and settings to what is wanted, in this order; the role does not
    /// change. What Redis does not take is in the answer: what was in force before stays in its
    /// place.
    pub async fn configure(
        &mut self,
        wanted: &WantedSettings,
        place: Place,
        applied: &mut Applied,
    ) -> Result<Refusals, ControlError> {
        let mut refused = Refusals::default();
        let info = self.info().await?;
        let master = info.role() == Role::Master;
        let fenced = info.min_replicas == FENCE || applied.fenced.is_some();
        if let Some(quorum) = wanted.quorum {
            self.quorum(quorum, master && !fenced).await?;
        }
        self.application_users(&wanted.users, applied, &mut refused).await?;
        // A replica lets nobody replicate but those that were admitted: a password that is valid on two
        // nodes could be used against the wrong one.
        if master || applied.admitted == 0 {
            let replication: &[_] = if master { &wanted.replication } else { &[] };
            self.replication_users(replication, applied).await?;
        }
        // Whoever comes now is known here.
        self.listen(&place.port.to_string()).await?;
        self.settings(wanted, place.container_bytes, applied, &mut refused).await?;
        Ok(refused)
    }

    async fn quorum(&mut self, quorum: Quorum, takes_writes: bool) -> Result<(), ControlError> {
        let quorum = checked(quorum)?;
        let mut values = vec![("min-replicas-max-lag", quorum.max_lag_seconds.to_string())];
        if takes_writes {
            values.push(("min-replicas-to-write", quorum.min_replicas.to_string()));
        }
        self.set(&values).await
    }

    async fn settings(
        &mut self,
        wanted: &WantedSettings,
        container_bytes: u64,
        applied: &mut Applied,
        refused: &mut Refusals,
    ) -> Result<(), ControlError> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        // What the manifest no longer names goes back to what it was.
        for (name, original) in &applied.originals {
            values.insert(name.clone(), original.clone());
        }
        // Two settings have fields of their own, which count.
        for (name, value) in wanted
            .redis_config
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "appendonly" | "maxmemory"))
        {
            if is_ours(name) {
                refused.setting(name, value, "it belongs to the operator, remove it");
                continue;
            }
            if !applied.originals.contains_key(name) {
                let Some(now) = self.in_force(name).await? else {
                    refused.setting(name, value, "this redis does not know it");
                    continue;
                };
                applied.originals.insert(name.clone(), now);
            }
            values.insert(name.clone(), on_the_server(name, value));
        }
        // 0 would mean no limit: the container would be killed in place of Redis refusing writes.
        if wanted.maxmemory_bytes > 0 {
            values.insert("maxmemory".into(), wanted.maxmemory_bytes.to_string());
            replication(&mut values, wanted, container_bytes);
        }
        self.set_what_is_taken(&values, wanted, refused).await?;
        applied.originals.retain(|name, _| wanted.redis_config.contains_key(name));
        Ok(())
    }

    /// All at once; where one is refused, Redis takes all of them back, and each is tried alone.
    async fn set_what_is_taken(
        &mut self,
        values: &BTreeMap<String, String>,
        wanted: &WantedSettings,
        refused: &mut Refusals,
    ) -> Result<(), ControlError> {
        if values.is_empty() {
            return Ok(());
        }
        let all: Vec<(&str, String)> =
            values.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        match self.set(&all).await {
            Err(ControlError::Redis(_)) => {}
            done => return done,
        }
        for one in all {
            match self.set(std::slice::from_ref(&one)).await {
                Err(ControlError::Redis(error)) => {
                    let (name, value) = &one;
                    let value = wanted.redis_config.get(*name).unwrap_or(value);
                    refused.setting(name, value, words(&error));
                }
                done => done?,
            }
        }
        Ok(())
    }

    pub(super) async fn in_force(&mut self, name: &str) -> Result<Option<String>, ControlError> {
        let mut values: HashMap<String, String> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut self.connection).await?;
        Ok(values.remove(name))
    }

    /// Users that are gone are the first to go; one whose rules are refused keeps those it had,
    /// with the passwords that are wanted now.
    async fn application_users(
        &mut self,
        users: &[SettingsUser],
        applied: &mut Applied,
        refused: &mut Refusals,
    ) -> Result<(), ControlError> {
        let wanted: BTreeSet<String> = users.iter().map(|u| u.name.clone()).collect();
        let gone: Vec<String> = applied.users.difference(&wanted).cloned().collect();
        self.remove_users(&gone).await?;
        applied.users.retain(|name| wanted.contains(name));
        for user in users {
            if let Err(refusal) = acl::check_name(&user.name) {
                refused.user(&user.name, &user.rules, refusal.to_string());
                continue;
            }
            let rules = match acl::check_rules(&mut self.connection, &user.name, &user.rules).await
            {
                Ok(()) => Some(user.rules.as_str()),
                Err(ControlError::User(refusal)) => {
                    refused.user(&user.name, &user.rules, refusal.to_string());
                    None
                }
                Err(error) => return Err(error),
            };
            let mut set = redis::cmd("ACL");
            set.arg("SETUSER").arg(&user.name);
            if let Some(rules) = rules {
                set.arg("reset").arg(rules.split_whitespace().collect::<Vec<_>>());
            } else if !applied.users.contains(&user.name) {
                // It never had any: it comes in, and may do nothing.
                set.arg("reset");
            }
            set.arg("resetpass").arg("on");
            for hash in &user.password_sha256 {
                set.arg(format!("#{hash}"));
            }
            applied.users.insert(user.name.clone());
            match self.run(&set).await {
                Err(ControlError::Redis(error)) => {
                    refused.user(&user.name, &user.rules, words(&error));
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Redis' own user cannot be deleted; it is put out.
    async fn remove_users(&mut self, names: &[String]) -> Result<(), ControlError> {
        let (default, others): (Vec<String>, Vec<String>) =
            names.iter().cloned().partition(|name| name == acl::DEFAULT_USER);
        self.delete_users(&others).await?;
        for name in &default {
            self.run(redis::cmd("ACL").arg("SETUSER").arg(name).arg("reset").arg("off")).await?;
            self.run(redis::cmd("CLIENT").arg("KILL").arg("USER").arg(name)).await?;
        }
        Ok(())
    }
}

/// What a setting of the manifest is on the server.
fn on_the_server(name: &str, value: &str) -> String {
    match (name, value.parse::<u64>()) {
        ("maxclients", Ok(clients)) => clients.saturating_add(CLIENTS_RESERVE).to_string(),
        _ => value.to_owned(),
    }
}

/// What the manifest does not say of replicas follows from the memory.
fn replication(values: &mut BTreeMap<String, String>, wanted: &WantedSettings, container: u64) {
    let (config, maxmemory) = (&wanted.redis_config, wanted.maxmemory_bytes);
    if !config.contains_key(BACKLOG) {
        values.insert(BACKLOG.into(), replication_backlog(maxmemory).to_string());
    }
    if config.get(BUFFER_LIMITS).is_some_and(|value| names_replicas(value)) {
        return;
    }
    let rule = redis_config::replica_limit(replica_buffer(container, maxmemory));
    // Of a class that is named twice the last one counts.
    let value = values.get(BUFFER_LIMITS).map_or(rule.clone(), |value| format!("{value} {rule}"));
    values.insert(BUFFER_LIMITS.into(), value);
}

fn names_replicas(limits: &str) -> bool {
    let replica =
        |word: &str| ["replica", "slave"].iter().any(|class| class.eq_ignore_ascii_case(word));
    limits.split_whitespace().any(replica)
}

fn is_ours(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.is_empty()
        || !name.chars().all(plain)
        || OURS.contains(&name)
        || (OURS_PREFIX.iter().any(|p| name.starts_with(p)) && !OURS_BUT.contains(&name))
}

/// Redis' words, without the name of the setting, which stands beside them.
pub fn words(error: &redis::RedisError) -> String {
    let detail = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    let said = detail
        .strip_prefix("CONFIG SET failed (possibly related to argument '")
        .and_then(|rest| rest.split_once("') - "));
    said.map_or(detail.clone(), |(_, words)| words.to_owned())
}
