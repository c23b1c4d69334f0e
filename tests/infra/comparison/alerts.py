"""The alert that lies: a metric that says that something is wrong which is not."""

import json
import socket

from harness.waiting import until
from monitoring.gateway import answer
from worlds import Clock, Finding, within, world

# How many seconds a cluster that is in sync may take to be counted so.
SYNCED = 10
# And for how many it is watched what a refusal leads to.
REFUSING = 30

# As the API server hands on what an admission webhook said.
WORDS = 'admission webhook "drain.example.com" denied the request: rolled by the operator'
REFUSAL = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": WORDS,
    "reason": "Forbidden",
    "code": 403,
}


def watch_queue(version, folder):
    """The queue cannot be opened, and the cluster is well."""
    with world(folder) as place, socket.socket() as closed:
        # Ours, and nobody listens: every connection is refused.
        closed.bind(("127.0.0.1", 0))
        place.aws.address = "127.0.0.1:{}".format(closed.getsockname()[1])
        with place.worker(version) as worker:
            until("the cluster is in sync", lambda: worker.part("cluster blue")["ready"])
            until("the queue is known to be closed", lambda: "opening queue" in worker.part("queue")["why"])
            within(SYNCED, lambda: worker.counted("offramp_cluster_synced", cluster="blue") == 1)
            synced = worker.counted("offramp_cluster_synced", cluster="blue")
            queue, cluster = worker.part("queue"), worker.part("cluster blue")
    return [
        Finding("/ready says of the queue", "ready" if queue["ready"] else "not ready", not queue["ready"]),
        Finding("/ready says of the cluster", cluster["why"], cluster["ready"]),
        Finding("offramp_cluster_synced{blue}", f"{synced:.0f}", synced == 1),
    ]


def watch_webhook(version, folder):
    """A webhook refuses the eviction of one pod, because an operator of its own rolls it: no right is missing."""
    asked = []
    with world(folder) as place:
        instance, node = min(place.nodes().items())
        pod = next(pod["metadata"] for pod in place.pods() if is_web(pod, node["metadata"]["name"]))
        refused = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"

        def fault(method, path, body):
            if method != "POST" or not path.startswith(refused):
                return None
            asked.append(path)
            return answer("403 Forbidden", "application/json", json.dumps(REFUSAL)), 0

        place.kubernetes.fault = fault
        with place.worker(version) as worker:
            worker.waits_until_ready()
            place.interrupt(instance)
            until("the webhook has refused", lambda: asked)
            clock = Clock()
            within(REFUSING, lambda: not worker.runs(), clock, pause=1)
            denied = worker.counted("offramp_actions_total", action="evict", outcome="denied")
            warned = [line for line in worker.lines() if line["level"] == "WARN" and is_about(line, pod["name"])]
    return [
        Finding(f"evictions asked for in {REFUSING} s", f"{len(asked)}", len(asked) > 1),
        Finding("offramp_actions_total{evict, denied}", f"{denied:.0f}", denied == 0),
        Finding(f"WARN lines about it in {REFUSING} s", f"{len(warned)}", len(warned) == 1),
    ]


def is_web(pod, node):
    return pod["spec"].get("nodeName") == node and pod["metadata"].get("labels", {}).get("app") == "web"


def is_about(line, pod):
    return WORDS in line["message"] or pod in line["message"]
