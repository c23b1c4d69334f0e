//! What messages come in: an event of EventBridge, an SNS notification around something, or a lifecycle
//! hook whose target is the queue or a topic itself.
//!
//! Pages: eventbridge/latest/userguide/eb-events-structure.html,
//! sns/latest/dg/sns-message-and-json-formats.html and
//! autoscaling/ec2/userguide/prepare-for-lifecycle-notifications.html on docs.aws.amazon.com. Raw SNS
//! delivery leaves no trace in the body. API_PutLifecycleHook.html says that hooks reach a topic as
//! key-value text, public samples hold JSON: key-value text is an error here until a sample is known.

use std::borrow::Cow;

use offramp_core::{AccountRegion, InstanceId, Notice, NoticeKind};
use serde::Deserialize;

use crate::error::{ParseError, excerpt};
use crate::field::Place;
use crate::json::{Object, Text, read};

/// A message, told apart by its sender.
#[derive(Debug)]
pub(crate) enum Envelope<'a> {
    /// From EventBridge.
    Event(Event<'a>),
    /// A lifecycle action from Auto Scaling itself.
    Hook(BareHook<'a>),
    /// Something else from Auto Scaling itself; `event` says what.
    Notification { event: Cow<'a, str> },
    /// From SNS; `message` is the message that was published.
    Sns { message: Cow<'a, str> },
}

/// An event of EventBridge. Its `detail` is read when the detail-type is known.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    body: &'a str,
    source: Text<'a>,
    detail_type: Text<'a>,
    id: Text<'a>,
    time: Text<'a>,
    account: Text<'a>,
    region: Text<'a>,
}

/// A lifecycle action that came without EventBridge: its fields lie in the outermost object.
#[derive(Debug)]
pub(crate) struct BareHook<'a> {
    pub(crate) body: &'a str,
    pub(crate) account: Text<'a>,
    pub(crate) request_id: Text<'a>,
    pub(crate) time: Text<'a>,
}

/// The fields that tell the senders apart, and those that an envelope adds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outer<'a> {
    #[serde(borrow, rename = "detail-type")]
    detail_type: Text<'a>,
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    account: Text<'a>,
    #[serde(borrow)]
    region: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,

    #[serde(borrow, rename = "Type")]
    sns_type: Text<'a>,
    #[serde(borrow, rename = "TopicArn")]
    sns_topic: Text<'a>,
    #[serde(borrow, rename = "Message")]
    sns_message: Text<'a>,

    #[serde(borrow, rename = "Event")]
    notification: Text<'a>,
    #[serde(borrow, rename = "LifecycleTransition")]
    transition: Text<'a>,
    #[serde(borrow, rename = "LifecycleHookName")]
    hook: Text<'a>,
    #[serde(borrow, rename = "AccountId")]
    bare_account: Text<'a>,
    #[serde(borrow, rename = "RequestId")]
    request_id: Text<'a>,
    #[serde(borrow, rename = "Time")]
    bare_time: Text<'a>,
}

/// The part of an event that depends on its detail-type.
#[derive(Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
struct Inner<D> {
    #[serde(default)]
    detail: Object<D>,
}

/// Tells the senders apart.
pub(crate) fn open(body: &str) -> Result<Envelope<'_>, ParseError> {
    let outer: Outer<'_> = read(body)?;
    if outer.detail_type.is_there() || outer.source.is_there() {
        let place = Place::of("an event of EventBridge");
        place.name("detail-type", &outer.detail_type)?;
        place.name("source", &outer.source)?;
        let Outer { source, detail_type, id, time, account, region, .. } = outer;
        return Ok(Envelope::Event(Event { body, source, detail_type, id, time, account, region }));
    }
    if outer.sns_type.is_there() && (outer.sns_message.is_there() || outer.sns_topic.is_there()) {
        return of_sns(&outer.sns_type, outer.sns_message);
    }
    match outer.notification {
        Text::Is(event) if event.starts_with("autoscaling:") => Ok(Envelope::Notification { event }),
        _ if outer.transition.is_there() || outer.hook.is_there() => Ok(Envelope::Hook(BareHook {
            body,
            account: outer.bare_account,
            request_id: outer.request_id,
            time: outer.bare_time,
        })),
        Text::Is(_) | Text::Not(_) | Text::Absent => Err(ParseError::UnknownSender { begins: excerpt(body) }),
    }
}

impl<'a> Event<'a> {
    /// Whether it is this kind of event.
    pub(crate) fn is(&self, source: &str, detail_type: &str) -> bool {
        self.source.get() == Some(source) && self.detail_type.get() == Some(detail_type)
    }

    /// Whether this is its sender.
    pub(crate) fn is_from(&self, source: &str) -> bool {
        self.source.get() == Some(source)
    }

    /// Reads the part that depends on the detail-type.
    pub(crate) fn detail<D: Deserialize<'a>>(&self, place: Place) -> Result<D, ParseError> {
        let inner: Inner<D> = read(self.body)?;
        match inner.detail {
            Object::Is(detail) => Ok(detail),
            Object::Absent => Err(place.unreadable("detail", "an object", &Text::Absent)),
            Object::Not(kind) => Err(place.unreadable("detail", "an object", &Text::Not(kind))),
        }
    }

    /// A notice with the time, the id and the sender of the envelope. Forwarding leaves account and
    /// Region as the sender wrote them. The instance is given, because `resources` is of no use: spot
    /// events have an availability zone where its ARN should have a Region and an account.
    pub(crate) fn notice(
        &self,
        place: Place,
        instance: InstanceId,
        kind: NoticeKind,
    ) -> Result<Notice, ParseError> {
        Ok(Notice {
            id: place.name("id", &self.id)?.into(),
            instance,
            at: place.time("time", &self.time)?,
            account_region: AccountRegion {
                account: place.account("account", &self.account)?,
                region: place.region("region", &self.region)?,
            },
            kind,
        })
    }
}

/// `SubscriptionConfirmation` is an error, not ignored: the topic stays silent until somebody visits the
/// address inside the message, and the dead-letter queue keeps it until then.
fn of_sns<'a>(kind: &Text<'a>, message: Text<'a>) -> Result<Envelope<'a>, ParseError> {
    let place = Place::of("an SNS notification");
    let kind = place.name("Type", kind)?;
    match message {
        _ if kind != "Notification" => Err(ParseError::NotANotification { kind: excerpt(kind) }),
        Text::Is(message) => Ok(Envelope::Sns { message }),
        Text::Absent | Text::Not(_) => Err(place.unreadable("Message", "a text", &message)),
    }
}
