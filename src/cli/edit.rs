//! `akash-redis edit`: the manifest of a cluster in an editor, as `kubectl edit` does it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::ask::Person;
use super::error::CliError;
use super::place::Place;
use super::{apply, cluster_name, manifests, output};
use crate::api::types::{Metadata, RedisCluster};
use crate::api_client::{Client, ClientError};

/// What stands above the manifest.
const HEAD: &str = "\
# The manifest of a cluster. Lines that begin with # at the top are taken away again. What is saved
# is applied when the editor ends; a file that is unchanged, or empty, changes nothing.
";
/// The editor that every Unix has.
const USUAL: &str = "vi";

/// Flags of `edit`.
#[derive(Debug, clap::Args)]
pub struct Edit {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Program to edit with, as a shell reads it; that of VISUAL, of EDITOR, or vi when absent.
    #[arg(long, value_name = "COMMAND")]
    pub editor: Option<String>,
    /// Do not ask before coins are spent. Without a terminal nobody is asked.
    #[arg(short, long)]
    pub yes: bool,
}

/// Why nothing was edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// A file or a directory.
    #[error("{path} cannot be used ({source}), so nothing was changed")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The editor does not start.
    #[error(
        "the editor `{editor}` does not start ({source}), so nothing was changed; name another one with --editor, or in EDITOR"
    )]
    NoEditor {
        /// As it was named.
        editor: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The editor says that it failed.
    #[error("the editor `{editor}` ended with {code}, so nothing was changed")]
    Failed {
        /// As it was named.
        editor: String,
        /// How it ended.
        code: std::process::ExitStatus,
    },
    /// What was refused was not changed any more.
    #[error("{why}\nnothing was changed; what was written is kept in {}", path.display())]
    GivenUp {
        /// What is wrong with it.
        why: String,
        /// Where it is.
        path: PathBuf,
    },
}

/// Opens the manifest, applies what is saved, and opens it again with what is wrong with it.
pub(super) async fn run(
    client: &Client,
    args: Edit,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    let editor = args.editor.clone().unwrap_or_else(|| from_environment(|n| std::env::var(n).ok()));
    let present = client.get(&args.name).await?;
    let version = present.metadata.resource_version.clone();
    let original = output::yaml(&as_wanted(present));
    let file = |path: PathBuf| move |source| failed(EditError::File { path, source });
    let place = Place::make().map_err(file(std::env::temp_dir()))?;
    let path = place.file(&format!("{}.yaml", args.name));
    let (mut text, mut wrong) = (original.clone(), None::<String>);
    loop {
        let before = format!("{}{HEAD}{text}", comments(wrong.as_deref()));
        write(&path, &before).map_err(file(path.clone()))?;
        open(&editor, &path).await?;
        let after = std::fs::read_to_string(&path).map_err(file(path.clone()))?;
        let written = without_comments(&after);
        let unchanged = written == text;
        if written.trim().is_empty() || written == original {
            return Ok(writeln!(out, "edit cancelled, no changes made")?);
        }
        if let Some(why) = wrong.filter(|_| unchanged) {
            return Err(given_up(&args.name, &written, why));
        }
        text = written;
        match apply(client, &args, version.clone(), &path, &text, out, person).await {
            Ok(()) => return Ok(()),
            Err(error) if is_about_the_text(&error) => wrong = Some(error.to_string()),
            Err(error) => return Err(given_up(&args.name, &text, error.to_string())),
        }
    }
}

/// Applies it, if it is the same cluster as it was opened.
async fn apply(
    client: &Client,
    args: &Edit,
    version: Option<String>,
    path: &Path,
    text: &str,
    out: &mut (dyn Write + Send),
    person: &mut dyn Person,
) -> Result<(), CliError> {
    let file = |source| failed(EditError::File { path: path.to_owned(), source });
    write(path, text).map_err(file)?;
    let mut found =
        manifests::load(&[path.display().to_string()], &|name| std::env::var(name).ok())?;
    match found.as_mut_slice() {
        [(cluster, _)] if cluster.metadata.name == args.name => {
            // Whoever changed it meanwhile is not overwritten.
            cluster.metadata.resource_version = version;
        }
        [(cluster, _)] => {
            let sentence = format!(
                "metadata.name: it is {} and was {}; the name of a cluster does not change",
                cluster.metadata.name, args.name
            );
            return Err(CliError::Problems(vec![sentence]));
        }
        several => {
            let sentence = format!("there are {} manifests in it, where one was", several.len());
            return Err(CliError::Problems(vec![sentence]));
        }
    }
    apply::found(client, &found, args.yes, out, person).await
}

/// What a person may put right in the editor.
fn is_about_the_text(error: &CliError) -> bool {
    match error {
        CliError::Problems(_) => true,
        // Somebody else was faster: the text is of an object that is no more.
        CliError::Client(ClientError::Refused(sentence)) => !sentence.contains("meanwhile"),
        _ => false,
    }
}

/// What is wanted, without what is.
fn as_wanted(cluster: RedisCluster) -> RedisCluster {
    let Metadata { name, labels, annotations, .. } = cluster.metadata;
    let metadata = Metadata { name, labels, annotations, ..Metadata::default() };
    RedisCluster { metadata, status: None, ..cluster }
}

fn comments(wrong: Option<&str>) -> String {
    let lines = wrong.unwrap_or_default().lines().map(|line| format!("# {line}\n"));
    lines.collect::<String>()
}

/// The text below the comments at its top.
fn without_comments(text: &str) -> String {
    text.split_inclusive('\n').skip_while(|line| line.starts_with('#')).collect()
}

/// For its owner alone: there are hashes of passwords in it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Runs the editor as a shell would, with the file as its last argument.
async fn open(editor: &str, path: &Path) -> Result<(), CliError> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
    command.stdin(Stdio::inherit()).kill_on_drop(true);
    let named = || editor.to_owned();
    let ended = command
        .status()
        .await
        .map_err(|source| failed(EditError::NoEditor { editor: named(), source }))?;
    if ended.success() {
        Ok(())
    } else {
        Err(failed(EditError::Failed { editor: named(), code: ended }))
    }
}

fn from_environment(env: impl Fn(&str) -> Option<String>) -> String {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(env);
    named.map(|name| name.trim().to_owned()).find(|name| !name.is_empty()).unwrap_or(USUAL.into())
}

/// The text is worth something to whoever wrote it: it outlives the program.
fn given_up(name: &str, text: &str, why: String) -> CliError {
    let file = format!("akash-redis-edit-{name}-{:08x}.yaml", rand::random::<u32>());
    let path = std::env::temp_dir().join(file);
    match write(&path, text) {
        Ok(()) => failed(EditError::GivenUp { why, path }),
        Err(source) => failed(EditError::File { path, source }),
    }
}

fn failed(error: EditError) -> CliError {
    CliError::Server(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_editor_is_the_one_of_the_environment() {
        let of = |visual: Option<&str>, editor: Option<&str>| {
            from_environment(|name| {
                match name {
                    "VISUAL" => visual,
                    _ => editor,
                }
                .map(str::to_owned)
            })
        };
        assert_eq!(of(Some("code --wait"), Some("ed")), "code --wait");
        assert_eq!(of(Some(" "), Some("ed")), "ed");
        assert_eq!(of(None, None), "vi");
    }

    #[test]
    fn comments_at_the_top_alone_are_taken_away() {
        let text = "# wrong\n# more\nkind: a\n# kept\n";
        assert_eq!(without_comments(text), "kind: a\n# kept\n");
        assert_eq!(comments(Some("a: no\nb: no")), "# a: no\n# b: no\n");
    }
}
