//! Lifecycle actions: "EC2 Instance-terminate Lifecycle Action", "EC2 Instance-launch Lifecycle Action",
//! and the message that a hook sends to its own target.
//!
//! Pages on docs.aws.amazon.com/autoscaling/ec2/userguide: ec2-auto-scaling-event-reference.html,
//! warm-pools-eventbridge-events.html, instance-refresh-eventbridge-events.html and
//! prepare-for-lifecycle-notifications.html.

use offramp_core::{
    ClusterName, Home, Hook, HookKey, HookToken, InstanceId, Notice, NoticeId, NoticeKind, Passage,
};
use serde::Deserialize;

use crate::envelope::{BareHook, Event};
use crate::error::ParseError;
use crate::field::{Place, is_name};
use crate::json::{Text, read};

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

/// `NotificationMetadata` where it is a JSON object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    cluster: Text<'a>,
    #[serde(borrow, rename = "clusterName")]
    cluster_name: Text<'a>,
    #[serde(borrow, rename = "cluster_name")]
    cluster_name_snake: Text<'a>,
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
        home: Home { account: PLACE.account("AccountId", &bare.account)?, region: None },
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

/// The cluster that a hook's free text names: the field of a JSON object, or the only word. Several words
/// are somebody's note.
fn cluster_hint(metadata: &str) -> Option<ClusterName> {
    let metadata = metadata.trim();
    let fields: Metadata<'_>;
    let name = if metadata.starts_with('{') {
        fields = read(metadata).ok()?;
        let mut named = [&fields.cluster, &fields.cluster_name, &fields.cluster_name_snake].into_iter();
        named.find_map(|field| field.get())?.trim()
    } else {
        metadata
    };
    let word = !name.contains(|c: char| c.is_whitespace() || "\"'`{}[]".contains(c));
    (word && is_name(name)).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_a_field_or_the_only_word() {
        let check = |metadata: &str, expect: Option<&str>| {
            assert_eq!(cluster_hint(metadata).as_ref().map(ClusterName::as_str), expect, "{metadata}");
        };
        check("blue", Some("blue"));
        check("  blue\n", Some("blue"));
        check("team/blue-1.eu_west", Some("team/blue-1.eu_west"));
        check(r#"{"cluster":"blue"}"#, Some("blue"));
        check(r#"{"clusterName":"blue"}"#, Some("blue"));
        check(r#"{"cluster_name":"blue"}"#, Some("blue"));
        check(r#"{"cluster_name":"red","cluster":" blue ","drainTimeout":600}"#, Some("blue"));
        check(r#"{"cluster_name":"red","clusterName":"green","cluster":"blue"}"#, Some("blue"));
        check(r#"{"cluster_name":"red","clusterName":"blue"}"#, Some("blue"));
        check(r#"{"cluster":null,"clusterName":"blue"}"#, Some("blue"));
        check(r#"{"cluster":["red"],"clusterName":"blue"}"#, Some("blue"));
        check(r#" { "cluster" : "bl\u0075e" } "#, Some("blue"));
        check(r#"{"cluster":""}"#, None);
        check(r#"{"cluster":"two words"}"#, None);
        check(r#"{"cluster":"blue\u0000"}"#, None);
        check(r#"{"cluster":{"name":"blue"}}"#, None);
        check(r#"{"cluster":"blue""#, None);
        check(r#"{"owner":"payments"}"#, None);
        check(r#"["blue"]"#, None);
        check(r#""blue""#, None);
        check("{blue}", None);
        check("owned by team payments; page before 08:00", None);
        check("cluster: blue", None);
        check("", None);
        check("   ", None);
        check(&"b".repeat(255), Some("b".repeat(255)).as_deref());
        check(&"b".repeat(256), None);
    }

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
