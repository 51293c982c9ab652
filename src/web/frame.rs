//! What every page has around it, and the small parts that pages share.

use maud::{DOCTYPE, Markup, html};

use crate::api::conditions::ConditionStatus;
use crate::api::status::Waiting;
use crate::model::time::UnixMs;

/// A whole page. `main` is what changes: the script replaces it and nothing else.
pub(super) fn page(title: &str, now: UnixMs, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Whoever runs no script is up to date all the same.
                noscript { meta http-equiv="refresh" content="10"; }
                title { (title) " - akash-redis" }
                link rel="icon" href="/icon.svg";
                link rel="stylesheet" href="/style.css";
                script src="/live.js" defer {}
            }
            body {
                header {
                    nav aria-label="Pages" { a href="/" { "akash-redis" } }
                    p #live role="status" {}
                }
                main {
                    (main)
                    p.note { "As of " (time(&now.to_string())) "." }
                }
            }
        }
    }
}

/// A page with one sentence.
pub(super) fn sentence(title: &str, text: &str) -> Markup {
    page(title, UnixMs::now(), &html! { h1 { (title) } p { (text) } })
}

/// A moment that programs can read too.
pub(super) fn time(at: &str) -> Markup {
    html! { time datetime=(at) { (at) } }
}

/// A value, or a dash that is read as what it means.
pub(super) fn or_dash(text: Option<&str>) -> Markup {
    let text = text.filter(|text| !text.is_empty());
    html! { @if let Some(text) = text { (text) } @else { span title="not known" { "-" } } }
}

/// A wide table: it scrolls by itself where there is no room, by keys too.
pub(super) fn table(label: &str, header: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" {
            table {
                thead { tr { @for name in header { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr { @for cell in row { td { (cell) } } }
                    }
                }
            }
        }
    }
}

/// A word in a colour; the word says it without.
pub(super) fn badge(word: &str, mood: Mood) -> Markup {
    html! { span class={ "badge " (mood.class()) } { (word) } }
}

/// How something is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Plain,
}

impl Mood {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }

    /// By a condition that should be `good`.
    pub(super) fn of(status: ConditionStatus, good: ConditionStatus) -> Self {
        match status {
            ConditionStatus::Unknown => Self::Plain,
            status if status == good => Self::Good,
            _ => Self::Bad,
        }
    }
}

/// What is waited for, until when, and what happens then.
pub(super) fn waits(waiting: &[Waiting]) -> Markup {
    html! {
        @if waiting.is_empty() {
            p { "Nothing." }
        } @else {
            ul {
                @for wait in waiting {
                    li {
                        (wait.what)
                        @if let Some(deadline) = &wait.deadline { ", until " (time(deadline)) }
                        @else { ", no deadline" }
                        "; then: " (wait.then)
                    }
                }
            }
        }
    }
}
