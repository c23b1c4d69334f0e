//! Scaling activities.

use offramp_core::GroupName;

use crate::World;
use crate::doors::query::{Answer, Form, Refused, Xml, page};
use crate::world::events;
use crate::world::groups::{self, Activity, ActivityStatus};

/// DescribeScalingActivities (`API_DescribeScalingActivities.html`): of one group, or of all; at most 100 on a page.
/// What AWS answers for a group that does not exist is not documented: here it is what DescribeLifecycleHooks says.
pub(super) fn describe(world: &World, form: &Form) -> Answer {
    let known = ["Action", "Version", "AutoScalingGroupName", "MaxRecords", "NextToken"];
    if let Some(other) = form.0.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Refused::not_implemented(&format!("DescribeScalingActivities with {other}")));
    }
    let group = form.text("AutoScalingGroupName").map(GroupName::from);
    if let Some(group) = group.as_ref().filter(|group| world.groups.get(group).is_none()) {
        return Err(groups::Refusal::NoGroup(group.clone()).into());
    }
    let found = world.groups.activities(group.as_ref(), world.now());
    // A page begins at a token. Counted from the oldest, its place stays the same while new ones come.
    let place = |(index, _): &(usize, _)| format!("{:020}", usize::MAX - (found.len() - index));
    let items = found.iter().enumerate().map(|item| (place(&item), item.1)).collect();
    let (page, next) = page(items, form.text("NextToken"), form.size("MaxRecords", 100, 100)?);
    let mut xml = Xml::default();
    xml.list("Activities", page, |member, (told, status)| activity(member, told, *status));
    if let Some(next) = next {
        xml.text("NextToken", &next);
    }
    Ok(xml)
}

/// One activity (`API_Activity.html`). It names its instance in the description alone.
pub(super) fn activity(xml: &mut Xml, activity: &Activity, status: ActivityStatus) {
    xml.text("ActivityId", &activity.id);
    xml.text("AutoScalingGroupName", activity.group.as_str());
    xml.text("Description", &activity.description);
    xml.text("Cause", &activity.cause);
    xml.text("StartTime", &events::millis(activity.started));
    if let Some(ended) = activity.ended.filter(|_| status == ActivityStatus::Successful) {
        xml.text("EndTime", &events::millis(ended));
    }
    xml.text("StatusCode", status.as_str());
    xml.number("Progress", status.progress());
    xml.text("Details", "{}");
}
