//! A page of documentation: its sections, what they have a person type, and what they show of the
//! answers.

use std::fs;
use std::path::{Path, PathBuf};

/// Blocks of these languages are typed.
const TYPED: [&str; 2] = ["sh", "console"];
const PROGRAM: &str = "akash-redis ";

/// A command and what the page shows of what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub command: String,
    pub shown: Vec<String>,
}

/// A heading and the commands below it, in their order.
#[derive(Debug)]
pub struct Section {
    pub heading: String,
    pub lines: Vec<Line>,
}

/// The README and each page of the guide, by its name.
pub fn names() -> Vec<String> {
    let guide = fs::read_dir(root().join("docs/guide")).unwrap();
    let mut names: Vec<String> =
        guide.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.push("README.md".to_owned());
    names.sort_unstable();
    names
}

/// Sections of a page that have a person type something: in blocks, or, with `spans`, in the running
/// text as well.
pub fn sections(name: &str, spans: bool) -> Vec<Section> {
    let path = if name == "README.md" { name.to_owned() } else { format!("docs/guide/{name}") };
    let text = fs::read_to_string(root().join(path)).unwrap();
    let mut sections = vec![Section { heading: String::new(), lines: Vec::new() }];
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        let last = sections.last_mut().unwrap();
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            let block: Vec<&str> =
                rest.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
            match fence.trim() {
                language if !TYPED.contains(&language) => {}
                "console" => last.lines.extend(transcript(&block)),
                _ => last.lines.extend(script(&block)),
            }
        } else if line.starts_with("##") {
            let heading = line.trim_start_matches('#').trim().to_owned();
            sections.push(Section { heading, lines: Vec::new() });
        } else if spans {
            let calls = line.split('`').skip(1).step_by(2).filter(|span| span.starts_with(PROGRAM));
            last.lines.extend(calls.map(|call| said(call, Vec::new())));
        }
    }
    sections.retain(|section| !section.lines.is_empty());
    sections
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn said(command: &str, shown: Vec<String>) -> Line {
    let command = command.split(" #").next().unwrap().trim().to_owned();
    Line { command, shown }
}

/// `$ ` before what is typed, the rest is printed.
fn transcript(block: &[&str]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for text in block {
        match (text.strip_prefix("$ "), lines.last_mut()) {
            (Some(command), _) => lines.push(said(command, Vec::new())),
            (None, Some(line)) => line.shown.push((*text).to_owned()),
            (None, None) => panic!("a block begins with a command: {text}"),
        }
    }
    lines
}

/// All of it is typed. A line may go on after a backslash, or have a file follow to `EOF`.
fn script(block: &[&str]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = block.iter();
    while let Some(text) = rest.next() {
        let mut command = (*text).to_owned();
        while command.ends_with('\\') {
            command = format!("{command}\n{}", rest.next().expect("a line that goes on"));
        }
        if command.contains("<<") {
            for text in rest.by_ref() {
                command = format!("{command}\n{text}");
                if *text == "EOF" {
                    break;
                }
            }
            lines.push(Line { command, shown: Vec::new() });
        } else {
            lines.push(said(&command, Vec::new()));
        }
    }
    lines
}

#[test]
fn what_a_person_types_is_told_from_what_is_shown() {
    let block = ["a --b \\", "  c   # why", "cat > f <<'EOF'", "x: 1 # stays", "EOF", "d"];
    let commands: Vec<_> = script(&block).into_iter().map(|line| line.command).collect();
    assert_eq!(commands, ["a --b \\\n  c", "cat > f <<'EOF'\nx: 1 # stays\nEOF", "d"]);
    let lines = transcript(&["$ get", "NAME", "...", "$ set"]);
    assert_eq!(lines[0].shown, ["NAME", "..."]);
    assert_eq!(lines[1], said("set", Vec::new()));
}
