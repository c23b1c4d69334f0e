//! From the body of a message to a notice, and back where the notice is our own.
//!
//! Contract: [`parse`] is pure and total. Whatever the body, the answer is notices, a named reason to
//! ignore it, or an error that says which field of which event cannot be read and that shows only a
//! bounded piece of the body. What is missing is an error only where a notice would have to guess:
//! unknown fields, unknown values and missing optional fields are tolerated, because events grow.
//!
//! Deliberately absent: SDK types, async, I/O and the question whether a notice is ours or still true.
//! A notice authorises nothing by itself; the decision compares it with what the group says.
#![deny(missing_docs)]

mod capacity_reservation;
mod envelope;
mod error;
mod field;
mod ignored;
mod json;
mod lifecycle;
mod metadata;
mod own;
mod rebalance;
mod spot;

#[cfg(test)]
mod tests;

pub use error::ParseError;
pub use field::{is_account, is_region};
pub use ignored::Ignored;
pub use metadata::cluster_hint;
pub use own::own_message;

use offramp_core::Notice;

use crate::envelope::{Envelope, Event};

/// What the body of a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It speaks of instances.
    Notices(Vec<Notice>),
    /// It is well formed, and nothing has to be done.
    Ignored(Ignored),
    /// It is offramp's own, and of a later version. It must not be deleted, because during an upgrade both versions
    /// read the queue.
    Later,
}

/// Reads the body of one message: an EventBridge event, a lifecycle hook's own message, or an SNS
/// notification around either.
pub fn parse(body: &str) -> Result<Parsed, ParseError> {
    parse_inside(body, 0)
}

/// A topic may feed another one by way of a queue or a function, hence two. More is not a known set-up.
const MAX_SNS_ENVELOPES: usize = 2;

/// What is done about an event of EventBridge.
enum Treatment {
    /// It becomes a notice.
    Read(fn(&Event<'_>) -> Result<Notice, ParseError>),
    /// It is left.
    Leave(Ignored),
}

use Treatment::{Leave, Read};

const REFRESH: Treatment = Leave(Ignored::InstanceRefresh);

/// Source, detail-type, and what is done. The detail-types of Auto Scaling are all of them:
/// docs.aws.amazon.com/eventbridge/latest/ref/events-ref-autoscaling.html.
const EVENTS: [(&str, &str, Treatment); 24] = [
    ("aws.autoscaling", lifecycle::TERMINATE_DETAIL_TYPE, Read(lifecycle::of_event)),
    ("aws.autoscaling", lifecycle::LAUNCH_DETAIL_TYPE, Read(lifecycle::of_event)),
    ("aws.ec2", spot::DETAIL_TYPE, Read(spot::of_event)),
    ("aws.ec2", capacity_reservation::DETAIL_TYPE, Read(capacity_reservation::of_event)),
    ("aws.ec2", capacity_reservation::EARLIER_DETAIL_TYPE, Read(capacity_reservation::of_event)),
    ("aws.ec2", rebalance::DETAIL_TYPE, Read(rebalance::of_event)),
    ("aws.ec2", "EC2 Instance State-change Notification", Leave(Ignored::StateChange)),
    ("aws.health", "AWS Health Event", Leave(Ignored::Health)),
    ("aws.health", "AWS Health Abuse Event", Leave(Ignored::Health)),
    ("aws.autoscaling", "EC2 Instance Launch Successful", Leave(Ignored::LaunchSucceeded)),
    ("aws.autoscaling", "EC2 Instance Launch Unsuccessful", Leave(Ignored::LaunchFailed)),
    ("aws.autoscaling", "EC2 Instance Terminate Successful", Leave(Ignored::TerminateSucceeded)),
    ("aws.autoscaling", "EC2 Instance Terminate Unsuccessful", Leave(Ignored::TerminateFailed)),
    ("aws.autoscaling", "EC2 Instance Detach Successful", Leave(Ignored::DetachSucceeded)),
    ("aws.autoscaling", "EC2 Instance Detach Unsuccessful", Leave(Ignored::DetachFailed)),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Started", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Succeeded", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Failed", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Cancelled", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Checkpoint Reached", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Started Baking", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Rollback Started", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Rollback Succeeded", REFRESH),
    ("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Rollback Failed", REFRESH),
];

/// `Event` of what Auto Scaling sends without an envelope and without a lifecycle action: the test
/// message of a new hook, and a group's SNS notifications where they share a topic with its hooks
/// (API_NotificationConfiguration.html).
const NOTIFICATIONS: [(&str, Ignored); 5] = [
    ("autoscaling:TEST_NOTIFICATION", Ignored::TestNotification),
    ("autoscaling:EC2_INSTANCE_LAUNCH", Ignored::LaunchSucceeded),
    ("autoscaling:EC2_INSTANCE_LAUNCH_ERROR", Ignored::LaunchFailed),
    ("autoscaling:EC2_INSTANCE_TERMINATE", Ignored::TerminateSucceeded),
    ("autoscaling:EC2_INSTANCE_TERMINATE_ERROR", Ignored::TerminateFailed),
];

fn parse_inside(body: &str, sns_envelopes: usize) -> Result<Parsed, ParseError> {
    match envelope::open(body)? {
        Envelope::Event(event) => of_event(&event),
        Envelope::Hook(hook) => lifecycle::of_bare_hook(&hook).map(one),
        Envelope::Notification { event } => Ok(Parsed::Ignored(of_notification(&event))),
        Envelope::Sns { .. } if sns_envelopes == MAX_SNS_ENVELOPES => {
            Err(ParseError::TooManySnsEnvelopes { most: MAX_SNS_ENVELOPES })
        }
        Envelope::Sns { message } => parse_inside(&message, sns_envelopes + 1)
            .map_err(|error| ParseError::InSnsMessage(Box::new(error))),
    }
}

fn of_event(event: &Event<'_>) -> Result<Parsed, ParseError> {
    if event.is_from(own::SOURCE) {
        return own::of_event(event);
    }
    let known = EVENTS.iter().find(|(source, detail_type, _)| event.is(source, detail_type));
    match known {
        Some((_, _, Read(read))) => read(event).map(one),
        Some((_, _, Leave(why))) => Ok(Parsed::Ignored(*why)),
        None => Ok(Parsed::Ignored(Ignored::OtherEvent)),
    }
}

fn of_notification(event: &str) -> Ignored {
    NOTIFICATIONS.iter().find(|(name, _)| *name == event).map_or(Ignored::OtherEvent, |(_, why)| *why)
}

fn one(notice: Notice) -> Parsed {
    Parsed::Notices(vec![notice])
}
