//! Plays an API server: lists in pages, watches with history, and takes writes down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) address: String,
    world: Arc<Mutex<World>>,
    /// Counts what tests wait for.
    moved: watch::Sender<()>,
    evictions: watch::Sender<bool>,
    events: watch::Sender<bool>,
    _task: Arc<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct World {
    version: u64,
    /// By resource and key.
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    history: Vec<(u64, &'static str, Value)>,
    oldest: BTreeMap<&'static str, u64>,
    watchers: Vec<(&'static str, mpsc::UnboundedSender<String>)>,
    refused: BTreeMap<&'static str, u16>,
    refusals: usize,
    lists: BTreeMap<&'static str, usize>,
    nodes_read: usize,
    watched: BTreeMap<&'static str, usize>,
    never_end: bool,
    scripts: BTreeMap<&'static str, Script>,
    writes: Vec<Value>,
    answer: Option<(u16, String)>,
    evictions_in_flight: usize,
    minor: Option<String>,
}

/// What every watch of a resource does: it waits, sends these lines, and ends, or does nothing more for ever.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) wait: Duration,
    pub(crate) lines: Vec<Value>,
    pub(crate) ends: bool,
}

/// A Status as the API server sends it.
pub(crate) fn status(code: u16, reason: &str, details: Value) -> String {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code, "details": details,
    })
    .to_string()
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn serve(listener: TcpListener) -> Self {
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (world, moved) = (Arc::new(Mutex::new(World::default())), watch::Sender::new(()));
        let (evictions, events) = (watch::Sender::new(true), watch::Sender::new(true));
        let state = (Arc::clone(&world), moved.clone(), evictions.clone(), events.clone());
        let app = Router::new().fallback(answer).with_state(state);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, world, moved, evictions, events, _task: Arc::new(Task(task)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn put(&self, resource: &'static str, mut object: Value) {
        let mut world = self.world();
        world.version += 1;
        object["metadata"]["resourceVersion"] = json!(world.version.to_string());
        let objects = world.objects.entry(resource).or_default();
        let old = objects.insert(key(&object), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        world.publish(resource, json!({ "type": kind, "object": object }));
    }

    /// As with [`ApiServer::put`], and no watch that is open shows it.
    pub(crate) fn put_unseen(&self, resource: &'static str, object: Value) {
        let watchers = std::mem::take(&mut self.world().watchers);
        self.put(resource, object);
        self.world().watchers = watchers;
    }

    /// It is restored from a backup: what came after this version never was, and versions go on from there.
    pub(crate) fn go_back_to(&self, version: u64) {
        let mut world = self.world();
        world.version = version;
        world.history.retain(|(at, ..)| *at <= version);
    }

    /// Its version, `1.` and this, from now on.
    pub(crate) fn become_minor(&self, minor: &str) {
        self.world().minor = Some(minor.to_owned());
    }

    pub(crate) fn remove(&self, resource: &'static str, key: &str) {
        let mut world = self.world();
        world.version += 1;
        let mut object = world.objects.get_mut(resource).unwrap().remove(key).unwrap();
        object["metadata"]["resourceVersion"] = json!(world.version.to_string());
        world.publish(resource, json!({ "type": "DELETED", "object": object }));
    }

    /// An object ends, and no watch is told.
    pub(crate) fn lose(&self, resource: &'static str, key: &str) {
        self.world().objects.get_mut(resource).unwrap().remove(key).unwrap();
    }

    /// Lists and watches of this resource fail from now on; open watches go on.
    pub(crate) fn refuse(&self, resource: &'static str, code: u16) {
        self.world().refused.insert(resource, code);
    }

    /// Waits until so many lists and watches have been refused.
    pub(crate) async fn refusals(&self, count: usize) {
        self.until(|world| world.refusals >= count).await;
    }

    pub(crate) fn allow(&self, resource: &'static str) {
        self.world().refused.remove(resource);
    }

    /// Tells the open watches of this resource the newest version.
    pub(crate) fn bookmark(&self, resource: &'static str) {
        let mut world = self.world();
        let metadata = json!({ "resourceVersion": world.version.to_string() });
        let object = json!({ "kind": "Any", "apiVersion": "v1", "metadata": metadata });
        world.publish(resource, json!({ "type": "BOOKMARK", "object": object }));
    }

    /// Ends the open watches of this resource.
    pub(crate) fn cut(&self, resource: &str) {
        self.world().watchers.retain(|(watched, _)| *watched != resource);
    }

    /// Does something that no watch gets to see, and forgets the history, as after a compaction.
    pub(crate) fn expire(&self, resource: &'static str, in_the_stream: bool, unseen: impl FnOnce(&Self)) {
        let gone = status(410, "Expired", json!({}));
        let mut watchers = std::mem::take(&mut self.world().watchers);
        unseen(self);
        let mut world = self.world();
        let version = world.version;
        world.oldest.insert(resource, version);
        watchers.retain(|(watched, sender)| {
            if *watched == resource && in_the_stream {
                let error: Value = serde_json::from_str(&gone).unwrap();
                sender.send(format!("{}\n", json!({ "type": "ERROR", "object": error }))).unwrap();
            }
            *watched != resource
        });
        world.watchers = watchers;
    }

    /// Watches send nothing by themselves and never end.
    pub(crate) fn never_end(&self) {
        self.world().never_end = true;
    }

    /// Watches of this resource do this from now on, those that are open too.
    pub(crate) fn script(&self, resource: &'static str, script: Script) {
        self.world().scripts.insert(resource, script);
        self.cut(resource);
    }

    /// Watches of this resource work again; those that are open go on.
    pub(crate) fn unscript(&self, resource: &'static str) {
        self.world().scripts.remove(resource);
    }

    /// How often this resource has been watched.
    pub(crate) fn watches(&self, resource: &str) -> usize {
        self.world().watched.get(resource).copied().unwrap_or(0)
    }

    /// Waits until this resource has been listed so many times.
    pub(crate) async fn listed(&self, resource: &'static str, times: usize) {
        self.until(|world| world.lists.get(resource).is_some_and(|count| *count >= times)).await;
    }

    pub(crate) fn lists(&self, resource: &str) -> usize {
        self.world().lists.get(resource).copied().unwrap_or(0)
    }

    /// How often one node was read by its name.
    pub(crate) fn nodes_read(&self) -> usize {
        self.world().nodes_read
    }

    /// Waits until this resource has been watched so many times.
    pub(crate) async fn watched(&self, resource: &'static str, times: usize) {
        self.until(|world| world.watched.get(resource).is_some_and(|count| *count >= times)).await;
    }

    /// The next write gets this answer.
    pub(crate) fn answer(&self, code: u16, body: String) {
        self.world().answer = Some((code, body));
    }

    /// The writes since the last time.
    pub(crate) fn writes(&self) -> Vec<Value> {
        std::mem::take(&mut self.world().writes)
    }

    /// Waits for the next write.
    pub(crate) async fn write(&self) -> Value {
        self.until(|world| !world.writes.is_empty()).await;
        self.world().writes.remove(0)
    }

    /// Events are not answered from now on.
    pub(crate) fn hold_events(&self) {
        self.events.send_replace(false);
    }

    pub(crate) fn hold_evictions(&self) {
        self.evictions.send_replace(false);
    }

    pub(crate) fn release_evictions(&self) {
        self.evictions.send_replace(true);
    }

    pub(crate) async fn held_evictions(&self, count: usize) {
        self.until(|world| world.evictions_in_flight >= count).await;
    }

    async fn until(&self, holds: impl Fn(&World) -> bool) {
        let mut moved = self.moved.subscribe();
        while !holds(&self.world()) {
            moved.changed().await.unwrap();
        }
    }
}

impl World {
    fn publish(&mut self, resource: &'static str, event: Value) {
        let line = format!("{event}\n");
        self.watchers.retain(|(watched, sender)| *watched != resource || sender.send(line.clone()).is_ok());
        self.history.push((self.version, resource, event));
    }
}

type Shared = (Arc<Mutex<World>>, watch::Sender<()>, watch::Sender<bool>, watch::Sender<bool>);

async fn answer(State((world, moved, evictions, events)): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if parts.method == Method::GET && path == "/version" {
        let minor = world.lock().unwrap().minor.clone();
        return reply(200, Body::from(version_info(minor.as_deref().unwrap_or("36")).to_string()));
    }
    if let (true, Some((_, name))) = (parts.method == Method::GET, path.split_once("/nodes/")) {
        return read_node(&mut world.lock().unwrap(), name);
    }
    if parts.method == Method::GET {
        let resource = ["nodes", "pods", "services"].into_iter().find(|known| path.ends_with(known)).unwrap();
        let query: BTreeMap<&str, &str> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let answer = read(&mut world.lock().unwrap(), resource, &query);
        moved.send_replace(());
        return answer;
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let canned = {
        let mut world = world.lock().unwrap();
        world.writes.push(json!({
            "method": parts.method.as_str(), "path": path, "type": parts.headers["content-type"].to_str().unwrap(),
            "body": serde_json::from_slice::<Value>(&body).unwrap(),
        }));
        world.answer.take()
    };
    moved.send_replace(());
    if path.ends_with("/events") {
        events.subscribe().wait_for(|open| *open).await.unwrap();
        let event = || (201, String::from_utf8(body.to_vec()).unwrap());
        let (code, body) = canned.unwrap_or_else(event);
        return reply(code, Body::from(body));
    }
    if path.ends_with("/eviction") {
        world.lock().unwrap().evictions_in_flight += 1;
        moved.send_replace(());
        evictions.subscribe().wait_for(|open| *open).await.unwrap();
        world.lock().unwrap().evictions_in_flight -= 1;
    }
    let (code, body) =
        canned.unwrap_or_else(|| (200, json!({ "kind": "Status", "status": "Success" }).to_string()));
    reply(code, Body::from(body))
}

fn read(world: &mut World, resource: &'static str, query: &BTreeMap<&str, &str>) -> Response {
    if let Some(code) = world.refused.get(resource) {
        world.refusals += 1;
        return reply(*code, Body::from(status(*code, "Refused", json!({}))));
    }
    if query.get("watch") == Some(&"true") {
        return watch(world, resource, query);
    }
    *world.lists.entry(resource).or_default() += 1;
    let offset: usize = query.get("continue").map_or(0, |offset| offset.parse().unwrap());
    let limit: usize = query.get("limit").map_or(1_000, |limit| limit.parse().unwrap());
    let field = query.get("fieldSelector").and_then(|field| field.split_once("%3D"));
    let selects = |object: &Value| match field {
        Some(("metadata.name", name)) => object["metadata"]["name"] == *name,
        Some((_, node)) => object["spec"]["nodeName"] == *node,
        None => true,
    };
    let objects = world.objects.get(resource).into_iter().flat_map(BTreeMap::values);
    let objects: Vec<&Value> = objects.filter(|object| selects(object)).collect();
    let more = objects.len() > offset + limit;
    let page: Vec<&Value> = objects.into_iter().skip(offset).take(limit).collect();
    let next = if more { (offset + limit).to_string() } else { String::new() };
    let list = json!({
        "kind": "List", "apiVersion": "v1",
        "metadata": { "resourceVersion": world.version.to_string(), "continue": next }, "items": page,
    });
    reply(200, Body::from(list.to_string()))
}

fn read_node(world: &mut World, name: &str) -> Response {
    if let Some(code) = world.refused.get("nodes") {
        return reply(*code, Body::from(status(*code, "Refused", json!({}))));
    }
    world.nodes_read += 1;
    match world
        .objects
        .get("nodes")
        .and_then(|nodes| nodes.values().find(|node| node["metadata"]["name"] == *name))
    {
        Some(node) => reply(200, Body::from(node.to_string())),
        None => reply(404, Body::from(status(404, "NotFound", json!({})))),
    }
}

fn version_info(minor: &str) -> Value {
    json!({
        "major": "1", "minor": minor, "gitVersion": "v1", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": "",
    })
}

fn watch(world: &mut World, resource: &'static str, query: &BTreeMap<&str, &str>) -> Response {
    let from: u64 = query["resourceVersion"].parse().unwrap();
    if world.oldest.get(resource).is_some_and(|oldest| from < *oldest) {
        return reply(410, Body::from(status(410, "Expired", json!({}))));
    }
    *world.watched.entry(resource).or_default() += 1;
    if let Some(script) = world.scripts.get(resource) {
        return scripted(script.clone());
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    for (_, _, event) in
        world.history.iter().filter(|(version, kind, _)| *version > from && *kind == resource)
    {
        sender.send(format!("{event}\n")).unwrap();
    }
    world.watchers.push((resource, sender));
    let seconds: u64 = query["timeoutSeconds"].parse().unwrap();
    let end = (!world.never_end).then(|| tokio::time::Instant::now() + Duration::from_secs(seconds));
    let lines = stream::unfold(receiver, move |mut receiver| async move {
        let line = match end {
            Some(end) => tokio::time::timeout_at(end, receiver.recv()).await.ok().flatten(),
            None => receiver.recv().await,
        };
        line.map(|line| (Ok::<_, std::convert::Infallible>(line), receiver))
    });
    reply(200, Body::from_stream(lines))
}

fn scripted(script: Script) -> Response {
    let Script { wait, lines, ends } = script;
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let lines = stream::once(async move {
        tokio::time::sleep(wait).await;
        Ok::<_, std::convert::Infallible>(lines)
    });
    let rest = stream::once(async move { if ends { None } else { std::future::pending().await } });
    let rest = rest.filter_map(async |rest: Option<()>| rest.map(|()| Ok(String::new())));
    reply(200, Body::from_stream(lines.chain(rest)))
}

fn reply(code: u16, body: Body) -> Response {
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap();
    metadata["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}
