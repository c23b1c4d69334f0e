//! The environment: the simple case of one queue and one cluster, without a file.

use std::collections::BTreeMap;

use super::raw::{Given, Origin, RawCluster, RawConfig};
use crate::nearest::nearest;

/// The environment as a value, so that tests need not change that of the process.
pub(crate) type Environment = BTreeMap<String, String>;

pub(super) const QUEUE_URL: &str = "OFFRAMP_QUEUE_URL";
pub(super) const CLUSTER_NAME: &str = "OFFRAMP_CLUSTER_NAME";
const HOOK_NAMES: &str = "OFFRAMP_HOOK_NAMES";
const REBALANCE: &str = "OFFRAMP_REBALANCE";
const ADMIN_LISTEN: &str = "OFFRAMP_ADMIN_LISTEN";

/// Every variable of ours. The last three are read with the command line.
const VARIABLES: [&str; 8] = [
    QUEUE_URL,
    CLUSTER_NAME,
    HOOK_NAMES,
    REBALANCE,
    ADMIN_LISTEN,
    "OFFRAMP_CONFIG",
    "OFFRAMP_LOG_FORMAT",
    "OFFRAMP_LOG_LEVEL",
];

/// The environment of this process. What is not Unicode is none of ours.
pub(crate) fn of_this_process() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What came of the variables.
pub(super) struct Overlaid {
    /// What is wrong with them.
    pub(super) errors: Vec<String>,
    /// Those that stand over something in the file.
    pub(super) overrides: Vec<&'static str>,
}

/// Puts the variables over what the file says.
pub(super) fn overlay(raw: &mut RawConfig, environment: &Environment) -> Overlaid {
    let given = |name: &'static str| {
        let text = environment.get(name).filter(|text| !text.is_empty())?;
        Some(Given { text: text.clone(), origin: Origin::Variable(name) })
    };
    let mut errors = unknown_variables(environment);
    let mut overrides = Vec::new();
    if let Some(url) = given(QUEUE_URL) {
        let old = raw.queue.get_or_insert_default().url.replace(url);
        overrides.extend(old.map(|_| QUEUE_URL));
    }
    if let Some(name) = given(CLUSTER_NAME) {
        match raw.clusters.get_or_insert_default().as_mut_slice() {
            [] => raw.clusters = Some(vec![RawCluster { name: Some(name), ..RawCluster::default() }]),
            [only] => overrides.extend(only.name.replace(name).map(|_| CLUSTER_NAME)),
            several => {
                let count = several.len();
                errors
                    .push(format!("{CLUSTER_NAME} names one cluster, but the file lists {count}; unset it"));
            }
        }
    }
    if let Some(names) = given(HOOK_NAMES) {
        let split = names.text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let split = split.map(|name| Given { text: name.to_owned(), origin: names.origin });
        let old = raw.hooks.get_or_insert_default().names.replace(split.collect());
        overrides.extend(old.map(|_| HOOK_NAMES));
    }
    if let Some(rebalance) = given(REBALANCE) {
        overrides.extend(raw.rebalance.replace(rebalance).map(|_| REBALANCE));
    }
    if let Some(listen) = given(ADMIN_LISTEN) {
        let old = raw.admin.get_or_insert_default().listen.replace(listen);
        overrides.extend(old.map(|_| ADMIN_LISTEN));
    }
    Overlaid { errors, overrides }
}

/// A mistyped variable would leave nodes unserved without a word, so it is an error.
fn unknown_variables(environment: &Environment) -> Vec<String> {
    let unknown = environment.keys().filter(|name| {
        name.starts_with("OFFRAMP_") && !VARIABLES.contains(&name.as_str()) && !is_service_link(name)
    });
    unknown
        .map(|name| match nearest(name, VARIABLES) {
            Some(near) => format!("unknown environment variable {name}; did you mean {near}?"),
            None => format!("unknown environment variable {name}; those known are {}", VARIABLES.join(", ")),
        })
        .collect()
}

/// Kubernetes itself sets such variables in every pod where a Service is named `offramp` or `offramp-…`
/// (<https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>).
fn is_service_link(name: &str) -> bool {
    let name = name.trim_end_matches("_PROTO").trim_end_matches("_ADDR");
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.ends_with("_PORT") {
        return true;
    }
    let protocol = ["_TCP", "_UDP", "_SCTP"].iter().find_map(|protocol| name.strip_suffix(protocol));
    let port = protocol.and_then(|rest| rest.rsplit_once("_PORT_"));
    port.is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
