//! Every recorded answer of the control API is used by a test.

/// Where they are.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/headscale");

const TESTS: [&str; 4] = [
    include_str!("../mesh.rs"),
    include_str!("limits.rs"),
    include_str!("outside.rs"),
    include_str!("policy.rs"),
];

#[test]
fn no_recorded_answer_is_left_out() {
    let files = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> =
        files.filter_map(|file| Some(file.strip_suffix(".json")?.to_owned())).collect();
    let recorded: Vec<&String> = names.iter().filter(|name| name.starts_with("head-v2-")).collect();
    assert!(!recorded.is_empty(), "{FOLDER} holds none");
    let left: Vec<_> = recorded
        .into_iter()
        .filter(|name| !TESTS.iter().any(|test| test.contains(&format!("\"{name}\""))))
        .collect();
    assert!(left.is_empty(), "no test uses {left:?}");
}
