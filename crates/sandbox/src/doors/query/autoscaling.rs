//! Auto Scaling (API version 2011-01-01).

mod activities;
mod filters;

use std::time::Duration;

use offramp_core::{GroupName, HookName, HookToken, InstanceId};

use super::{Answer, Form, Refused, Xml, page};
use crate::World;
use crate::world::events;
use crate::world::groups::{
    self, ActionResult, Activity, ActivityStatus, Described, Group, Hook, Transition,
};
use activities::activity;
use filters::Filter;

/// Performs one action.
pub(super) fn perform(world: &mut World, action: &str, form: &Form) -> Answer {
    let filtered = form.0.keys().any(|name| name.starts_with("Filters."));
    if filtered && action != "DescribeAutoScalingGroups" {
        return Err(Refused::not_implemented(&format!("{action} with Filters")));
    }
    match action {
        "DescribeAutoScalingInstances" => instances(world, form),
        "DescribeAutoScalingGroups" => groups(world, form),
        "DescribeLifecycleHooks" => hooks(world, form),
        "DescribeScalingActivities" => activities::describe(world, form),
        "CompleteLifecycleAction" => {
            let result = action_result(form.required("LifecycleActionResult")?)?;
            world.complete_action(&answer(form)?, result)?;
            Ok(Xml::default())
        }
        "RecordLifecycleActionHeartbeat" => {
            world.heartbeat(&answer(form)?)?;
            Ok(Xml::default())
        }
        "PutLifecycleHook" => put_hook(world, form),
        "DeleteLifecycleHook" => {
            world.delete_hook(&group_name(form)?, &hook_name(form)?)?;
            Ok(Xml::default())
        }
        "DetachInstances" => detach(world, form),
        "TerminateInstanceInAutoScalingGroup" => terminate(world, form),
        "SetDesiredCapacity" => set_desired(world, form),
        "UpdateAutoScalingGroup" => update(world, form),
        _ => Err(Refused::not_implemented(action)),
    }
}

/// At most 50 ids and 50 results; an id that is in no group is left out.
fn instances(world: &World, form: &Form) -> Answer {
    let ids = form.list("InstanceIds");
    if ids.len() > 50 {
        return Err(Refused::validation("The number of instance ids must be at most 50."));
    }
    let described = world.groups.described(world.now());
    let wanted = described.into_iter().filter(|(id, _)| ids.is_empty() || ids.contains(&id.as_str()));
    let items = wanted.map(|(id, described)| (id.as_str().to_owned(), (id, described))).collect();
    let (page, next) = page(items, form.text("NextToken"), form.size("MaxRecords", 50, 50)?);
    let mut xml = Xml::default();
    xml.list("AutoScalingInstances", page, |member, (id, described)| {
        member.text("AutoScalingGroupName", described.group.as_str());
        // Capitals here, and not in DescribeAutoScalingGroups.
        member.text("HealthStatus", if described.healthy { "HEALTHY" } else { "UNHEALTHY" });
        instance(member, &id, &described);
    });
    if let Some(next) = next {
        xml.text("NextToken", &next);
    }
    Ok(xml)
}

fn groups(world: &World, form: &Form) -> Answer {
    let names = form.list("AutoScalingGroupNames");
    let filters = Filter::all_in(form)?;
    let wanted = |group: &&Group| {
        (names.is_empty() || names.contains(&group.spec.name.as_str()))
            && filters.iter().all(|filter| filter.admits(&group.spec.tags))
    };
    let items = world.groups.all().filter(wanted);
    let items = items.map(|group| (group.spec.name.as_str().to_owned(), group)).collect();
    let (page, next) = page(items, form.text("NextToken"), form.size("MaxRecords", 50, 100)?);
    let described = world.groups.described(world.now());
    let mut xml = Xml::default();
    xml.list("AutoScalingGroups", page, |member, group| {
        let mine: Vec<(&InstanceId, &Described)> =
            described.iter().filter(|(_, described)| described.group == group.spec.name).collect();
        describe_group(member, world, group, &mine);
    });
    if let Some(next) = next {
        xml.text("NextToken", &next);
    }
    Ok(xml)
}

fn describe_group(xml: &mut Xml, world: &World, group: &Group, members: &[(&InstanceId, &Described)]) {
    let spec = &group.spec;
    let name = spec.name.as_str();
    let account = &world.events.account;
    xml.text("AutoScalingGroupName", name);
    xml.text("AutoScalingGroupARN", &world.group_arn(&spec.name).unwrap_or_default());
    xml.node("LaunchTemplate", launch_template);
    xml.number("MinSize", spec.min as u64);
    xml.number("MaxSize", spec.max as u64);
    xml.number("DesiredCapacity", spec.desired as u64);
    xml.number("DefaultCooldown", 300);
    xml.texts("AvailabilityZones", spec.template.zones.iter().map(|zone| zone.as_str()));
    xml.texts("LoadBalancerNames", Vec::<&str>::new());
    xml.texts("TargetGroupARNs", spec.target_groups.iter().map(|arn| arn.as_str()));
    xml.text("HealthCheckType", "EC2");
    xml.number("HealthCheckGracePeriod", 0);
    xml.list("Instances", members, |member, (id, described)| {
        member.text("HealthStatus", if described.healthy { "Healthy" } else { "Unhealthy" });
        instance(member, id, described);
    });
    xml.text("CreatedTime", &events::millis(group.created));
    xml.texts("SuspendedProcesses", Vec::<&str>::new());
    xml.text("VPCZoneIdentifier", "subnet-0f1e2d3c4b5a69788");
    xml.texts("EnabledMetrics", Vec::<&str>::new());
    xml.list("Tags", &spec.tags, |member, (key, value)| {
        member.text("ResourceId", name);
        member.text("ResourceType", "auto-scaling-group");
        member.text("Key", key);
        member.text("Value", value);
        member.flag("PropagateAtLaunch", true);
    });
    xml.texts("TerminationPolicies", ["Default"]);
    xml.flag("NewInstancesProtectedFromScaleIn", false);
    // Where it was never switched on, AWS leaves it out.
    if spec.capacity_rebalancing {
        xml.flag("CapacityRebalance", true);
    }
    let role = "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    xml.text("ServiceLinkedRoleARN", &format!("arn:aws:iam::{account}:{role}"));
    xml.list("TrafficSources", &spec.target_groups, |member, arn| {
        member.text("Identifier", arn.as_str());
        member.text("Type", "elbv2");
    });
}

fn instance(xml: &mut Xml, id: &InstanceId, described: &Described) {
    xml.text("InstanceId", id.as_str());
    xml.text("InstanceType", "m7i.large");
    xml.text("AvailabilityZone", described.zone.as_str());
    xml.text("LifecycleState", described.state.as_str());
    xml.node("LaunchTemplate", launch_template);
    xml.flag("ProtectedFromScaleIn", false);
}

fn launch_template(xml: &mut Xml) {
    xml.text("LaunchTemplateId", "lt-0c1d2e3f4a5b60718");
    xml.text("LaunchTemplateName", "workers");
    xml.text("Version", "1");
}

fn hooks(world: &World, form: &Form) -> Answer {
    let group = group_name(form)?;
    let spec = &world.groups.get(&group).ok_or(groups::Refusal::NoGroup(group))?.spec;
    let names = form.list("LifecycleHookNames");
    let wanted = |hook: &&Hook| names.is_empty() || names.contains(&hook.name.as_str());
    let mut xml = Xml::default();
    xml.list("LifecycleHooks", spec.hooks.iter().filter(wanted), |member, hook| {
        member.text("LifecycleHookName", hook.name.as_str());
        member.text("AutoScalingGroupName", spec.name.as_str());
        member.text("LifecycleTransition", hook.transition.as_str());
        if let Some(metadata) = &hook.metadata {
            member.text("NotificationMetadata", metadata);
        }
        member.number("HeartbeatTimeout", hook.heartbeat_timeout.as_secs());
        member.number("GlobalTimeout", hook.global_timeout().as_secs());
        member.text("DefaultResult", hook.default_result.as_str());
    });
    Ok(xml)
}

/// Neither notification targets nor roles: events go to the world's own queue.
fn put_hook(world: &mut World, form: &Form) -> Answer {
    let known = [
        "Action",
        "Version",
        "AutoScalingGroupName",
        "LifecycleHookName",
        "LifecycleTransition",
        "HeartbeatTimeout",
        "DefaultResult",
        "NotificationMetadata",
    ];
    if let Some(other) = form.0.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Refused::not_implemented(&format!("PutLifecycleHook with {other}")));
    }
    let name = hook_name(form)?;
    let usual = Hook::terminating(name.as_str());
    let transition = match form.required("LifecycleTransition")? {
        "autoscaling:EC2_INSTANCE_TERMINATING" => Transition::Terminating,
        "autoscaling:EC2_INSTANCE_LAUNCHING" => Transition::Launching,
        other => return Err(Refused::validation(format!("Not a lifecycle transition: {other}"))),
    };
    let seconds = form.text("HeartbeatTimeout").map(|text| {
        let seconds = text.parse().ok().filter(|seconds| (30..=7_200).contains(seconds));
        seconds.ok_or_else(|| Refused::validation("HeartbeatTimeout must be between 30 and 7200 seconds."))
    });
    let hook = Hook {
        transition,
        heartbeat_timeout: seconds.transpose()?.map_or(usual.heartbeat_timeout, Duration::from_secs),
        default_result: form.text("DefaultResult").map_or(Ok(usual.default_result), action_result)?,
        metadata: form.text("NotificationMetadata").map(str::to_owned),
        name,
    };
    world.put_hook(&group_name(form)?, hook)?;
    Ok(Xml::default())
}

fn action_result(text: &str) -> Result<ActionResult, Refused> {
    match text {
        "CONTINUE" => Ok(ActionResult::Continue),
        "ABANDON" => Ok(ActionResult::Abandon),
        other => Err(Refused::validation(format!(
            "Lifecycle action result {other} is not valid: it must be CONTINUE or ABANDON"
        ))),
    }
}

/// At most 20 ids.
fn detach(world: &mut World, form: &Form) -> Answer {
    let group = group_name(form)?;
    let ids = form.list("InstanceIds");
    if ids.len() > 20 {
        return Err(Refused::validation("The number of instance ids must be at most 20."));
    }
    let ids: Vec<InstanceId> = ids.into_iter().map(instance_id).collect::<Result<_, _>>()?;
    world.detach(&group, &ids, form.flag("ShouldDecrementDesiredCapacity")?)?;
    let now = world.now();
    let mut xml = Xml::default();
    xml.node("Activities", |list| {
        for id in &ids {
            let told = Activity::detaching(world.uuid(), &group, id, now);
            list.node("member", |member| activity(member, &told, ActivityStatus::InProgress));
        }
    });
    Ok(xml)
}

/// The activity is the one that DescribeScalingActivities lists.
fn terminate(world: &mut World, form: &Form) -> Answer {
    let id = instance_id(form.required("InstanceId")?)?;
    world.terminate_in_group(&id, form.flag("ShouldDecrementDesiredCapacity")?)?;
    let mut xml = Xml::default();
    if let Some(told) = world.groups.activity_of(&id) {
        xml.node("Activity", |xml| activity(xml, told, ActivityStatus::InProgress));
    }
    Ok(xml)
}

fn set_desired(world: &mut World, form: &Form) -> Answer {
    world.set_desired(&group_name(form)?, count(form.required("DesiredCapacity")?)?)?;
    Ok(Xml::default())
}

/// Sizes only.
fn update(world: &mut World, form: &Form) -> Answer {
    let group = group_name(form)?;
    let known = ["Action", "Version", "AutoScalingGroupName", "DesiredCapacity", "MinSize", "MaxSize"];
    if let Some(other) = form.0.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Refused::not_implemented(&format!("UpdateAutoScalingGroup with {other}")));
    }
    let size = |name: &str| form.text(name).map(count).transpose();
    world.resize(&group, size("MinSize")?, size("MaxSize")?, size("DesiredCapacity")?)?;
    Ok(Xml::default())
}

fn answer(form: &Form) -> Result<groups::Answer, Refused> {
    let token = form.text("LifecycleActionToken");
    if token.is_some_and(|token| token.len() != 36) {
        return Err(Refused::validation(
            "1 validation error detected: Value at 'lifecycleActionToken' failed to satisfy constraint: Member \
             must have length equal to 36",
        ));
    }
    Ok(groups::Answer {
        group: group_name(form)?,
        hook: hook_name(form)?,
        token: token.map(HookToken::new),
        instance: form.text("InstanceId").map(instance_id).transpose()?,
    })
}

fn group_name(form: &Form) -> Result<GroupName, Refused> {
    form.required("AutoScalingGroupName").map(GroupName::from)
}

fn hook_name(form: &Form) -> Result<HookName, Refused> {
    form.required("LifecycleHookName").map(HookName::new)
}

fn instance_id(text: &str) -> Result<InstanceId, Refused> {
    InstanceId::parse(text).ok_or_else(|| Refused::validation(format!("Invalid instance id: {text}")))
}

fn count(text: &str) -> Result<usize, Refused> {
    text.parse().map_err(|_| Refused::validation(format!("Not a size: {text}")))
}
