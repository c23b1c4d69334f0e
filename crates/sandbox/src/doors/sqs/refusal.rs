//! The errors of SQS: the shape of the JSON protocol, and the code of the old Query protocol that
//! clients still report.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::queue::Refusal;

/// A refused request.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// The modelled shape, `QueueDoesNotExist`.
    shape: &'static str,
    /// The Query code, `AWS.SimpleQueueService.NonExistentQueue`.
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    /// An error whose shape and code have the same name.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::coded(code, code, message)
    }

    pub(super) fn body(&self) -> Value {
        json!({ "__type": format!("com.amazonaws.sqs#{}", self.shape), "message": self.message })
    }

    pub(super) fn no_queue() -> Self {
        Refusal::NoQueue.into()
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::new("MissingParameter", format!("The request must contain the parameter {name}."))
    }

    pub(super) fn out_of_range(name: &str, value: &str, words: &str) -> Self {
        let reason = format!("Must be {words}, if provided.");
        Self::invalid(format!("Value {value} for parameter {name} is invalid. Reason: {reason}"))
    }

    pub(super) fn invalid(message: String) -> Self {
        Self::coded("InvalidParameterValueException", "InvalidParameterValue", message)
    }

    pub(super) fn empty_batch() -> Self {
        Self::coded(
            "EmptyBatchRequest",
            "AWS.SimpleQueueService.EmptyBatchRequest",
            "There should be at least one entry in the request.",
        )
    }

    pub(super) fn too_many(entries: usize) -> Self {
        Self::coded(
            "TooManyEntriesInBatchRequest",
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            format!("Maximum number of entries per request are 10. You have sent {entries}."),
        )
    }

    pub(super) fn invalid_id() -> Self {
        Self::coded(
            "InvalidBatchEntryId",
            "AWS.SimpleQueueService.InvalidBatchEntryId",
            "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at \
             most 80 letters long.",
        )
    }

    pub(super) fn repeated_id(id: &str) -> Self {
        Self::coded(
            "BatchEntryIdsNotDistinct",
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            format!("Id {id} repeated."),
        )
    }

    pub(super) fn not_implemented(what: &str) -> Self {
        let message = format!("the sandbox does not know {what}");
        Self { status: StatusCode::NOT_IMPLEMENTED, ..Self::new("NotImplemented", message) }
    }

    /// The text of ChangeMessageVisibility names the timeout or the receipt.
    pub(super) fn visibility(refusal: Refusal, receipt: &str, seconds: u64) -> Self {
        match refusal {
            Refusal::BeyondLimit => Self::invalid(format!(
                "Value {seconds} for parameter VisibilityTimeout is invalid. Reason: {refusal}"
            )),
            Refusal::NotAReceipt => Self::new(
                "ReceiptHandleIsInvalid",
                format!("The input receipt handle \"{receipt}\" is not a valid receipt handle."),
            ),
            Refusal::NoQueue | Refusal::NotInFlight => refusal.into(),
        }
    }

    fn coded(shape: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, shape, code, message: message.into() }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::NoQueue => {
                Self::coded("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", message)
            }
            Refusal::NotAReceipt => Self::new("ReceiptHandleIsInvalid", message),
            Refusal::NotInFlight => {
                Self::coded("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", message)
            }
            Refusal::BeyondLimit => Self::invalid(message),
        }
    }
}
