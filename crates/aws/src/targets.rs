//! Elastic Load Balancing (v2) in one account and Region.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    ProtocolEnum, TargetDescription, TargetGroupAttribute, TargetHealth as Described,
    TargetHealthDescription, TargetHealthReasonEnum, TargetHealthStateEnum,
};
use offramp_core::{BalancerKind, InstanceId, Outcome, TargetGroupArn, TargetHealth, TargetKey, Zone};
use offramp_engine::{Call, Fault, InWords, TargetCall, TargetGroupSettings, TargetState, Targets};

use crate::fault::{Reading, Refusal};
use crate::meter::Meter;
use crate::split::{Whole, whole_or_halves};

/// The port on Elastic Load Balancing.
#[derive(Clone, Debug)]
pub(crate) struct LoadBalancing {
    client: Client,
    meter: Meter,
}

impl LoadBalancing {
    /// A port on this client.
    pub(crate) fn new(client: Client, meter: Meter) -> Self {
        Self { client, meter }
    }
}

#[async_trait]
impl Targets for LoadBalancing {
    async fn settings(&self, group: &TargetGroupArn) -> Result<Option<TargetGroupSettings>, Fault> {
        let doing = format!("describing target group {}", group.in_words());
        let request = self.client.describe_target_groups().target_group_arns(group.as_str());
        let groups = self.meter.send(Call::DescribeTargetGroups, request.send()).await;
        let Some(groups) = unless_gone(groups, &doing)? else { return Ok(None) };
        let Some(described) = groups.target_groups().first() else { return Ok(None) };
        let balancer = balancer(described.protocol());

        let doing = format!("describing the attributes of target group {}", group.in_words());
        let request = self.client.describe_target_group_attributes().target_group_arn(group.as_str());
        let attributes = self.meter.send(Call::DescribeTargetGroupAttributes, request.send()).await;
        let Some(attributes) = unless_gone(attributes, &doing)? else { return Ok(None) };
        let attributes = attributes.attributes();
        Ok(Some(TargetGroupSettings {
            balancer,
            cross_zone: cross_zone(balancer, attribute(attributes, "load_balancing.cross_zone.enabled")),
            deregistration_delay: attribute(attributes, "deregistration_delay.timeout_seconds")
                .and_then(|seconds| seconds.parse().ok())
                .map_or(DEFAULT_DEREGISTRATION_DELAY, Duration::from_secs),
        }))
    }

    async fn health(&self, group: &TargetGroupArn) -> Result<Option<Vec<TargetState>>, Fault> {
        let doing = format!("describing target health of {}", group.in_words());
        let request = self.client.describe_target_health().target_group_arn(group.as_str());
        let answer = self.meter.send(Call::DescribeTargetHealth, request.send()).await;
        let Some(answer) = unless_gone(answer, &doing)? else { return Ok(None) };
        Ok(Some(answer.target_health_descriptions().iter().filter_map(target_state).collect()))
    }

    async fn perform(&self, calls: &[TargetCall]) -> Vec<Result<Outcome, Fault>> {
        let mut answers = Vec::with_capacity(calls.len());
        for run in calls.chunk_by(|a, b| place(a) == place(b)) {
            let Some((way, group)) = run.first().map(place) else { continue };
            let targets = run.iter().map(|call| description(key(call))).collect();
            answers.extend(whole_or_halves(targets, |targets| self.change(way, group, targets)).await);
        }
        answers
    }
}

/// Out of a target group, or into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

impl LoadBalancing {
    async fn change(&self, way: Way, group: &TargetGroupArn, targets: Vec<TargetDescription>) -> Whole {
        let (count, short) = (targets.len(), group.in_words());
        let (sent, doing) = match way {
            Way::Out => {
                let request = self.client.deregister_targets().target_group_arn(group.as_str());
                let request = request.set_targets(Some(targets)).send();
                (self.meter.send(Call::DeregisterTargets, request).await.map(drop), "deregistering")
            }
            Way::In => {
                let request = self.client.register_targets().target_group_arn(group.as_str());
                let request = request.set_targets(Some(targets)).send();
                (self.meter.send(Call::RegisterTargets, request).await.map(drop), "registering")
            }
        };
        match sent {
            Ok(()) => Whole::Each(Ok(Outcome::Done)),
            Err(refusal) => match refusal.reading {
                Reading::NoTargetGroup => Whole::Each(Ok(Outcome::Gone)),
                Reading::InvalidTarget => Whole::SomeOf(Ok(Outcome::Gone)),
                _ => Whole::Each(Err(refusal.fault(format_args!("{doing} {count} targets of {short}")))),
            },
        }
    }
}

/// A target group without the attribute has it (ELBv2 API, TargetGroupAttribute).
const DEFAULT_DEREGISTRATION_DELAY: Duration = Duration::from_secs(300);

fn unless_gone<T>(answer: Result<T, Refusal>, doing: &str) -> Result<Option<T>, Fault> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(refusal) if refusal.reading == Reading::NoTargetGroup => Ok(None),
        Err(refusal) => Err(refusal.fault(doing)),
    }
}

const fn key(call: &TargetCall) -> &TargetKey {
    match call {
        TargetCall::Deregister(key) | TargetCall::Register(key) => key,
    }
}

const fn place(call: &TargetCall) -> (Way, &TargetGroupArn) {
    match call {
        TargetCall::Deregister(key) => (Way::Out, &key.group),
        TargetCall::Register(key) => (Way::In, &key.group),
    }
}

/// A target that was registered with a port override is only found by id and port (ELBv2 API,
/// DeregisterTargets).
fn description(key: &TargetKey) -> TargetDescription {
    TargetDescription::builder().id(key.instance.as_str()).port(key.port.into()).build()
}

/// A target group does not name the kind of its balancer, but its protocol does. A protocol to come is
/// taken for a network balancer's: those go on sending for longer after a deregistration. Only targets of
/// type lambda have none, which are an application balancer's.
fn balancer(protocol: Option<&ProtocolEnum>) -> BalancerKind {
    match protocol {
        None | Some(ProtocolEnum::Http | ProtocolEnum::Https) => BalancerKind::Application,
        Some(_) => BalancerKind::Network,
    }
}

/// Without a choice of its own the target group follows its balancer: always on for application balancers,
/// off by default for network balancers. Whether it was turned on there is not asked: "off" only asks for
/// a healthy target in the same zone.
fn cross_zone(balancer: BalancerKind, setting: Option<&str>) -> bool {
    match setting {
        Some("true") => true,
        Some("false") => false,
        _ => balancer == BalancerKind::Application,
    }
}

fn attribute<'a>(attributes: &'a [TargetGroupAttribute], key: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| attribute.key() == Some(key))?.value()
}

/// Nothing for targets that are no instances (addresses, functions, balancers): they are not ours.
fn target_state(described: &TargetHealthDescription) -> Option<TargetState> {
    let target = described.target()?;
    Some(TargetState {
        instance: InstanceId::parse(target.id()?)?,
        port: u16::try_from(target.port()?).ok()?,
        // AWS leaves the zone out for most instance targets, and writes "all" for some others.
        zone: target.availability_zone().filter(|zone| *zone != "all").map(Zone::new),
        health: described.target_health().map_or(TargetHealth::Unavailable, health),
    })
}

/// A state to come is read as `Unavailable`: a target that still has to be deregistered, and that nobody
/// may count on as a stand-in. Either other reading could lose requests.
fn health(described: &Described) -> TargetHealth {
    match described.state() {
        Some(TargetHealthStateEnum::Initial) => TargetHealth::Initial,
        Some(TargetHealthStateEnum::Healthy) => TargetHealth::Healthy,
        Some(TargetHealthStateEnum::Unhealthy | TargetHealthStateEnum::UnhealthyDraining) => {
            TargetHealth::Unhealthy
        }
        Some(TargetHealthStateEnum::Draining) => TargetHealth::Draining,
        Some(TargetHealthStateEnum::Unused) => TargetHealth::Unused {
            registered: described.reason() != Some(&TargetHealthReasonEnum::NotRegistered),
        },
        Some(_) | None => TargetHealth::Unavailable,
    }
}

#[cfg(test)]
mod tests;
