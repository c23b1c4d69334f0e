"""The real worker on the deployed queue, with every trigger, once from beginning to end.

ministack has the queue, the rules, the role and the hook, as the stacks made them. `offramp sandbox` has the
rest of AWS and the cluster. ministack refuses events of aws.* as AWS does, so here the events of the sandbox's
world are held against the patterns of the deployed rules, and what one of them picks is put into the deployed
queue.

The worker's settings are outputs of the stack: the first worker takes the file, the second the variables. What is
added belongs to the cluster: where it is, and a target group that only its own controllers know.
"""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from harness.loopback import json_of
from harness.offramp import ACCOUNT, KEYS, REGION, Sandbox, Worker, binary
from harness.waiting import until
from recorder import recording
from servers import bridge, client
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


class World(Sandbox):
    """With questions about its instances, and the calls of the test counted."""

    def __init__(self, folder, nodes):
        super().__init__(folder, nodes)
        self.own = Counter()

    def client(self, service):
        made = client(service, self.aws)
        made.meta.events.register("before-call", lambda model, **_: self.own.update([model.name]))
        return made

    def members(self, state="InService"):
        members = self.look("state")["groups"][GROUP]["members"]
        return sorted(name for name, is_now in members.items() if is_now == state)

    def members_of_groups(self):
        return {name for group in self.look("state")["groups"].values() for name in group["members"]}

    def node(self, instance):
        nodes = json_of(f"{self.kubernetes}/api/v1/nodes")["items"]
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


def worker(folder, number, settings, variables, world, queues, others):
    config = folder / f"worker-{number}.yaml"
    config.write_text(settings + "admin: { listen: '127.0.0.1:0' }\nlog: { format: json }\n")
    environment = {
        **variables,
        **KEYS,
        "HOME": str(folder),
        "KUBECONFIG": str(world.kubeconfig),
        "AWS_ENDPOINT_URL": others,
        "AWS_ENDPOINT_URL_SQS": queues,
    }
    return Worker([binary(), "run", "--config", str(config)], environment, folder / f"worker-{number}.log")


def run(emulator, folder):
    """Takes about two minutes, most of it the time that the worker gives load balancers and late pods."""
    outputs = emulator.create(
        "course",
        CENTRAL,
        {"ClusterName": "blue", "AutoScalingGroupPattern": GROUP, "TargetGroupNames": "blue-*"},
    )
    sqs = emulator.client("sqs")

    def depth(url):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return tuple(int(found[name]) for name in names)

    def start(number, settings, variables):
        return worker(folder, number, settings, variables, world, queues, others)

    with (
        World(folder, nodes=8) as world,
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
        victims = dict(zip(["spot", "reprieve", "rebalance, then spot", "lost event"], before))
        spot, reprieve, rebalance, _ = victims.values()

        # No hook is on the group, so the spot instance is detached. Another one is detached by somebody else, and
        # an old notice says that it goes, which does not come true: a reprieve.
        settings = outputs["Configuration"] + f"target_groups: ['{world.target_group}']\n" + LATE_PODS
        with start(1, settings, {}) as first:
            first.waits_until_ready()
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
            # It hands back what it has, within seconds.
            first.stop(limit=20)
            handed_back = depth(outputs["QueueUrl"])

        # The event of a hook is lost, while nobody reads the queue. Its timeout holds until a worker has looked.
        autoscaling.put_lifecycle_hook(**{**hook, "HeartbeatTimeout": 600})
        autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=victims["lost event"], ShouldDecrementDesiredCapacity=True
        )
        lose(sqs, outputs["QueueUrl"], victims["lost event"])

        # With the hook, through which two more instances go: a spot instance, and one of a group that shrinks. The wait
        # for late pods lets the heartbeat come due.
        autoscaling.put_lifecycle_hook(**hook)
        variables = dict(line.split("=", 1) for line in outputs["Environment"].split())
        with start(2, LATE_PODS, variables) as second:
            second.waits_until_ready()
            world.control(f"spot/{rebalance}")
            until("it goes through its group", lambda: rebalance not in world.members())
            serving = set(world.members())
            world.control(f"desired/{GROUP}?capacity={len(before) - 2}")
            (victims["hook"],) = until("the group shrinks", lambda: serving - set(world.members()))
            leaving = [victims["hook"], victims["lost event"], rebalance]
            until("all are gone", lambda: all(world.gone(instance) for instance in leaving), limit=240)
            until("the queue is empty", lambda: depth(outputs["QueueUrl"]) == (0, 0))
            second.stop(limit=20)
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


def lose(sqs, url, instance):
    """Takes the message about an instance off the queue, and leaves the others. Those are held until it has come:
    released after each look, they would be received a hundred times in a slow run, and dead-lettered for it."""
    held = []

    def look():
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600)
        messages = found.get("Messages", [])
        lost = [message for message in messages if instance in message["Body"]]
        for message in lost:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        held.extend(message for message in messages if message not in lost)
        return lost

    until("its event is lost", look)
    for message in held:
        sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
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
