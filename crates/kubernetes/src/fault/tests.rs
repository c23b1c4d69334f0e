use serde_json::{Value, json};

use super::*;

fn status(code: u16, reason: &str, message: &str, details: &Value) -> kube::Error {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message, "details": details,
    });
    kube::Error::Api(serde_json::from_value(status).unwrap())
}

fn request(kind: Kind) -> Request<'static> {
    match kind {
        Kind::Isolate | Kind::Exclude | Kind::WriteRecord | Kind::Release => {
            Request { cluster: "blue", kind, object: "node n1", name: "n1" }
        }
        Kind::Evict | Kind::Delete => {
            Request { cluster: "blue", kind, object: "pod shop/web-1", name: "web-1" }
        }
        Kind::ListPods => Request { cluster: "blue", kind, object: "pods of node n1", name: "n1" },
    }
}

/// What the reading is, without its text.
fn verdict(result: &Result<Outcome, Fault>) -> String {
    match result {
        Ok(Outcome::Done) => "done".to_owned(),
        Ok(Outcome::Gone) => "gone".to_owned(),
        Ok(Outcome::Changed) => "changed".to_owned(),
        Ok(Outcome::Blocked { budget }) => {
            format!("blocked by {}", budget.as_ref().map_or("?", |budget| budget.0.as_str()))
        }
        Ok(Outcome::Vetoed { .. }) => "vetoed".to_owned(),
        Err(Fault::Retry(_)) => "retry".to_owned(),
        Err(Fault::Denied(_)) => "denied".to_owned(),
        Err(Fault::Invalid(_)) => "invalid".to_owned(),
    }
}

#[test]
fn each_answer_has_its_reading() {
    let check = |kind: Kind, error: kube::Error, expect: &str| {
        let result = read(request(kind), &error);
        assert_eq!(verdict(&result), expect, "{kind:?} {error}");
        if let Err(fault) = result {
            let object = request(kind).object;
            assert!(fault.to_string().contains(&format!("{object} in cluster blue: ")), "{fault}");
        }
    };
    let cause = |reason: &str, message: &str| json!({ "causes": [{ "reason": reason, "message": message }] });

    let pod = json!({ "name": "web-1", "kind": "pods" });
    let node = json!({ "name": "n1", "kind": "nodes" });
    for kind in [Kind::Evict, Kind::Delete] {
        check(kind, status(404, "NotFound", "pods \"web-1\" not found", &pod), "gone");
        check(
            kind,
            status(404, "NotFound", "pods \"web-2\" not found", &json!({ "name": "web-2" })),
            "retry",
        );
    }
    for kind in [Kind::Isolate, Kind::Exclude, Kind::Release] {
        check(kind, status(404, "NotFound", "nodes \"n1\" not found", &node), "gone");
        check(kind, status(409, "Conflict", "the object has been modified", &node), "changed");
    }
    let unknown_path = "the server could not find the requested resource";
    check(Kind::Evict, status(404, "NotFound", unknown_path, &json!({})), "retry");
    check(
        Kind::Isolate,
        status(404, "Failed to parse error data", "<html>not here</html>", &Value::Null),
        "retry",
    );

    let evicted = "Operation cannot be fulfilled on pods \"web-1\": Precondition failed: UID in precondition: a, \
                   UID in object meta: b";
    check(Kind::Evict, status(409, "Conflict", evicted, &pod), "gone");
    let deleted = "Operation cannot be fulfilled on Pod \"web-1\": the UID in the precondition (a) does not match \
                   the UID in record (b). The object might have been deleted and then recreated";
    check(Kind::Evict, status(409, "Conflict", deleted, &pod), "gone");
    check(Kind::Delete, status(409, "Conflict", deleted, &pod), "gone");
    check(Kind::Isolate, status(409, "Conflict", deleted, &node), "changed");
    let version =
        "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (2)";
    check(Kind::Delete, status(409, "Conflict", version, &pod), "retry");

    let violates = "Cannot evict pod as it would violate the pod's disruption budget.";
    let needs = "The disruption budget web needs 2 healthy pods and has 2 currently";
    let processed = "The disruption budget web is still being processed by the server.";
    for message in [needs, processed] {
        let error = status(429, "TooManyRequests", violates, &cause("DisruptionBudget", message));
        check(Kind::Evict, error, "blocked by web");
    }
    let unnamed = cause("DisruptionBudget", "something else");
    check(Kind::Evict, status(429, "TooManyRequests", violates, &unnamed), "blocked by ?");
    check(Kind::Evict, status(429, "TooManyRequests", "too many requests", &Value::Null), "retry");
    check(Kind::Isolate, status(429, "TooManyRequests", "too many requests", &Value::Null), "retry");

    let several =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    check(Kind::Evict, status(500, "", several, &Value::Null), "retry");
    for code in [500, 502, 503, 504] {
        check(Kind::Delete, status(code, "", "overloaded", &Value::Null), "retry");
    }

    check(Kind::Isolate, status(401, "Unauthorized", "Unauthorized", &Value::Null), "denied");
    check(Kind::Evict, status(403, "Forbidden", "pods \"web-1\" is forbidden", &pod), "denied");
    let budget = json!({ "name": "web", "kind": "poddisruptionbudget" });
    check(Kind::Evict, status(403, "Forbidden", "pdb disruptions allowed is negative", &budget), "retry");

    for code in [400, 405, 413, 415, 422] {
        check(Kind::Isolate, status(code, "Invalid", "bad", &Value::Null), "invalid");
    }
    let cut = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by peer");
    check(Kind::Isolate, kube::Error::Service(cut.into()), "retry");
}

/// Report 07, kubernetes/kops#5988, kubernetes/kubernetes#93947: an Eviction would be new content of a namespace that is
/// being deleted. Nobody lacks a permission, and the pod goes with its namespace. As a kube-apiserver 1.36 says it.
#[test]
fn a_namespace_that_is_being_deleted_is_no_missing_permission() {
    let message = "pods \"web-1\" is forbidden: unable to create new content in namespace shop because it is being \
                   terminated";
    let about = |causes: Value| json!({ "name": "web-1", "kind": "pods", "causes": causes });
    let cause = json!({
        "reason": "NamespaceTerminating", "message": "namespace shop is being terminated", "field": "metadata.namespace",
    });
    let error = status(403, "Forbidden", message, &about(json!([cause])));
    let expect = format!("evicting pod shop/web-1 in cluster blue: {message}");
    assert_eq!(read(request(Kind::Evict), &error), Err(Fault::Retry(expect)));
    assert_eq!(result_of(request(Kind::Evict), &Err::<(), _>(error)), CallResult::Retry);
    // The cause tells, and not the words.
    let error = status(403, "Forbidden", message, &about(json!([])));
    assert_eq!(verdict(&read(request(Kind::Evict), &error)), "denied");
}

/// The shapes were taken from a kube-apiserver 1.36; a webhook chooses its code itself.
#[test]
fn a_webhook_that_refuses_is_no_missing_permission() {
    let refuses = "admission webhook \"drain.example.com\" denied the request: rolled by the operator";
    let policy = "pods \"kafka-0\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: \
                  rolled by the operator";
    let modifies = "admission webhook \"drain.example.com\" attempted to modify the object, which is not supported \
                    for this operation";
    let down = "Internal error occurred: failed calling webhook \"drain.example.com\": connection refused";
    for kind in [Kind::Evict, Kind::Delete, Kind::Isolate, Kind::Exclude, Kind::WriteRecord, Kind::Release] {
        for (code, reason, message) in [
            (403, "Forbidden", refuses),
            (400, "", refuses),
            (429, "TooManyRequests", refuses),
            (422, "Invalid", policy),
            (500, "InternalError", modifies),
            (500, "InternalError", down),
        ] {
            let read = read(request(kind), &status(code, reason, message, &Value::Null));
            assert_eq!(read, Ok(Outcome::Vetoed { by: message.to_owned() }), "{code}");
        }
    }
    let lines = refuses.replace(": rolled", ":\n\n2026-11-29T12:00:00Z  INFO rolled");
    let read_lines = read(request(Kind::Evict), &status(403, "Forbidden", &lines, &Value::Null));
    let Ok(Outcome::Vetoed { by }) = read_lines else { panic!("{read_lines:?}") };
    assert!(!by.contains('\n'), "no line of its own in our log: {by}");
    // A pod whose name or message quotes such words does not veto.
    let quoted =
        "pods \"admission webhook\" is forbidden: User \"x\" cannot create resource \"pods/eviction\"";
    let denied = read(request(Kind::Evict), &status(403, "Forbidden", quoted, &Value::Null));
    assert_eq!(verdict(&denied), "denied");
}

#[test]
fn a_denial_says_what_to_allow() {
    let text = |kind: Kind| {
        let message = "pods \"web-1\" is forbidden: User \"offramp\" cannot do this";
        read(request(kind), &status(403, "Forbidden", message, &Value::Null)).unwrap_err().to_string()
    };
    assert_eq!(
        text(Kind::Evict),
        "evicting pod shop/web-1 in cluster blue: pods \"web-1\" is forbidden: User \"offramp\" cannot do this; \
         allow create on pods/eviction"
    );
    assert!(text(Kind::Delete).ends_with("allow delete on pods"));
    for kind in [Kind::Isolate, Kind::Exclude, Kind::Release] {
        assert!(text(kind).ends_with("allow patch on nodes"));
    }
}

#[test]
fn a_budget_that_matches_twice_is_told_in_the_servers_words() {
    let message =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    let fault = read(request(Kind::Evict), &status(500, "", message, &Value::Null)).unwrap_err();
    assert_eq!(fault.to_string(), format!("evicting pod shop/web-1 in cluster blue: 500: {message}"));
}

#[test]
fn a_watch_starts_anew_only_where_its_version_is_too_old() {
    let check = |code: u16, expect: Trouble| {
        assert_eq!(trouble("pods", "watch", &status(code, "Reason", "words", &Value::Null)), expect);
    };
    let failed = |text: &str| Trouble::Failed(text.to_owned());
    check(410, Trouble::Expired);
    check(403, failed("watching pods: words; allow watch on pods, cluster-wide"));
    let refused = "watching pods: the API server does not accept our credentials (words)";
    check(401, Trouble::Refused(refused.to_owned()));
    check(503, failed("watching pods: 503: words"));
    for (code, reason, message) in [
        (400, "BadRequest", "too old resource version: 5 (9)"),
        (500, "InternalError", "The resourceVersion for the provided watch is too old."),
        (500, "", "etcdserver: mvcc: required revision has been compacted"),
        (504, "Expired", "words"),
    ] {
        let read = trouble("pods", "watch", &status(code, reason, message, &Value::Null));
        assert_eq!(read, Trouble::Expired, "{code} {reason} {message}");
    }
    let other = "the server's version is too old";
    let read = trouble("pods", "watch", &status(500, "", other, &Value::Null));
    assert_eq!(read, failed(&format!("watching pods: 500: {other}")));
}

#[test]
fn what_cannot_be_read_is_told_by_its_resource_and_not_quoted() {
    let secret = || serde_json::from_str::<u8>("\"hunter2\"").unwrap_err();
    let unsaid = status(0, "", "", &Value::Null);
    for error in [kube::Error::SerdeError(secret()), unsaid] {
        let Trouble::Broken(text) = trouble("pods", "watch", &error) else { panic!("{error}") };
        assert!(text.starts_with("watching pods: the answer is not what"), "{text}");
    }
    let Trouble::Failed(text) = trouble("pods", "list", &kube::Error::SerdeError(secret())) else { panic!() };
    assert!(text.starts_with("listing pods: the answer is not what") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_proxys_page_is_cut_short() {
    let cut = std::io::Error::other("x".repeat(10_000));
    let fault = read(request(Kind::Isolate), &kube::Error::Service(Box::new(cut))).unwrap_err();
    assert!(fault.to_string().chars().count() < 400);
    let page = "ä".repeat(10_000);
    let fault = read(request(Kind::Isolate), &status(502, "", &page, &Value::Null)).unwrap_err();
    assert!(fault.to_string().chars().count() < 400);
}
