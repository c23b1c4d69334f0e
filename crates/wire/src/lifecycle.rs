//! Lifecycle actions: "EC2 Instance-terminate Lifecycle Action", "EC2 Instance-launch Lifecycle Action",
//! and the message that a hook sends to its own target.
//!
//! Pages on docs.aws.amazon.com/autoscaling/ec2/userguide: ec2-auto-scaling-event-reference.html,
//! warm-pools-eventbridge-events.html, instance-refresh-eventbridge-events.html and
//! prepare-for-lifecycle-notifications.html.

use offramp_core::{
    AccountRegion, Hook, HookKey, HookToken, InstanceId, Notice, NoticeId, NoticeKind, Passage,
};
use serde::Deserialize;

use crate::envelope::{BareHook, Event};
use crate::error::ParseError;
use crate::field::{Place, is_name};
use crate::json::{Text, read};
use crate::metadata::cluster_hint;

/// Scale-in, a return to the warm pool, or a new root volume.
pub(crate) const TERMINATE_DETAIL_TYPE: &str = "EC2 Instance-terminate Lifecycle Action";
/// Scale-out, into the warm pool or out of it.
pub(crate) const LAUNCH_DETAIL_TYPE: &str = "EC2 Instance-launch Lifecycle Action";

const PLACE: Place = Place::of("a lifecycle action");

/// The length that API_CompleteLifecycleAction.html demands.
const TOKEN_CHARS: usize = 36;

/// The same fields in an event's `detail` and in a hook's own message.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct LifecycleAction<'a> {
    #[serde(borrow, rename = "EC2InstanceId")]
    instance: Text<'a>,
    #[serde(borrow, rename = "LifecycleActionToken")]
    token: Text<'a>,
    #[serde(borrow, rename = "AutoScalingGroupName")]
    group: Text<'a>,
    #[serde(borrow, rename = "LifecycleHookName")]
    hook: Text<'a>,
    #[serde(borrow, rename = "LifecycleTransition")]
    transition: Text<'a>,
    #[serde(borrow, rename = "NotificationMetadata")]
    metadata: Text<'a>,
    #[serde(borrow)]
    origin: Text<'a>,
    #[serde(borrow)]
    destination: Text<'a>,
    #[serde(borrow)]
    action: Text<'a>,
}

/// Reads a lifecycle action from EventBridge.
pub(crate) fn of_event(event: &Event<'_>) -> Result<Notice, ParseError> {
    let (instance, hook) = event.detail::<LifecycleAction<'_>>(PLACE)?.checked(PLACE.detail())?;
    event.notice(PLACE, instance, NoticeKind::Hook(hook))
}

/// Reads a lifecycle action that came without EventBridge. It names no Region.
pub(crate) fn of_bare_hook(bare: &BareHook<'_>) -> Result<Notice, ParseError> {
    let (instance, hook) = read::<LifecycleAction<'_>>(bare.body)?.checked(PLACE)?;
    let at = PLACE.time("Time", &bare.time)?;
    let id = match bare.request_id.get() {
        Some(_) => PLACE.name("RequestId", &bare.request_id)?.into(),
        // Not the token: whoever has that can answer the hook, and ids are printed and written on nodes.
        None => NoticeId::new(format!("{}/{}/{instance}/{}", hook.key.group, hook.key.name, at.as_millis())),
    };
    Ok(Notice {
        id,
        instance,
        at,
        account_region: AccountRegion { account: PLACE.account("AccountId", &bare.account)?, region: None },
        kind: NoticeKind::Hook(hook),
    })
}

impl LifecycleAction<'_> {
    fn checked(&self, place: Place) -> Result<(InstanceId, Hook), ParseError> {
        let instance = place.instance("EC2InstanceId", &self.instance)?;
        let key = HookKey {
            group: place.name("AutoScalingGroupName", &self.group)?.into(),
            name: place.name("LifecycleHookName", &self.hook)?.into(),
            token: usable_token(&self.token),
        };
        let cluster_hint = self.metadata.get().and_then(cluster_hint);
        Ok((instance, Hook { key, cluster_hint, passage: self.passage(place)? }))
    }

    /// An unknown transition is an error: a hook waits for an answer that nobody here knows how to give,
    /// and ignoring the message would hide that until the hook's timeout. An unknown origin, destination
    /// or action is not: these lists have grown before. It reads as the transition's usual passage, which
    /// is safe, because without the passage's own Wait state in the group nothing but a fresh cordon
    /// happens, and that is undone.
    fn passage(&self, place: Place) -> Result<Passage, ParseError> {
        let (origin, destination) = (self.origin.get(), self.destination.get());
        match self.transition.get() {
            Some("autoscaling:EC2_INSTANCE_TERMINATING") => Ok(match (destination, self.action.get()) {
                (Some("WarmPool"), _) => Passage::ToWarmPool,
                (Some("AutoScalingGroup"), _) | (_, Some("ReplaceRootVolume")) => Passage::RootVolume,
                _ => Passage::Ending,
            }),
            Some("autoscaling:EC2_INSTANCE_LAUNCHING") => Ok(match (origin, destination) {
                (_, Some("WarmPool")) => Passage::LaunchingToWarmPool,
                (Some("WarmPool"), _) => Passage::LaunchingFromWarmPool,
                _ => Passage::Launching,
            }),
            _ => Err(place.unreadable("LifecycleTransition", "a known transition", &self.transition)),
        }
    }
}

/// A token of another length would be refused by Auto Scaling; without one the hook is answered by
/// instance id.
fn usable_token(token: &Text<'_>) -> Option<HookToken> {
    let token = token.get().filter(|token| is_name(token) && token.chars().count() == TOKEN_CHARS)?;
    Some(HookToken::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table: transition, origin, destination, action.
    #[test]
    fn terminating_is_not_always_the_end() {
        const GROUP: &str = "AutoScalingGroup";
        const POOL: &str = "WarmPool";
        let check = |end: &str, origin: &str, destination: &str, action: &str, expect: Option<Passage>| {
            let text = |content: &str| {
                if content.is_empty() { Text::Absent } else { Text::Is(content.to_owned().into()) }
            };
            let action = LifecycleAction {
                transition: Text::Is(format!("autoscaling:EC2_INSTANCE_{end}").into()),
                origin: text(origin),
                destination: text(destination),
                action: text(action),
                ..LifecycleAction::default()
            };
            assert_eq!(action.passage(PLACE).ok(), expect, "{action:?}");
        };
        check("TERMINATING", GROUP, "EC2", "", Some(Passage::Ending));
        check("TERMINATING", "", "", "", Some(Passage::Ending));
        check("TERMINATING", POOL, "EC2", "", Some(Passage::Ending));
        check("TERMINATING", GROUP, "Moon", "FlyThere", Some(Passage::Ending));
        check("TERMINATING", GROUP, POOL, "", Some(Passage::ToWarmPool));
        check("TERMINATING", "", POOL, "", Some(Passage::ToWarmPool));
        check("TERMINATING", GROUP, GROUP, "ReplaceRootVolume", Some(Passage::RootVolume));
        check("TERMINATING", GROUP, GROUP, "", Some(Passage::RootVolume));
        check("TERMINATING", "", "", "ReplaceRootVolume", Some(Passage::RootVolume));
        check("LAUNCHING", "EC2", GROUP, "", Some(Passage::Launching));
        check("LAUNCHING", "", "", "", Some(Passage::Launching));
        check("LAUNCHING", "Moon", GROUP, "", Some(Passage::Launching));
        check("LAUNCHING", "EC2", POOL, "", Some(Passage::LaunchingToWarmPool));
        check("LAUNCHING", POOL, GROUP, "", Some(Passage::LaunchingFromWarmPool));
        check("REBOOTING", GROUP, "EC2", "", None);
        check("", "", "", "", None);
    }
}
