//! Texts from outside: a node, a provider or a control server may send as much as it likes, and
//! nobody here keeps more than fits.

/// The text, at most `most` bytes of it: what is cut ends in an ellipsis. Never cut within a
/// character.
#[must_use]
pub fn clipped(text: String, most: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= most {
        return text;
    }
    let kept = text.floor_char_boundary(most.saturating_sub(MARK.len()));
    // A new one: a piece of a text of megabytes must not keep all of it in memory.
    let mut short = String::with_capacity(kept + MARK.len());
    short.push_str(&text[..kept]);
    short.push_str(MARK);
    short
}

/// At most `count` texts of at most `most` bytes each.
#[must_use]
pub fn few(texts: Vec<String>, count: usize, most: usize) -> Vec<String> {
    texts.into_iter().take(count).map(|text| clipped(text, most)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_between_characters() {
        assert_eq!(clipped("ärger".into(), 6), "ärger");
        assert_eq!(clipped("ärger".into(), 5), "ä…");
        assert_eq!(clipped("ääää".into(), 6), "ä…");
        assert_eq!(few(vec!["x".repeat(9); 3], 2, 5), ["xx…", "xx…"]);
    }
}
