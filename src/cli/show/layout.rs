//! Tables and text of a width.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::clean;

/// A table without borders; an empty cell is a dash.
pub fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    rendered(header, rows, None)
}

/// The same, no wider than `width`: cells that are too long go on in the next line.
pub(super) fn columns_within(header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    rendered(header, rows.iter().cloned(), Some(width))
}

/// A table whose last column is a sentence. Where one of them is too long for `width`, each stands
/// below its line.
pub(super) fn columns_with_text(header: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let whole = columns(header, rows.iter().cloned());
    if longest(&whole) <= width {
        return whole;
    }
    let Some((_, header)) = header.split_last() else { return whole };
    let short: Vec<_> =
        rows.iter().map(|row| row[..header.len().min(row.len())].to_vec()).collect();
    let table = columns_within(header, &short, width);
    if table.lines().count() != rows.len() + 1 {
        // A cell goes on in the next line, and what belongs to what would not be seen.
        let all: Vec<_> = header.iter().copied().chain(["MESSAGE"]).collect();
        return columns_within(&all, rows, width);
    }
    let mut lines = table.lines();
    let mut text = lines.next().map(|line| format!("{line}\n")).unwrap_or_default();
    for (line, row) in lines.zip(rows) {
        let _ = writeln!(text, "{line}");
        if let Some(sentence) = row.last().filter(|sentence| !sentence.is_empty()) {
            text.push_str(&wrapped(&format!("    {}", clean(sentence)), width, 4));
        }
    }
    text
}

fn rendered(
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    width: Option<usize>,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        table.add_row(
            row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(&cell) }),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(width) = width {
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

/// A headline and an indented block; nothing when the block is empty.
pub(super) fn section(text: &mut String, title: &str, block: &str) {
    if block.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for line in block.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

/// One line as several of at most `width`, those after the first indented by `hang`. A word that is
/// longer than that is cut.
#[must_use]
pub fn wrapped(line: &str, width: usize, hang: usize) -> String {
    let (mut lines, mut now, mut length) = (Vec::new(), String::new(), 0);
    // Whether a word stands in the present line, and how many blanks do before the next one.
    let (mut has_word, mut blanks) = (false, 0);
    for (at, word) in line.split(' ').enumerate() {
        blanks += usize::from(at > 0);
        if word.is_empty() {
            continue;
        }
        let mut word: Vec<char> = word.chars().collect();
        if has_word && length + blanks + word.len() > width {
            lines.push(std::mem::replace(&mut now, " ".repeat(hang)));
            length = hang;
        } else {
            now.extend(std::iter::repeat_n(' ', blanks));
            length += blanks;
        }
        blanks = 0;
        while length + word.len() > width && width > hang {
            let rest = word.split_off(width.saturating_sub(length));
            now.extend(word);
            lines.push(std::mem::replace(&mut now, " ".repeat(hang)));
            (length, word) = (hang, rest);
        }
        length += word.len();
        now.extend(word);
        has_word = true;
    }
    lines.push(now);
    lines.into_iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// Columns of the longest line.
pub(super) fn longest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_wrapped_between_words_and_a_long_word_is_cut() {
        assert_eq!(wrapped("one two three", 20, 2), "one two three\n");
        assert_eq!(wrapped("one two three", 8, 2), "one two\n  three\n");
        assert_eq!(wrapped("  a abcdefghij", 8, 4), "  a\n    abcd\n    efgh\n    ij\n");
        assert_eq!(
            wrapped("Name:    cache and more", 15, 9),
            "Name:    cache\n         and\n         more\n"
        );
        assert_eq!(wrapped("", 8, 2), "\n");
        let line = "what is told here is told whole, once: 0123456789012";
        for width in 5..40 {
            let text = wrapped(line, width, 4);
            assert!(longest(&text) <= width, "{width}: {text}");
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
            assert_eq!(letters(&text), letters(line), "{width}: {text}");
        }
    }

    #[test]
    fn sentences_that_do_not_fit_stand_below_their_lines() {
        let rows = [
            vec!["Ready".to_owned(), "all well".to_owned()],
            vec!["Funded".into(), "x ".repeat(20)],
        ];
        let header = ["TYPE", "MESSAGE"];
        let wide = columns_with_text(&header, &rows, 80);
        assert!(wide.starts_with("TYPE    MESSAGE\nReady   all well\n"), "{wide}");
        let narrow = columns_with_text(&header, &rows, 30);
        assert!(narrow.starts_with("TYPE\nReady\n    all well\nFunded\n    x x"), "{narrow}");
        assert!(longest(&narrow) <= 30, "{narrow}");
    }
}
