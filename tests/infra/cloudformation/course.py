"""The real worker on the deployed queue, with every trigger, once from beginning to end.

ministack has the queue, the rules, the role and the hook, as the stacks made them. `offramp sandbox` has the
rest of AWS and the cluster. ministack refuses events of aws.* as AWS does, so here the events of the sandbox's
world are held against the patterns of the deployed rules, and what one of them picks is put into the deployed
queue.

The worker's settings are outputs of the stack: the first worker takes the file, the second the variables. What is
added belongs to the cluster: where it is, and a target group that only its own controllers know.
"""

import json
import re
import signal
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.request import urlopen

import yaml
from recorder import recording
from servers import ACCOUNT, REGION, client, get, post, process, until
from templates import CENTRAL, HOOKS

GROUP = "workers"
POISON = '{"detail-type": "EC2 Spot Instance Interruption Warning", "source": "aws.ec2", "detail": {}}'

# The worker waits for late pods until 35 s after the cordon (usually 5).
LATE_PODS = "timing: { settle: 35s }\n"


@dataclass
class Course:
    """What came of it."""

    outputs: dict
    # The worker's requests to SQS, and to everything else.
    to_queues: list
    to_sandbox: list
    # What the sandbox counted, and which of that were calls of the test.
    counted: dict
    own: Counter
    story: list
    group_arn: str
    # The instances by what happened to them.
    victims: dict
    dead_letters: list
    # Waiting and in flight after the first worker had ended, and at the end.
    handed_back: tuple
    at_the_end: tuple
    logs: str


class World:
    """`offramp sandbox`, from outside."""

    def __init__(self, exports, target_group):
        self.aws = exports["AWS_ENDPOINT_URL"]
        self.kubeconfig = exports["KUBECONFIG"]
        self.queue = exports["OFFRAMP_QUEUE_URL"]
        self.target_group = target_group
        with open(self.kubeconfig) as file:
            self.kubernetes = yaml.safe_load(file)["clusters"][0]["cluster"]["server"]
        self.own = Counter()

    def client(self, service):
        made = client(service, self.aws)
        made.meta.events.register("before-call", lambda model, **_: self.own.update([model.name]))
        return made

    def control(self, path):
        post(f"{self.aws}/_sandbox/{path}")

    def look(self, path):
        return get(f"{self.aws}/_sandbox/{path}")

    def members(self, state="InService"):
        members = self.look("state")["groups"][GROUP]["members"]
        return sorted(name for name, is_now in members.items() if is_now == state)

    def members_of_groups(self):
        return {name for group in self.look("state")["groups"].values() for name in group["members"]}

    def node(self, instance):
        nodes = get(f"{self.kubernetes}/api/v1/nodes")["items"]
        return next((node for node in nodes if node["spec"]["providerID"].endswith(instance)), None)

    def cordoned(self, instance):
        node = self.node(instance)
        return node is not None and node["spec"].get("unschedulable", False)

    def told(self, words):
        return [line for line in self.look("story") if words in line]

    def gone(self, instance):
        return self.look("state")["instances"].get(instance, {}).get("state") in (None, "terminated")

    def targets(self, instance):
        """The states of an instance's targets in the target group that the cluster's controllers fill."""
        found = self.look("state")["target_groups"][self.target_group]
        return {state for target, state in found.items() if target.startswith(f"{instance}:")}


@contextmanager
def sandbox(binary, folder, nodes):
    environment = {"TMPDIR": str(folder)}
    said = folder / "sandbox.out"
    with said.open("wb") as output:
        command = [binary, "sandbox", "--nodes", str(nodes), "--log-level", "warn"]
        with process(command, environment, folder / "sandbox.log", stdout=output) as child:
            until(
                "the sandbox is open", lambda: child.poll() is None and "/_sandbox/spot/" in said.read_text()
            )
            text = said.read_text()
            exports = dict(re.findall(r"^export (\w+)=(.*)$", text, re.M))
            (target_group,) = re.findall(r"^# The target group of .*: (arn:\S+)$", text, re.M)
            yield World(exports, target_group)


@contextmanager
def bridge(emulator, stack, world, queue_url):
    """What a deployed rule picks of the world's events comes into the deployed queue."""
    patterns = emulator.patterns(stack)
    source, target = client("sqs", world.aws), emulator.client("sqs")
    stop, broken = threading.Event(), []

    def carry():
        try:
            while not stop.is_set():
                found = source.receive_message(
                    QueueUrl=world.queue, MaxNumberOfMessages=10, WaitTimeSeconds=1
                )
                for message in found.get("Messages", []):
                    if emulator.picked_by(patterns, message["Body"]):
                        target.send_message(QueueUrl=queue_url, MessageBody=message["Body"])
                    source.delete_message(QueueUrl=world.queue, ReceiptHandle=message["ReceiptHandle"])
        except Exception as error:
            broken.append(error)

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
    assert not broken, broken


class Worker:
    def __init__(self, child, log):
        self.child, self.log = child, log

    def lines(self):
        text = self.log.read_text().splitlines()
        return [json.loads(line) for line in text if line.startswith("{") and line.endswith("}")]

    def admin(self):
        found = [line["address"] for line in self.lines() if "serving /live" in line.get("message", "")]
        return found[0] if found else None

    def ready(self):
        assert self.child.poll() is None, self.log.read_text()
        try:
            with urlopen(f"http://{self.admin()}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        """As a pod is ended: it hands back what it has, within seconds."""
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(timeout=20) == 0, self.log.read_text()


@contextmanager
def worker(binary, folder, number, settings, variables, world, queues, others):
    config = folder / f"worker-{number}.yaml"
    config.write_text(settings + "admin: { listen: '127.0.0.1:0' }\nlog: { format: json }\n")
    environment = {
        **variables,
        "HOME": str(folder),
        "KUBECONFIG": world.kubeconfig,
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": others,
        "AWS_ENDPOINT_URL_SQS": queues,
    }
    log = folder / f"worker-{number}.log"
    with process([binary, "run", "--config", str(config)], environment, log) as child:
        started = Worker(child, log)
        until("the worker is ready", lambda: started.admin() and started.ready())
        yield started


def run(emulator, binary, folder):
    """Takes about two minutes, most of it the time that the worker gives load balancers and late pods."""
    outputs = emulator.create(
        "course",
        CENTRAL,
        {"ClusterName": "blue", "AutoScalingGroupNames": GROUP, "TargetGroupNames": "blue-*"},
    )
    sqs = emulator.client("sqs")

    def depth(url):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return tuple(int(found[name]) for name in names)

    def start(number, settings, variables):
        return worker(binary, folder, number, settings, variables, world, queues, others)

    with (
        sandbox(binary, folder, nodes=8) as world,
        recording(emulator.endpoint) as (queues, to_queues),
        recording(world.aws) as (others, to_sandbox),
        bridge(emulator, "course", world, outputs["QueueUrl"]),
    ):
        autoscaling = world.client("autoscaling")
        hook = deployed_hook(emulator)
        autoscaling.delete_lifecycle_hook(
            AutoScalingGroupName=GROUP, LifecycleHookName=hook["LifecycleHookName"]
        )
        before = world.members()
        victims = dict(zip(["spot", "reprieve", "rebalance, then spot"], before))
        spot, reprieve, rebalance = victims.values()

        # No hook is on the group, so the spot instance is detached. Another one is detached by somebody else, and
        # an old notice says that it goes, which does not come true: a reprieve.
        settings = outputs["Configuration"] + f"target_groups: ['{world.target_group}']\n" + LATE_PODS
        with start(1, settings, {}) as first:
            sqs.send_message(QueueUrl=outputs["QueueUrl"], MessageBody=POISON)
            world.control(f"spot/{spot}")
            world.control(f"rebalance/{rebalance}")
            autoscaling.detach_instances(
                AutoScalingGroupName=GROUP, InstanceIds=[reprieve], ShouldDecrementDesiredCapacity=False
            )
            until("the group has let go of both", lambda: not {spot, reprieve} & world.members_of_groups())
            # A notice counts for 120 s, and for 60 s more it may have come late. 150 of these 180 are over: 30 s to
            # take the node out, but not to finish, because the worker waits for late pods until 35 s after that.
            sqs.send_message(QueueUrl=outputs["QueueUrl"], MessageBody=spot_notice(reprieve, age=150))
            until(
                "its node is taken out",
                lambda: world.cordoned(reprieve) and world.targets(reprieve) == {"draining"},
            )
            until(
                "its node is back",
                lambda: not world.cordoned(reprieve) and world.targets(reprieve) == {"healthy"},
            )
            until("the unreadable message is set aside", lambda: depth(outputs["DeadLetterQueueUrl"])[0] == 1)
            until("the node at risk is cordoned", lambda: world.cordoned(rebalance))
            until("only its notice is left", lambda: sum(depth(outputs["QueueUrl"])) == 1)
            first.stop()
            handed_back = depth(outputs["QueueUrl"])

        # With the hook, through which two instances go: a spot instance, and one of a group that shrinks. The wait
        # for late pods lets the heartbeat come due.
        autoscaling.put_lifecycle_hook(**hook)
        variables = dict(line.split("=", 1) for line in outputs["Environment"].split())
        with start(2, LATE_PODS, variables) as second:
            world.control(f"spot/{rebalance}")
            until("it goes through its group", lambda: rebalance not in world.members())
            serving = set(world.members())
            world.control(f"desired/{GROUP}?capacity={len(before) - 1}")
            (victims["hook"],) = until("the group shrinks", lambda: serving - set(world.members()))
            leaving = [victims["hook"], rebalance]
            until("both are gone", lambda: all(world.gone(instance) for instance in leaving))
            until("the queue is empty", lambda: depth(outputs["QueueUrl"]) == (0, 0))
            second.stop()
        dead_letters = take_all(sqs, outputs["DeadLetterQueueUrl"])
        at_the_end = depth(outputs["QueueUrl"]) + depth(outputs["DeadLetterQueueUrl"])
        (group,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])[
            "AutoScalingGroups"
        ]
        course = Course(
            outputs=outputs,
            to_queues=list(to_queues),
            to_sandbox=list(to_sandbox),
            counted=world.look("calls"),
            own=world.own,
            story=world.look("story"),
            group_arn=group["AutoScalingGroupARN"],
            victims=victims,
            dead_letters=dead_letters,
            handed_back=handed_back,
            at_the_end=at_the_end,
            logs="".join(path.read_text() for path in sorted(folder.glob("worker-*.log"))),
        )
    return course


def deployed_hook(emulator):
    """The hook that hooks.yaml puts on a group, for the sandbox's group of the same name. Its timeout of 60 s makes
    the heartbeat come due after 30."""
    autoscaling = emulator.client("autoscaling")
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        LaunchConfigurationName="workers",
        MinSize=0,
        MaxSize=10,
        AvailabilityZones=["eu-west-1a"],
    )
    parameters = {"ClusterName": "blue", "AutoScalingGroupNames": GROUP, "HeartbeatTimeoutSeconds": "60"}
    emulator.create("course-hooks", HOOKS, parameters)
    (hook,) = autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"]
    return hook


def spot_notice(instance, age):
    at = datetime.now(timezone.utc) - timedelta(seconds=age)
    return json.dumps(
        {
            "version": "0",
            "id": "5c0e1b1e-0d3f-4a7a-9a54-2f6a3c1d8e90",
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "source": "aws.ec2",
            "account": ACCOUNT,
            "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": [f"arn:aws:ec2:{REGION}a:instance/{instance}"],
            "detail": {"instance-id": instance, "instance-action": "terminate"},
        }
    )


def take_all(sqs, url):
    """The messages of a queue, taken out of it."""
    taken = []
    while True:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
            "Messages", []
        )
        if not found:
            return taken
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        taken += found
