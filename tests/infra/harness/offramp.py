"""`offramp sandbox` and `offramp run` as processes."""

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from harness.loopback import TIMEOUT, json_of, status_and_text_of, text_of
from harness.program import Program
from harness.waiting import LIMIT

# Where the sandbox is.
ACCOUNT = "111122223333"
REGION = "eu-west-1"
# The sandbox takes any keys. To ministack, an access key of twelve digits is the account that it puts everything into.
KEYS = {
    "AWS_ACCESS_KEY_ID": ACCOUNT,
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def binary():
    found = os.environ.get("E2E_OFFRAMP", "")
    assert Path(found).is_file(), f"E2E_OFFRAMP is {found!r}: the parts of the Makefile build it and set this"
    return found


class Sandbox(Program):
    """An AWS and a cluster that nobody owns."""

    def __init__(self, folder, nodes=6):
        words = [binary(), "sandbox", "--nodes", str(nodes), "--log-level", "warn"]
        super().__init__(words, {"TMPDIR": str(folder)}, folder / "sandbox.log")

    def begun(self):
        # The last of what it prints.
        self.waits_to_say("/_sandbox/spot/INSTANCE$")
        exports = dict(re.findall(r"^export (\w+)=(.*)$", self.said(), re.MULTILINE))
        self.aws, self.queue = exports["AWS_ENDPOINT_URL"], exports["OFFRAMP_QUEUE_URL"]
        self.kubeconfig = Path(exports["KUBECONFIG"])
        # JSON is YAML.
        (cluster,) = json.loads(self.kubeconfig.read_text())["clusters"]
        self.kubernetes = cluster["cluster"]["server"]
        # Only the cluster's own controllers know it.
        self.target_group = self.waits_to_say(r"^# The target group of .*: (arn:\S+)$")[1]

    def look(self, page):
        return json_of(f"{self.aws}/_sandbox/{page}")

    def control(self, what):
        return json_of(f"{self.aws}/_sandbox/{what}", "POST")

    def autoscaling(self, action, **parameters):
        """A call of the Auto Scaling API, as anybody with permission could make it."""
        form = {"Action": action, "Version": "2011-01-01", **parameters}
        urlopen(Request(self.aws, urlencode(form).encode()), timeout=TIMEOUT).close()

    def send(self, body):
        """Puts a message into the queue, as anybody with permission could."""
        message = {"QueueUrl": self.queue, "MessageBody": body}
        headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
        urlopen(Request(self.aws, json.dumps(message).encode(), headers), timeout=TIMEOUT).close()


class Worker(Program):
    """`offramp run` with a log in JSON."""

    def lines(self):
        found = []
        for line in self.said().splitlines():
            # What comes before the log is none, and the last line may not be whole yet.
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def line(self, words):
        """The first line whose message holds these words."""

        def find():
            return next((line for line in self.lines() if words in line.get("message", "")), None)

        return self.waits_for(f"says {words!r}", find)

    def admin(self):
        """The address of its pages, as soon as they are served."""
        return self.line("serving /live")["address"]

    def is_ready(self):
        assert self.runs(), self.said()
        try:
            return status_and_text_of(f"http://{self.admin()}/ready")[0] == 200
        except OSError:
            return False

    def waits_until_ready(self):
        self.waits_for("is ready", self.is_ready)

    def counted(self, name, **labels):
        """The sum of a metric's series with these labels."""
        total = 0
        for line in text_of(f"http://{self.admin()}/metrics").splitlines():
            found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
            if found and found[1] == name and all(f'{label}="{value}"' in found[2] for label, value in labels.items()):
                total += float(found[3])
        return total

    def stop(self, limit=LIMIT):
        """As a pod is ended: with SIGTERM. It has so many seconds; gives those that it took."""
        assert self.runs(), f"ended before it was told to:\n{self.said()}"
        begun = time.monotonic()
        self.process.terminate()
        code = self.wait(limit)
        assert code == 0, self.said()
        return time.monotonic() - begun
