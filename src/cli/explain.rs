//! `akash-redis explain`: what a field of the manifest means.

use std::fmt::Write as _;
use std::io::Write;

use super::error::CliError;
use crate::api::schema;

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The field, e.g. `spec.redis.users`; the whole manifest when absent.
    #[arg(value_name = "FIELD")]
    pub field: Option<String>,
}

pub(super) fn run(args: &Explain, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let asked = args.field.as_deref().unwrap_or_default();
    Ok(out.write_all(text(asked)?.as_bytes())?)
}

/// `rediscluster.spec.redis` and `.spec.redis` are `spec.redis`; what belongs to each of a list may
/// be written with or without `[]`.
fn plain(path: &str) -> String {
    let path = path.trim_start_matches('.');
    let path = ["redisclusters", "rediscluster", "rdc"]
        .iter()
        .find_map(|kind| {
            path.strip_prefix(kind).filter(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .unwrap_or(path);
    path.trim_start_matches('.').replace("[]", "")
}

fn text(asked: &str) -> Result<String, CliError> {
    let wanted = plain(asked);
    let fields = schema::fields();
    let own = fields.iter().find(|field| plain(&field.path) == wanted);
    if own.is_none() && !wanted.is_empty() {
        return Err(CliError::NoField(asked.to_owned()));
    }
    let mut text = String::new();
    if let Some(field) = own {
        let _ = writeln!(text, "FIELD:    {}\nTYPE:     {}", field.path, field.kind);
        if !field.default.is_empty() {
            let _ = writeln!(text, "DEFAULT:  {}", field.default);
        }
        let _ = writeln!(text, "\n{}", field.meaning);
    }
    let below = fields.iter().filter(|field| {
        let path = plain(&field.path);
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        parent == wanted && path != wanted
    });
    let mut heading = "\nFIELDS:\n";
    for field in below {
        let name = plain(&field.path);
        let name = name.rsplit('.').next().unwrap_or_default();
        let first = field.meaning.split_inclusive(". ").next().unwrap_or_default().trim();
        let _ = writeln!(text, "{heading}  {name}  <{}>\n    {first}", field.kind);
        heading = "";
    }
    Ok(text.trim_start_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_reference_is_explained() {
        for field in schema::fields() {
            let said = text(&field.path).unwrap();
            assert!(said.contains(&field.meaning), "{}: {said}", field.path);
        }
        let whole = text("").unwrap();
        assert!(whole.starts_with("FIELDS:"), "{whole}");
        let nodes = text("rdc.spec.nodes").unwrap();
        assert_eq!(text(".spec.nodes").unwrap(), nodes);
        let users = text("spec.redis.users").unwrap();
        assert!(users.contains("\n  name  <"), "{users}");
    }

    #[test]
    fn what_is_no_field_is_said() {
        let error = text("spec.node").unwrap_err().to_string();
        assert!(error.contains("`spec.node` is no field"), "{error}");
    }
}
