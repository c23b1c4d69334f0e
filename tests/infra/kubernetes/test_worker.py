"""What the chart says about the worker, held against the worker: its rights, its probes, and its end."""

import json
import re

import pytest
import yaml

from harness.loopback import status_and_text_of
from harness.waiting import until
from processes import ReadableSandbox, RestrictedWorker, open_folder
from rendering import CHART, LEAST, configuration, container_of, laid_over, pod_of, render, the

# Each call that the worker makes, as the sandbox counts it, and the right that it takes: API group, resource, verb.
RIGHTS = {
    "GET nodes": ("", "nodes", "list"),
    "WATCH nodes": ("", "nodes", "watch"),
    "PATCH node": ("", "nodes", "patch"),
    "GET node": ("", "nodes", "get"),
    "GET pods": ("", "pods", "list"),
    "WATCH pods": ("", "pods", "watch"),
    "DELETE pod": ("", "pods", "delete"),
    "POST eviction": ("", "pods/eviction", "create"),
    "GET services": ("", "services", "list"),
    "WATCH services": ("", "services", "watch"),
    "POST event": ("events.k8s.io", "events", "create"),
}
# Only over a node that changes between the watch and the write.
RARE = {"GET node"}
# 5 s for the kubelet and the container runtime, over what the worker takes at most.
MARGIN = 5


def rights(role):
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def at_work():
    """A worker that has taken nodes out of service in every way, and what it asked of the API server meanwhile."""
    with open_folder() as folder, ReadableSandbox(folder) as sandbox:
        values = laid_over(LEAST, {"config": {
            "queue": {"url": sandbox.queue},
            "aws": {"region": "eu-west-1", "endpoint_url": sandbox.aws},
            "timing": {
                "application_propagation": "1s", "settle": "1s", "recheck": "1s",
                # 10 s after a spot notice a pod with a grace of 10 s is out of time: what a disruption budget has
                # held back until then is deleted.
                "deadline_margin": "100s",
            },
        }})
        documents = render(values)
        with RestrictedWorker(folder, configuration(documents), KUBECONFIG=str(sandbox.kubeconfig)) as worker:
            worker.waits_until_ready()
            groups = sandbox.look("state")["groups"]
            (name, group), = groups.items()
            sandbox.control(f"desired/{name}?capacity={group['desired'] - 1}")
            until("a hook is open", lambda: left(sandbox, name) < len(group["members"]))
            # All nodes but one at once: the budgets let only some of their pods go.
            for instance in in_service(sandbox, name)[1:]:
                sandbox.control(f"spot/{instance}")
            until("every call is made", lambda: RIGHTS.keys() - RARE <= sandbox.calls().keys())
            yield documents, sandbox, worker


def in_service(sandbox, group):
    members = sandbox.look("state")["groups"][group]["members"]
    return [instance for instance, state in members.items() if state == "InService"]


def left(sandbox, group):
    return len(in_service(sandbox, group))


def test_the_role_allows_exactly_what_the_worker_asks_for(at_work):
    documents, sandbox, _ = at_work
    made = sandbox.calls().keys()
    strangers = made - RIGHTS.keys()
    assert not strangers, f"calls without a place in the table: {strangers}"
    assert rights(the("ClusterRole", documents)) == {RIGHTS[call] for call in made | RARE}


def test_the_probes_and_prometheus_ask_for_what_is_there(at_work):
    documents, _, worker = at_work
    container = container_of(documents)
    paths = {name: container[name]["httpGet"]["path"] for name in ["startupProbe", "livenessProbe", "readinessProbe"]}
    assert paths == {"startupProbe": "/live", "livenessProbe": "/live", "readinessProbe": "/ready"}
    assert {container[name]["httpGet"]["port"] for name in paths} == {"admin"}
    monitored = the("ServiceMonitor", render(laid_over(LEAST, {"serviceMonitor": {"create": True}})))
    metrics = monitored["spec"]["endpoints"][0]["path"]
    for path in [*paths.values(), metrics]:
        status, body = status_and_text_of(f"http://{worker.admin()}{path}")
        assert (status, bool(body)) == (200, True), path


def test_the_pod_has_longer_to_end_than_the_worker_takes(at_work):
    """The last test with this worker: it is stopped in the middle of its work."""
    documents, _, worker = at_work
    took = worker.stop()
    said = worker.line("which takes at most")["message"]
    longest = int(re.search(r"at most (\d+) s", said)[1])
    assert took < longest
    grace = pod_of(documents)["terminationGracePeriodSeconds"]
    assert grace >= longest + MARGIN
    schema = json.loads((CHART / "values.schema.json").read_text())
    least = schema["properties"]["terminationGracePeriodSeconds"]["minimum"]
    assert least == longest + MARGIN
    # The comment with the arithmetic names the same figure.
    assert f"A worker stops within {longest} s" in (CHART / "values.yaml").read_text()


def test_an_unready_worker_works_on(without_a_cluster):
    """Why readiness decides about rollouts alone: while one cluster is away, /ready is 503, and nodes of the others are
    taken out of service as ever."""
    sandbox, worker = without_a_cluster
    address = f"http://{worker.admin()}"

    def parts():
        status, body = status_and_text_of(f"{address}/ready")
        return status == 503 and {part["name"]: part["ready"] for part in json.loads(body)}

    until("only the second cluster is missing",
          lambda: parts() == {"queue": True, "cluster blue": True, "cluster green": False})
    assert status_and_text_of(f"{address}/live")[0] == 200
    (group,) = sandbox.look("state")["groups"]
    sandbox.control(f"spot/{in_service(sandbox, group)[0]}")
    until("a node of the first cluster is cordoned", lambda: sandbox.calls().get("PATCH node"))
    assert parts()


@pytest.fixture
def without_a_cluster():
    with open_folder() as folder, ReadableSandbox(folder) as sandbox:
        kubeconfig = yaml.safe_load(sandbox.kubeconfig.read_text())
        # Nobody can listen on this port.
        kubeconfig["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
        green = folder / "green.kubeconfig"
        green.write_text(yaml.safe_dump(kubeconfig))
        documents = render(laid_over(LEAST, {
            "kubeconfigSecrets": {"green": "offramp-green"},
            "config": {
                "queue": {"url": sandbox.queue},
                "aws": {"region": "eu-west-1", "endpoint_url": sandbox.aws},
                "clusters": [
                    {"name": "blue"},
                    {"name": "green", "kubeconfig": "/etc/offramp/kubeconfigs/green/kubeconfig"},
                ],
            },
        }))
        text = configuration(documents).replace("/etc/offramp/kubeconfigs/green/kubeconfig", str(green))
        with RestrictedWorker(folder, text, KUBECONFIG=str(sandbox.kubeconfig)) as worker:
            yield sandbox, worker
