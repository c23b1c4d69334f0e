//! EventBridge: an event becomes an envelope, a rule picks it by its detail-type, the queue gets it.

use std::collections::BTreeSet;

use offramp_core::{AccountId, Region, Timestamp};
use serde_json::{Value, json};

use super::{Due, World, queue};

/// Who sends the events, and where they go.
#[derive(Clone, Debug)]
pub struct Events {
    /// The account of everything in this world.
    pub account: AccountId,
    /// Its Region.
    pub region: Region,
    /// The queue that the rules send to; without one, events go nowhere.
    pub queue: Option<String>,
    /// The detail-types that the rules match.
    pub detail_types: BTreeSet<String>,
    /// This many of the next events get lost: delivery is best effort (EC2 UG
    /// `spot-instance-termination-notices.html`, ASG UG `ec2-auto-scaling-event-reference.html`).
    pub lose_next: u32,
    /// This many of the next events are delivered twice, as two messages with the same body.
    pub repeat_next: u32,
    /// How they come to the queue.
    pub route: Route,
}

/// How events come to the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// A rule of EventBridge sends them.
    #[default]
    EventBridge,
    /// Hooks notify the queue themselves (ASG UG `prepare-for-lifecycle-notifications.html`).
    Queue,
    /// Hooks notify a topic, and so do the rules; the queue is subscribed to it, without raw delivery.
    Topic,
}

/// The event of a terminate hook.
pub const TERMINATE_ACTION: &str = "EC2 Instance-terminate Lifecycle Action";
/// The two minutes of a spot instance.
pub const SPOT_WARNING: &str = "EC2 Spot Instance Interruption Warning";
/// An elevated risk of interruption.
pub const REBALANCE: &str = "EC2 Instance Rebalance Recommendation";
/// An instance has another state now.
pub const STATE_CHANGE: &str = "EC2 Instance State-change Notification";

impl Default for Events {
    fn default() -> Self {
        Self {
            account: AccountId::new("111122223333"),
            region: Region::new("eu-west-1"),
            queue: None,
            detail_types: [TERMINATE_ACTION, SPOT_WARNING, REBALANCE].map(str::to_owned).into(),
            lose_next: 0,
            repeat_next: 0,
            route: Route::EventBridge,
        }
    }
}

impl World {
    /// Sends an event at this moment: it is in the queue after the event delay, if a rule matches its
    /// detail-type. The envelope is the one of EventBridge (`eb-events-structure.html`).
    pub fn emit_event(&mut self, source: &str, detail_type: &str, resources: &[String], detail: &Value) {
        let id = self.uuid();
        let event = json!({
            "version": "0",
            "id": id,
            "detail-type": detail_type,
            "source": source,
            "account": self.events.account.as_str(),
            "time": seconds(self.now),
            "region": self.events.region.as_str(),
            "resources": resources,
            "detail": detail,
        });
        let Some(queue) = self.events.queue.clone() else { return };
        if !self.events.detail_types.contains(detail_type) {
            return;
        }
        if self.events.lose_next > 0 {
            self.events.lose_next -= 1;
            self.tell(format!("the event {detail_type:?} gets lost"));
            return;
        }
        if detail_type == TERMINATE_ACTION {
            match self.events.route {
                Route::EventBridge => {}
                Route::Queue => self.tell(format!("from the hook itself: {detail_type}")),
                Route::Topic => self.tell(format!("through a topic: {detail_type}")),
            }
        }
        let body = match self.events.route {
            Route::EventBridge => event,
            Route::Queue if detail_type == TERMINATE_ACTION => self.notification(detail),
            Route::Queue => event,
            Route::Topic if detail_type == TERMINATE_ACTION => self.in_sns(&self.notification(detail)),
            Route::Topic => self.in_sns(&event),
        };
        let copies = if self.events.repeat_next > 0 {
            self.events.repeat_next -= 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            let due = queue::Due::Arrives { queue: queue.clone(), body: body.to_string() };
            self.after(self.delays.event, Due::Queue(due));
        }
    }

    /// What a hook sends to its own target: the fields of the detail, and those that an envelope would add.
    fn notification(&self, detail: &Value) -> Value {
        let mut body = detail.clone();
        body["AccountId"] = json!(self.events.account.as_str());
        body["Service"] = json!("AWS Auto Scaling");
        body["Time"] = json!(millis(self.now));
        body
    }

    /// `sns-message-and-json-formats.html`, without what only a signature needs.
    fn in_sns(&self, message: &Value) -> Value {
        json!({
            "Type": "Notification",
            "MessageId": format!("00000000-0000-4000-8000-{:012x}", self.now.as_millis()),
            "TopicArn": format!("arn:aws:sns:{}:{}:node-events", self.events.region, self.events.account),
            "Message": message.to_string(),
            "Timestamp": millis(self.now),
        })
    }
}

/// A time as most pages have it: whole seconds, `2026-03-14T09:26:53Z`.
pub fn seconds(at: Timestamp) -> String {
    text(Timestamp::from_millis(at.as_millis().div_euclid(1000) * 1000))
}

/// A time with its milliseconds, `2026-03-14T09:26:53.904Z`.
pub fn millis(at: Timestamp) -> String {
    let mut whole = seconds(at);
    whole.truncate(whole.len() - 1);
    format!("{whole}.{:03}Z", at.as_millis().rem_euclid(1000))
}

fn text(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
