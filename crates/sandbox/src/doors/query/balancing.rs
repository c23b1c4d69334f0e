//! ELBv2 (API version 2015-12-01).

use offramp_core::{BalancerKind, InstanceId, TargetGroupArn};

use super::{Answer, Form, Refused, Xml, page};
use crate::World;
use crate::world::balancers::{Refusal, TargetGroup, TargetState};

/// Performs one action.
pub(super) fn perform(world: &mut World, action: &str, form: &Form) -> Answer {
    match action {
        "DescribeTargetGroups" => target_groups(world, form),
        "DescribeTargetGroupAttributes" => attributes(world, form),
        "DescribeTargetHealth" => health(world, form),
        "DescribeTags" => tags(world, form),
        "RegisterTargets" => {
            let arn = arn(form)?;
            let targets = targets(world, form, &arn)?;
            world.register_targets(&arn, &targets)?;
            Ok(Xml::default())
        }
        "DeregisterTargets" => {
            let arn = arn(form)?;
            let targets = targets(world, form, &arn)?;
            world.deregister_targets(&arn, &targets)?;
            Ok(Xml::default())
        }
        _ => Err(Refused::not_implemented(action)),
    }
}

fn target_groups(world: &World, form: &Form) -> Answer {
    if form.text("LoadBalancerArn").is_some() {
        return Err(Refused::not_implemented("DescribeTargetGroups by LoadBalancerArn"));
    }
    let (arns, names) = (form.list("TargetGroupArns"), form.list("Names"));
    for wanted in &arns {
        world.balancers.get(&TargetGroupArn::from(*wanted)).ok_or(Refusal::NoTargetGroup)?;
    }
    if names.iter().any(|wanted| world.balancers.all().all(|group| group.name != *wanted)) {
        return Err(Refusal::NoTargetGroup.into());
    }
    let everything = arns.is_empty() && names.is_empty();
    let wanted = |group: &&TargetGroup| {
        everything || arns.contains(&group.arn.as_str()) || names.contains(&group.name.as_str())
    };
    let items = world.balancers.all().filter(wanted);
    let items = items.map(|group| (group.arn.as_str().to_owned(), group)).collect();
    let (page, next) = page(items, form.text("Marker"), form.size("PageSize", 400, 400)?);
    let mut xml = Xml::default();
    xml.list("TargetGroups", page, |member, group| {
        let (protocol, kind) = match group.kind {
            BalancerKind::Application => ("HTTP", "app"),
            BalancerKind::Network => ("TCP", "net"),
        };
        let account_region = &world.events;
        member.text("TargetGroupArn", group.arn.as_str());
        member.text("TargetGroupName", &group.name);
        member.text("Protocol", protocol);
        member.number("Port", group.port.into());
        member.text("VpcId", "vpc-0a1b2c3d4e5f60718");
        member.text("HealthCheckProtocol", protocol);
        member.text("HealthCheckPort", "traffic-port");
        member.flag("HealthCheckEnabled", true);
        member.number("HealthCheckIntervalSeconds", 10);
        member.number("HealthCheckTimeoutSeconds", 5);
        member.number("HealthyThresholdCount", 5);
        member.number("UnhealthyThresholdCount", 2);
        member.texts(
            "LoadBalancerArns",
            [format!(
                "arn:aws:elasticloadbalancing:{}:{}:loadbalancer/{kind}/{}/50dc6c495c0c9188",
                account_region.region, account_region.account, group.name
            )],
        );
        member.text("TargetType", "instance");
        member.text("IpAddressType", "ipv4");
    });
    if let Some(next) = next {
        xml.text("NextMarker", &next);
    }
    Ok(xml)
}

fn attributes(world: &World, form: &Form) -> Answer {
    let group = target_group(world, form)?;
    // By default the load balancer decides: an application balancer balances across zones, a network
    // balancer does not.
    let cross_zone = match (group.kind, group.cross_zone) {
        (BalancerKind::Application, true) | (BalancerKind::Network, false) => {
            "use_load_balancer_configuration"
        }
        (BalancerKind::Application, false) => "false",
        (BalancerKind::Network, true) => "true",
    };
    let delay = group.deregistration_delay.as_secs().to_string();
    let mut attributes = vec![
        ("deregistration_delay.timeout_seconds", delay.as_str()),
        ("load_balancing.cross_zone.enabled", cross_zone),
        ("stickiness.enabled", "false"),
    ];
    if group.kind == BalancerKind::Network {
        attributes.push(("deregistration_delay.connection_termination.enabled", "false"));
    }
    let mut xml = Xml::default();
    xml.list("Attributes", attributes, |member, (key, value)| {
        member.text("Key", key);
        member.text("Value", value);
    });
    Ok(xml)
}

/// Every target, or the ones asked for: one that is not registered is `unused` then.
fn health(world: &World, form: &Form) -> Answer {
    let group = target_group(world, form)?;
    let asked = targets(world, form, &group.arn)?;
    let keys = if asked.is_empty() { group.targets.keys().cloned().collect() } else { asked };
    let mut xml = Xml::default();
    xml.list("TargetHealthDescriptions", keys, |member, key| {
        let (state, why) = words(group.targets.get(&key).map(|target| target.state));
        member.node("Target", |target| {
            target.text("Id", key.0.as_str());
            target.number("Port", key.1.into());
        });
        member.number("HealthCheckPort", key.1.into());
        member.node("TargetHealth", |health| {
            health.text("State", state);
            if let Some((reason, description)) = why {
                health.text("Reason", reason);
                health.text("Description", description);
            }
        });
    });
    Ok(xml)
}

/// State, reason and description (ELBv2 API, TargetHealth).
const fn words(state: Option<TargetState>) -> (&'static str, Option<(&'static str, &'static str)>) {
    match state {
        Some(TargetState::Healthy) => ("healthy", None),
        Some(TargetState::Initial) => {
            ("initial", Some(("Elb.RegistrationInProgress", "Target registration is in progress")))
        }
        Some(TargetState::Unhealthy) => {
            ("unhealthy", Some(("Target.FailedHealthChecks", "Health checks failed")))
        }
        Some(TargetState::Draining { .. }) => {
            ("draining", Some(("Target.DeregistrationInProgress", "Target deregistration is in progress")))
        }
        None => ("unused", Some(("Target.NotRegistered", "Target is not registered to the target group"))),
    }
}

/// At most 20 resources, and at least one.
fn tags(world: &World, form: &Form) -> Answer {
    let arns = form.list("ResourceArns");
    if arns.is_empty() || arns.len() > 20 {
        return Err(Refused::validation("Between 1 and 20 resource ARNs have to be specified"));
    }
    let mut described = Vec::new();
    for arn in arns {
        described.push(world.balancers.get(&TargetGroupArn::from(arn)).ok_or(Refusal::NoTargetGroup)?);
    }
    let mut xml = Xml::default();
    xml.list("TagDescriptions", described, |member, group| {
        member.text("ResourceArn", group.arn.as_str());
        member.list("Tags", &group.tags, |member, (key, value)| {
            member.text("Key", key);
            member.text("Value", value);
        });
    });
    Ok(xml)
}

fn arn(form: &Form) -> Result<TargetGroupArn, Refused> {
    form.required("TargetGroupArn").map(TargetGroupArn::from)
}

fn target_group<'a>(world: &'a World, form: &Form) -> Result<&'a TargetGroup, Refused> {
    Ok(world.balancers.get(&arn(form)?).ok_or(Refusal::NoTargetGroup)?)
}

/// The targets that a request names, with the group's port where they name none.
fn targets(world: &World, form: &Form, group: &TargetGroupArn) -> Result<Vec<(InstanceId, u16)>, Refused> {
    let default = world.balancers.get(group).ok_or(Refusal::NoTargetGroup)?.port;
    (1..)
        .map_while(|index| {
            let id = form.text(&format!("Targets.member.{index}.Id"))?;
            Some((id, form.text(&format!("Targets.member.{index}.Port"))))
        })
        .map(|(id, port)| {
            let invalid = || Refused::new("InvalidTarget", format!("The target '{id}' is not valid"));
            let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| invalid()))?;
            Ok((InstanceId::parse(id).ok_or_else(invalid)?, port))
        })
        .collect()
}
