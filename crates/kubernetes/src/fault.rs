//! What the answers of an API server mean. The only file that reads HTTP codes and Status reasons.

use std::error::Error as _;

use kube::core::Status;
use offramp_core::{BudgetName, Outcome};
use offramp_engine::{CallResult, Fault};

/// A request, as far as its answer and the texts depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) kind: Kind,
    /// For people: `node ip-10-0-1-2` or `pod shop/web-1`.
    pub(crate) object: &'a str,
    /// The name in the URL.
    pub(crate) name: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Isolate,
    Exclude,
    WriteRecord,
    Release,
    Evict,
    Delete,
    ListPods,
}

/// Why a watch is not in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The version to go on from is too old: everything has to be listed again.
    Expired,
    /// The stream shows nothing that can be relied on: everything has to be listed again, and why, in words.
    Broken(String),
    /// The API server does not accept our credentials.
    Refused(String),
    /// Anything else, in words.
    Failed(String),
}

/// Reads a failed answer to a request.
///
/// | answer | reading |
/// |---|---|
/// | 404 that names the object | gone |
/// | any other 404: a wrong path, a proxy's page | retry: it must not look like "gone" |
/// | 409 about the UID, on a pod | gone: the pod has ended, its name is another's now |
/// | 409 on a node | changed: it is not the one that was seen |
/// | any other 409 | retry |
/// | 429 with the cause `DisruptionBudget` | blocked |
/// | any other 429: flow control, API server overload | retry |
/// | 403 about a PodDisruptionBudget, or with the cause `NamespaceTerminating` | retry: both pass |
/// | what an admission webhook or policy refuses, whatever the code, or a webhook that cannot be called | vetoed |
/// | 401, any other 403 | denied |
/// | 400, 405, 413, 415, 422 | invalid |
/// | 500 and above, among them "more than one PodDisruptionBudget", or no answer | retry |
pub(crate) fn read(request: Request<'_>, error: &kube::Error) -> Result<Outcome, Fault> {
    let doing = format!("{} {} in cluster {}", request.kind.doing(), request.object, request.cluster);
    let status = match error {
        kube::Error::Api(status) => status,
        kube::Error::BuildRequest(error) => return Err(Fault::Invalid(format!("{doing}: {error}"))),
        _ => return Err(Fault::Retry(format!("{doing}: {}", unanswered(error)))),
    };
    let says = said(status);
    let about_pod = matches!(request.kind, Kind::Evict | Kind::Delete);
    if is_veto(status) {
        return Ok(Outcome::Vetoed { by: says });
    }
    match status.code {
        404 if names(status, request.name) => Ok(Outcome::Gone),
        404 => Err(Fault::Retry(format!("{doing}: not found, but not by an API server's answer: {says}"))),
        409 if about_pod && is_other_uid(status) => Ok(Outcome::Gone),
        409 if !about_pod => Ok(Outcome::Changed),
        429 if has_cause(status, "DisruptionBudget") => Ok(Outcome::Blocked { budget: budget(status) }),
        403 if passes(status) => Err(Fault::Retry(format!("{doing}: {says}"))),
        401 => Err(Fault::Denied(format!(
            "{doing}: the API server does not accept our credentials ({says}); check the token or the \
             certificate, and on EKS the access entry of this role"
        ))),
        403 => Err(Fault::Denied(format!("{doing}: {says}; allow {}", request.kind.permission()))),
        400 | 405 | 413 | 415 | 422 => Err(Fault::Invalid(format!("{doing}: {says}"))),
        code => Err(Fault::Retry(format!("{doing}: {code}: {says}"))),
    }
}

/// How a request ended, for its metrics: as [`read`] reads it, and flow control by its own name.
pub(crate) fn result_of<T>(request: Request<'_>, answer: &Result<T, kube::Error>) -> CallResult {
    let Err(error) = answer else { return CallResult::Done };
    match read(request, error) {
        // It is a failure of somebody's, which alerts have to see; that a webhook refuses is not.
        Ok(Outcome::Vetoed { by }) if by.contains(UNASKED) => CallResult::Retry,
        Ok(_) => CallResult::Done,
        Err(Fault::Retry(_)) if matches!(error, kube::Error::Api(status) if status.code == 429) => {
            CallResult::Throttled
        }
        Err(Fault::Retry(_)) => CallResult::Retry,
        Err(Fault::Denied(_)) => CallResult::Denied,
        Err(Fault::Invalid(_)) => CallResult::Invalid,
    }
}

/// How a request ended that is about no single object.
pub(crate) fn result<T>(answer: &Result<T, kube::Error>) -> CallResult {
    let code = match answer {
        Ok(_) => return CallResult::Done,
        Err(kube::Error::Api(status)) => status.code,
        Err(_) => return CallResult::Retry,
    };
    match code {
        429 => CallResult::Throttled,
        401 | 403 => CallResult::Denied,
        400 | 405 | 413 | 415 | 422 => CallResult::Invalid,
        _ => CallResult::Retry,
    }
}

/// Why an Event was not taken.
pub(crate) fn unannounced(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}; allow create on events in the API group events.k8s.io", said(status))
        }
        kube::Error::Api(status) => format!("{}: {}", status.code, said(status)),
        _ => unanswered(error),
    }
}

/// Reads what ended a list or a watch.
pub(crate) fn trouble(resource: &str, verb: &str, error: &kube::Error) -> Trouble {
    let doing = if verb == "list" { "listing" } else { "watching" };
    if is_unreadable(error) {
        let text = format!(
            "{doing} {resource}: the answer is not what an API server sends; check for a proxy in between, and for an \
             object that one of another version wrote"
        );
        // The same event would come again from the same version.
        return if verb == "watch" { Trouble::Broken(text) } else { Trouble::Failed(text) };
    }
    let kube::Error::Api(status) = error else {
        // The same text for every resource: it is the cluster that cannot be reached, and that is said once.
        return Trouble::Failed(format!(
            "reaching the API server: {}; check that it runs, the network, and its address in the kubeconfig",
            unanswered(error)
        ));
    };
    let says = said(status);
    if is_too_old(status) {
        return Trouble::Expired;
    }
    Trouble::Failed(match status.code {
        401 => {
            return Trouble::Refused(format!(
                "{doing} {resource}: the API server does not accept our credentials ({says})"
            ));
        }
        403 => format!("{doing} {resource}: {says}; allow {verb} on {resource}, cluster-wide"),
        code => format!("{doing} {resource}: {code}: {says}"),
    })
}

impl Kind {
    fn doing(self) -> &'static str {
        match self {
            Self::Isolate => "isolating",
            Self::Exclude => "excluding",
            Self::WriteRecord => "writing the record of",
            Self::Release => "releasing",
            Self::Evict => "evicting",
            Self::Delete => "deleting",
            Self::ListPods => "listing",
        }
    }

    fn permission(self) -> &'static str {
        match self {
            Self::Isolate | Self::Exclude | Self::WriteRecord | Self::Release => "patch on nodes",
            Self::Evict => "create on pods/eviction",
            Self::Delete => "delete on pods",
            Self::ListPods => "list on pods",
        }
    }
}

/// The API server's own words; a page of a proxy is cut short.
fn said(status: &Status) -> String {
    bounded(if status.message.trim().is_empty() { &status.reason } else { &status.message })
}

/// Words that are not ours take up at most this much, and one line: a policy's message may have many, and one of
/// them could look like a line of our own log.
const MOST_FOREIGN_CHARS: usize = 300;

pub(crate) fn bounded(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST_FOREIGN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The API server names what it did not find. A path that it does not know, it does not name.
fn names(status: &Status, name: &str) -> bool {
    status.reason == "NotFound" && status.details.as_ref().is_some_and(|details| details.name == name)
}

/// Two places in the API server check the UID, with different words: "the UID in the precondition (…)
/// does not match the UID in record" and "Precondition failed: UID in precondition: …". There is no cause
/// to go by.
fn is_other_uid(status: &Status) -> bool {
    let message = status.message.to_ascii_lowercase();
    message.contains("uid in the precondition") || message.contains("uid in precondition")
}

/// Forbidden, but not for want of permission: the eviction of a pod whose budget's numbers are odd for
/// the moment (eviction.go, checkAndDecrement), or in a namespace that is being deleted, where the pod
/// is deleted soon as well (kubectl drain retries, too).
fn passes(status: &Status) -> bool {
    let about_budget =
        status.details.as_ref().is_some_and(|details| details.kind.contains("poddisruptionbudget"));
    about_budget || has_cause(status, "NamespaceTerminating")
}

/// An admission webhook or a ValidatingAdmissionPolicy says no, or has to be asked and cannot be. A webhook
/// chooses the code of its refusal itself, so only the API server's own words around it tell: they are the
/// same in every version (k8s.io/apiserver, `errors.ToStatusErr` and `validating/plugin`). RBAC's refusal
/// names user and verb instead.
fn is_veto(status: &Status) -> bool {
    let message = &status.message;
    // "… denied the request", "… attempted to modify the object, which is not supported for this operation".
    let webhook = message.starts_with("admission webhook \"");
    let policy = message.contains("ValidatingAdmissionPolicy '") && message.contains(" denied request");
    let unasked = message.contains(UNASKED);
    webhook || policy || unasked
}

/// The version to go on from is kept no more. It is 410 with the reason `Expired` in an API server's own words, but
/// storage that is none of etcd's and servers in between pass the words on with a code of their own, for ever.
fn is_too_old(status: &Status) -> bool {
    let message = status.message.to_ascii_lowercase();
    let version = message.contains("resource version") || message.contains("resourceversion");
    let compacted = message.contains("revision has been compacted");
    status.code == 410
        || matches!(status.reason.as_str(), "Expired" | "Gone")
        || version && message.contains("too old")
        || compacted
}

/// A webhook that has to be asked and cannot be.
const UNASKED: &str = "failed calling webhook \"";

fn has_cause(status: &Status, reason: &str) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
}

/// "The disruption budget NAME needs 2 healthy pods and has 2 currently", or "… NAME is still being
/// processed by the server".
fn budget(status: &Status) -> Option<BudgetName> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut words = causes.filter_map(|cause| cause.message.strip_prefix("The disruption budget "));
    let name = words.next()?.split_whitespace().next()?;
    Some(BudgetName(name.to_owned()))
}

/// No answer that could be read: the whole chain of causes, because the outermost says only
/// "client error (Connect)".
fn unanswered(error: &kube::Error) -> String {
    if let kube::Error::Auth(error) = error {
        return credentials(error);
    }
    if is_unreadable(error) {
        return "the answer is not what an API server sends".to_owned();
    }
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<kube::client::AuthError>() {
            return credentials(error);
        }
        let text = error.to_string();
        if !texts.last().is_some_and(|last| last.ends_with(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    format!("no answer: {}", bounded(&texts.join(": ")))
}

/// What the parser says of it could quote a pod's environment, so that it is told nowhere. Of an event that it cannot
/// read, kube makes a Status in which nothing is said, because every field of one may be missing.
fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.reason.is_empty() && status.message.is_empty(),
        _ => false,
    }
}

/// What is wrong with our credentials, without what could hold a token: a plugin's output can.
pub(crate) fn credentials(error: &kube::client::AuthError) -> String {
    use kube::client::AuthError;
    match error {
        AuthError::AuthExecStart(error) => format!("the credential plugin cannot be started: {error}"),
        AuthError::AuthExecRun { out, .. } => format!("the credential plugin failed with {}", out.status),
        AuthError::ReadTokenFile(error, path) => {
            format!("the token file {} cannot be read: {error}", path.display())
        }
        AuthError::MissingCommand => "the credential plugin has no command".to_owned(),
        _ => "its credentials cannot be used".to_owned(),
    }
}

#[cfg(test)]
mod tests;
