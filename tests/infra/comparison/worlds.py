"""The two versions, and the world that each is watched in: a sandbox, and gateways in front of its doors in which
requests can be made to fail. The sandbox is that of the present version for both, so that only the workers differ."""

import json
import os
import subprocess
import time
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from harness import offramp
from harness.loopback import json_of
from monitoring.gateway import Gateway

# What was seen, in words, and whether it is as it should be.
Finding = namedtuple("Finding", "what seen right")
# A misfortune: how a version is watched in it (asked with the version and a folder, gives findings, the same for every
# version), and about how many seconds that takes.
Case = namedtuple("Case", "name watch seconds")
# A binary, and what its column is called.
Version = namedtuple("Version", "name binary")
# How many seconds a page may take to answer: what a kubelet's probe allows, and a little more for two cores.
PAGE = 5


def versions():
    """The present version, and before it the old one, where it was built."""
    now = Version("now", offramp.binary())
    old = os.environ.get("E2E_OFFRAMP_OLD", "")
    if not old:
        return [now]
    assert Path(old).is_file(), f"E2E_OFFRAMP_OLD is {old!r}: build-version.sh builds it"
    says = subprocess.run([old, "--version"], capture_output=True, text=True, check=True)
    return [Version(says.stdout.removeprefix("offramp ").strip(), old), now]


class World:
    """What a worker sees: the sandbox through the gateways."""

    def __init__(self, folder, sandbox, aws, kubernetes):
        self.folder, self.sandbox, self.aws, self.kubernetes = folder, sandbox, aws, kubernetes
        self.blue = folder / "blue.kubeconfig"
        text = sandbox.kubeconfig.read_text()
        self.blue.write_text(text.replace(urlsplit(sandbox.kubernetes).netloc, kubernetes.address))

    def nodes(self):
        """The nodes of the cluster by their instances."""
        nodes = json_of(f"{self.sandbox.kubernetes}/api/v1/nodes")["items"]
        return {node["spec"]["providerID"].rsplit("/", 1)[1]: node for node in nodes}

    def pods(self):
        return json_of(f"{self.sandbox.kubernetes}/api/v1/pods")["items"]

    def is_cordoned(self, instance):
        return bool(self.nodes()[instance]["spec"].get("unschedulable"))

    def interrupt(self, instance):
        """A spot notice. Gives a clock that says how many seconds ago it was sent."""
        self.sandbox.control(f"spot/{instance}")
        return Clock()

    def worker(self, version, more=None, log="worker.log"):
        configuration = {
            "queue": {"url": f"http://{self.aws.address}/{offramp.ACCOUNT}/offramp"},
            "aws": {"region": offramp.REGION, "endpoint_url": f"http://{self.aws.address}"},
            "clusters": [{"name": "blue", "kubeconfig": str(self.blue)}],
            "target_groups": [self.sandbox.target_group],
            "admin": {"listen": "127.0.0.1:0"},
            # At the level that everybody has.
            "log": {"format": "json"},
        }
        # JSON is YAML.
        file = (self.folder / log).with_suffix(".yaml")
        file.write_text(json.dumps(configuration | (more or {})))
        words = [version.binary, "run", "--config", str(file)]
        return Worker(words, {"HOME": str(self.folder), **offramp.KEYS}, self.folder / log)


@contextmanager
def world(folder):
    with offramp.Sandbox(folder, nodes=3) as sandbox:
        gateways = [Gateway(urlsplit(url).netloc) for url in (sandbox.aws, sandbox.kubernetes)]
        try:
            yield World(folder, sandbox, *gateways)
        finally:
            for gateway in gateways:
                gateway.end()


class Worker(offramp.Worker):
    def page(self, path):
        """Status and text, or nothing where no answer comes in time."""
        try:
            with urlopen(f"http://{self.admin()}{path}", timeout=PAGE) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return None

    def part(self, name):
        """What /ready says of one of the parts that have to be there."""
        page = self.page("/ready")
        parts = json.loads(page[1]) if page else []
        return next((part for part in parts if part["name"] == name), {"ready": False, "why": ""})


class Clock:
    """Seconds since it was made."""

    def __init__(self):
        self.begin = time.monotonic()

    def __call__(self):
        return time.monotonic() - self.begin


def within(limit, ask, clock=None, pause=0.1):
    """The seconds on the clock at which the answer is something, or nothing where it is not within the limit."""
    clock = clock or Clock()
    while clock() <= limit:
        if ask():
            # Asking takes its time as well.
            seconds = clock()
            return seconds if seconds <= limit else None
        time.sleep(pause)
    return None


def after(seconds, limit):
    return f"not within {limit} s" if seconds is None else f"after {seconds:.1f} s"
