//! Errors with their causes, as people and logs see them.

use std::error::Error;

/// The error and its causes, outermost first.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The error and its causes as one sentence, outermost first. A cause that stands in the sentence
/// already is not repeated: some libraries print their sources themselves.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).fold(String::new(), |chain, cause| {
        if chain.is_empty() {
            cause
        } else if chain.contains(&cause) {
            chain
        } else {
            format!("{chain}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (text, rest) = texts.split_first().expect("a text");
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer { text, source }
    }

    #[test]
    fn every_cause_is_told_once() {
        assert_eq!(error_chain(&layers(&["no file"])), "no file");
        assert_eq!(
            error_chain(&layers(&["cannot start", "cannot read a.yaml", "no such file"])),
            "cannot start: cannot read a.yaml: no such file"
        );
        assert_eq!(
            error_chain(&layers(&["cannot start (no such file)", "no such file"])),
            "cannot start (no such file)"
        );
    }
}
