//! YAML into [`RawConfig`], and errors in words that name the place.
//!
//! The parser's own texts are not shown for values: they quote what was typed, which may be a secret that
//! slipped into the wrong line. For the same reason its source snippets are off.

use std::path::Path;

use serde::Deserialize;
use serde_saphyr::{Error, UserMessageFormatter};

use super::raw::RawConfig;
use crate::nearest::did_you_mean;

/// Parses one file's text; the error is one line that begins with the file's name.
pub(super) fn parse(file: &Path, text: &str) -> Result<RawConfig, String> {
    let mut place = String::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let mut track = serde_path_to_error::Track::new();
        RawConfig::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track)).inspect_err(|_| {
            place = track.path().to_string();
        })
    });
    parsed.map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map(|location| format!(":{}", location.line())).unwrap_or_default();
        format!("{}{line}: {}", file.display(), in_words(error, &place))
    })
}

fn in_words(error: &Error, path: &str) -> String {
    // `Spanned` wraps each value in a field of its own; a question mark is a key that could not be read.
    let path = path.trim_end_matches(".value").trim_end_matches('?').trim_end_matches('.');
    let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            // The path ends with the unknown field itself.
            let section =
                path.rsplit_once('.').map(|(section, _)| format!(" in {section}")).unwrap_or_default();
            let guess = match did_you_mean(field, expected.iter().copied()) {
                guess if guess.is_empty() => format!("; those known are {}", expected.join(", ")),
                guess => guess,
            };
            format!("unknown field \"{field}\"{section}{guess}")
        }
        Error::Unexpected { expected: "mapping start", .. } => {
            format!("{at}expected fields, each on a line of its own as NAME: VALUE")
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            format!("{at}expected a list, each item on a line of its own after a dash")
        }
        Error::Unexpected { .. } | Error::NullIntoString { .. } => format!("{at}expected a single value"),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("{at}the field \"{key}\" is given twice")
        }
        Error::MultipleDocuments { .. } => "expected one YAML document; remove the line ---".to_owned(),
        other => {
            let words = other.render_with_formatter(&UserMessageFormatter);
            // The line stands at the front already.
            format!("{at}{}", words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words))
        }
    }
}
