//! The image that nodes run.

use super::redis_version::RedisVersion;

/// An image, and what is said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeImage {
    /// By digest: `NAME@sha256:` and 64 hex digits.
    pub name: String,
    /// The version of Redis or Valkey in it, where somebody says so.
    pub redis: Option<RedisVersion>,
}

impl NodeImage {
    /// Its digest is cut short: enough to tell one from another.
    #[must_use]
    pub fn short(name: &str) -> String {
        const SHOWN: usize = 12;
        match name.split_once("@sha256:") {
            Some((name, hex)) => {
                format!("{name}@{}", hex.chars().take(SHOWN).collect::<String>())
            }
            None => name.to_owned(),
        }
    }
}

/// What is wrong with the name of an image, one sentence: without a digest it would be whatever a
/// registry says on the day a node is replaced.
#[must_use]
pub fn name_problem(name: &str) -> Option<String> {
    let is_hex =
        |hex: &str| hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let good = name.split_once("@sha256:").is_some_and(|(n, hex)| !n.is_empty() && is_hex(hex));
    (!good).then(|| {
        format!(
            "`{name}` has no digest; write it like registry.example.org/node@sha256: and 64 hex digits"
        )
    })
}

/// Reads the version that somebody says is in an image; the error is a sentence.
pub fn version(text: &str) -> Result<RedisVersion, String> {
    let numbers = text.trim().rsplit(' ').next().unwrap_or_default().split('.').count();
    let version = RedisVersion::parse(text).filter(|_| numbers == 3).ok_or_else(|| {
        format!("`{text}` is not a version; write all of it, like 7.0.15 or `valkey 8.1.8`")
    })?;
    if version.is_supported() { Ok(version) } else { Err(version.refusal()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_said_in_full_and_supported() {
        assert_eq!(version("7.0.15").map(RedisVersion::report), Ok("7.0.15".into()));
        assert_eq!(version("valkey 8.1.8").map(RedisVersion::report), Ok("valkey 8.1.8".into()));
        for (text, said) in [
            ("6.2.14", "Redis 6.2.14 is not supported"),
            ("valkey 7.2.9", "Valkey 7.2.9 is not supported"),
            ("8.2", "`8.2` is not a version"),
            ("latest", "`latest` is not a version"),
        ] {
            assert!(version(text).is_err_and(|error| error.contains(said)), "{text}");
        }
    }

    #[test]
    fn an_image_has_a_digest() {
        let digest = "ab".repeat(32);
        assert_eq!(name_problem(&format!("r.example.org/node@sha256:{digest}")), None);
        for name in ["r.example.org/node:8.2", "@sha256:00", "r.example.org/node@sha256:00"] {
            assert!(name_problem(name).is_some(), "{name}");
        }
        assert_eq!(
            NodeImage::short(&format!("r.example.org/node@sha256:{digest}")),
            "r.example.org/node@abababababab"
        );
    }
}
