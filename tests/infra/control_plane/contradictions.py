"""A cluster in which one witness contradicts another, the worker that serves it, and what it asked about each node:
counted at the API server, which writes down what it is asked, and at a proxy before the AWS of the sandbox."""

import json
from collections import Counter
from dataclasses import astuple, dataclass
from datetime import datetime
from textwrap import wrap

from harness import offramp
from harness.waiting import LIMIT, until
from removals import QUICK, World, workload

# Whom the worker is to the API server.
US = "system:serviceaccount:offramp:offramp"
# Seconds. A hook is held for so long where nothing else ends it, less the margin.
HOOK_LIMIT, MARGIN = 120, 15
# What is kept: our requests, and where the scheduler has put which pod.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Request", "verbs": ["create"], "resources": [{"group": "", "resources": ["pods/binding"]}]},
        {"level": "Metadata", "users": [US]},
        {"level": "None"},
    ],
}


@dataclass
class Asked:
    """What the worker has asked about one node and its instance, in order: the answers of the API server by what it was
    asked, and the requests to AWS that name the instance or a lifecycle action of it."""

    patches: list
    evictions: list
    deletions: list
    aws: list

    def of_aws(self, operation):
        return [request for request in self.aws if request.operation == operation]

    def in_words(self):
        """For the API server and for AWS."""
        by_name = {"patch node": self.patches, "evict": self.evictions, "delete": self.deletions}
        asked = [f"{name} {counted(answers)}" for name, answers in by_name.items() if answers]
        reads = sum(request.operation.startswith("Describe") for request in self.aws)
        written = counted(named(request) for request in self.aws if not request.operation.startswith("Describe"))
        return "; ".join(asked) or "nothing", f"{written}; {reads} reads"


@dataclass
class Row:
    world: str
    outcome: str
    seconds: str
    kubernetes: str
    aws: str


class Contradictions(World):
    """`requests`: what has come through the proxy, whose URL is `door`."""

    def __init__(self, cluster, sandbox, folder, door, requests):
        super().__init__(cluster, sandbox, folder)
        self.door, self.requests = door, requests
        self.free = sorted(self.nodes)

    def populates(self):
        """Each world brings a pod of its own."""

    def worker(self, kubeconfig):
        self.server = super().worker(
            kubeconfig,
            aws={"region": offramp.REGION, "endpoint_url": self.door},
            timing=QUICK | {"hook_limit": f"{HOOK_LIMIT}s", "deadline_margin": f"{MARGIN}s"},
            log={"format": "json", "level": "info"},
        )
        return self.server

    def takes(self, pods):
        """Gives an instance to each of these worlds, and puts a pod of its name on the node, which would rather be
        there than on any other."""
        instances = {name: self.free.pop() for name in pods}
        for name, pod in pods.items():
            node = self.nodes[instances[name]]
            here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
            preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}]}
            affinity = {"affinity": {"nodeAffinity": preferred}}
            self.cluster.apply([workload("Deployment", name, pod | affinity, replicas=1)])
        for name, instance in instances.items():
            self.cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout", "90s")
            assert len(self.pods_on(self.nodes[instance], name)) == 1
        return instances

    def leaves(self, instance):
        """Its group ends it, as in a scale-in that chose this one."""
        decrement = {"ShouldDecrementDesiredCapacity": "true"}
        self.sandbox.autoscaling("TerminateInstanceInAutoScalingGroup", InstanceId=instance, **decrement)

    def moment(self, words):
        """When the sandbox told this for the first time."""
        told = self.told(words)
        return datetime.fromisoformat(told[0].split()[0]) if told else None

    def answered(self, instance):
        return self.moment(f"offramp of {instance} is answered with CONTINUE")

    def said_of(self, instance):
        return [line for line in self.server.lines() if line.get("instance") == instance]

    def outcome(self, instance):
        """Of the only job about this instance, when it is over."""

        def find():
            assert self.server.runs(), self.server.said()
            return [line["outcome"] for line in self.said_of(instance) if "outcome" in line]

        (outcome,) = until(f"the job about {instance} is over", find, HOOK_LIMIT + LIMIT, pause=1)
        assert self.answered(instance), self.said_of(instance)
        return outcome

    def asked(self, instance, *others):
        """About its node, and about other nodes as well."""
        nodes = {self.nodes[instance], *others}
        events = self.cluster.audited()
        bindings = [event for event in events if what(event) == "pods/binding"]
        pods = {
            event["objectRef"]["name"] for event in bindings if event["requestObject"]["target"]["name"] in nodes
        }

        def answers(verb, resource, names):
            asked = (event for event in events if is_ours(event) and (event["verb"], what(event)) == (verb, resource))
            return [event["responseStatus"]["code"] for event in asked if event["objectRef"]["name"] in names]

        return Asked(
            patches=answers("patch", "nodes", nodes),
            evictions=answers("create", "pods/eviction", pods),
            deletions=answers("delete", "pods", pods),
            aws=self.asked_of_aws(instance),
        )

    def asked_of_aws(self, instance):
        """Lifecycle actions are named by their tokens, which came with their messages."""
        requests = [request for request in self.requests if request.answer]
        received = [json.loads(request.answer[1]) for request in requests if request.operation == "ReceiveMessage"]
        bodies = [json.loads(message["Body"]) for answer in received for message in answer.get("Messages", [])]
        details = [body["detail"] for body in bodies if body["detail"].get("EC2InstanceId") == instance]
        names = {instance, *(detail["LifecycleActionToken"] for detail in details if "LifecycleActionToken" in detail)}
        return [request for request in requests if names & set(map(str, request.parameters.values()))]

    def seconds(self, instance):
        """From the event of our hook to our answer."""
        return (self.answered(instance) - self.moment(f"{instance} is Terminating:Wait")).total_seconds()

    def row(self, world, instance, outcome, asked):
        return Row(world, outcome, f"{self.seconds(instance):.0f}", *asked.in_words())

    def totals(self):
        """Of all worlds together, reads too."""
        ours = [f"{event['verb']} {what(event)}" for event in self.cluster.audited() if is_ours(event)]
        return Row("all of them", "", "", counted(ours), counted([named(one) for one in self.requests if one.answer]))


def is_ours(event):
    return event["user"]["username"] == US


def what(event):
    """Such as `pods`, `pods/binding`, and `/version` for what is no resource."""
    asked = event.get("objectRef")
    if asked is None:
        return event["requestURI"]
    return f"{asked['resource']}/{asked['subresource']}" if "subresource" in asked else asked["resource"]


def named(request):
    status, _ = request.answer
    return request.operation if status == 200 else f"{request.operation} ({status})"


def counted(things):
    return ", ".join(f"{count} x {thing}" for thing, count in sorted(Counter(map(str, things)).items()))


# Characters: so that a row fits into 120.
WIDTHS = (24, 15, 7, 30, 32)


def table(rows):
    heads = Row("world", "outcome", "seconds", "asked of the API server", "asked of AWS")
    lines = ["`seconds` are those from the hook's event to our answer.", ""]
    for row in [heads, *rows]:
        cells = [wrap(text, width) for text, width in zip(astuple(row), WIDTHS, strict=True)]
        height = max(map(len, cells))
        filled = [cell + [""] * (height - len(cell)) for cell in cells]
        for parts in zip(*filled, strict=True):
            lines.append(" | ".join(part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True)).rstrip())
    return "\n".join(lines)
