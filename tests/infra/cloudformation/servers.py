"""The servers of the tests, each on 127.0.0.1 and a port of its own, and each ended by its own process id."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import boto3
from botocore.config import Config

ACCOUNT = "111122223333"
REGION = "eu-west-1"
# Far longer than anything here takes, also on a busy machine: whoever waits so long has found a fault.
LIMIT = 120.0


def until(what, look, limit=LIMIT, pause=0.1):
    """Waits until something is true, and gives it."""
    end = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"waited {limit:.0f} s in vain: {what}"
        time.sleep(pause)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def post(url):
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(command, environment, log, **options):
    """A child with this environment and no other, ended at the end."""
    with log.open("wb") as output:
        options = {"stdout": output, "stderr": subprocess.STDOUT, **options}
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **options)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def client(service, endpoint):
    # An access key of twelve digits is the account that ministack puts everything into.
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1}),
    )


class Emulator:
    """ministack: CloudFormation and what the stacks are made of."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.stacks = self.client("cloudformation")

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

        found = until(f"{stack} settles", look)
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
def emulator(folder):
    port = free_port()
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
    endpoint = f"http://127.0.0.1:{port}"
    with process([sys.executable, "-m", "ministack"], environment, folder / "ministack.log") as child:
        until("ministack answers", lambda: child.poll() is None and answers(endpoint))
        yield Emulator(endpoint)


def answers(endpoint):
    try:
        client("sqs", endpoint).list_queues()
        return True
    except Exception:
        return False
