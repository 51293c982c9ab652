//! What the documentation names exists: files, headings, commands, flags, settings, words of a
//! status; and each reason for trouble has a runbook.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use akash_redis::api::conditions::{ConditionType, Phase, Reason};
use akash_redis::api::events::EventReason;
use akash_redis::cli::Cli;
use akash_redis::model::mesh::BackendState;
use clap::CommandFactory as _;
use strum::IntoEnumIterator;

/// Names in the documentation that look like words of a status.
const OTHER_WORDS: [&str; 2] = ["RedisCluster", "NVMe"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<_> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    files(&root().join("docs"), "md", &mut paths);
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).expect("a page")))
        .collect()
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
}

/// The lines of fenced blocks, or those outside of them.
fn lines(text: &str, fenced: bool) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            return false;
        }
        inside == fenced
    })
}

/// What is set as code: fenced lines, and spans in backticks.
fn code(text: &str) -> Vec<&str> {
    let spans = lines(text, false).flat_map(|line| line.split('`').skip(1).step_by(2));
    lines(text, true).chain(spans).collect()
}

/// Headings as links name them.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let headings = lines(text, false).filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(slug).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for line in lines(&text, false) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let (path, anchor) = target
                    .split_once('#')
                    .map_or((target, None), |(path, anchor)| (path, Some(anchor)));
                let file = if path.is_empty() {
                    page.clone()
                } else {
                    page.parent().expect("a directory").join(path)
                };
                let heading = |anchor: &str| {
                    fs::read_to_string(&file).is_ok_and(|text| anchors(&text).contains(anchor))
                };
                if !file.exists() || anchor.is_some_and(|anchor| !heading(anchor)) {
                    wrong.push(format!("{}: {target}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
}

/// The first thing that is wrong with a call of the program, as far as a page shows it.
fn judge(call: &str) -> Result<(), String> {
    let mut command = Cli::command();
    command.build();
    let mut command = &command;
    let end = call.find(['`', '|', '#', ';', '>', '\\', '&']).unwrap_or(call.len());
    let mut words = call[..end].split_whitespace();
    while let Some(word) = words.next() {
        if word == "--" {
            // What follows is another program's.
            return Ok(());
        }
        if let Some(flag) = word.strip_prefix("--") {
            let name = flag.split(['=', ',', ':', ')', ']']).next().unwrap_or(flag);
            let known = command.get_arguments().find(|a| a.get_long() == Some(name));
            if known.is_none() && name != "help" {
                return Err(format!("`{}` has no flag --{name}", command.get_name()));
            }
            // Its value is no command.
            if known.is_some_and(|a| a.get_action().takes_values()) && !flag.contains('=') {
                words.next();
            }
        } else if command.has_subcommands() {
            command = match command.find_subcommand(word) {
                Some(found) => found,
                // The name of something, where that may stand in place of a command.
                None if command.get_positionals().next().is_some() => continue,
                None => return Err(format!("there is no command `{word}`")),
            };
            if command.get_name() == "exec" {
                // What follows is another program's.
                return Ok(());
            }
        }
    }
    Ok(())
}

#[test]
fn commands_and_flags_exist() {
    const PROGRAM: &str = "akash-redis ";
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (page, text) in pages() {
        // Of what Helm is told it is the name of a release and of a chart.
        for code in code(&text)
            .into_iter()
            .filter(|code| !code.trim_start_matches("$ ").starts_with("helm "))
        {
            for (at, _) in code.match_indices(PROGRAM) {
                let call = &code[at + PROGRAM.len()..];
                // A call inside of another's arguments is looked at by itself.
                let call = call.split(PROGRAM).next().unwrap_or(call);
                // Not the words for arguments alone, and not a sentence about the program.
                if call.starts_with(|c: char| c.is_ascii_lowercase() || c == '-') {
                    seen += 1;
                    wrong.extend(
                        judge(call).err().map(|why| format!("{}: {code}: {why}", page.display())),
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} calls were found: this test looks for them in the wrong way");
}

/// Calls of the program in what it says itself, with a value in place of each name.
fn said_calls(source: &str) -> Vec<(char, String)> {
    const PROGRAM: &str = "akash-redis ";
    let mut calls = Vec::new();
    let code = source.split("#[cfg(test)]").next().unwrap_or(source);
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for quote in ['`', '"'] {
            let begin = format!("{quote}{PROGRAM}");
            for (at, _) in line.match_indices(&begin) {
                let call = &line[at + begin.len()..];
                // One that goes on in the next line, or a sentence about the program.
                let Some(end) = call.find(['`', '"']) else { continue };
                let call = &call[..end];
                // A word alone is the name of a command; what is to be typed has arguments.
                if call.starts_with(|c: char| c.is_ascii_lowercase()) && call.contains(' ') {
                    calls.push((quote, filled(call)));
                }
            }
        }
    }
    calls
}

/// `close {name} DSEQ` with `1` for each: a good name, node, number and deployment.
fn filled(call: &str) -> String {
    let (mut text, mut depth) = (String::new(), 0);
    for c in call.chars() {
        match c {
            '{' => {
                depth += 1;
                text.push('1');
            }
            '}' => depth -= 1,
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    let upper = |word: &str| word.chars().all(|c| c.is_ascii_uppercase());
    let words = text.split_whitespace().map(|word| if upper(word) { "1" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_the_program_tells_people_to_type_can_be_typed() {
    use clap::Parser as _;
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in sources.iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = fs::read_to_string(path).expect("a source");
        let texts_of_the_planner = path.components().any(|c| c.as_os_str() == "plan");
        for (quote, call) in said_calls(&text) {
            if quote == '"' && !texts_of_the_planner {
                continue;
            }
            let words = ["akash-redis"].into_iter().chain(call.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                let error = error.to_string();
                let first = error.lines().next().unwrap_or_default();
                wrong.push(format!("{}: {call}: {first}", path.display()));
            }
            seen.insert(call);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for must in ["failover 1 --accept-loss", "close 1 1", "resume 1", "rejoin 1 1"] {
        assert!(seen.contains(must), "{must} is not found among {seen:?}");
    }
}

/// The lines of blocks of these languages, those that go on in the next one as one.
fn typed<'a>(text: &'a str, languages: &[&str]) -> Vec<&'a str> {
    let mut language = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            language = if language.is_some() { None } else { Some(fence.trim()) };
        } else if language.is_some_and(|language| languages.contains(&language)) {
            found.push(line.trim());
        }
    }
    found
}

/// The arguments of the program in a line, with a call inside of `devnet exec` by itself; nothing
/// when it is another program's line.
fn arguments(line: &str) -> Vec<Vec<&str>> {
    let end = [" #", " |", " >", " <", " &"].iter().filter_map(|end| line.find(end)).min();
    let mut words = line[..end.unwrap_or(line.len())].split_whitespace().peekable();
    while words.peek().is_some_and(|word| word.contains('=') && !word.starts_with('-')) {
        words.next();
    }
    let words: Vec<&str> = words.collect();
    let calls = words.split(|word| *word == "akash-redis").skip(1);
    if words.first() == Some(&"akash-redis") {
        calls.map(<[&str]>::to_vec).collect()
    } else {
        Vec::new()
    }
}

#[test]
fn every_command_that_a_page_shows_is_taken_whole() {
    use clap::Parser as _;
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in pages() {
        let typed_lines = typed(&text, &["sh"]).into_iter();
        let prompts = typed(&text, &["console"]).into_iter().filter_map(|l| l.strip_prefix("$ "));
        for line in typed_lines.chain(prompts) {
            for call in arguments(line) {
                let call =
                    if call == ["devnet", "exec"] { vec!["devnet", "exec", "x"] } else { call };
                let words = ["akash-redis"].into_iter().chain(call.iter().copied());
                if let Err(error) = Cli::try_parse_from(words) {
                    let error = error.to_string();
                    let first = error.lines().next().unwrap_or_default().to_owned();
                    wrong.push(format!("{}: {line}: {first}", page.display()));
                }
                seen += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} calls were found: this test looks for them in the wrong way");
}

#[test]
fn every_manifest_that_a_page_shows_is_a_good_one() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (page, text) in pages() {
        let yaml = typed_blocks(&text, "yaml");
        for block in yaml.iter().filter(|block| block.starts_with("apiVersion: akash-redis.dev")) {
            seen += 1;
            if let Err(problems) = akash_redis::api::validate::parse(block) {
                wrong.push(format!("{}: {problems:?}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 0);
}

/// Whole blocks of one language.
fn typed_blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_guide_makes_each_file_before_it_asks_for_it() {
    const PLACE: &str = "/etc/akash-redis/";
    let page = fs::read_to_string(root().join("docs/guide/install.md")).expect("the page");
    let mut made = BTreeSet::new();
    let mut place = false;
    for line in typed(&page, &["sh", "console"]) {
        place |= line.starts_with("install -d") && line.contains("/etc/akash-redis");
        for (at, _) in line.match_indices(PLACE) {
            let end = |c: char| c.is_whitespace() || c == ')';
            let file = line[at + PLACE.len()..].split(end).next().unwrap_or_default();
            if line[..at].trim_end().ends_with('>') {
                assert!(place, "the directory is not there yet: {line}");
                made.insert(file);
            } else {
                assert!(made.contains(file), "{file} is not there yet: {line}");
            }
        }
    }
    for file in ["mnemonic", "oauth.secret", "root.secret", "tailscale.key"] {
        assert!(made.contains(file), "{file} is never made");
    }
}

#[test]
fn every_setting_is_documented_with_its_variable() {
    let source =
        fs::read_to_string(root().join("src/config/fields.rs")).expect("the list of settings");
    let list = source
        .split("FIELDS: &[&str] = &[")
        .nth(1)
        .and_then(|rest| rest.split("];").next())
        .expect("the list");
    let page = fs::read_to_string(root().join("docs/reference/settings.md")).expect("the page");
    let mut count = 0;
    for field in list.split('"').skip(1).step_by(2) {
        let snake: String = field
            .chars()
            .flat_map(|c| c.is_ascii_uppercase().then_some('_').into_iter().chain([c]))
            .collect();
        let variable = snake.replace('.', "_").to_uppercase();
        let row = format!("| `{field}` | `AKASH_REDIS_{variable}` |");
        assert!(page.contains(&row), "docs/reference/settings.md lacks a row that begins {row}");
        count += 1;
    }
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches('|').count() == 5)
        .count();
    assert_eq!(
        rows, count,
        "docs/reference/settings.md has a row for a setting that does not exist"
    );
}

#[test]
fn every_reason_for_trouble_has_a_runbook() {
    let index = fs::read_to_string(root().join("docs/runbooks/README.md")).expect("the index");
    let rows: Vec<&str> = index.lines().filter(|line| line.starts_with("| `")).collect();
    for reason in Reason::iter() {
        let word = format!("`{reason}`");
        let listed = rows.iter().filter(|row| row.split('|').nth(1).unwrap().contains(&word));
        let wanted = usize::from(!reason.is_normal());
        assert_eq!(listed.count(), wanted, "rows of docs/runbooks/README.md that name {word}");
    }
}

#[test]
fn reasons_and_phases_in_the_documentation_exist() {
    let known: BTreeSet<String> = words::<ConditionType>()
        .chain(words::<Reason>())
        .chain(words::<Phase>())
        .chain(words::<EventReason>())
        .chain(words::<BackendState>())
        .collect();
    let is_word = |code: &str| {
        // Two capitals or more, as `MasterLost`: what else looks like it is listed.
        code.starts_with(|c: char| c.is_ascii_uppercase())
            && code.chars().all(|c| c.is_ascii_alphabetic())
            && code.chars().filter(char::is_ascii_uppercase).count() > 1
            && code.chars().any(|c| c.is_ascii_lowercase())
    };
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        // Decisions and the change log speak of the words of their time.
        if page.ends_with("CHANGELOG.md") || page.components().any(|c| c.as_os_str() == "decisions")
        {
            continue;
        }
        let spans = lines(&text, false).flat_map(|line| line.split('`').skip(1).step_by(2));
        for word in spans.flat_map(|span| span.split([' ', ',', ':'])).filter(|w| is_word(w)) {
            if !known.contains(word) && !OTHER_WORDS.contains(&word) {
                wrong.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "no status has these words:\n{}", wrong.join("\n"));
}

fn words<T: IntoEnumIterator + ToString>() -> impl Iterator<Item = String> {
    T::iter().map(|word| word.to_string())
}

#[test]
fn every_claim_about_the_article_has_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/article.md")).expect("the page");
    let named: BTreeSet<(&str, &str)> = lines(&page, false)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|code| {
            code.split_once("::").filter(|(module, test)| !module.contains(' ') && !test.is_empty())
        })
        .collect();
    for (module, test) in &named {
        let source =
            fs::read_to_string(root().join(format!("tests/live/{module}.rs"))).unwrap_or_default();
        assert!(
            source.contains(&format!("#[test]\nfn {test}()")),
            "docs/article.md names {module}::{test}, which is no test"
        );
    }
    let source =
        fs::read_to_string(root().join("tests/live/article.rs")).expect("the tests of the article");
    assert_eq!(
        named.iter().filter(|(module, _)| *module == "article").count(),
        source.matches("#[test]").count(),
        "each is named"
    );
    let rows = lines(&page, false).filter(|line| {
        line.starts_with("| ") && !line.starts_with("| ---") && !line.ends_with("| test |")
    });
    for row in rows {
        assert!(row.contains("::"), "a claim without a test: {row}");
    }
}
