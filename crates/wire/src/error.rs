//! Why a body cannot be read, in words for the operator who finds it in the dead-letter queue.

/// Why the body of a message cannot be read. The texts name the field, and show at most 80 characters
/// of the body: no control characters, and nothing from the first token on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is not JSON, is cut off, or names a field twice.
    #[error("reading a message as JSON: {reason}; it begins with `{begins}`; send events unchanged")]
    NotJson {
        /// What is wrong, with line and column.
        reason: String,
        /// How the body begins.
        begins: String,
    },
    /// The body is JSON, but not an object.
    #[error("reading a message: it is {found}, not an object; send events unchanged")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// The body is an object that none of the known senders makes.
    #[error(
        "reading a message: neither an event of EventBridge, a lifecycle hook nor an SNS notification; it \
         begins with `{begins}`; see that only rules, hooks and topics send to this queue"
    )]
    UnknownSender {
        /// How the body begins.
        begins: String,
    },
    /// A field without which the notice would have to guess.
    #[error("reading {event}: `{field}` is missing; send the event whole, without an input transformer")]
    Missing {
        /// The event, in words.
        event: &'static str,
        /// The field's path.
        field: String,
    },
    /// A field that holds something else than it should.
    #[error("reading {event}: `{field}` should be {expected} and is {found}")]
    Unreadable {
        /// The event, in words.
        event: &'static str,
        /// The field's path.
        field: String,
        /// What is expected there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// SNS wants something of the queue's owner.
    #[error(
        "reading an SNS message of type `{kind}`: it carries no event; a topic whose subscription has to be \
         confirmed waits for a visit of the SubscribeURL inside the message"
    )]
    NotANotification {
        /// The type that SNS gives.
        kind: String,
    },
    /// SNS notifications inside one another.
    #[error("reading a message: more than {most} SNS envelopes; subscribe the queue to the first topic")]
    TooManySnsEnvelopes {
        /// How many are opened.
        most: usize,
    },
    /// The same, one SNS envelope further inside.
    #[error("in the Message of an SNS notification: {0}")]
    InSnsMessage(Box<ParseError>),
}

/// Fits into one line of a log, and is enough to recognise a message by.
const EXCERPT_CHARS: usize = 80;

/// Every secret in a body follows a name that ends like this: `LifecycleActionToken`, and the `Token`
/// of a subscription that waits for its confirmation.
const SECRET_FOLLOWS: &str = "Token";

/// How `text` begins: at most 80 characters, after escaping what is not printable, and nothing from the
/// first token on.
pub(crate) fn excerpt(text: &str) -> String {
    let end = text.char_indices().nth(EXCERPT_CHARS).map_or(text.len(), |(at, _)| at);
    let window = text.get(..end).unwrap_or_default();
    let shown = window.split(SECRET_FOLLOWS).next().unwrap_or_default();
    let mut out = String::new();
    let mut cut = shown.len() < text.len();
    let mut chars = 0;
    for c in shown.chars() {
        let piece: String = match c {
            '"' | '\'' | '\\' => c.to_string(),
            _ => c.escape_debug().collect(),
        };
        chars += piece.chars().count();
        if chars > EXCERPT_CHARS {
            cut = true;
            break;
        }
        out.push_str(&piece);
    }
    if cut {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_printable_and_without_tokens() {
        let check = |text: &str, expect: &str| assert_eq!(excerpt(text), expect);
        check("", "");
        check(r#"{"a":'b\c'}"#, r#"{"a":'b\c'}"#);
        check("a\0b\nc\x1b[31m\u{202e}", r"a\0b\nc\u{1b}[31m\u{202e}");
        check(&"x".repeat(80), &"x".repeat(80));
        check(&"ü".repeat(81), &format!("{}…", "ü".repeat(80)));
        check(&"\0".repeat(80), &format!("{}…", r"\0".repeat(40)));
        check(r#"{"LifecycleActionToken":"3af51d82"}"#, r#"{"LifecycleAction…"#);
        check(r#"{\"LifecycleActionToken\":\"3af51d82"#, r#"{\"LifecycleAction…"#);
        check(r#"{"Token":"3af51d82"}"#, r#"{"…"#);
    }
}
