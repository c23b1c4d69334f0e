"""ministack, and the bridge to it from a sandbox."""

import os
import sys
import threading
from contextlib import contextmanager

import boto3
from botocore.config import Config
from harness.loopback import free_port
from harness.offramp import KEYS, REGION
from harness.program import Program


def client(service, endpoint):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}),
    )


class Emulator(Program):
    """ministack: CloudFormation and what the stacks are made of."""

    def __init__(self, folder):
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.stacks = self.client("cloudformation")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "S3_DATA_DIR": str(folder / "s3"),
            "STATE_DIR": str(folder / "state"),
        }
        super().__init__([sys.executable, "-m", "ministack"], environment, folder / "ministack.log")

    def begun(self):
        self.waits_for("answers", self.answers)

    def answers(self):
        try:
            self.client("sqs").list_queues()
            return True
        except Exception:
            return False

    def client(self, service):
        return client(service, self.endpoint)

    def create(self, stack, template, parameters):
        self.stacks.create_stack(**request(stack, template, parameters))
        return self.settled(stack, "CREATE_COMPLETE")

    def update(self, stack, template, parameters):
        self.stacks.update_stack(**request(stack, template, parameters))
        return self.settled(stack, "UPDATE_COMPLETE")

    def delete(self, stack):
        # Of a stack that is gone, only the id finds what became of it.
        (found,) = self.stacks.describe_stacks(StackName=stack)["Stacks"]
        self.stacks.delete_stack(StackName=stack)
        self.settled(found["StackId"], "DELETE_COMPLETE")

    def settled(self, stack, status):
        """Waits for the end, and gives the outputs."""

        def look():
            (found,) = self.stacks.describe_stacks(StackName=stack)["Stacks"]
            return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

        found = self.waits_for(f"{stack} settles", look)
        assert found["StackStatus"] == status, (found["StackStatus"], found.get("StackStatusReason"))
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}

    def physical(self, stack):
        """The name of each resource that AWS knows it by."""
        resources = self.stacks.describe_stack_resources(StackName=stack)["StackResources"]
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}

    def policy(self, role):
        """The one policy of a role."""
        iam = self.client("iam")
        (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        return iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]

    def patterns(self, stack):
        """The patterns of the rules as they are deployed, by logical id."""
        events = self.client("events")
        rules = {name: physical for name, physical in self.physical(stack).items() if name.endswith("Rule")}
        return {name: events.describe_rule(Name=physical)["EventPattern"] for name, physical in rules.items()}

    def picked_by(self, patterns, event):
        """Which of the patterns an event fits."""
        test = self.client("events").test_event_pattern
        return {
            name for name, pattern in patterns.items() if test(EventPattern=pattern, Event=event)["Result"]
        }


def request(stack, template, parameters):
    return {
        "StackName": stack,
        "TemplateBody": template.read_text(),
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    }


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
