"""The worker on a real cluster, with the rights that we ship and no others: nodes leave, by real evictions under real
disruption budgets. The nodes are the instances of a sandbox, which is the AWS."""

import pytest
from harness import offramp
from harness.loopback import text_of
from harness.waiting import until
from removals import AGENT, GRACE, QUICK, WEB, World, budget, workload
from servers import ControlPlane

# One pod that may never be away.
STUBBORN = "stubborn"
# 15 s after a spot notice a pod with a grace of 5 s is out of time.
TIMING = QUICK | {"deadline_margin": "100s"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("removal")
    with ControlPlane(folder / "cluster") as cluster, offramp.Sandbox(folder, nodes=3) as sandbox:
        yield World(cluster, sandbox, folder)


def test_without_rights_a_worker_is_not_ready_and_says_why(world):
    world.cluster.kubectl("create", "serviceaccount", "stranger")
    token = world.cluster.kubectl("create", "token", "stranger").strip()
    with world.worker(world.cluster.kubeconfig_of("stranger", token), timing=TIMING) as worker:
        refused = worker.line('User "system:serviceaccount:default:stranger" cannot list resource')
        assert refused["cluster"] == "blue"
        assert not worker.is_ready()


@pytest.fixture(scope="module")
def worker(world):
    with world.worker(world.kubeconfig(), timing=TIMING) as running:
        running.waits_until_ready()
        yield running


def test_a_node_leaves_by_its_hook_under_a_real_disruption_budget(world, worker):
    before = set(world.sandbox.look("state")["instances"])
    world.sandbox.control("desired/workers?capacity=2")
    leaving = until("a node leaves", lambda: next(iter(world.told("is Terminating:Wait")), None)).split()
    (instance,) = before & set(leaving)
    node = world.nodes[instance]
    until("the hook is answered", lambda: world.told(f"offramp of {instance} is answered with CONTINUE"))

    assert world.pods_on(node, WEB) == []
    # A DaemonSet's pod would come back at once.
    assert len(world.pods_on(node, AGENT)) == 1
    found = world.cluster.get("node", node)
    assert found["spec"]["unschedulable"]
    assert found["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] == "true"
    until("the last Event", lambda: "Removed" in world.cluster.kubectl("describe", "node", node))
    described = world.cluster.kubectl("describe", "node", node)
    assert "Isolated" in described
    # Three pods of a node go one after the other: the API server has refused some, and named the budget.
    assert worker.counted("offramp_actions_total", action="evict", outcome="blocked") > 0
    assert worker.line("refused by disruption budget web")


def test_a_pod_that_may_not_be_evicted_is_deleted_in_time(world, worker):
    world.cluster.apply([workload("Deployment", STUBBORN, GRACE, replicas=1), budget(STUBBORN, 0)])
    world.cluster.kubectl("rollout", "status", f"deployment/{STUBBORN}", "--timeout", "90s")
    (pod,) = world.cluster.get("pods", "-l", f"app={STUBBORN}")
    (instance,) = [instance for instance, node in world.nodes.items() if node == pod["spec"]["nodeName"]]
    world.sandbox.control(f"spot/{instance}")

    def is_gone():
        left = world.cluster.get("pods", "-l", f"app={STUBBORN}")
        return pod["metadata"]["uid"] not in {one["metadata"]["uid"] for one in left}

    until("the pod is gone", is_gone)
    deleted = [line["message"] for line in worker.lines() if line.get("action") == "delete"]
    assert [message for message in deleted if pod["metadata"]["name"] in message]


def test_nothing_that_it_asked_for_was_denied(world, worker):
    page = text_of(f"http://{worker.admin()}/metrics")
    assert 'api="kubernetes"' in page
    assert worker.counted("offramp_calls_total", api="kubernetes", result="done") > 0
    for result in ("denied", "invalid"):
        assert worker.counted("offramp_calls_total", api="kubernetes", result=result) == 0
