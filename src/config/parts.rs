//! Parts of the settings, for commands that need no more: the policy is printed before there is a
//! wallet, or an OAuth client.

use std::path::Path;

use super::fields::Fields;
use super::{Config, ConfigError, Mesh, invalid, mesh, secret};

/// The tags that the tailnet's policy tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshTags {
    /// Of nodes, unless a manifest names another.
    pub nodes: String,
    /// Of the operator's own device.
    pub operator: String,
    /// Of nodes that only the operator may reach.
    pub quarantine: String,
}

impl Config {
    /// The tailnet's settings alone, with the secret that they point to.
    pub fn load_mesh(path: &Path) -> Result<Mesh, ConfigError> {
        let (name, text) = read(path)?;
        mesh(&Fields::read(&name, &text, &environment)?)
    }

    /// The tags alone; without a file those of the environment, or the usual ones.
    pub fn load_mesh_tags(path: Option<&Path>) -> Result<MeshTags, ConfigError> {
        let (name, text) = path.map(read).transpose()?.unwrap_or_default();
        mesh_tags(&Fields::read(&name, &text, &environment)?)
    }
}

impl Mesh {
    /// The tags among these settings.
    #[must_use]
    pub fn tags(&self) -> MeshTags {
        MeshTags {
            nodes: self.tag.clone(),
            operator: self.operator_tag.clone(),
            quarantine: self.quarantine_tag.clone(),
        }
    }
}

/// A file's name, for errors, and its text.
pub(super) fn read(path: &Path) -> Result<(String, String), ConfigError> {
    let name = path.display().to_string();
    let text = secret::read_bounded(path)
        .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    let text = text.map_err(|source| ConfigError::Read { path: name.clone(), source })?;
    Ok((name, text))
}

pub(super) fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

pub(super) fn mesh_tags(fields: &Fields) -> Result<MeshTags, ConfigError> {
    let nodes = mesh_tag(fields, "mesh.tag", "tag:akash-redis")?;
    let operator = mesh_tag(fields, "mesh.operatorTag", "tag:akash-redis-operator")?;
    let quarantine = mesh_tag(fields, "mesh.quarantineTag", "tag:akash-redis-quarantine")?;
    if nodes == operator || nodes == quarantine || operator == quarantine {
        return Err(invalid(
            "mesh.quarantineTag",
            "mesh.tag, mesh.operatorTag and mesh.quarantineTag must differ: the policy tells them apart",
        ));
    }
    Ok(MeshTags { nodes, operator, quarantine })
}

fn mesh_tag(fields: &Fields, field: &'static str, default: &str) -> Result<String, ConfigError> {
    let tag = fields.or(field, default);
    let good = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if tag.strip_prefix("tag:").is_some_and(good) {
        Ok(tag)
    } else {
        Err(invalid(field, format!("`{tag}` is not a tag; write it like {default}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_are_read_from_a_file_that_has_nothing_else_yet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "mesh: { tag: 'tag:mine' }").unwrap();
        let tags = Config::load_mesh_tags(Some(file.path())).unwrap();
        assert_eq!(
            (tags.nodes.as_str(), tags.operator.as_str()),
            ("tag:mine", "tag:akash-redis-operator")
        );
        let error = Config::load_mesh(file.path()).unwrap_err().to_string();
        assert!(error.starts_with("mesh.oauthClientId is missing"), "{error}");
        std::fs::write(&file, "mesh: { tag: 'tag:mine', operatorTag: 'tag:mine' }").unwrap();
        assert!(
            Config::load_mesh_tags(Some(file.path()))
                .unwrap_err()
                .to_string()
                .contains("must differ")
        );
    }
}
