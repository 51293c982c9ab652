//! The snippets of the guide for clients are those of the programs that the tests run.

use std::fs;
use std::path::Path;

/// The lines between the marks, without what all of them are indented by.
fn snippet(source: &str) -> Option<String> {
    let lines: Vec<_> = source.lines().collect();
    let mark = |what: &str| lines.iter().position(|line| line.trim_end().ends_with(what));
    let inside = &lines[mark("guide: begin")? + 1..mark("guide: end")?];
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let least = inside.iter().filter(|line| !line.trim().is_empty()).map(indent).min()?;
    let shown = inside.iter().map(|line| line.get(least..).unwrap_or_default());
    Some(shown.fold(String::new(), |text, line| text + line + "\n"))
}

#[test]
fn the_guide_shows_what_the_clients_of_the_tests_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("docs/guide/clients.md")).expect("the guide");
    let built = fs::read_to_string(root.join("tests/clients/build.sh")).expect("the builder");
    let mut seen = 0;
    for client in fs::read_dir(root.join("tests/clients")).expect("the clients") {
        let dir = client.expect("an entry").path();
        if !dir.is_dir() {
            continue;
        }
        let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
        let files = ["app.mjs", "main.go", "src/main.rs", "app.py", "App.java"];
        let source = files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok());
        let shown = snippet(&source.expect("a program")).expect("a part for the guide");
        assert!(
            guide.contains(&shown),
            "docs/guide/clients.md does not show {name} as it is run:\n{shown}"
        );
        assert!(built.contains(&name), "tests/clients/build.sh does not build {name}");
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
}
