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
        }
    }
}

impl World {
    /// Sends an event at this moment: it is in the queue after the event delay, if a rule matches its
    /// detail-type. The envelope is the one of EventBridge (`eb-events-structure.html`).
    pub fn emit_event(&mut self, source: &str, detail_type: &str, resources: &[String], detail: &Value) {
        let id = self.uuid();
        let body = json!({
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
