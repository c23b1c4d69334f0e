//! Names of things, each of its own type, so that no call can mix them up.

use std::fmt;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text, as AWS or Kubernetes write it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

    )+};
}

macro_rules! printed {
    ($($name:ident),+ $(,)?) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

names! {
    /// An AWS account: twelve digits.
    AccountId,
    /// An AWS Region, such as `eu-west-1`.
    Region,
    /// An availability zone, such as `eu-west-1b`.
    Zone,
    /// A cluster of ours, by the name that the configuration and `NotificationMetadata` use.
    ClusterName,
    /// An Auto Scaling group.
    GroupName,
    /// A lifecycle hook of a group.
    HookName,
    /// A Kubernetes node.
    NodeName,
    /// One event: EventBridge's `id`, or `RequestId` of a hook that came straight to SQS. A copy of a
    /// message has the same one.
    NoticeId,
    /// A pod's UID. A StatefulSet's pod comes back under its old name and with a new UID.
    PodUid,
    /// An ELBv2 target group, by ARN.
    TargetGroupArn,
    /// The token of one lifecycle action, 36 characters. It is enough to answer a hook, so it is never a
    /// label and never printed.
    HookToken,
    /// The workers that share one queue, by that queue: `REGION:ACCOUNT:NAME`, the end of its ARN.
    Installation,
    /// An EC2 instance: `i-` and 8 to 17 hexadecimal digits.
    InstanceId,
}

printed! {
    AccountId, Region, Zone, ClusterName, GroupName, HookName, NodeName, NoticeId, PodUid, TargetGroupArn, Installation,
    InstanceId
}

impl fmt::Debug for HookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookToken(…)")
    }
}

impl InstanceId {
    /// Reads an instance id, or nothing where the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("i-")?;
        let hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (hex && (8..=17).contains(&digits.len())).then(|| Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_checked() {
        let check = |text: &str, good: bool| {
            assert_eq!(InstanceId::parse(text).is_some(), good, "{text}");
        };
        check("i-0b1c2d3e4f5061728", true);
        check("i-1a2b3c4d", true);
        check("i-", false);
        check("i-1234567", false);
        check("i-0b1c2d3e4f50617280", false);
        check("i-0B1C2D3E4F5061728", false);
        check("mi-0b1c2d3e4f5061728", false);
    }
}
