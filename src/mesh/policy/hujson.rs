//! JSON as people write it: with comments and trailing commas.

/// The same as plain JSON. Comments and trailing commas become spaces, so that lines and columns
/// stay what they are. What is no JSON otherwise stays so.
pub(super) fn plain(text: &str) -> String {
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    // Where the last comma is, while nothing but space follows it, and what stood before.
    let mut comma = None;
    let mut before = '[';
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('"', _) => {
                (comma, before) = (None, c);
                out.push(c);
                string(&mut rest, &mut out);
                continue;
            }
            ('/', Some('/')) => {
                out.push(' ');
                while let Some(c) = rest.next_if(|c| *c != '\n') {
                    out.push(blank(c));
                }
                continue;
            }
            ('/', Some('*')) => {
                out.push(' ');
                block_comment(&mut rest, &mut out);
                continue;
            }
            // A comma after no value is no trailing one.
            (',', _) => comma = Some(out.len()).filter(|_| !matches!(before, '[' | '{' | ',')),
            (']' | '}', _) => {
                if let Some(at) = comma.take() {
                    out[at] = ' ';
                }
            }
            (c, _) if c.is_whitespace() => {}
            _ => comma = None,
        }
        if !c.is_whitespace() {
            before = c;
        }
        out.push(c);
    }
    out.into_iter().collect()
}

/// The rest of a string, with its closing quote.
fn string(rest: &mut impl Iterator<Item = char>, out: &mut Vec<char>) {
    while let Some(c) = rest.next() {
        out.push(c);
        match c {
            '\\' => out.extend(rest.next()),
            '"' => return,
            _ => {}
        }
    }
}

/// The rest of a comment, from its star on.
fn block_comment(rest: &mut impl Iterator<Item = char>, out: &mut Vec<char>) {
    out.extend(rest.next().map(blank));
    let mut last = ' ';
    for c in rest {
        out.push(blank(c));
        if (last, c) == ('*', '/') {
            return;
        }
        last = c;
    }
}

fn blank(c: char) -> char {
    if c == '\n' { c } else { ' ' }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn comments_and_trailing_commas_go_and_all_else_stays_in_its_place() {
        for (text, value) in [
            ("// a\n{\"a\": 1, /* b, */ \"b\": [1, 2, ], // c\n}", json!({"a": 1, "b": [1, 2]})),
            ("{\"a\": [\"x\" , /* , ] */ ] , }", json!({"a": ["x"]})),
            ("[1,\n// a\n/* b */]", json!([1])),
            ("/**/[]/***/", json!([])),
            ("{\"http://a/*b*/,]\": \"\\\"// c\\\\\"}", json!({"http://a/*b*/,]": "\"// c\\"})),
            ("[]", json!([])),
        ] {
            let plain = plain(text);
            assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), value, "{text}");
            assert_eq!(plain.chars().count(), text.chars().count(), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_otherwise_stays_so() {
        for text in ["{,}", "[1,,]", "{\"a\"", "/* [", "\"a", "[1]/", ",", "{\"a\": 1}}"] {
            assert!(serde_json::from_str::<Value>(&plain(text)).is_err(), "{text}");
        }
    }
}
