"""Worlds from public bug reports, in which one witness contradicts another, on a real control plane: a Node that is
deleted while its hook is held, a dead kubelet, two Nodes for one instance, Nodes that an admission policy or a broken
webhook lets us not write, and a second hook on the group that is somebody else's. `tests/scenarios/reports.rs` has them
in virtual time, with the reports. Here they go side by side, and a table at the end says what each of them took."""

import subprocess
from dataclasses import astuple
from datetime import UTC, datetime

import pytest
from cloudformation.recorder import recording
from contradictions import AUDIT, HOOK_LIMIT, MARGIN, US, Contradictions
from harness import offramp
from harness.loopback import free_port, json_of
from harness.waiting import LIMIT, until
from removals import GRACE
from servers import ControlPlane

# The names of the worlds, of their pods, and of what refuses.
TWO_HOOKS, DELETED, DEAD, TWINS = "two-hooks", "deleted-node", "dead-kubelet", "twins"
THEIR_HOOK, OTHER_TWIN = "theirs", "other-twin"
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
ADMISSION = "admissionregistration.k8s.io/v1"
CHANGES = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes"]}
WORDS, WEBHOOK = "nodes are changed by Terraform only", "nodes.example.com"

# Seconds. A hook is answered then, whatever there is.
LATEST = HOOK_LIMIT - MARGIN
# The deregistration delay of the sandbox.
DEREGISTRATION = 10
# The grace of the pod on the node that is deleted. The garbage collector takes the pod away at about that time, which
# says nothing of the machine.
LONG = 60
# A minute after its grace a pod holds nothing up.
OVERDUE = 60 + GRACE["terminationGracePeriodSeconds"]
# An API server has to refuse for so long that it is believed.
REFUSED = 30
# Requests, with growing pauses. And a pod that comes back to a node without a cordon is evicted once more; its
# controller can be quicker than the watch that shows it.
MOST_PATCHES, MOST_EVICTIONS = 12, 4


def policy(name, node, **reason):
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [CHANGES]},
        "matchConditions": ours(node),
        "validations": [{"expression": "false", "message": WORDS, **reason}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        {"apiVersion": ADMISSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding))
    ]


def forbidding_policy(name, node):
    return policy(name, node, reason="Forbidden")


def broken_webhook(name, node):
    """Nothing listens where it should be."""
    webhook = {
        "name": WEBHOOK,
        "clientConfig": {"url": f"https://127.0.0.1:{free_port()}"},
        "rules": [CHANGES],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchConditions": ours(node),
    }
    kind = "ValidatingWebhookConfiguration"
    return [{"apiVersion": ADMISSION, "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]}]


def ours(node):
    return [{"name": "ours", "expression": f"request.userInfo.username == '{US}' && request.name == '{node}'"}]


# What refuses, with which code that arrives, and the words that say who it was.
REFUSALS = {
    "policy-422": (policy, 422, WORDS),
    "policy-403": (forbidding_policy, 403, WORDS),
    "webhook-down": (broken_webhook, 500, WEBHOOK),
}


def is_refused(cluster, node):
    """Whether we could not write it now: an API server takes a moment to know of a policy."""
    words = ["kubectl", "patch", "node", node, "--as", US, "--dry-run=server", "-p", '{"spec":{"unschedulable":true}}']
    return subprocess.run(words, env=cluster.environment(), capture_output=True, timeout=60, check=False).returncode


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contradictions")
    with (
        ControlPlane(folder / "cluster", AUDIT) as cluster,
        offramp.Sandbox(folder, nodes=9) as sandbox,
        recording(sandbox.aws) as (door, requests),
    ):
        world = Contradictions(cluster, sandbox, folder, door, requests)
        with world.worker(world.kubeconfig()) as worker:
            worker.waits_until_ready()
            yield world


@pytest.fixture
def told(rows):
    """Takes a row of the table."""

    def tell(row):
        rows.append(row)
        print(" | ".join(filter(None, astuple(row))))

    return tell


def assert_left_its_targets(world, instance):
    """It was deregistered, and its last requests were waited for."""
    deregistered = world.moment(f"{instance} is deregistered from blue-web")
    assert (world.answered(instance) - deregistered).total_seconds() >= DEREGISTRATION


def test_beside_a_foreign_hook_ours_is_answered_and_theirs_is_not(world, told):
    """The first, because the group has that hook for all its instances."""
    hook = {"AutoScalingGroupName": "workers", "LifecycleHookName": THEIR_HOOK}
    terminating = {"LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING"}
    instance = world.takes({TWO_HOOKS: GRACE})[TWO_HOOKS]
    world.sandbox.autoscaling("PutLifecycleHook", **hook, **terminating, NotificationMetadata="their-system")
    world.leaves(instance)

    outcome = world.outcome(instance)
    state = world.sandbox.look("state")["groups"]["workers"]["members"][instance]
    world.sandbox.autoscaling("DeleteLifecycleHook", **hook)
    asked = world.asked(instance)
    told(world.row("two hooks, one foreign", instance, outcome, asked))
    assert outcome == "left"
    assert state == "Terminating:Wait", "theirs holds it"
    assert len(world.told(f"offramp of {instance} is answered")) == 1
    assert {one.parameters.get("LifecycleHookName") for one in asked.aws} == {"offramp", None}
    # The answer, and once more to see whether it was taken: the state of the group does not say so.
    first, *more = [one.answer[0] for one in asked.of_aws("CompleteLifecycleAction")]
    assert first == 200
    assert more in ([400], [400, 400])
    assert asked.evictions.count(201) == 1
    assert world.pods_on(world.nodes[instance], TWO_HOOKS) == []
    assert_left_its_targets(world, instance)


@pytest.fixture(scope="module")
def held(world):
    """The instances of all other worlds, which their hooks hold from now on."""
    cluster = world.cluster
    short = {name: GRACE for name in (DEAD, TWINS, *REFUSALS)}
    held = world.takes(short | {DELETED: {"terminationGracePeriodSeconds": LONG}})
    nodes = {name: world.nodes[instance] for name, instance in held.items()}
    for name, (refusal, _, _) in REFUSALS.items():
        cluster.apply(refusal(name, nodes[name]))
        until(f"nodes are refused: {name}", lambda name=name: is_refused(cluster, nodes[name]))
    twin = {"name": OTHER_TWIN, "labels": {"kubernetes.io/hostname": OTHER_TWIN}}
    spec = {"providerID": cluster.get("node", nodes[TWINS])["spec"]["providerID"]}
    cluster.add_nodes([{"metadata": twin, "spec": spec}])
    # The pods of the node that is deleted have to be there still when it is.
    for name in (DEAD, DELETED):
        cluster.ends_kubelet(nodes[name])

    for instance in held.values():
        world.leaves(instance)
    for name in (DEAD, DELETED):
        until(f"the pod ends: {name}", lambda name=name: all(map(is_ending, world.pods_on(nodes[name], name))))
        # The controller of the sandbox goes by the labels of its own nodes.
        excluded = ("label", "node", nodes[name], f"{EXCLUDED}=true")
        cluster.kubectl("--kubeconfig", world.sandbox.kubeconfig, *excluded)
    world.deleted_at = datetime.now(UTC)
    cluster.kubectl("delete", "node", nodes[DELETED])
    return held


def is_ending(pod):
    return "deletionTimestamp" in pod["metadata"]


def is_ready(node):
    return {"Ready": "True"}.items() <= {one["type"]: one["status"] for one in node["status"]["conditions"]}.items()


def test_a_node_that_is_deleted_leaves_pods_behind_that_have_their_grace(world, held, told):
    instance = held[DELETED]
    outcome, asked = world.outcome(instance), world.asked(instance)
    told(world.row("Node deleted under way", instance, outcome, asked))
    assert outcome == "left"
    assert (world.answered(instance) - world.deleted_at).total_seconds() >= LONG
    assert world.seconds(instance) < LATEST
    assert (asked.evictions.count(201), asked.deletions) == (1, [])
    assert len(asked.of_aws("CompleteLifecycleAction")) == 1
    assert_left_its_targets(world, instance)


def test_pods_of_a_dead_kubelet_hold_nothing_up(world, held, told):
    instance = held[DEAD]
    outcome, asked = world.outcome(instance), world.asked(instance)
    told(world.row("dead kubelet", instance, outcome, asked))
    assert outcome == "left"
    until("its node is not Ready", lambda: not is_ready(world.cluster.get("node", world.nodes[instance])))
    assert OVERDUE <= world.seconds(instance) < LATEST
    (left,) = world.pods_on(world.nodes[instance], DEAD)
    assert is_ending(left)
    assert world.server.counted("offramp_pods_not_waited_for_total", why="overdue") == 1
    assert (asked.evictions.count(201), asked.deletions) == (1, [])
    assert len(asked.of_aws("CompleteLifecycleAction")) == 1
    assert_left_its_targets(world, instance)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_node_that_cannot_be_written_holds_nothing_up(world, held, told, name):
    instance, (_, code, words) = held[name], REFUSALS[name]
    node = world.nodes[instance]
    outcome, asked = world.outcome(instance), world.asked(instance)
    told(world.row(f"PATCH refused, {name}", instance, outcome, asked))
    assert outcome == "unisolated"
    assert REFUSED <= world.seconds(instance) < LATEST
    # A conflict is seen before admission.
    assert set(asked.patches) - {409} == {code}
    assert len(asked.patches) <= MOST_PATCHES
    assert 1 <= asked.evictions.count(201) <= MOST_EVICTIONS
    assert asked.deletions == []
    assert len(asked.of_aws("CompleteLifecycleAction")) == 1
    assert_left_its_targets(world, instance)
    assert "unschedulable" not in world.cluster.get("node", node)["spec"]
    events = world.cluster.get("events", "-A", "--field-selector", f"involvedObject.name={node}")
    (said,) = [event["message"] for event in events if event["reason"] == "IsolationRefused"]
    assert words in said
    # Not a missing permission, also where it looks like one.
    assert not [event for event in events if event["reason"] == "ActionDenied"]


def test_of_twins_none_is_touched(world, held, told):
    """The last, because its hook is held for the longest."""
    instance = held[TWINS]
    nodes = [world.nodes[instance], OTHER_TWIN]
    outcome, asked = world.outcome(instance), world.asked(instance, OTHER_TWIN)
    told(world.row("two Nodes, one instance", instance, outcome, asked))
    assert outcome == "answered_unseen"
    # The event has whole seconds.
    assert LATEST - 1 <= world.seconds(instance) < HOOK_LIMIT
    assert [line for line in world.said_of(instance) if "2 Ready nodes name this instance" in line["message"]]
    assert (asked.patches, asked.evictions, asked.deletions) == ([], [], [])
    assert asked.of_aws("DeregisterTargets") == []
    assert len(world.pods_on(nodes[0], TWINS)) == 1
    for found in (world.cluster.get("node", node) for node in nodes):
        assert "unschedulable" not in found["spec"]
        assert "offramp.sh/record" not in found["metadata"].get("annotations", {})


def test_all_jobs_are_over_and_nothing_was_denied(world, held, told):
    jobs = f"http://{world.server.admin()}/jobs"
    until("all jobs are over", lambda: json_of(jobs) == [], HOOK_LIMIT + LIMIT, pause=1)
    told(world.totals())
    outcomes = {"unisolated": len(REFUSALS), "answered_unseen": 1, "twins": 0, "stopped": 0, "panicked": 0}
    for outcome, count in outcomes.items():
        assert world.server.counted("offramp_jobs_finished_total", outcome=outcome) == count, outcome
    assert world.server.counted("offramp_actions_total", outcome="denied") == 0
