//! The only file that reads error codes and texts of AWS. Sources of the wording are the API references
//! and users' reports; AWS promises the codes, not the texts.

use std::error::Error;
use std::fmt::{self, Write as _};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;
use offramp_engine::{CallResult, Fault};

/// What a refusal means, before the call says what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It may work later; nothing is known.
    Retry,
    /// There are too many calls for now; nothing was done.
    Throttled,
    /// Permissions, keys, clock or configuration have to be mended.
    Denied,
    /// There are no credentials at all.
    NoCredentials,
    /// The queue does not exist, or is hidden from us.
    NoQueue,
    /// The receipt is worth nothing any more: not in flight, replaced, or past SQS's 12 hours.
    ReceiptLost,
    /// The lifecycle action is answered or has timed out.
    NoActiveAction,
    /// The Auto Scaling group does not exist.
    NoGroup,
    /// The instance is no member of the group (any more).
    NotAMember,
    /// The instance is on its way in or out, so that it cannot be detached.
    NotInService,
    /// Auto Scaling finds fault with the request in words that are none of the above.
    Unclear,
    /// The target group does not exist.
    NoTargetGroup,
    /// EC2 does not know the instance any more, or it cannot be in this target group.
    InvalidTarget,
    /// The request is wrong.
    Invalid,
}

impl Reading {
    /// How a request ended that was read like this. That there is nothing to do any more is an answer.
    pub(crate) const fn result(self) -> CallResult {
        match self {
            Self::Retry => CallResult::Retry,
            Self::Throttled => CallResult::Throttled,
            Self::Denied | Self::NoCredentials | Self::NoQueue => CallResult::Denied,
            Self::ReceiptLost
            | Self::NoActiveAction
            | Self::NoGroup
            | Self::NotAMember
            | Self::NotInService
            | Self::NoTargetGroup
            | Self::InvalidTarget => CallResult::Done,
            Self::Unclear | Self::Invalid => CallResult::Invalid,
        }
    }
}

/// A call, or one item of a batch, that did not work.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) reading: Reading,
    said: String,
}

impl Refusal {
    /// Reads the error of a whole call.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let (code, message) = (answer.err().code(), answer.err().message().unwrap_or_default());
                Self { reading: read(status, code, message), said: said(status, code, message) }
            }
            SdkError::TimeoutError(_) => Self::unanswered("it took too long"),
            // An answer that was cut or garbled on its way says nothing about what happened.
            SdkError::ResponseError(_) => Self::unanswered("the answer is incomplete"),
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => Self::of_sending(error),
            // The enum is open: what comes to it later is not understood either.
            _ => Self::unanswered(&chain(error)),
        }
    }

    /// Reads one item of an SQS batch. The message of an item may quote the receipt handle, so it is
    /// read but never repeated.
    pub(crate) fn of_item(item: &BatchResultErrorEntry) -> Self {
        let status = if item.sender_fault() { 400 } else { 500 };
        let reading = read(status, Some(item.code()), item.message().unwrap_or_default());
        Self { reading, said: format!("AWS answered {}", item.code()) }
    }

    /// Takes a secret out of the text.
    pub(crate) fn hiding(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            self.said = self.said.replace(secret, "…");
        }
        self
    }

    /// The fault that it is where the call has no better use for it.
    pub(crate) fn fault(&self, doing: impl fmt::Display) -> Fault {
        let text = self.text(doing);
        match self.reading {
            Reading::Retry | Reading::Throttled => Fault::Retry(text),
            Reading::Denied | Reading::NoCredentials | Reading::NoQueue => Fault::Denied(text),
            Reading::ReceiptLost
            | Reading::NoActiveAction
            | Reading::NoGroup
            | Reading::NotAMember
            | Reading::NotInService
            | Reading::Unclear
            | Reading::NoTargetGroup
            | Reading::InvalidTarget
            | Reading::Invalid => Fault::Invalid(text),
        }
    }

    /// What was being done, and what came of it.
    pub(crate) fn text(&self, doing: impl fmt::Display) -> String {
        format!("{doing}: {}", self.said)
    }

    fn of_sending(error: &(dyn Error + 'static)) -> Self {
        match causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
            Some(error) => Self::of_credentials(error),
            None => Self::unanswered(&chain(error)),
        }
    }

    fn of_credentials(error: &CredentialsError) -> Self {
        match error {
            CredentialsError::CredentialsNotLoaded(_) => {
                Self { reading: Reading::NoCredentials, said: NO_CREDENTIALS.to_owned() }
            }
            CredentialsError::InvalidConfiguration(_) => {
                let said = format!("the AWS credentials are not configured properly: {}", chain(error));
                Self { reading: Reading::Denied, said }
            }
            _ => {
                let text = chain(error);
                // The metadata service is the last that is asked: where it refuses, nobody has any.
                if text.contains(METADATA_REFUSED) {
                    return Self { reading: Reading::NoCredentials, said: NO_CREDENTIALS.to_owned() };
                }
                let denied = ROLE_REFUSED.iter().any(|code| text.contains(code));
                let reading = if denied { Reading::Denied } else { Reading::Retry };
                Self { reading, said: format!("getting AWS credentials: {text}") }
            }
        }
    }

    fn unanswered(why: &str) -> Self {
        Self { reading: Reading::Retry, said: format!("no answer from AWS: {why}") }
    }
}

/// Reads an HTTP status, an error code and its message.
fn read(status: u16, code: Option<&str>, message: &str) -> Reading {
    // Without a code it was not the service that answered, but a proxy, or half of an answer came.
    let Some(code) = code else {
        return if matches!(status, 401 | 403) { Reading::Denied } else { Reading::Retry };
    };
    // SQS has two names for most of its errors: one of its query protocol and one of its JSON protocol.
    match code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code) {
        code if THROTTLED.contains(&code) => Reading::Throttled,
        code if RETRY.contains(&code) => Reading::Retry,
        code if DENIED.contains(&code) => Reading::Denied,
        "NonExistentQueue" | "QueueDoesNotExist" => Reading::NoQueue,
        "MessageNotInflight" | "ReceiptHandleIsInvalid" => Reading::ReceiptLost,
        "InvalidParameterValue" if is_about_the_receipt(message) => Reading::ReceiptLost,
        "ValidationError" => read_validation(message),
        "TargetGroupNotFound" => Reading::NoTargetGroup,
        "InvalidTarget" => Reading::InvalidTarget,
        _ if status == 429 => Reading::Throttled,
        _ if status >= 500 => Reading::Retry,
        _ => Reading::Invalid,
    }
}

/// Auto Scaling has one code for everything that it finds wrong; the words make the difference.
fn read_validation(message: &str) -> Reading {
    let says = |words: &str| message.contains(words);
    if says("No active Lifecycle Action found") {
        Reading::NoActiveAction
    } else if says("is not in InService or Standby") {
        Reading::NotInService
    } else if says("is not part of Auto Scaling group") || says("No managed instance found") {
        Reading::NotAMember
    } else if says("AutoScalingGroup name not found") {
        Reading::NoGroup
    } else if says("is not a valid target group ARN") {
        // ELB's, for an ARN that no target group can have.
        Reading::NoTargetGroup
    } else {
        Reading::Unclear
    }
}

/// "Total VisibilityTimeout for the message is beyond the limit" is the end of the 12 hours; "Value … for
/// parameter ReceiptHandle is invalid" is what deleted messages and replaced receipts are answered with.
fn is_about_the_receipt(message: &str) -> bool {
    message.contains("Total VisibilityTimeout") || message.contains("for parameter ReceiptHandle is invalid")
}

/// The answer in words. Only the first line, and not all of a long one: SignatureDoesNotMatch goes on
/// with the signed request, session token included.
fn said(status: u16, code: Option<&str>, message: &str) -> String {
    let mut text = match code {
        Some(code) => format!("AWS answered {code}"),
        None => format!("HTTP status {status} without an error code of AWS"),
    };
    let message = message.lines().next().unwrap_or_default();
    if !message.is_empty() {
        text.push_str(": ");
        text.extend(message.chars().take(MOST_SAID_CHARS));
    }
    if matches!(code, Some("ExpiredToken" | "ExpiredTokenException")) {
        text.push_str("; renew the credentials, or check the clock");
    }
    text
}

/// All causes in one line, without those that only repeat the one before.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let words = cause.to_string();
        if !text.is_empty() && !words.is_empty() {
            text.push_str(": ");
        }
        // Writing to a String cannot fail.
        write!(text, "{words}").unwrap_or_default();
    }
    text.chars().take(MOST_SAID_CHARS).collect()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| <dyn Error>::source(*error))
}

const MOST_SAID_CHARS: usize = 300;

const NO_CREDENTIALS: &str = "no AWS credentials were found; give the pod's service account a role (IRSA or \
     EKS Pod Identity), the instance a profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

/// Codes that pass by themselves. `ResourceContention` and `HealthUnavailable` come with status 500,
/// `ScalingActivityInProgress` with 400; `OverLimit` is too many messages in flight.
const RETRY: &[&str] = &[
    "HealthUnavailable",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "OverLimit",
    "PriorRequestNotComplete",
    "RequestTimeout",
    "RequestTimeoutException",
    "ResourceContention",
    "ScalingActivityInProgress",
    "ServiceUnavailable",
];

/// Codes for too many calls, of ours or of others in the same account.
const THROTTLED: &[&str] = &[
    "BandwidthLimitExceeded",
    "KMS.ThrottlingException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Codes that somebody has to do something about.
const DENIED: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "AuthorizationError",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignatureException",
    "KMS.AccessDeniedException",
    "KMS.DisabledException",
    "KMS.InvalidKeyUsageException",
    "KMS.InvalidStateException",
    "KMS.NotFoundException",
    "KMS.OptInRequired",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
];

/// How the SDK puts a 403 of the instance metadata service, which is disabled for many pods.
const METADATA_REFUSED: &str = "IMDS is disabled";

/// What STS says when it will not give out the role, as it appears in the text of a provider's error.
const ROLE_REFUSED: &[&str] =
    &["AccessDenied", "InvalidIdentityToken", "IDPRejectedClaim", "ExpiredToken", "InvalidClientTokenId"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_documented() {
        let check = |status: u16, code: &str, message: &str, expect: Reading| {
            let code = (!code.is_empty()).then_some(code);
            assert_eq!(read(status, code, message), expect, "{status} {code:?} {message}");
        };
        use Reading::*;
        // Lifecycle actions.
        let late = "No active Lifecycle Action found with instance ID i-0b1c2d3e4f5061728";
        check(400, "ValidationError", late, NoActiveAction);
        let late = "No active Lifecycle Action found with token 87654321-4321-4321-4321-210987654321";
        check(400, "ValidationError", late, NoActiveAction);
        check(400, "ValidationError", "Lifecycle hook not found", Unclear);
        let text = "AutoScalingGroup name not found - AutoScalingGroup 'workers' not found";
        check(400, "ValidationError", text, NoGroup);
        // DetachInstances and TerminateInstanceInAutoScalingGroup.
        let text = "The instance i-0b1c2d3e4f5061728 is not in InService or Standby.";
        check(400, "ValidationError", text, NotInService);
        let text = "The instance i-0b1c2d3e4f5061728 is not part of Auto Scaling group workers.";
        check(400, "ValidationError", text, NotAMember);
        let text = "Instance Id not found - No managed instance found for instance ID i-0b1c2d3e4f5061728";
        check(400, "ValidationError", text, NotAMember);
        check(400, "ScalingActivityInProgress", "Activity in progress", Retry);
        // Any Auto Scaling call.
        check(500, "ResourceContention", "You already have a pending update", Retry);
        check(400, "Throttling", "Rate exceeded", Throttled);
        check(400, "ThrottlingException", "Rate exceeded", Throttled);
        // Target groups.
        check(400, "TargetGroupNotFound", "Target groups '…' not found", NoTargetGroup);
        check(400, "ValidationError", "'arn:…' is not a valid target group ARN", NoTargetGroup);
        check(400, "InvalidTarget", "The following targets are not in a running state", InvalidTarget);
        check(500, "HealthUnavailable", "", Retry);
        // SQS, by either name of a code.
        check(400, "MessageNotInflight", "", ReceiptLost);
        check(400, "AWS.SimpleQueueService.MessageNotInflight", "", ReceiptLost);
        check(400, "ReceiptHandleIsInvalid", "", ReceiptLost);
        let text = "Value AQEB for parameter ReceiptHandle is invalid. Reason: Message does not exist or \
                    is not available for visibility timeout change.";
        check(400, "InvalidParameterValue", text, ReceiptLost);
        let text = "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total \
                    VisibilityTimeout for the message is beyond the limit [43200 seconds].";
        check(400, "InvalidParameterValue", text, ReceiptLost);
        let text = "Value 11 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and \
                    10, if provided.";
        check(400, "InvalidParameterValue", text, Invalid);
        check(400, "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "", Invalid);
        check(403, "OverLimit", "", Retry);
        check(400, "AWS.SimpleQueueService.NonExistentQueue", "", NoQueue);
        check(400, "QueueDoesNotExist", "", NoQueue);
        check(400, "InvalidAddress", "", Denied);
        check(400, "RequestThrottled", "", Throttled);
        check(400, "KMS.ThrottlingException", "", Throttled);
        check(400, "KMS.AccessDeniedException", "", Denied);
        // Any call.
        check(403, "AccessDenied", "", Denied);
        check(400, "AccessDeniedException", "", Denied);
        check(403, "UnauthorizedOperation", "", Denied);
        check(403, "SignatureDoesNotMatch", "", Denied);
        check(403, "ExpiredToken", "", Denied);
        check(403, "InvalidClientTokenId", "", Denied);
        check(500, "InternalFailure", "", Retry);
        check(503, "ServiceUnavailable", "", Retry);
        check(500, "SomethingNew", "", Retry);
        check(429, "SomethingNew", "", Throttled);
        check(400, "SomethingNew", "", Invalid);
        // Not the service.
        check(502, "", "", Retry);
        check(404, "", "", Retry);
        check(403, "", "", Denied);
    }

    /// Report 13, aws/aws-sdk-go#249, #4879, aws/aws-sdk-java#2802: credentials that have run out, as Auto Scaling and Elastic
    /// Load Balancing say it and as SQS does. The text names the cause.
    #[test]
    fn credentials_that_have_run_out_are_named() {
        for code in ["ExpiredToken", "ExpiredTokenException"] {
            let message = "The security token included in the request is expired";
            assert_eq!(read(403, Some(code), message), Reading::Denied);
            let expect = format!("AWS answered {code}: {message}; renew the credentials, or check the clock");
            assert_eq!(said(403, Some(code), message), expect);
        }
    }

    #[test]
    fn texts_are_one_bounded_line_without_secrets() {
        let signed = "The request signature does not match.\n\nThe Canonical String should have been\n\
                      x-amz-security-token:TOKEN";
        let text = said(403, Some("SignatureDoesNotMatch"), signed);
        assert_eq!(text, "AWS answered SignatureDoesNotMatch: The request signature does not match.");
        assert!(said(400, Some("Throttling"), &"x".repeat(5_000)).len() < 400);

        let refusal = Refusal { reading: Reading::Retry, said: said(400, Some("E"), "bad token T-1") };
        assert_eq!(refusal.hiding("T-1").text("answering"), "answering: AWS answered E: bad token …");
    }

    #[test]
    fn credentials_that_will_not_come_are_told_from_those_that_are_late() {
        let check = |error: CredentialsError, expect: Reading| {
            let text = chain(&error);
            assert_eq!(Refusal::of_credentials(&error).reading, expect, "{text}");
        };
        check(CredentialsError::not_loaded_no_source(), Reading::NoCredentials);
        check(CredentialsError::invalid_configuration("no profile blue"), Reading::Denied);
        check(CredentialsError::provider_error("unhandled error (AccessDenied)"), Reading::Denied);
        check(CredentialsError::provider_error("InvalidIdentityTokenException: wrong"), Reading::Denied);
        check(
            CredentialsError::provider_error(
                "failed to load IMDS session token: request forbidden: IMDS is disabled or the caller has \
                 insufficient permissions",
            ),
            Reading::NoCredentials,
        );
        check(CredentialsError::provider_error("connection reset"), Reading::Retry);
        check(CredentialsError::provider_timed_out(std::time::Duration::from_secs(5)), Reading::Retry);
    }
}
