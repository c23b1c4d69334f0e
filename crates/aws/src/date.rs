//! When a service answered, by its own clock: the `Date` of its answer, which the SDK does not hand out.

use std::sync::{Arc, OnceLock};

use aws_sdk_sqs::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sqs::error::BoxError;
use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use offramp_core::Timestamp;

/// Reads it from the answer to one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct DateOfAnswer(Arc<OnceLock<Timestamp>>);

impl DateOfAnswer {
    /// What was read, where the answer has a date.
    pub(crate) fn read(&self) -> Option<Timestamp> {
        self.0.get().copied()
    }
}

impl Intercept for DateOfAnswer {
    fn name(&self) -> &'static str {
        "DateOfAnswer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(parsed) {
            // A request is not repeated here: there is one answer.
            self.0.set(date).unwrap_or_default();
        }
        Ok(())
    }
}

/// `Sat, 14 Mar 2026 09:00:00 GMT`.
fn parsed(text: &str) -> Option<Timestamp> {
    let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
    date.to_millis().ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_or_nothing() {
        let check = |text: &str, expect: Option<i64>| {
            assert_eq!(parsed(text), expect.map(Timestamp::from_millis), "{text}");
        };
        check("Sat, 14 Mar 2026 09:00:00 GMT", Some(1_773_478_800_000));
        check("2026-03-14T09:00:00Z", None);
        check("", None);
        check("Fri, 31 Dec 99999 23:59:59 GMT", None);
    }
}
