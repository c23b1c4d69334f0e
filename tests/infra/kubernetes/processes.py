"""`offramp sandbox` and `offramp run` as processes, as far as possible as a pod would run them."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BINARY = Path(os.environ["E2E_OFFRAMP"])
# Longer than anything here takes on a slow machine that builds something else meanwhile.
LIMIT = 120
# The user of the image and of the chart.
NOBODY = 65532


@contextlib.contextmanager
def open_folder():
    """A folder that every user can read. pytest's own are for their owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="offramp-manifests-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_in_a_pod():
    """For `Popen`: what the pod's security context comes to. No file can be written (a read-only root file system),
    and the user is the image's, where this process may choose."""

    def restrict():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    return restrict


def readable_binary(folder, binary=BINARY):
    """The binary where any user can run it, even when the checkout is its owner's alone."""
    copy = folder / "offramp"
    if not copy.exists():
        shutil.copy(binary, copy)
        copy.chmod(0o755)
    return copy


def until(what, ask):
    """Waits until `ask` gives something, and returns it."""
    end = time.monotonic() + LIMIT
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.1)


def get(url):
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Sandbox:
    """The made-up AWS and cluster."""

    def __init__(self, folder):
        self.exports = {}
        self._process = subprocess.Popen(
            [BINARY, "sandbox", "--log-level", "warn"],
            env={"TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        # The variables come first, and comments after them.
        for line in self._process.stdout:
            if not line.startswith("export "):
                break
            name, value = line.removeprefix("export ").strip().split("=", 1)
            self.exports[name] = value
        self.aws = self.exports["AWS_ENDPOINT_URL"]
        self.queue = self.exports["OFFRAMP_QUEUE_URL"]
        self.kubeconfig = Path(self.exports["KUBECONFIG"])
        for path in (self.kubeconfig.parent, self.kubeconfig):
            path.chmod(path.stat().st_mode | 0o555)

    def ask(self, page):
        return json.loads(get(f"{self.aws}/_sandbox/{page}")[1])

    def do(self, what):
        request = urllib.request.Request(f"{self.aws}/_sandbox/{what}", method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def calls(self):
        """How often each kind of call was made to the API server."""
        return {
            name.removeprefix("kubernetes."): count
            for name, count in self.ask("calls").items()
            if name.startswith("kubernetes.")
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


class Worker:
    """`offramp run` with a configuration, credentials that a sandbox takes, and nothing else."""

    def __init__(self, folder, configuration, **variables):
        file = folder / "offramp.yaml"
        file.write_text(configuration)
        self._log = folder / "log"
        with self._log.open("w") as log:
            # A pipe, because the process may write no file.
            self._process = subprocess.Popen(
                [readable_binary(folder), "run", "--config", file],
                env={
                    "HOME": "/nonexistent",
                    "AWS_ACCESS_KEY_ID": "any",
                    "AWS_SECRET_ACCESS_KEY": "any",
                    "AWS_EC2_METADATA_DISABLED": "true",
                    # Goes before the file, which says what a pod needs.
                    "OFFRAMP_ADMIN_LISTEN": "127.0.0.1:0",
                    **variables,
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=as_in_a_pod(),
            )
            self._copy = subprocess.Popen(["cat"], stdin=self._process.stderr, stdout=log)
        self._process.stderr.close()

    def log(self):
        return self._log.read_text()

    def line(self, words):
        """The first log line whose message holds these words."""

        def find():
            ended = self._process.poll()
            for line in self.log().splitlines():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if words in entry.get("message", ""):
                        return entry
            assert ended is None, f"it ended with {ended} without saying {words!r}:\n{self.log()}"
            return None

        return until(f"the worker says {words!r}", find)

    def admin(self):
        return "http://" + self.line("serving /live")["address"]

    def is_ready(self):
        """Waits until /ready is 200."""
        address = self.admin()
        until("/ready is 200", lambda: get(f"{address}/ready")[0] == 200)

    def stop(self):
        """SIGTERM; gives the exit code and the seconds until then."""
        begun = time.monotonic()
        self._process.terminate()
        code = self._process.wait(timeout=LIMIT)
        took = time.monotonic() - begun
        self._copy.wait(timeout=LIMIT)
        return code, took

    def ended(self):
        """For a worker that does not start: its exit code and what it said."""
        code = self._process.wait(timeout=LIMIT)
        self._copy.wait(timeout=LIMIT)
        return code, self.log()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._copy.wait()
