//! Manifests from files: each problem with the line in which it stands, passwords as hashes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::api::backup::Backup;
use crate::api::from_redis::FromRedis;
use crate::api::password;
use crate::api::types::{Metadata, Password, PasswordFrom, RedisCluster, Spec, User};
use crate::api::validate::{self, Problem};
use crate::model::backup::StorageKeys;
use secrecy::{ExposeSecret, SecretSlice};

/// No manifest and no password file is larger.
const MOST_BYTES: u64 = 1 << 20;

/// Where a manifest was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    file: String,
    text: String,
    /// Its place among several documents of the file, from 1.
    document: Option<usize>,
}

impl Source {
    /// One that is in no file.
    pub(super) fn of(name: &str, text: &str) -> Self {
        Self { file: name.to_owned(), text: text.to_owned(), document: None }
    }

    /// A problem with its place: `cache.yaml:6: spec.nodes: ...`.
    pub(super) fn tell(&self, problem: &Problem) -> String {
        let path = match self.document {
            Some(number) => format!("document {number}: {}", problem.path),
            None => problem.path.clone(),
        };
        tell(&self.file, &self.text, &Problem { path, message: problem.message.clone() })
    }
}

/// `FILE:LINE: what is wrong`.
fn tell(file: &str, text: &str, problem: &Problem) -> String {
    match validate::line(text, problem) {
        Some(line) => format!("{file}:{line}: {problem}"),
        None => format!("{file}: {problem}"),
    }
}

/// A manifest ready to be sent, and where it was found.
pub(super) type Found = (RedisCluster, Source);

/// The manifests of all files, or every problem of all of them.
pub(super) fn load(
    files: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Found>, CliError> {
    each(files, &|spec| read_secrets(spec, env))
}

/// The same, as they are: no password and no key is looked for.
pub(super) fn check(files: &[String]) -> Result<Vec<RedisCluster>, CliError> {
    let found = each(files, &|_| Vec::new())?;
    Ok(found.into_iter().map(|(cluster, _)| cluster).collect())
}

fn each(
    files: &[String],
    secrets: &dyn Fn(&mut Spec) -> Vec<Problem>,
) -> Result<Vec<Found>, CliError> {
    let (mut found, mut wrong): (Vec<Found>, Vec<String>) = (Vec::new(), Vec::new());
    for file in files {
        let more = within(file).and_then(|files| {
            let all = files.iter().map(|file| load_one(file, secrets));
            all.collect::<Result<Vec<_>, _>>()
        });
        match more {
            Ok(more) => found.extend(more.into_iter().flatten()),
            Err(problems) => wrong.extend(problems),
        }
    }
    for (at, (cluster, source)) in found.iter().enumerate() {
        let name = &cluster.metadata.name;
        let same = |(other, _): &&Found| other.metadata.name == *name;
        if let Some((_, first)) = found[..at].iter().find(same) {
            let message = format!("`{name}` is given in {} already", first.file);
            wrong.push(source.tell(&Problem { path: "metadata.name".into(), message }));
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(CliError::Problems(wrong)) }
}

/// The manifests of one file as they are written there; `-` is standard input.
pub(super) fn read(file: &str) -> Result<Vec<RedisCluster>, CliError> {
    let text = text(file).map_err(|problem| CliError::Problems(vec![problem]))?;
    parse(file, &text).map_err(CliError::Problems)
}

/// A file, or the manifests of a directory in the order of their names; those below it are not
/// looked for.
fn within(file: &str) -> Result<Vec<String>, Vec<String>> {
    let path = Path::new(file);
    if file == "-" || !path.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let problem = |what: String| vec![format!("{file}: {what}")];
    let entries = std::fs::read_dir(path)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()
        })
        .map_err(|error| problem(format!("the directory cannot be read ({error})")))?;
    let is_manifest = |path: &PathBuf| {
        path.is_file()
            && path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|x| e == *x))
    };
    let mut files: Vec<_> =
        entries.into_iter().filter(is_manifest).map(|p| p.display().to_string()).collect();
    files.sort();
    if files.is_empty() {
        return Err(problem("there is no .yaml, .yml or .json file in this directory".to_owned()));
    }
    Ok(files)
}

fn load_one(
    file: &str,
    secrets: &dyn Fn(&mut Spec) -> Vec<Problem>,
) -> Result<Vec<Found>, Vec<String>> {
    let text = text(file).map_err(|problem| vec![problem])?;
    let clusters = parse(file, &text)?;
    let many = clusters.len() > 1;
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (at, mut cluster) in clusters.into_iter().enumerate() {
        forget_what_is(&mut cluster);
        let document = many.then_some(at + 1);
        let source = Source { file: file.to_owned(), text: text.clone(), document };
        wrong.extend(secrets(&mut cluster.spec).iter().map(|problem| source.tell(problem)));
        found.push((cluster, source));
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

fn text(file: &str) -> Result<String, String> {
    let bytes = if file == "-" {
        bounded(std::io::stdin().lock())
    } else {
        File::open(file).and_then(bounded)
    };
    bytes
        .and_then(|b| String::from_utf8(b).map_err(std::io::Error::other))
        .map_err(|e| format!("{file}: cannot be read ({e})"))
}

fn parse(file: &str, text: &str) -> Result<Vec<RedisCluster>, Vec<String>> {
    validate::parse(text)
        .map_err(|problems| problems.iter().map(|problem| tell(file, text, problem)).collect())
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

/// What is not to be in a manifest is put where it is found elsewhere.
fn read_secrets(spec: &mut Spec, env: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut wrong = Vec::new();
    for user in &mut spec.redis.users {
        let path = format!("spec.redis.users[{}]", user.name);
        if let Err(message) = hash_passwords(user, env) {
            wrong.push(Problem { path, message });
        }
    }
    if let Some(backup) = &mut spec.backup
        && let Err(message) = read_keys(backup, env)
    {
        wrong.push(Problem { path: "spec.backup.credentialsFrom".to_owned(), message });
    }
    if let Some(from) = spec.bootstrap.as_mut().and_then(|b| b.from_redis.as_mut())
        && let Err(message) = read_source_password(from, env)
    {
        let path = "spec.bootstrap.fromRedis.passwordFrom".to_owned();
        wrong.push(Problem { path, message });
    }
    wrong
}

/// Puts the password of the source in place of where it is found, as [`read_keys`] does.
fn read_source_password(
    from: &mut FromRedis,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let Some(place) = from.password_from.take_if(|place| place.secret().is_none()) else {
        return Ok(());
    };
    let user = from.user.clone().unwrap_or_else(|| "default".to_owned());
    let bytes = match &place {
        PasswordFrom::Env(variable) => from_env(&user, variable, env)?,
        PasswordFrom::File(path) => from_file(&user, path)?,
        PasswordFrom::SecretKeyRef(_) => return Ok(()),
    };
    let text = String::from_utf8(bytes).map_err(|_| "is no text, and cannot be sent".to_owned())?;
    from.password = Some(text.trim_end_matches(['\r', '\n']).to_owned());
    Ok(())
}

/// Puts the SHA-256 of each password in place of where it is found.
fn hash_passwords(user: &mut User, env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let name = user.name.clone();
    for password in &mut user.passwords {
        let bytes = match password {
            Password::Env(variable) => from_env(&name, variable, env)?,
            Password::File(path) => from_file(&name, path)?,
            Password::Sha256(_) | Password::SecretKeyRef(_) => continue,
        };
        *password = Password::Sha256(hash(&name, bytes)?);
    }
    if user.password_from.is_some() && user.password_sha256.is_some() {
        return Err(format!("user {name} has passwordFrom and passwordSha256; keep one of them"));
    }
    let bytes = match &user.password_from {
        Some(PasswordFrom::Env(variable)) => from_env(&name, variable, env)?,
        Some(PasswordFrom::File(path)) => from_file(&name, path)?,
        // The operator reads it.
        Some(PasswordFrom::SecretKeyRef(_)) | None => return Ok(()),
    };
    user.password_from = None;
    user.password_sha256 = Some(hash(&name, bytes)?);
    Ok(())
}

/// Puts the keys to the object storage in place of where they are found: the operator's socket is
/// for its owner alone, and the operator encrypts them.
fn read_keys(backup: &mut Backup, env: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    // The operator reads a Secret.
    let Some(from) = backup.credentials_from.take_if(|from| from.secret().is_none()) else {
        return Ok(());
    };
    let (bytes, place) = match &from {
        PasswordFrom::Env(variable) => {
            (env(variable).map(String::into_bytes), format!("${variable}"))
        }
        PasswordFrom::File(path) => (File::open(path).and_then(bounded).ok(), path.clone()),
        PasswordFrom::SecretKeyRef(_) => return Ok(()),
    };
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| format!("are to come from {place}, which cannot be read"))?;
    if StorageKeys::read(&text).is_none() {
        return Err(format!(
            "are to come from {place}, where no ACCESS_KEY_ID:SECRET_ACCESS_KEY is"
        ));
    }
    backup.credentials = Some(text.trim_end_matches(['\r', '\n']).to_owned());
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
    password::hash(password.expose_secret())
        .ok_or_else(|| format!("the password of user {user} is empty"))
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
    use sha2::{Digest as _, Sha256};

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
        let read = load(std::slice::from_ref(&path), &env).unwrap();
        assert_eq!(read.iter().map(|(c, _)| &*c.metadata.name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(
            read.iter()
                .all(|(c, _)| c.spec.redis.users[0].password_sha256.as_deref()
                    == Some(SHA_OF_SECRET))
        );
        let error = load(&[path.clone(), path.clone()], &env).unwrap_err().to_string();
        assert!(error.contains(":3: ") && error.contains("`a` is given in "), "{error}");
        let error = load(std::slice::from_ref(&path), &|_| None).unwrap_err().to_string();
        assert!(error.starts_with("2 problems") && error.contains(":8: document 1: "), "{error}");
        assert!(error.contains(":17: document 2: spec.redis.users[app]: the password"), "{error}");
        std::fs::write(&path, "").unwrap();
        assert!(load(&[path], &env).is_err(), "an empty file is no manifest");
    }

    #[test]
    fn a_directory_is_all_manifests_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let none = load(std::slice::from_ref(&path), &env).unwrap_err().to_string();
        assert!(none.contains("there is no .yaml"), "{none}");
        let head = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\n";
        for (file, name) in [("b.yml", "b"), ("a.yaml", "a"), ("notes.txt", "c")] {
            let text = format!(
                "{head}metadata: {{ name: {name} }}\nspec:\n  nodes: 3\n  redis:\n    users: [{{ name: app, passwordFrom: {{ env: NONE }} }}]\n"
            );
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let checked = check(std::slice::from_ref(&path)).unwrap();
        let names: Vec<_> = checked.into_iter().map(|cluster| cluster.metadata.name).collect();
        assert_eq!(names, ["a", "b"], "without passwords");
        let error = load(&[path], &env).unwrap_err().to_string();
        assert!(error.contains("a.yaml:7: ") && error.contains("$NONE"), "{error}");
    }

    #[test]
    fn every_problem_of_every_file_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let head = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\n";
        let file = |name: &str, rest: &str| {
            let path = dir.path().join(name).display().to_string();
            std::fs::write(&path, format!("{head}{rest}")).unwrap();
            path
        };
        let a = file(
            "a.yaml",
            "metadata: { name: a }\nspec:\n  nodes: 12\n  budget:\n    deposit: 0.1act\n",
        );
        let b = file("b.yaml", "metadata: { name: B }\nspec: { nodes: 3 }\n");
        let gone = dir.path().join("gone.yaml").display().to_string();
        let error = load(&[a.clone(), b.clone(), gone.clone()], &env).unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 5, "{error}");
        for (line, begins) in lines[1..].iter().zip([
            format!("  {a}:5: spec.nodes: 12 nodes"),
            format!("  {a}:7: spec.budget.deposit: 0.1act"),
            format!("  {b}:3: metadata.name: `B`"),
            format!("  {gone}: cannot be read"),
        ]) {
            assert!(line.starts_with(&begins), "{line}");
        }
    }
}
