"""Pods that come back onto the node that leaves, because their controller and the real scheduler put them there: they
are neither waited for nor asked to go again and again. That is counted where it arrives, at the API server."""

import re
from collections import Counter

import pytest
from harness import offramp
from harness.waiting import until
from removals import AGENT, GRACE, QUICK, WEB, World, workload
from servers import ControlPlane

RETURNING, INGRESS = "returning", "ingress"
# The pod as it was, and a few more: its controller can be quicker than the watch that shows it, and none of that may
# go on for ever.
MOST = 5
# So long a worker that waits for a pod that comes back holds the hook.
HOOK_LIMIT = 120
# Seconds. The target groups of the sandbox take fifteen to be quiet, and three pods leave one after the other.
ANSWERED = 60

# How pods are asked to go. Not only by eviction: a deletion is no better.
PODS = {"group": "", "resources": ["pods"]}
EVICTIONS = {"group": "", "resources": ["pods/eviction"]}
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["create"], "resources": [EVICTIONS]},
        {"level": "Metadata", "verbs": ["delete"], "resources": [PODS]},
        {"level": "None"},
    ],
}


class Returning(World):
    def __init__(self, cluster, sandbox, folder):
        super().__init__(cluster, sandbox, folder)
        self.rights = self.kubeconfig()
        self.left = set()

    def leaves(self):
        """Scales in by one. Gives the instance and its node: the hook waits, and nobody serves it yet."""

        def group():
            return self.sandbox.look("state")["groups"]["workers"]

        def waiting():
            members = group()["members"].items()
            return next((id for id, state in members if state == "Terminating:Wait" and id not in self.left), None)

        self.sandbox.control(f"desired/workers?capacity={group()['desired'] - 1}")
        instance = until("a node leaves", waiting)
        self.left.add(instance)
        return instance, self.nodes[instance]

    def starts(self, kind, name, *pod, **spec):
        self.cluster.apply([workload(kind, name, *pod, **spec)])
        self.cluster.kubectl("rollout", "status", f"{kind}/{name}", "--timeout", "90s")

    def asked(self, name):
        """The answers to the worker's requests that a pod of this workload goes."""
        return [
            event["responseStatus"]["code"]
            for event in self.cluster.audited()
            if event["user"]["username"].startswith("system:serviceaccount:offramp:")
            and re.fullmatch(rf"{name}(-[a-z0-9]+)+", event["objectRef"]["name"])
        ]

    def serves(self, instance, node, name, most, **more):
        """Starts a worker and waits until it has answered the hook, as long as it does not ask a pod of this workload
        to go more often than that. Gives the answers."""
        begin = len(self.asked(WEB))
        web = len(self.pods_on(node, WEB))
        assert web > 0

        def answered():
            asked = self.asked(name)
            assert len(asked) <= most, f"asked pods of {name} to go {len(asked)} times, {counted(asked)}"
            return self.told(f"offramp of {instance} is answered with CONTINUE")

        timing = QUICK | {"hook_limit": f"{HOOK_LIMIT}s"}
        with self.worker(self.rights, timing=timing, **more):
            until("the hook is answered", answered, limit=ANSWERED)
            assert self.pods_on(node, WEB) == []
            assert len(self.pods_on(node, AGENT)) == 1
        asked = self.asked(name)
        print(f"asked of the API server: {name} {counted(asked)}; {WEB} {counted(self.asked(WEB)[begin:])}")
        # Those that do not come back have gone, each once.
        assert self.asked(WEB)[begin:].count(201) == web
        return asked


def counted(answers):
    return ", ".join(f"{count} times {code}" for code, count in sorted(Counter(answers).items())) or "nothing"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("returning")
    with ControlPlane(folder / "cluster", AUDIT) as cluster, offramp.Sandbox(folder, nodes=4) as sandbox:
        yield Returning(cluster, sandbox, folder)


def test_a_pod_that_tolerates_everything_is_asked_to_go_and_then_left_alone(world):
    instance, node = world.leaves()
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
    pod = GRACE | {"tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": required}}
    world.starts("Deployment", RETURNING, pod, replicas=1)
    (first,) = world.pods_on(node, RETURNING)

    asked = world.serves(instance, node, RETURNING, MOST)
    assert 201 in asked
    until("it is back, and stays", lambda: is_another(world.pods_on(node, RETURNING), first))
    assert world.asked(RETURNING) == asked


def test_a_pod_of_an_ingress_daemon_set_is_evicted_once(world):
    instance, node = world.leaves()
    world.starts("DaemonSet", INGRESS, GRACE)
    (first,) = world.pods_on(node, INGRESS)

    asked = world.serves(instance, node, INGRESS, 1, ingress_daemon_sets=[f"default/{INGRESS}"])
    assert asked == [201]
    until("it is back, and stays", lambda: is_another(world.pods_on(node, INGRESS), first))
    assert world.asked(INGRESS) == asked


def is_another(pods, first):
    """One pod, and not that one."""
    return [pod["metadata"]["uid"] != first["metadata"]["uid"] for pod in pods] == [True]
