//! [`RawConfig`] into [`Config`]: every value read, every default filled in, every error collected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use offramp_core::{ClusterName, HookName, Policy, Propagation, RebalancePolicy};
use offramp_engine::{ForeignMessages, LeaseTimes, Settings, default_policy, in_words};
use offramp_kubernetes::{Access, ClusterOptions, ClusterSource};

use super::environment::{CLUSTER_NAME, Environment, QUEUE_URL};
use super::raw::{
    Given, Origin, RawAdmin, RawAws, RawCluster, RawConfig, RawHooks, RawIntake, RawJobs, RawLease, RawLog,
    RawQueue, RawScope, RawTiming,
};
use super::{Aws, Config, Queue, WithoutDeadLetterQueue, syntax};
use crate::cli::{LogFormat, LogLevel};
use crate::nearest::did_you_mean;

/// SQS hides a message for at most 12 hours.
const LONGEST_VISIBILITY: Duration = Duration::from_secs(12 * 3600);
/// Below this, one slow answer of SQS costs the lease.
const SHORTEST_VISIBILITY: Duration = Duration::from_secs(10);

/// Only this machine can reach it.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Checks everything; the error is one line for each thing that is wrong.
pub(super) fn validate(
    raw: RawConfig,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<Config, Vec<String>> {
    let mut check = Check { file, environment, errors: Vec::new() };
    let RawConfig {
        queue,
        aws,
        clusters,
        hooks,
        target_groups,
        rebalance,
        timing,
        ingress_daemon_sets,
        foreign_messages,
        foreign_hold,
        messages,
        intake,
        jobs,
        lease,
        admin,
        log,
        scope,
    } = raw;
    let RawHooks { names } = hooks.unwrap_or_default();
    let RawIntake { receives_in_flight, permits } = intake.unwrap_or_default();
    let RawJobs { most } = jobs.unwrap_or_default();
    let RawAdmin { listen } = admin.unwrap_or_default();
    let RawLog { format, level } = log.unwrap_or_default();
    let RawScope { group_tag } = scope.unwrap_or_default();
    let queue = check.queue(queue.unwrap_or_default());

    let clusters = check.clusters(clusters.unwrap_or_default());
    let group_tag = check.value("scope.group_tag", group_tag, syntax::group_tag);
    let config = Config {
        aws: check.aws(aws.unwrap_or_default(), &queue.url),
        policy: Policy {
            hook_names: check.list("hooks.names", names, |name| filled(name).map(HookName::new)),
            scoped: group_tag.is_some(),
            clusters: clusters.iter().map(|(source, _)| source.name.clone()).collect(),
            rebalance: check.choice("rebalance", rebalance, &REBALANCE, RebalancePolicy::Automatic),
            ingress_daemon_sets: check.list("ingress_daemon_sets", ingress_daemon_sets, syntax::daemon_set),
            ..check.timing(timing.unwrap_or_default())
        },
        engine: Settings {
            receives: check.count("intake.receives_in_flight", receives_in_flight, 4),
            permits: check.count("intake.permits", permits, 100),
            most_jobs: check.count("jobs.most", most, 10_000),
            target_groups: check.list("target_groups", target_groups, syntax::target_group),
            foreign: ForeignMessages {
                delete: check.choice("foreign_messages", foreign_messages, &FOREIGN_MESSAGES, true),
                hold: check.duration("foreign_hold", foreign_hold, Duration::from_secs(60)),
            },
            lease: check.lease(lease.unwrap_or_default()),
            messages: check.choice("messages", messages, &ON_OR_OFF, true),
        },
        queue,
        clusters,
        admin_listen: check.value("admin.listen", listen, syntax::address).unwrap_or(DEFAULT_LISTEN),
        log_format: check.choice("log.format", format, &names_of::<LogFormat>(), LogFormat::default()),
        log_level: check.choice("log.level", level, &names_of::<LogLevel>(), LogLevel::default()),
        group_tag,
        overrides: Vec::new(),
    };
    // In the order of the file; what is in no line comes last.
    check.errors.sort_by_key(|(line, _)| line.unwrap_or(u64::MAX));
    let errors: Vec<String> = check.errors.into_iter().map(|(_, error)| error).collect();
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

const REBALANCE: [(&str, RebalancePolicy); 3] = [
    ("automatic", RebalancePolicy::Automatic),
    ("none", RebalancePolicy::None),
    ("isolate", RebalancePolicy::Isolate),
];
const FOREIGN_MESSAGES: [(&str, bool); 2] = [("delete", true), ("leave", false)];
/// Helm reads YAML 1.1, where `off` is the same as `false`, and writes that.
const ON_OR_OFF: [(&str, bool); 4] = [("on", true), ("off", false), ("true", true), ("false", false)];
const WITHOUT_DEAD_LETTER_QUEUE: [(&str, WithoutDeadLetterQueue); 2] =
    [("refuse", WithoutDeadLetterQueue::Refuse), ("allow", WithoutDeadLetterQueue::Allow)];
const YES_OR_NO: [(&str, bool); 2] = [("true", true), ("false", false)];

/// Reads values, and collects what is wrong with them.
struct Check<'a> {
    file: Option<&'a Path>,
    environment: &'a Environment,
    /// Each with its line, where it is in one.
    errors: Vec<(Option<u64>, String)>,
}

impl Check<'_> {
    fn queue(&mut self, raw: RawQueue) -> Queue {
        let RawQueue { url, without_dead_letter_queue } = raw;
        if url.is_none() {
            self.missing(&format!("no queue: set queue.url, or {QUEUE_URL}, to the URL of the SQS queue"));
        }
        Queue {
            url: self.value("queue.url", url, syntax::queue_url).unwrap_or_default(),
            without_dead_letter_queue: self.choice(
                "queue.without_dead_letter_queue",
                without_dead_letter_queue,
                &WITHOUT_DEAD_LETTER_QUEUE,
                WithoutDeadLetterQueue::Refuse,
            ),
        }
    }

    fn aws(&mut self, raw: RawAws, queue_url: &str) -> Aws {
        let RawAws { region, endpoint_url } = raw;
        let url = |text: &str| syntax::url(text).map(|_| text.to_owned());
        Aws {
            region: self
                .value("aws.region", region, syntax::region)
                .or_else(|| syntax::region_of_queue(queue_url)),
            endpoint_url: self.value("aws.endpoint_url", endpoint_url, url),
        }
    }

    fn clusters(&mut self, raw: Vec<RawCluster>) -> Vec<(ClusterSource, ClusterOptions)> {
        if raw.is_empty() {
            self.missing(&format!("no cluster: set clusters, or {CLUSTER_NAME} for the only one"));
        }
        let mut clusters: Vec<(ClusterSource, ClusterOptions)> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let path = format!("clusters[{index}]");
            let Some(name) = raw.name.clone() else {
                self.missing(&format!(
                    "{path}.name is required: the name that hooks give in NotificationMetadata"
                ));
                continue;
            };
            let Some((source, options)) = self.cluster(&path, &name, raw) else { continue };
            if let Some(twin) = clusters.iter().position(|(other, _)| other.name == source.name) {
                self.wrong(
                    &format!("{path}.name"),
                    &name,
                    &format!("clusters[{twin}] has this name already"),
                );
            }
            if let Some(twin) = clusters.iter().position(|(other, _)| other.access == source.access) {
                let words = format!(
                    "\"{}\" is reached the same way as clusters[{twin}]; give each its kubeconfig or context",
                    source.name
                );
                self.wrong(&path, &name, &words);
            }
            clusters.push((source, options));
        }
        clusters
    }

    fn cluster(
        &mut self,
        path: &str,
        name: &Given,
        raw: RawCluster,
    ) -> Option<(ClusterSource, ClusterOptions)> {
        let RawCluster { name: _, kubeconfig, context, in_cluster, node_selector } = raw;
        let read_name = self.value(&format!("{path}.name"), Some(name.clone()), filled);
        let asked_inside = in_cluster
            .clone()
            .map(|given| self.choice(&format!("{path}.in_cluster"), Some(given), &YES_OR_NO, false));
        let by_file = kubeconfig.is_some() || context.is_some();
        if let (Some(given), Some(true), true) = (in_cluster, asked_inside, by_file) {
            self.wrong(&format!("{path}.in_cluster"), &given, "cannot be true beside kubeconfig or context");
            return None;
        }
        let context = self.value(&format!("{path}.context"), context, filled);
        let node_selector = self.value(&format!("{path}.node_selector"), node_selector, filled);
        let in_a_pod = self.environment.contains_key("KUBERNETES_SERVICE_HOST");
        let access = if asked_inside.unwrap_or(in_a_pod && !by_file) {
            if !in_a_pod {
                self.wrong(
                    path,
                    name,
                    "in_cluster is true, but this is no pod: KUBERNETES_SERVICE_HOST is not set",
                );
            }
            Access::InCluster
        } else {
            let file = match kubeconfig {
                // Whether it is there is for the cluster to find out, so that one cluster stops no other.
                Some(given) => {
                    self.value(&format!("{path}.kubeconfig"), Some(given), filled).map(PathBuf::from)
                }
                None => self.usual_kubeconfig().map_err(|words| self.wrong(path, name, &words)).ok(),
            };
            Access::Kubeconfig { path: file?, context }
        };
        let source = ClusterSource { name: ClusterName::new(read_name?), access };
        Some((source, ClusterOptions { node_selector }))
    }

    /// The first file that exists of KUBECONFIG, or ~/.kube/config. Where there is none that is said at
    /// once, in place of a connection error later.
    fn usual_kubeconfig(&self) -> Result<PathBuf, String> {
        if let Some(files) = self.environment.get("KUBECONFIG").filter(|files| !files.is_empty()) {
            return std::env::split_paths(files)
                .find(|file| file.is_file())
                .ok_or_else(|| format!("no way in: KUBECONFIG names no file that exists ({files})"));
        }
        let home = self.environment.get("HOME").map(|home| Path::new(home).join(".kube/config"));
        home.filter(|file| file.is_file()).ok_or_else(|| {
            "no way in: this is no pod, KUBECONFIG is not set and ~/.kube/config does not exist".to_owned()
        })
    }

    /// A policy with these times and nothing else.
    fn timing(&mut self, raw: RawTiming) -> Policy {
        let RawTiming {
            deadline_margin,
            node_shutdown_grace,
            hook_limit,
            patience,
            no_node,
            gate_limit,
            application_propagation,
            network_propagation,
            settle,
            recheck,
        } = raw;
        let default = default_policy();
        let recheck_given = recheck.clone();
        let timing = Policy {
            deadline_margin: self.duration(
                "timing.deadline_margin",
                deadline_margin,
                default.deadline_margin,
            ),
            node_shutdown_grace: self.duration(
                "timing.node_shutdown_grace",
                node_shutdown_grace,
                default.node_shutdown_grace,
            ),
            hook_limit: self.duration("timing.hook_limit", hook_limit, default.hook_limit),
            patience: self.duration("timing.patience", patience, default.patience),
            no_node: self.duration("timing.no_node", no_node, default.no_node),
            gate_limit: self.duration("timing.gate_limit", gate_limit, default.gate_limit),
            propagation: Propagation {
                application: self.duration(
                    "timing.application_propagation",
                    application_propagation,
                    default.propagation.application,
                ),
                network: self.duration(
                    "timing.network_propagation",
                    network_propagation,
                    default.propagation.network,
                ),
            },
            settle: self.duration("timing.settle", settle, default.settle),
            recheck: self.duration("timing.recheck", recheck, default.recheck),
            ..default
        };
        if let (Some(given), true) = (recheck_given, timing.recheck < Duration::from_secs(1)) {
            self.wrong("timing.recheck", &given, "must be at least 1s, or AWS throttles the account");
        }
        timing
    }

    fn lease(&mut self, raw: RawLease) -> LeaseTimes {
        let RawLease { visibility, extend_every } = raw;
        let places = [visibility.clone(), extend_every.clone()];
        let lease = LeaseTimes {
            visibility: self.duration("lease.visibility", visibility, Duration::from_secs(30)),
            extend_every: self.duration("lease.extend_every", extend_every, Duration::from_secs(10)),
        };
        let [visibility, extend_every] = places;
        if let Some(given) = &visibility
            && !(SHORTEST_VISIBILITY..=LONGEST_VISIBILITY).contains(&lease.visibility)
        {
            self.wrong("lease.visibility", given, "must be between 10s and 12h");
        } else if let Some(given) = extend_every.or(visibility)
            && (lease.extend_every.is_zero() || lease.extend_every * 2 > lease.visibility)
        {
            let words = format!(
                "must be more than 0s and at most half of lease.visibility, which is {}",
                in_words(lease.visibility)
            );
            self.wrong("lease.extend_every", &given, &words);
        }
        lease
    }

    fn duration(&mut self, path: &str, given: Option<Given>, default: Duration) -> Duration {
        self.value(path, given, syntax::duration).unwrap_or(default)
    }

    fn count(&mut self, path: &str, given: Option<Given>, default: usize) -> usize {
        self.value(path, given, syntax::count).unwrap_or(default)
    }

    fn choice<N: AsRef<str>, T: Copy>(
        &mut self,
        path: &str,
        given: Option<Given>,
        choices: &[(N, T)],
        default: T,
    ) -> T {
        let read = |text: &str| match choices.iter().find(|(name, _)| name.as_ref() == text) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| name.as_ref()).collect();
                let guess = did_you_mean(text, names.iter().copied());
                Err(format!("\"{text}\" is none of {}{guess}", names.join(", ")))
            }
        };
        self.value(path, given, read).unwrap_or(default)
    }

    fn list<T, C: FromIterator<T>>(
        &mut self,
        path: &str,
        given: Option<Vec<Given>>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> C {
        let given = given.unwrap_or_default().into_iter().enumerate();
        given.filter_map(|(index, item)| self.value(&format!("{path}[{index}]"), Some(item), &read)).collect()
    }

    fn value<T>(
        &mut self,
        path: &str,
        given: Option<Given>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = given?;
        read(&given.text).map_err(|words| self.wrong(path, &given, &words)).ok()
    }

    fn wrong(&mut self, path: &str, given: &Given, words: &str) {
        self.errors.push(match (given.origin, self.file) {
            (Origin::Variable(name), _) => (None, format!("{name}: {words}")),
            (Origin::Line(line), Some(file)) => {
                (Some(line), format!("{}:{line}: {path}: {words}", file.display()))
            }
            (Origin::Line(line), None) => (Some(line), format!("line {line}: {path}: {words}")),
        });
    }

    fn missing(&mut self, words: &str) {
        let error = match self.file {
            Some(file) => format!("{}: {words}", file.display()),
            None => words.to_owned(),
        };
        self.errors.push((None, error));
    }
}

/// The same names as on the command line.
fn names_of<T: ValueEnum + Copy>() -> Vec<(String, T)> {
    let named = |choice: &T| Some((choice.to_possible_value()?.get_name().to_owned(), *choice));
    T::value_variants().iter().filter_map(named).collect()
}

fn filled(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}
