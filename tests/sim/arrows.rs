//! Who may know whom: `docs/architecture.md` draws the arrows, this test reads the source and holds
//! it to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that anybody outside of the pure ones may use: notifications, settings, errors as text,
/// HTTP clients, child processes, repetition and secrets.
const LEAVES: [&str; 7] =
    ["changes", "config", "error_chain", "http_client", "process", "retry", "secrets"];

/// What a room may use besides itself; `room::part` allows that part alone, `*` everything but
/// `cli` and `devnet`.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let outer = |more: &[&'static str]| [&["model", "wire"], &LEAVES[..], more].concat();
    BTreeMap::from([
        ("model", vec![]),
        ("wire", vec![]),
        ("api", vec!["model"]),
        ("plan", vec!["api", "model"]),
        ("sdl", vec!["api", "model"]),
        ("changes", vec![]),
        ("error_chain", vec![]),
        ("http_client", vec!["error_chain"]),
        // A child gets no secret of a node's identity.
        ("process", vec!["model"]),
        ("retry", vec!["model"]),
        ("secrets", vec!["model"]),
        ("config", vec!["api", "model", "secrets"]),
        ("chain", outer(&[])),
        ("gateway", outer(&[])),
        ("mesh", outer(&[])),
        // Its objects are the manifests.
        ("store", outer(&["api"])),
        ("announce", vec!["model", "secrets"]),
        // It answers from the word that the agent keeps.
        ("sentinel", vec!["announce", "model", "tunnel"]),
        // The agent speaks to its own tailscaled.
        // Agents write and read them, the operator lists them.
        ("backup", outer(&[])),
        // It knows how a node is dialled.
        ("tunnel", vec!["mesh"]),
        ("node", outer(&["announce", "backup", "mesh", "sentinel", "tunnel"])),
        // It delivers what the store has.
        ("notify", outer(&["api", "store"])),
        // It knows spans, not what they are about.
        ("traces", vec!["config", "error_chain", "http_client"]),
        ("server", outer(&["api", "store"])),
        // A page on what the operator publishes.
        ("web", outer(&["api", "server::StatusCache", "store"])),
        ("api_client", outer(&["api", "server::messages", "store"])),
        // It asks the operator's API or the nodes, and dials through the mesh.
        ("proxy", outer(&["announce", "api", "api_client", "mesh", "sentinel", "tunnel"])),
        ("operator", vec!["*"]),
        // It stands for the world outside and must not share our mistakes.
        ("devnet", vec!["wire", "sdl::canonical"]),
        ("cli", vec!["*", "devnet"]),
        ("lib", vec!["*", "cli", "devnet"]),
        ("main", vec!["*", "cli", "devnet"]),
    ])
}

#[test]
fn rooms_know_only_whom_they_may_know() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = allowed();
    let mut wrong = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for file in sources(&source) {
        let inside = file.strip_prefix(&source).expect("below src");
        let room = inside
            .iter()
            .next()
            .and_then(|part| part.to_str())
            .expect("a name")
            .trim_end_matches(".rs")
            .to_owned();
        let Some(may) = allowed.get(room.as_str()) else {
            wrong.insert(format!("{}: the room `{room}` has no arrows; add it to this test and to docs/architecture.md", inside.display()));
            continue;
        };
        seen.insert(room.clone());
        for target in targets(&fs::read_to_string(&file).expect("readable")) {
            if !permits(may, &room, &target) {
                wrong.insert(format!("{}: `{room}` must not know `{target}`", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    assert!(seen.contains("model") && seen.contains("sdl"), "{seen:?}");
}

#[test]
fn only_one_room_knows_the_backoff_crate() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&source) {
        if file != source.join("retry.rs") && !file.starts_with(source.join("retry")) {
            let text = fs::read_to_string(&file).expect("readable");
            assert!(
                !code(&text).contains("backoff::"),
                "{}: repetition belongs in retry.rs",
                file.display()
            );
        }
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "
        // crate::comment::a is none
        use crate::{api::{types, status}, model::ids as names, plan};
        use crate::sdl::canonical::Manifest;
        pub(crate) fn f() -> crate::wire::X { akash_crate::no() } // crate::also::none
        use crate::store;
    ";
    let found: Vec<String> = targets(text).into_iter().collect();
    assert_eq!(
        found,
        ["api::status", "api::types", "model::ids", "plan", "sdl::canonical", "store", "wire::X"]
    );
}

fn permits(may: &[&str], room: &str, target: &str) -> bool {
    let head = target.split("::").next().unwrap_or(target);
    head == room
        || may.iter().any(|one| match *one {
            "*" => head != "cli" && head != "devnet",
            part if part.contains("::") => {
                target == part || target.starts_with(&format!("{part}::"))
            }
            whole => whole == head,
        })
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}

/// The source without line comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The first two names of every path that begins with `crate::`.
fn targets(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for (at, word) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            tree(&code[at + word.len()..], "", &mut found);
        }
    }
    found
}

/// Reads one branch of a `use` tree that is below `above`; what is left of the text.
fn tree<'a>(text: &'a str, above: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    let join =
        |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above}::{name}") };
    if let Some(mut rest) = text.strip_prefix('{') {
        while !rest.trim_start().is_empty() && !rest.trim_start().starts_with('}') {
            let next = tree(rest, above, found);
            let after = next.find([',', '}']).unwrap_or(next.len());
            rest = next[after..].strip_prefix(',').unwrap_or(&next[after..]);
        }
        return rest.trim_start().strip_prefix('}').unwrap_or("");
    }
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match rest.strip_prefix("::") {
        Some(deeper) if above.is_empty() => tree(deeper, &join(name), found),
        _ => {
            found.insert(join(name));
            rest
        }
    }
}
