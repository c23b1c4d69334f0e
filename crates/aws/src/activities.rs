//! The only file that reads what Auto Scaling writes about its activities: which instance leaves, and since when.
//! An activity names its instance in the Description alone, which is text for people.

use aws_sdk_autoscaling::types::Activity;
use offramp_core::{InstanceId, Timestamp};

/// The instance that an activity takes out of its group, and when that began; nothing where the activity is over,
/// is about something else, or cannot be read.
pub(crate) fn termination(activity: &Activity) -> Option<(InstanceId, Timestamp)> {
    if is_over(activity.status_code()?.as_str()) {
        return None;
    }
    let id = leaving(activity.description()?)?;
    let started = activity.start_time()?.to_millis().ok()?;
    Some((id, Timestamp::from_millis(started)))
}

/// The reference names three ends (ASG API, Activity). Every other status goes on, those of no list too: while a
/// hook holds the instance, AWS answers `MidTerminatingLifecycleAction` and not the documented
/// `MidLifecycleAction`.
fn is_over(status: &str) -> bool {
    matches!(status, "Successful" | "Failed" | "Cancelled")
}

/// The instance that a Description takes away. Known wordings:
///
/// * `Terminating EC2 instance: i-…` (ASG API, TerminateInstanceInAutoScalingGroup),
/// * `Terminating EC2 instance from warm pool: i-…` (hashicorp/nomad-autoscaler reads it).
///
/// No page and no report shows how a return into the warm pool is put. The two wordings for the way out of it
/// and for a fresh instance in it begin with `Launching`; any other that has a warm pool in it is taken for a
/// return. With more than one instance in the text it is not clear which one is meant.
fn leaving(description: &str) -> Option<InstanceId> {
    let words = description.to_ascii_lowercase();
    let returns = words.contains("warm pool") && !words.starts_with("launching");
    if !words.starts_with("terminating") && !returns {
        return None;
    }
    let in_words = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let mut ids = in_words.filter_map(InstanceId::parse);
    let id = ids.next()?;
    ids.all(|other| other == id).then_some(id)
}

#[cfg(test)]
mod tests {
    use aws_sdk_autoscaling::primitives::DateTime;
    use aws_sdk_autoscaling::types::ScalingActivityStatusCode as Status;

    use super::*;

    const ID: &str = "i-0b1c2d3e4f5061728";

    #[test]
    fn descriptions_name_the_instance_that_leaves() {
        let check = |text: &str, leaves: bool| {
            let text = text.replace("ID", ID);
            assert_eq!(leaving(&text).is_some_and(|id| id.as_str() == ID), leaves, "{text}");
            assert_eq!(leaving(&text).is_some(), leaves, "{text}");
        };
        check("Terminating EC2 instance: ID", true);
        check("Terminating EC2 instance from warm pool: ID", true);
        // Not seen anywhere; how a return into the warm pool may be put.
        check("Returning EC2 instance ID to warm pool.", true);
        check("Moving EC2 instance to Warm Pool: ID", true);
        check("terminating instance (ID)", true);
        // Twice the same is still one.
        check("Terminating EC2 instance: ID. ID is unhealthy.", true);

        check("Launching a new EC2 instance: ID", false);
        check("Launching a new EC2 instance into warm pool: ID", false);
        check("Launching a new EC2 instance from warm pool: ID", false);
        check("Detaching EC2 instance: ID", false);
        check("Moving EC2 instance to Standby: ID", false);
        check("Moving EC2 instance out of Standby: ID", false);
        check("Replacing root volume of EC2 instance: ID", false);
        // Nobody, nobody in particular, or an id that is cut.
        check("Terminating EC2 instance", false);
        check("Terminating EC2 instances: ID, i-0aaaaaaaaaaaaaaaa", false);
        check("Terminating EC2 instance: i-0b1c2", false);
        check("", false);

        assert_eq!(leaving("Terminating EC2 instance: i-5f2e8a0d"), InstanceId::parse("i-5f2e8a0d"));
    }

    #[test]
    fn an_activity_counts_until_it_is_over() {
        let activity = |status: &str| {
            Activity::builder()
                .description(format!("Terminating EC2 instance: {ID}"))
                .start_time(DateTime::from_millis(1_773_480_413_904))
                .status_code(Status::from(status))
        };
        let found = Some((InstanceId::parse(ID).unwrap(), Timestamp::from_millis(1_773_480_413_904)));
        for status in [
            "InProgress",
            "MidLifecycleAction",
            "MidTerminatingLifecycleAction",
            "PreInService",
            "WaitingForELBConnectionDraining",
            "WaitingForConnectionDraining",
            "SomethingNew",
        ] {
            assert_eq!(termination(&activity(status).build()), found, "{status}");
        }
        for status in ["Successful", "Failed", "Cancelled"] {
            assert_eq!(termination(&activity(status).build()), None, "{status}");
        }
        assert_eq!(termination(&activity("InProgress").set_start_time(None).build()), None);
        assert_eq!(termination(&activity("InProgress").set_description(None).build()), None);
        assert_eq!(termination(&activity("InProgress").set_status_code(None).build()), None);
    }
}
