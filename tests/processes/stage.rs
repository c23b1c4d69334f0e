//! The stage for tests of the whole process: a world behind its HTTP doors in the test's own process, and
//! the real binary as a child that knows nothing of it but a configuration file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use offramp_core::{ClusterName, GroupName, InstanceId, NodeName};
use offramp_engine::Clock;
use offramp_sandbox::doors::aws_router;
use offramp_sandbox::doors::kubernetes::{kubeconfig, kubernetes_router};
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{Ending, Phase};
use offramp_sandbox::world::groups::MemberState;
use offramp_sandbox::{Delays, Fleet, Sandbox, World};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Far longer than anything here takes, also on a busy machine: whoever waits so long has found a bug.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A world, its doors (closed at first), and what came through those of the clusters.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) folder: TempDir,
    aws: Door,
    clusters: Vec<(ClusterName, Door)>,
    writes: Arc<Mutex<Vec<(ClusterName, String)>>>,
    tasks: JoinSet<()>,
}

/// A port that is ours from the beginning and refuses every connection until it is opened.
struct Door {
    address: SocketAddr,
    socket: Option<TcpSocket>,
}

/// How the binary is started.
pub(crate) struct Start<'a> {
    /// Lines of the configuration beside those that the stage writes.
    pub(crate) config: &'a str,
    /// A field of each cluster.
    pub(crate) cluster: &'a str,
    /// The queue's name in its URL.
    pub(crate) queue: &'a str,
    /// Words to put before the binary's own.
    pub(crate) wrapper: &'a [&'a str],
}

/// The binary. It is killed when this is dropped, and its log must never hold a panic.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
    wrapped: bool,
}

/// How the world looked when a hook was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) line: String,
    pub(crate) instance: InstanceId,
    /// Evictable pods that still ran on its node.
    pub(crate) pods: usize,
    /// The world had not yet moved on to the instance's end, so that the pods are those of that moment.
    pub(crate) in_time: bool,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self { config: "", cluster: "", queue: "offramp", wrapper: &[] }
    }
}

/// A world in which everything takes a second or two. A group takes a whole second from the answer of a
/// hook to the end of the instance, so that a test can look at the moment of the answer.
pub(crate) const fn delays() -> Delays {
    Delays {
        event: Duration::from_millis(50),
        launch: Duration::from_secs(2),
        application_propagation: Duration::from_millis(500),
        deregistration: Duration::from_secs(2),
        first_health_checks: Duration::from_millis(500),
        endpoint_slices: Duration::from_millis(100),
        pod_start: Duration::from_millis(500),
        group_reaction: Duration::from_secs(1),
        shutdown: Duration::from_secs(1),
        node_deletion: Duration::from_secs(1),
        ..Delays::demo()
    }
}

/// Six pods behind an Application Load Balancer, which leave one after the other. Their preStop covers
/// the time that the balancer and the EndpointSlices take.
pub(crate) fn web(node_port: u16) -> App {
    App {
        min_available: Some(5),
        entrance: Some(Entrance::new(node_port, 100.0)),
        ending: Ending {
            pre_stop: Duration::from_secs(1),
            takes: Some(Duration::from_millis(200)),
            stuck: false,
        },
        ..App::new("web", 6)
    }
}

/// One cluster of three nodes with the web app.
pub(crate) fn blue(seed: u64) -> Fleet {
    Fleet::new(Clock::system().now(), delays(), seed)
        .cluster("blue")
        .pool(Pool::new("workers", 3))
        .app(web(30_080))
}

impl Stage {
    /// Sets the world up. It lives from now on; every door is still closed.
    pub(crate) fn new(fleet: Fleet) -> Self {
        Self::by_the_clock(fleet, Clock::system())
    }

    /// The same in a world whose clock need not be the machine's.
    pub(crate) fn by_the_clock(fleet: Fleet, clock: Clock) -> Self {
        let sandbox = Sandbox::new(fleet.build(), clock);
        let names: Vec<ClusterName> = sandbox.peek(|world| world.clusters.keys().cloned().collect());
        let clusters: Vec<(ClusterName, Door)> =
            names.into_iter().map(|name| (name, Door::reserve())).collect();
        let folder = tempfile::tempdir().unwrap();
        let urls: Vec<(ClusterName, String)> =
            clusters.iter().map(|(name, door)| (name.clone(), format!("http://{}", door.address))).collect();
        fs::write(folder.path().join("kubeconfig"), kubeconfig(&urls)).unwrap();
        let mut tasks = JoinSet::new();
        let world = sandbox.clone();
        tasks.spawn(async move { world.run().await });
        Self { sandbox, folder, aws: Door::reserve(), clusters, writes: Arc::default(), tasks }
    }

    /// The same with every door open.
    pub(crate) fn open(fleet: Fleet) -> Self {
        let mut stage = Self::new(fleet);
        stage.open_all();
        stage
    }

    pub(crate) fn open_all(&mut self) {
        self.open_aws();
        let names: Vec<ClusterName> = self.clusters.iter().map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.open_cluster(name.as_str()));
    }

    pub(crate) fn open_aws(&mut self) {
        self.aws.open(&mut self.tasks, aws_router(self.sandbox.clone()));
    }

    pub(crate) fn open_cluster(&mut self, name: &str) {
        let (name, door) = self.clusters.iter_mut().find(|(other, _)| other.as_str() == name).unwrap();
        let (writes, cluster) = (Arc::clone(&self.writes), name.clone());
        let write_down = middleware::from_fn(move |request: Request, next: Next| {
            if request.method() != "GET" {
                let words = format!("{} {}", request.method(), request.uri().path());
                writes.lock().unwrap().push((cluster.clone(), words));
            }
            next.run(request)
        });
        let router = kubernetes_router(self.sandbox.clone(), name.clone());
        door.open(&mut self.tasks, router.layer(write_down));
    }

    /// Every request so far that could have changed something in a cluster: `PATCH /api/v1/nodes/NODE`.
    pub(crate) fn writes(&self, cluster: &str) -> Vec<String> {
        let all = self.writes.lock().unwrap();
        all.iter().filter(|(name, _)| name.as_str() == cluster).map(|(_, words)| words.clone()).collect()
    }

    /// The nodes of a cluster that somebody has tried to change.
    pub(crate) fn patched(&self, cluster: &str) -> BTreeSet<NodeName> {
        let writes = self.writes(cluster);
        let nodes = writes.iter().filter_map(|words| words.strip_prefix("PATCH /api/v1/nodes/"));
        nodes.map(NodeName::from).collect()
    }

    /// Lets a group shrink by one, and gives the instance that has to go.
    pub(crate) fn scale_in(&self, group: &str) -> InstanceId {
        self.sandbox.with(|world| {
            world.scale_in(&GroupName::new(group), 1).unwrap();
            let members = &world.groups.get(&GroupName::new(group)).unwrap().members;
            let leaving = members.iter().find(|(_, member)| member.state != MemberState::InService);
            leaving.unwrap().0.clone()
        })
    }

    /// An instance that serves in a group.
    pub(crate) fn member_of(&self, group: &str) -> InstanceId {
        self.sandbox.peek(|world| {
            let members = &world.groups.get(&GroupName::new(group)).unwrap().members;
            let serving = members.iter().find(|(_, member)| member.state == MemberState::InService);
            serving.unwrap().0.clone()
        })
    }

    pub(crate) fn node_of(&self, instance: &InstanceId) -> NodeName {
        self.sandbox.peek(|world| {
            let mut nodes = world.clusters.values().filter_map(|cluster| cluster.node_of(instance));
            nodes.next().unwrap().name.clone()
        })
    }

    /// Evictable pods that run on the node of an instance.
    pub(crate) fn pods_left_on(&self, instance: &InstanceId) -> usize {
        self.sandbox.peek(|world| evictable_pods(world, instance))
    }

    /// Messages in a queue: those that wait, and those in flight.
    pub(crate) fn depth(&self, queue: &str) -> (u64, u64) {
        self.sandbox.peek(|world| world.queues.get(queue).unwrap().depth(world.now()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.depth("offramp") == (0, 0)
    }

    /// What happened in the world so far.
    pub(crate) fn story(&self) -> Vec<String> {
        self.sandbox.peek(|world| world.story.iter().map(|(_, line)| line.clone()).collect())
    }

    /// How often a hook was answered, or has timed out.
    pub(crate) fn answers(&self) -> usize {
        let is_end = |line: &&String| line.contains(" is answered with ") || line.contains(" has timed out");
        self.story().iter().filter(is_end).count()
    }

    /// Watches the world from now on, and notes how it looks whenever a hook is answered.
    pub(crate) fn watch_answers(&mut self) -> Arc<Mutex<Vec<Answered>>> {
        let noted = Arc::<Mutex<Vec<Answered>>>::default();
        let (sandbox, notes) = (self.sandbox.clone(), Arc::clone(&noted));
        self.tasks.spawn(async move {
            let mut changes = sandbox.changes();
            let mut read = 0;
            loop {
                let mut found = sandbox.peek(|world| answered_since(world, &mut read));
                notes.lock().unwrap().append(&mut found);
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        noted
    }

    /// Waits until something is true of the world.
    pub(crate) async fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        self.until_within(LIMIT, what, holds).await;
    }

    /// The same for something that may take so long.
    pub(crate) async fn until_within(&self, limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !holds() {
            assert!(Instant::now() < deadline, "never came true: {what}\n{}", self.story().join("\n"));
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The whole configuration of a worker for this world.
    pub(crate) fn config(&self, start: &Start<'_>) -> String {
        let (aws, queue) = (self.aws.address, start.queue);
        let mut text = format!(
            "queue: {{ url: 'http://{aws}/111122223333/{queue}' }}\n\
             aws: {{ region: eu-west-1, endpoint_url: 'http://{aws}' }}\n\
             timing: {{ application_propagation: 1s, settle: 1s, recheck: 1s }}\n\
             lease: {{ visibility: 10s, extend_every: 5s }}\n\
             admin: {{ listen: '127.0.0.1:0' }}\n\
             log: {{ format: json, level: info }}\n\
             clusters:\n"
        );
        let file = self.folder.path().join("kubeconfig");
        for (name, _) in &self.clusters {
            let (file, more) = (file.display(), start.cluster);
            writeln!(text, "- {{ name: {name}, kubeconfig: '{file}', context: {name}, {more} }}").unwrap();
        }
        text.push_str("target_groups:\n");
        let arns: Vec<String> =
            self.sandbox.peek(|world| world.balancers.all().map(|group| group.arn.to_string()).collect());
        for arn in arns {
            writeln!(text, "- '{arn}'").unwrap();
        }
        text.push_str(start.config);
        text
    }
}

impl Door {
    fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { address: socket.local_addr().unwrap(), socket: Some(socket) }
    }

    fn open(&mut self, tasks: &mut JoinSet<()>, router: Router) {
        let listener = self.socket.take().expect("a door that is still closed").listen(1024).unwrap();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    }
}

impl Worker {
    /// Starts the binary with the stage's configuration, and credentials that any sandbox takes.
    pub(crate) fn start(stage: &Stage) -> Self {
        Self::start_as(stage, &Start::default())
    }

    pub(crate) fn start_as(stage: &Stage, start: &Start<'_>) -> Self {
        let file = stage.folder.path().join("offramp.yaml");
        fs::write(&file, stage.config(start)).unwrap();
        let keys = [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")];
        Self::start_with(stage.folder.path(), &file, start.wrapper, &keys)
    }

    /// Starts the binary with nothing in its environment but this.
    pub(crate) fn start_with(
        home: &Path,
        config: &Path,
        wrapper: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let number = fs::read_dir(home).unwrap().count();
        let log = home.join(format!("log-{number}"));
        let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_offramp")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["run", "--config"]).arg(config);
        command.env_clear().env("HOME", home).env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log, wrapped: !wrapper.is_empty() }
    }

    /// Everything that it has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The log lines so far whose message holds these words.
    pub(crate) fn lines_with(&self, words: &str) -> Vec<Value> {
        let text = self.log();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(words))).collect()
    }

    /// Waits for the first log line whose message holds these words.
    pub(crate) async fn line_with(&mut self, words: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            // Looked at in this order, so that the last words of a process that ends are not missed.
            let over = self.child.try_wait().unwrap();
            if let Some(line) = self.lines_with(words).into_iter().next() {
                return line;
            }
            assert!(over.is_none(), "it ended ({over:?}) without saying {words:?}:\n{}", self.log());
            assert!(Instant::now() < deadline, "it never said {words:?}:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where its admin server listens.
    pub(crate) async fn admin(&mut self) -> SocketAddr {
        let line = self.line_with("serving /live").await;
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until /ready answers so that `holds`, and gives what it says of each part.
    pub(crate) async fn ready_when(&mut self, what: &str, holds: impl Fn(u16, &[Value]) -> bool) {
        let admin = self.admin().await;
        let deadline = Instant::now() + LIMIT;
        loop {
            let (status, body) = get(admin, "/ready").await;
            let parts: Vec<Value> = serde_json::from_str(&body).unwrap();
            if holds(status, &parts) {
                return;
            }
            assert!(Instant::now() < deadline, "/ready never said {what}: {status} {body}\n{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal to the binary itself, also where it runs inside a wrapper.
    pub(crate) fn signal(&self, name: &str) {
        let own = self.child.id();
        let pid = if self.wrapped {
            let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
            children.trim().to_owned()
        } else {
            own.to_string()
        };
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        if !std::thread::panicking() {
            for words in ["panicked", "a defect in offramp"] {
                assert!(!text.contains(words), "{words:?} in its log:\n{text}");
            }
        }
    }
}

/// GET of an admin page: its status and its body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What /ready says of one part.
pub(crate) fn is_ready(parts: &[Value], name: &str) -> bool {
    parts.iter().any(|part| part["name"] == name && part["ready"] == true)
}

/// How long something took.
pub(crate) async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    (what.await, begun.elapsed())
}

/// Reads the story on from `read`, and looks at the world for each hook that was answered in it.
fn answered_since(world: &World, read: &mut usize) -> Vec<Answered> {
    let news = &world.story[*read..];
    *read = world.story.len();
    let answers = news.iter().filter(|(_, line)| line.contains(" is answered with "));
    answers
        .map(|(_, line)| {
            let instance = line.split(' ').find_map(InstanceId::parse).unwrap();
            let ended = format!("{instance} is shutting down");
            Answered {
                line: line.clone(),
                pods: evictable_pods(world, &instance),
                in_time: !news.iter().any(|(_, line)| *line == ended),
                instance,
            }
        })
        .collect()
}

/// Pods that still run on the node of an instance and are not there by design.
fn evictable_pods(world: &World, instance: &InstanceId) -> usize {
    let cluster = world.clusters.values().find(|cluster| cluster.node_of(instance).is_some());
    let Some((cluster, node)) = cluster.and_then(|cluster| Some((cluster, cluster.node_of(instance)?)))
    else {
        return 0;
    };
    let running = cluster.pods_of_node(&node.name).filter(|pod| pod.phase == Phase::Running);
    running.filter(|pod| pod.owner.as_ref().is_none_or(|owner| owner.kind != "DaemonSet")).count()
}
