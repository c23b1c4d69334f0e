"""`offramp run` as far as possible as a pod would run it, and a sandbox for that."""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.offramp import KEYS, Sandbox, Worker, binary
from harness.waiting import LIMIT

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


def readable_binary(folder, program=None):
    """The program, by default offramp, where any user can run it, even when the checkout is its owner's alone."""
    copy = folder / "offramp"
    if not copy.exists():
        shutil.copy(program or binary(), copy)
        copy.chmod(0o755)
    return copy


class ReadableSandbox(Sandbox):
    """For a worker that is somebody else."""

    def begun(self):
        super().begun()
        for path in (self.kubeconfig.parent, self.kubeconfig):
            path.chmod(path.stat().st_mode | 0o555)

    def calls(self):
        """How often each kind of call was made to the API server."""
        return {
            name.removeprefix("kubernetes."): count
            for name, count in self.look("calls").items()
            if name.startswith("kubernetes.")
        }


class RestrictedWorker(Worker):
    """With a configuration, credentials that a sandbox takes, and nothing else."""

    def __init__(self, folder, configuration, **variables):
        file, log = folder / "offramp.yaml", folder / "log"
        file.write_text(configuration)
        environment = {
            "HOME": "/nonexistent",
            # Goes before the file, which says what a pod needs.
            "OFFRAMP_ADMIN_LISTEN": "127.0.0.1:0",
            **KEYS,
            **variables,
        }
        # The process may write no file, but it may write into a pipe.
        with log.open("wb") as output:
            self._copy = subprocess.Popen(["cat"], env={}, stdin=subprocess.PIPE, stdout=output)
        with self._copy.stdin as pipe:
            options = {"cwd": "/", "stdout": subprocess.DEVNULL, "stderr": pipe, "preexec_fn": as_in_a_pod()}
            super().__init__([readable_binary(folder), "run", "--config", file], environment, log, **options)

    def wait(self, limit=LIMIT):
        code = super().wait(limit)
        self._copy.wait(limit)
        return code

    def ended(self):
        """For one that does not start: its exit code and what it said."""
        return self.wait(), self.said()
