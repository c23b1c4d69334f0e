"""The worker on a real cluster, with the rights that we ship and no others: nodes leave, by real evictions under real
disruption budgets. The nodes are the instances of a sandbox, which is the AWS."""

import re
import subprocess

import pytest
import yaml
from harness import offramp
from harness.loopback import json_of, text_of
from harness.waiting import until
from kubernetes.headers import PLAIN, block, header
from servers import ControlPlane

# Nine pods, of which one may be away; one pod that may never be; one on every node.
WEB, STUBBORN, AGENT = "web", "stubborn", "agent"
REPLICAS = 9
GRACE = {"terminationGracePeriodSeconds": 5}


def workload(kind, name, pod=(), **spec):
    labels = {"app": name}
    container = {"name": name, "image": f"registry.example.com/{name}:1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], **dict(pod)}}
    spec |= {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def budget(name, unavailable):
    spec = {"selector": {"matchLabels": {"app": name}}, "maxUnavailable": unavailable}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}


class World:
    """The cluster, the sandbox whose instances its nodes are, and a worker that serves it from outside."""

    def __init__(self, cluster, sandbox, folder):
        self.cluster, self.sandbox, self.folder = cluster, sandbox, folder
        nodes = json_of(f"{sandbox.kubernetes}/api/v1/nodes")["items"]
        self.nodes = {node["spec"]["providerID"].rsplit("/", 1)[1]: node["metadata"]["name"] for node in nodes}
        cluster.add_nodes(
            [
                {
                    "metadata": {field: node["metadata"][field] for field in ("name", "labels")},
                    "spec": {"providerID": node["spec"]["providerID"]},
                }
                for node in nodes
            ]
        )
        cluster.apply(
            [
                workload("Deployment", WEB, GRACE, replicas=REPLICAS),
                budget(WEB, 1),
                workload("DaemonSet", AGENT),
            ]
        )
        for what in (f"deployment/{WEB}", f"daemonset/{AGENT}"):
            cluster.kubectl("rollout", "status", what, "--timeout", "90s")

    def kubeconfig(self):
        """Made by the commands at the top of remote-cluster.yaml, with the file that is shown there."""
        text = header("remote-cluster")
        for command in re.findall(r"kubectl --context green .+", text):
            here = command.replace("--context green", "").replace("infra/kubernetes", str(PLAIN))
            subprocess.run(
                ["sh", "-euc", here], cwd=self.folder, env=self.cluster.environment(), check=True, timeout=60
            )
        shown = block(text, "apiVersion: v1")
        shown["clusters"][0]["cluster"]["server"] = self.cluster.api.url
        file = self.folder / "kubeconfig"
        file.write_text(yaml.safe_dump(shown))
        return file

    def worker(self, kubeconfig):
        configuration = {
            "queue": {"url": self.sandbox.queue},
            "aws": {"region": offramp.REGION, "endpoint_url": self.sandbox.aws},
            "clusters": [{"name": "blue", "kubeconfig": str(kubeconfig)}],
            "target_groups": [self.sandbox.target_group],
            # 15 s after a spot notice a pod with a grace of 5 s is out of time.
            "timing": {"application_propagation": "1s", "settle": "1s", "recheck": "1s", "deadline_margin": "100s"},
            "admin": {"listen": "127.0.0.1:0"},
            # That a budget refuses is said in detail only.
            "log": {"format": "json", "level": "debug"},
        }
        file = self.folder / f"{kubeconfig.name}.yaml"
        file.write_text(yaml.safe_dump(configuration))
        environment = {"HOME": str(self.folder), **offramp.KEYS}
        words = [offramp.binary(), "run", "--config", str(file)]
        return offramp.Worker(words, environment, self.folder / f"{kubeconfig.name}.log")

    def pods_on(self, node, name):
        return self.cluster.get("pods", "-l", f"app={name}", "--field-selector", f"spec.nodeName={node}")

    def told(self, words):
        return [line for line in self.sandbox.look("story") if words in line]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("removal")
    with ControlPlane(folder / "cluster") as cluster, offramp.Sandbox(folder, nodes=3) as sandbox:
        yield World(cluster, sandbox, folder)


def test_without_rights_a_worker_is_not_ready_and_says_why(world):
    world.cluster.kubectl("create", "serviceaccount", "stranger")
    token = world.cluster.kubectl("create", "token", "stranger").strip()
    with world.worker(world.cluster.kubeconfig_of("stranger", token)) as worker:
        refused = worker.line('User "system:serviceaccount:default:stranger" cannot list resource')
        assert refused["cluster"] == "blue"
        assert not worker.is_ready()


@pytest.fixture(scope="module")
def worker(world):
    with world.worker(world.kubeconfig()) as running:
        running.waits_until_ready()
        yield running


def counted(worker, name, **labels):
    """The sum of a metric's series with these labels."""
    total = 0
    for line in text_of(f"http://{worker.admin()}/metrics").splitlines():
        found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if found and found[1] == name and all(f'{label}="{value}"' in found[2] for label, value in labels.items()):
            total += float(found[3])
    return total


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
    for reason in ("Isolated", "Deregistering", "Draining"):
        assert reason in described
    # Three pods of a node go one after the other: the API server has refused some, and named the budget.
    assert counted(worker, "offramp_actions_total", action="evict", outcome="blocked") > 0
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
    assert counted(worker, "offramp_calls_total", api="kubernetes", result="done") > 0
    for result in ("denied", "invalid"):
        assert counted(worker, "offramp_calls_total", api="kubernetes", result=result) == 0
