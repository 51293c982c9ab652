//! Which rules an application user may have. Redis itself is asked, about a user that nobody can
//! use, before anybody can.

use redis::aio::ConnectionLike;

use super::redis_control::ControlError;

/// The user that rules are tried on: always off.
const SCRATCH: &str = "_check";
/// The user of whoever names none: off unless the manifest lists it, with a password.
pub const DEFAULT_USER: &str = "default";

/// Commands that no application user may run: each with arguments of a right number, for `ACL
/// DRYRUN`.
///
/// Replication can copy all data and promote a replica (`PSYNC .. FAILOVER`); the rest can undo the
/// fence or let others in.
const FORBIDDEN: &[&str] = &[
    "psync ? -1",
    "sync",
    "replconf ack 0",
    "replicaof h 1",
    "slaveof h 1",
    "failover",
    "config get x",
    "config set x y",
    "config rewrite",
    "config resetstat",
    "acl setuser x",
    "acl deluser x",
    "acl getuser x",
    "acl list",
    "acl users",
    "acl load",
    "acl save",
    "acl log",
    "acl dryrun x ping",
    "client kill x",
    "client pause 1",
    "client unpause",
    "client unblock 1",
    "client no-evict on",
    "shutdown",
    "debug jmap",
    "module list",
    "module load x",
    "module loadex x",
    "module unload x",
];

/// Why a user is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserRefusal {
    /// The name is taken by us or by Redis, or has strange characters.
    #[error(
        "user {name:?} is refused: a name is 1 to 64 letters, digits or . _ - @ :, and does not begin with `_` or `repl-`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Redis does not understand the rules.
    #[error("the rules of user {name:?} are refused by redis: {detail}")]
    Syntax {
        /// The user.
        name: String,
        /// What Redis said.
        detail: String,
    },
    /// The rules bring passwords of their own.
    #[error(
        "the rules of user {name:?} set a password or `nopass`; passwords belong in `passwordFrom`"
    )]
    Password {
        /// The user.
        name: String,
    },
    /// The rules allow too much.
    #[error(
        "the rules of user {name:?} allow `{command}`, which can take the cluster out of the operator's hands; add `-@admin -@dangerous`"
    )]
    Dangerous {
        /// The user.
        name: String,
        /// The command.
        command: String,
    },
}

/// Whether the name may be an application user's.
pub fn check_name(name: &str) -> Result<(), UserRefusal> {
    let right = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('_')
        && !name.starts_with("repl-")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._@:".contains(c));
    if right { Ok(()) } else { Err(UserRefusal::Name { name: name.to_owned() }) }
}

/// Tries the rules on a user that is off, and asks Redis what they would allow. No user is left
/// behind.
pub async fn check_rules(
    connection: &mut impl ConnectionLike,
    name: &str,
    rules: &str,
) -> Result<(), ControlError> {
    let result = try_rules(connection, name, rules).await;
    redis::cmd("ACL")
        .arg("DELUSER")
        .arg(SCRATCH)
        .query_async::<i64>(connection)
        .await
        .map_err(ControlError::from)?;
    result
}

async fn try_rules(
    connection: &mut impl ConnectionLike,
    name: &str,
    rules: &str,
) -> Result<(), ControlError> {
    let name = name.to_owned();
    let rules: Vec<&str> = rules.split_whitespace().collect();
    // Before Redis sees them: its error text would repeat a password.
    if rules.iter().any(|r| r.starts_with(['>', '<', '#', '!']) || r.eq_ignore_ascii_case("nopass"))
    {
        return Err(UserRefusal::Password { name }.into());
    }
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg(SCRATCH).arg("reset").arg(&rules).arg("off");
    if let Err(error) = set.exec_async(connection).await {
        if error.is_io_error() {
            return Err(error.into());
        }
        return Err(UserRefusal::Syntax { name, detail: error.to_string() }.into());
    }
    let read: redis::Value =
        redis::cmd("ACL").arg("GETUSER").arg(SCRATCH).query_async(connection).await?;
    if has_password(&read) {
        return Err(UserRefusal::Password { name }.into());
    }
    for command in FORBIDDEN {
        let mut ask = redis::cmd("ACL");
        ask.arg("DRYRUN").arg(SCRATCH).arg(command.split_whitespace().collect::<Vec<_>>());
        let answer: Result<String, redis::RedisError> = ask.query_async(connection).await;
        match answer {
            Ok(answer) if answer == "OK" => {
                return Err(UserRefusal::Dangerous { name, command: (*command).to_owned() }.into());
            }
            Err(error) if error.is_io_error() => return Err(error.into()),
            // Denied; or this Redis does not know the command, so nobody can run it.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether `ACL GETUSER` shows a password or the flag `nopass`.
fn has_password(user: &redis::Value) -> bool {
    let redis::Value::Array(items) = user else { return true };
    let field = |name: &str| {
        items
            .chunks_exact(2)
            .find(
                |pair| matches!(&pair[0], redis::Value::BulkString(key) if key == name.as_bytes()),
            )
            .map(|pair| &pair[1])
    };
    let texts = |value: Option<&redis::Value>| -> Option<Vec<String>> {
        let (redis::Value::Array(items) | redis::Value::Set(items)) = value? else { return None };
        Some(
            items
                .iter()
                .filter_map(|i| redis::from_redis_value::<String>(i.clone()).ok())
                .collect(),
        )
    };
    let passwords = texts(field("passwords"));
    let flags = texts(field("flags"));
    // What cannot be read counts as bad.
    passwords.is_none_or(|p| !p.is_empty()) || flags.is_none_or(|f| f.iter().any(|f| f == "nopass"))
}
