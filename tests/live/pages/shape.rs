//! Whether what a page shows is what is printed: the same lines, whatever names, numbers and times are
//! in them.

use regex::Regex;

/// A line without what is another in each run.
fn shape(line: &str) -> String {
    let rules = [
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"cache-\d-[a-z0-9]{4}(-[a-z0-9]{6}\b)?", "NODE"),
        (r"akash1[a-z0-9]+", "akash1"),
        (r"\b(us|eu|as)-[a-z]+", "REGION"),
        (r"/tmp/[^ =]*/?(market|akash-redis-devnet)", "PLACE"),
        (r"\d+(\.\d+)*", "N"),
        (r"\b(N[dhms])+\b", "SPAN"),
        (r"\s+", " "),
    ];
    rules.iter().fold(line.trim_end().to_owned(), |line, (from, to)| {
        Regex::new(from).unwrap().replace_all(&line, *to).into_owned()
    })
}

/// The shown lines that are not printed. Three dots stand for the rest of a line, or for lines.
pub fn missing(shown: &[String], said: &str) -> Vec<String> {
    let said: Vec<_> = said.lines().map(shape).collect();
    let there = |line: &&String| match line.split_once("...") {
        Some((begin, _)) => {
            begin.trim().is_empty() || said.iter().any(|it| it.starts_with(shape(begin).trim_end()))
        }
        None => said.contains(&shape(line)),
    };
    shown.iter().filter(|line| !there(line)).map(|line| shape(line)).collect()
}

#[test]
fn names_numbers_and_times_make_no_difference_and_words_do() {
    let shown = |text: &str| vec![text.to_owned()];
    let said = "cache  True   3/3    cache-1-iiyf  1      3.513452act  11s\nof late: 2act";
    assert!(missing(&shown("cache True 3/3 cache-0-abcd 12 4act 2m3s"), said).is_empty());
    assert!(missing(&shown("of late: ..."), said).is_empty());
    assert_eq!(missing(&shown("cache False 3/3 cache-0-abcd 12 4act 2m"), said).len(), 1);
}
