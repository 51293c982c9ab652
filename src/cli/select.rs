//! `-l`: objects by their labels, as kubectl selects them.

use std::collections::BTreeMap;
use std::str::FromStr;

/// All of these hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    Lacks(String),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let terms = text.split(',').map(str::trim).map(term);
        terms.collect::<Result<_, _>>().map(Self)
    }
}

fn term(text: &str) -> Result<Term, String> {
    let word = |text: &str| {
        let text = text.trim();
        let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if text.chars().all(good) { Ok(text.to_owned()) } else { Err(unknown(text)) }
    };
    let key = |text: &str| {
        word(text).and_then(|key| if key.is_empty() { Err(unknown(text)) } else { Ok(key) })
    };
    if let Some((label, value)) = text.split_once("!=") {
        return Ok(Term::IsNot(key(label)?, word(value)?));
    }
    if let Some((label, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Term::Is(key(label)?, word(value)?));
    }
    match text.strip_prefix('!') {
        Some(label) => Ok(Term::Lacks(key(label)?)),
        None => Ok(Term::Has(key(text)?)),
    }
}

fn unknown(text: &str) -> String {
    format!(
        "{text:?} is no selector; write label=value, label!=value, label or !label, with commas between"
    )
}

impl Selector {
    /// Whether an object with these labels is meant.
    pub(super) fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::Is(label, value) => labels.get(label) == Some(value),
            Term::IsNot(label, value) => labels.get(label) != Some(value),
            Term::Has(label) => labels.contains_key(label),
            Term::Lacks(label) => !labels.contains_key(label),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_selected_as_kubectl_does() {
        let labels = BTreeMap::from([
            ("team".to_owned(), "a".to_owned()),
            ("tier".to_owned(), String::new()),
        ]);
        for (text, takes) in [
            ("team=a", true),
            ("team==a", true),
            ("team=b", false),
            ("team!=b", true),
            ("other!=b", true),
            ("tier", true),
            ("!tier", false),
            ("!other,team=a", true),
            ("team=a,tier=x", false),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().takes(&labels), takes, "{text}");
        }
        for text in ["", "a=b,", "=b", "a in (b)", "!"] {
            assert!(text.parse::<Selector>().unwrap_err().contains("is no selector"), "{text}");
        }
    }
}
