//! The sandbox's own controls, for demos and for tests that do not run in this process.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use offramp_core::{GroupName, InstanceId, SpotAction};
use serde_json::{Value, json};

use crate::world::balancers::TargetState;
use crate::world::events;
use crate::{Sandbox, World};

type Parameters = Query<BTreeMap<String, String>>;

/// `POST spot/ID`, `rebalance/ID`, `terminate/ID`, `desired/GROUP?capacity=N`; `GET state`, `calls`,
/// `story`.
pub(super) fn router(sandbox: Sandbox) -> Router {
    Router::new()
        .route("/spot/{instance}", post(spot))
        .route("/rebalance/{instance}", post(rebalance))
        .route("/terminate/{instance}", post(terminate))
        .route("/desired/{group}", post(desired))
        .route("/state", get(state))
        .route("/calls", get(calls))
        .route("/story", get(story))
        .with_state(sandbox)
}

async fn spot(
    State(sandbox): State<Sandbox>,
    Path(instance): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    let action = match parameters.get("action").map(String::as_str) {
        None | Some("terminate") => SpotAction::Terminate,
        Some("stop") => SpotAction::Stop,
        Some("hibernate") => SpotAction::Hibernate,
        Some(_) => return refused("action is one of terminate, stop and hibernate"),
    };
    on_instance(&sandbox, &instance, |world, id| world.spot_interrupt(id, action))
}

async fn rebalance(State(sandbox): State<Sandbox>, Path(instance): Path<String>) -> Response {
    on_instance(&sandbox, &instance, World::rebalance_recommend)
}

async fn terminate(State(sandbox): State<Sandbox>, Path(instance): Path<String>) -> Response {
    on_instance(&sandbox, &instance, World::terminate_instance)
}

async fn desired(
    State(sandbox): State<Sandbox>,
    Path(group): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    let Some(capacity) = parameters.get("capacity").and_then(|text| text.parse().ok()) else {
        return refused("capacity has to be a number");
    };
    match sandbox.with(|world| world.set_desired(&GroupName::new(group), capacity)) {
        Ok(()) => document(&json!({})),
        Err(refusal) => refused(&refusal.to_string()),
    }
}

async fn state(State(sandbox): State<Sandbox>) -> Response {
    document(&sandbox.peek(snapshot))
}

async fn calls(State(sandbox): State<Sandbox>) -> Response {
    document(&sandbox.peek(|world| json!(world.calls)))
}

async fn story(State(sandbox): State<Sandbox>) -> Response {
    let lines = |world: &World| -> Vec<String> {
        world.story.iter().map(|(at, line)| format!("{} {line}", events::millis(*at))).collect()
    };
    document(&json!(sandbox.peek(lines)))
}

fn on_instance(sandbox: &Sandbox, text: &str, act: impl FnOnce(&mut World, &InstanceId) -> bool) -> Response {
    let Some(id) = InstanceId::parse(text) else { return refused("this is no instance id") };
    if sandbox.with(|world| act(world, &id)) {
        document(&json!({}))
    } else {
        refused("the instance is not in a state in which that can happen")
    }
}

fn snapshot(world: &World) -> Value {
    let instances: BTreeMap<&str, Value> = world
        .instances
        .all()
        .map(|instance| {
            let group = instance.group.as_ref().map(GroupName::as_str);
            let value = json!({
                "state": instance.state.as_str(),
                "zone": instance.zone.as_str(),
                "spot": instance.spot,
                "private_ip": instance.private_ip.to_string(),
                "group": group,
            });
            (instance.id.as_str(), value)
        })
        .collect();
    let groups: BTreeMap<&str, Value> = world
        .groups
        .all()
        .map(|group| {
            let members: BTreeMap<&str, &str> =
                group.members.iter().map(|(id, member)| (id.as_str(), member.state.as_str())).collect();
            (group.spec.name.as_str(), json!({ "desired": group.spec.desired, "members": members }))
        })
        .collect();
    let target_groups: BTreeMap<&str, BTreeMap<String, &str>> = world
        .balancers
        .all()
        .map(|group| {
            let targets = group.targets.iter().map(|((id, port), target)| {
                let state = match target.state {
                    TargetState::Initial => "initial",
                    TargetState::Healthy => "healthy",
                    TargetState::Unhealthy => "unhealthy",
                    TargetState::Draining { .. } => "draining",
                };
                (format!("{id}:{port}"), state)
            });
            (group.arn.as_str(), targets.collect())
        })
        .collect();
    let queues: BTreeMap<&str, Value> = world
        .queues
        .names()
        .filter_map(|name| {
            let (waiting, in_flight) = world.queues.get(name)?.depth(world.now());
            Some((name, json!({ "waiting": waiting, "in_flight": in_flight })))
        })
        .collect();
    json!({
        "now": events::millis(world.now()),
        "instances": instances,
        "groups": groups,
        "target_groups": target_groups,
        "queues": queues,
    })
}

fn document(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

fn refused(text: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response()
}
