"""A real cluster whose nodes are the instances of a sandbox, which is the AWS, and a worker that serves it from
outside, with the rights that we ship and no others."""

import re
import subprocess

import yaml
from harness import offramp
from harness.loopback import json_of
from kubernetes.headers import PLAIN, block, header

# Nine pods, of which one may be away; one on every node.
WEB, AGENT = "web", "agent"
REPLICAS = 9
GRACE = {"terminationGracePeriodSeconds": 5}
# Everything here takes a second.
QUICK = {"application_propagation": "1s", "settle": "1s", "recheck": "1s"}


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
        self.populates()

    def populates(self):
        self.cluster.apply(
            [
                workload("Deployment", WEB, GRACE, replicas=REPLICAS),
                budget(WEB, 1),
                workload("DaemonSet", AGENT),
            ]
        )
        for what in (f"deployment/{WEB}", f"daemonset/{AGENT}"):
            self.cluster.kubectl("rollout", "status", what, "--timeout", "90s")

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

    def worker(self, kubeconfig, **more):
        """`more`: what its configuration has beside what every worker here needs."""
        configuration = {
            "queue": {"url": self.sandbox.queue},
            "aws": {"region": offramp.REGION, "endpoint_url": self.sandbox.aws},
            "clusters": [{"name": "blue", "kubeconfig": str(kubeconfig)}],
            "target_groups": [self.sandbox.target_group],
            "timing": QUICK,
            "admin": {"listen": "127.0.0.1:0"},
            # That a budget refuses is said in detail only.
            "log": {"format": "json", "level": "debug"},
        }
        file = self.folder / f"{kubeconfig.name}.yaml"
        file.write_text(yaml.safe_dump(configuration | more))
        environment = {"HOME": str(self.folder), **offramp.KEYS}
        words = [offramp.binary(), "run", "--config", str(file)]
        return offramp.Worker(words, environment, self.folder / f"{kubeconfig.name}.log")

    def pods_on(self, node, name):
        return self.cluster.get("pods", "-l", f"app={name}", "--field-selector", f"spec.nodeName={node}")

    def told(self, words):
        return [line for line in self.sandbox.look("story") if words in line]
