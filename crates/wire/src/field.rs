//! Single fields, checked. Every error names the event and the field.

use offramp_core::{AccountId, InstanceId, Region, Timestamp};

use crate::error::ParseError;
use crate::json::Text;

/// Which object fields are read from, for the error texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The event, in words.
    pub(crate) event: &'static str,
    /// What stands before a field's name: nothing, or `detail.`.
    pub(crate) path: &'static str,
}

/// Auto Scaling's own limit for the names of groups and hooks. It bounds what a hostile message can
/// make us keep in memory, write into a node's record and print.
const NAME_CHARS: usize = 255;

impl Place {
    /// An event of EventBridge or a bare hook, its outermost object.
    pub(crate) const fn of(event: &'static str) -> Self {
        Self { event, path: "" }
    }

    /// The event's `detail`.
    pub(crate) const fn detail(self) -> Self {
        Self { event: self.event, path: "detail." }
    }

    /// A name or id that has to be there.
    pub(crate) fn name<'t>(self, field: &str, text: &'t Text<'_>) -> Result<&'t str, ParseError> {
        self.checked(field, text, "a text of 1 to 255 characters without control characters", |name| {
            is_name(name).then_some(name)
        })
    }

    /// An instance id that has to be there.
    pub(crate) fn instance(self, field: &str, text: &Text<'_>) -> Result<InstanceId, ParseError> {
        self.checked(field, text, "an instance id (i- and 8 to 17 hexadecimal digits)", InstanceId::parse)
    }

    /// A time that has to be there: deadlines count from it, so it cannot be guessed.
    pub(crate) fn time(self, field: &str, text: &Text<'_>) -> Result<Timestamp, ParseError> {
        self.checked(field, text, "a time as in 2026-03-14T09:26:53Z, with or without milliseconds", |time| {
            time.parse().ok().map(|time: jiff::Timestamp| Timestamp::from_millis(time.as_millisecond()))
        })
    }

    /// An account, if it is named. A wrong one is no better than a wrong address.
    pub(crate) fn account(self, field: &str, text: &Text<'_>) -> Result<Option<AccountId>, ParseError> {
        self.optional(field, text, "an account of twelve digits", |account| {
            is_account(account).then(|| account.into())
        })
    }

    /// A Region, if it is named. It becomes a part of host names that signed calls go to, so nothing
    /// but a Region's own characters is let through.
    pub(crate) fn region(self, field: &str, text: &Text<'_>) -> Result<Option<Region>, ParseError> {
        self.optional(field, text, "a Region as in eu-west-1", |region| {
            is_region(region).then(|| region.into())
        })
    }

    /// The error for a field that holds something else than it should, or nothing at all.
    pub(crate) fn unreadable(self, field: &str, expected: &'static str, text: &Text<'_>) -> ParseError {
        let Self { event, path } = self;
        let field = format!("{path}{field}");
        match text {
            Text::Absent => ParseError::Missing { event, field },
            Text::Is(_) | Text::Not(_) => {
                ParseError::Unreadable { event, field, expected, found: text.found() }
            }
        }
    }

    fn checked<'t, T>(
        self,
        field: &str,
        text: &'t Text<'_>,
        expected: &'static str,
        read: impl FnOnce(&'t str) -> Option<T>,
    ) -> Result<T, ParseError> {
        text.get().and_then(read).ok_or_else(|| self.unreadable(field, expected, text))
    }

    fn optional<T>(
        self,
        field: &str,
        text: &Text<'_>,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ParseError> {
        if text.is_there() { self.checked(field, text, expected, read).map(Some) } else { Ok(None) }
    }
}

/// Whether a text can be an AWS account.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a text can be an AWS Region: with its own characters alone, so that it cannot name another host.
pub fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Whether a text can be a name of anything: not empty, not endless, printable.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().nth(NAME_CHARS).is_none() && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> Text<'_> {
        Text::Is(content.into())
    }

    #[test]
    fn times_have_seconds_or_milliseconds_and_an_offset() {
        let check = |content: &str, expect: Option<i64>| {
            let read = Place::of("an event").time("time", &text(content));
            assert_eq!(read.ok().map(Timestamp::as_millis), expect, "{content}");
        };
        check("2026-03-14T09:26:53Z", Some(1_773_480_413_000));
        check("2026-03-14T09:26:53.214Z", Some(1_773_480_413_214));
        check("2026-03-14T10:26:53.2145678+01:00", Some(1_773_480_413_214));
        check("1969-12-31T23:59:59Z", Some(-1000));
        check("2026-03-14T09:26:53", None);
        check("2026-03-14", None);
        check("Sat, 14 Mar 2026 09:26:53 GMT", None);
        check("1773480413", None);
        check("99999999999-01-01T00:00:00Z", None);
        check("", None);
    }

    #[test]
    fn a_region_cannot_name_another_host() {
        let check = |content: &str, good: bool| {
            let read = Place::of("an event").region("region", &text(content));
            assert_eq!(read.is_ok(), good, "{content}");
        };
        check("eu-west-1", true);
        check("us-gov-east-1", true);
        check("evil.example/#", false);
        check("EU-WEST-1", false);
        check("", false);
        check(&"a".repeat(33), false);
    }

    #[test]
    fn accounts_have_twelve_digits() {
        let check = |content: &str, good: bool| {
            let read = Place::of("an event").account("account", &text(content));
            assert_eq!(read.is_ok(), good, "{content}");
        };
        check("111122223333", true);
        check("11112222333", false);
        check("11112222333x", false);
        check("", false);
        assert_eq!(Place::of("an event").account("account", &Text::Absent), Ok(None));
        assert!(Place::of("an event").account("account", &Text::Not("a number")).is_err());
    }
}
