//! `akash-redis apply`: manifests to the operator, passwords as hashes.

use std::fs::File;
use std::io::{Read, Write};

use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

use super::error::CliError;
use super::wait;
use crate::api::quantity::Span;
use crate::api::types::{Metadata, Password, PasswordFrom, RedisCluster, User};
use crate::api::validate;
use crate::api_client::Client;
use crate::server::messages::Outcome;

/// No manifest and no password file is larger.
const MOST_BYTES: u64 = 1 << 20;

/// Flags of `apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// File with one or more manifests; `-` is standard input. May be given several times.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub file: Vec<String>,
    /// Wait until each cluster is ready and has the settings and users of its manifest on every node.
    #[arg(long)]
    pub wait: bool,
    /// The longest to wait.
    #[arg(long, default_value = "10m", requires = "wait", value_name = "TIME")]
    pub timeout: Span,
}

/// Nothing is sent before every manifest was read and every password found.
pub(super) async fn run(
    client: &Client,
    args: Apply,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let mut clusters = Vec::new();
    for file in &args.file {
        clusters.extend(manifests(file, &|name| std::env::var(name).ok())?);
    }
    for cluster in &clusters {
        if cluster.spec.redis.users.is_empty() {
            let name = &cluster.metadata.name;
            eprintln!(
                "warning: {name} has no user, so no application can log in; add one below spec.redis.users"
            );
        }
        let done = client.apply(cluster).await?;
        let outcome = match done.outcome {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
        };
        writeln!(out, "rediscluster/{} {outcome}", done.cluster.metadata.name)?;
    }
    if args.wait {
        for cluster in &clusters {
            wait::until_in_force(client, &cluster.metadata.name, args.timeout).await?;
        }
    }
    Ok(())
}

/// The manifests of a file; `-` is standard input.
pub(super) fn read(file: &str) -> Result<Vec<RedisCluster>, CliError> {
    let problem = |problem: String| CliError::Manifest { file: file.to_owned(), problem };
    let bytes = if file == "-" {
        bounded(std::io::stdin().lock())
    } else {
        File::open(file).and_then(bounded)
    };
    let text = bytes
        .and_then(|b| String::from_utf8(b).map_err(std::io::Error::other))
        .map_err(|e| problem(format!("cannot be read ({e})")))?;
    parse(&text).map_err(problem)
}

fn manifests(
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<RedisCluster>, CliError> {
    let problem = |problem: String| CliError::Manifest { file: file.to_owned(), problem };
    let mut clusters = read(file)?;
    for cluster in &mut clusters {
        forget_what_is(cluster);
        for user in &mut cluster.spec.redis.users {
            hash_passwords(user, env).map_err(problem)?;
        }
    }
    Ok(clusters)
}

/// A manifest that was written by `get -o yaml` says what is wanted as well as any other; the rest
/// of it is old news.
fn forget_what_is(cluster: &mut RedisCluster) {
    let metadata = std::mem::take(&mut cluster.metadata);
    cluster.metadata = Metadata {
        name: metadata.name,
        labels: metadata.labels,
        annotations: metadata.annotations,
        ..Metadata::default()
    };
    cluster.status = None;
}

fn parse(text: &str) -> Result<Vec<RedisCluster>, String> {
    validate::parse(text)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Puts the SHA-256 of each password in place of where it is found.
fn hash_passwords(user: &mut User, env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let name = user.name.clone();
    for password in &mut user.passwords {
        let bytes = match password {
            Password::Env(variable) => from_env(&name, variable, env)?,
            Password::File(path) => from_file(&name, path)?,
            Password::Sha256(_) => continue,
        };
        *password = Password::Sha256(hash(&name, bytes)?);
    }
    let Some(from) = user.password_from.take() else { return Ok(()) };
    if user.password_sha256.is_some() {
        return Err(format!("user {name} has passwordFrom and passwordSha256; keep one of them"));
    }
    let bytes = match &from {
        PasswordFrom::Env(variable) => from_env(&name, variable, env)?,
        PasswordFrom::File(path) => from_file(&name, path)?,
    };
    user.password_sha256 = Some(hash(&name, bytes)?);
    Ok(())
}

fn from_env(
    user: &str,
    variable: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<u8>, String> {
    env(variable).map(String::into_bytes).ok_or_else(|| {
        format!("the password of user {user} is to come from ${variable}, which is not set")
    })
}

fn from_file(user: &str, path: &str) -> Result<Vec<u8>, String> {
    File::open(path).and_then(bounded).map_err(|e| {
        format!("the password of user {user} is to come from {path}, which cannot be read ({e})")
    })
}

fn hash(user: &str, password: Vec<u8>) -> Result<String, String> {
    let password = SecretSlice::from(password);
    let bytes = password.expose_secret();
    // Editors and shells end a text with a newline that nobody types at AUTH.
    let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |b| b.strip_suffix(b"\r").unwrap_or(b));
    if bytes.is_empty() {
        return Err(format!("the password of user {user} is empty"));
    }
    Ok(hex::encode(Sha256::digest(bytes)))
}

fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        Err(std::io::Error::other("it is larger than 1 MiB"))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA_OF_SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn user(from: PasswordFrom) -> User {
        User {
            name: "app".into(),
            rules: "~*".into(),
            password_from: Some(from),
            password_sha256: None,
            passwords: Vec::new(),
        }
    }

    fn env(name: &str) -> Option<String> {
        match name {
            "PASSWORD" => Some("secret".into()),
            "LINE" => Some("secret\n".into()),
            "WINDOWS" => Some("secret\r\n".into()),
            "NEW" => Some("new".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn a_password_leaves_as_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password").display().to_string();
        for content in ["secret", "secret\n", "secret\r\n"] {
            std::fs::write(&path, content).unwrap();
            let mut from_file = user(PasswordFrom::File(path.clone()));
            hash_passwords(&mut from_file, &env).unwrap();
            assert_eq!(
                (from_file.password_sha256.as_deref(), from_file.password_from),
                (Some(SHA_OF_SECRET), None)
            );
        }
        for variable in ["PASSWORD", "LINE", "WINDOWS"] {
            let mut from_env = user(PasswordFrom::Env(variable.into()));
            hash_passwords(&mut from_env, &env).unwrap();
            assert_eq!(from_env.password_sha256.as_deref(), Some(SHA_OF_SECRET), "{variable}");
        }
    }

    #[test]
    fn several_passwords_leave_as_their_hashes() {
        let old = Password::Sha256("ab".repeat(32));
        let passwords = vec![old, Password::Env("LINE".into()), Password::Env("NEW".into())];
        let mut several = User { passwords, ..user(PasswordFrom::Env("X".into())) };
        several.password_from = None;
        hash_passwords(&mut several, &env).unwrap();
        let new = hex::encode(Sha256::digest("new"));
        assert_eq!(several.hashes(), ["ab".repeat(32), SHA_OF_SECRET.into(), new]);
        assert!(!several.is_to_be_read());
        several.passwords = vec![Password::Env("NONE".into())];
        assert!(
            hash_passwords(&mut several, &env).unwrap_err().contains("$NONE, which is not set")
        );
    }

    #[test]
    fn a_password_that_is_not_there_is_named_by_its_user() {
        let sentence = |from| hash_passwords(&mut user(from), &env).unwrap_err();
        assert_eq!(
            sentence(PasswordFrom::Env("EMPTY".into())),
            "the password of user app is empty"
        );
        assert_eq!(
            sentence(PasswordFrom::Env("NONE".into())),
            "the password of user app is to come from $NONE, which is not set"
        );
        assert!(
            sentence(PasswordFrom::File("/nonexistent".into()))
                .contains("/nonexistent, which cannot be read")
        );
        let mut both = user(PasswordFrom::Env("PASSWORD".into()));
        both.password_sha256 = Some(SHA_OF_SECRET.into());
        assert!(hash_passwords(&mut both, &env).unwrap_err().contains("keep one of them"));
    }

    #[test]
    fn several_manifests_in_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("two.yaml").display().to_string();
        let one = |name| {
            format!(
                "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: {{ name: {name} }}\nspec:\n  nodes: 3\n  redis:\n    users:\n      - {{ name: app, passwordFrom: {{ env: PASSWORD }} }}\n"
            )
        };
        std::fs::write(&path, format!("{}---\n{}", one("a"), one("b"))).unwrap();
        let read = manifests(&path, &env).unwrap();
        assert_eq!(read.iter().map(|c| c.metadata.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(
            read.iter()
                .all(|c| c.spec.redis.users[0].password_sha256.as_deref() == Some(SHA_OF_SECRET))
        );
        std::fs::write(&path, "").unwrap();
        assert!(manifests(&path, &env).is_err(), "an empty file is no manifest");
    }
}
