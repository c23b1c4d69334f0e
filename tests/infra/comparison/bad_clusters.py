"""One cluster takes all down: blue is as it should be, and the way to green is broken, each time in another way."""

import json
import os
import re
import signal
import subprocess
from collections import namedtuple
from contextlib import suppress

from worlds import PAGE, Finding, after, within, world

# Within so many seconds a notice about blue has to be served.
SERVED = 20
# And within so many it has to be known what is wrong with green: a plugin that hangs is given up before.
KNOWN = 60
# A kubelet's default grace for a pod.
OBEYED = 30
ENDED = "no, it has ended"

# A plugin of the kind that people write: a script that starts another program and waits for it. Both note who they
# are, so that it can be seen whether they are left behind.
HANGING = """#!/bin/sh
echo $$ >>'{pids}'
sleep 3600 &
echo $! >>'{pids}'
wait
"""


def kubeconfig(folder, cluster, user):
    file = folder / "green.kubeconfig"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "green", "cluster": cluster}],
                "users": [{"name": "green", "user": user}],
                "contexts": [{"name": "green", "context": {"cluster": "green", "user": "green"}}],
                "current-context": "green",
            }
        )
    )
    return file


# No port below 1024 is ever taken by one of these tests, so this one refuses every connection.
SERVER = {"server": "https://127.0.0.1:1"}


def broken_yaml(folder):
    file = folder / "green.kubeconfig"
    file.write_text("apiVersion: v1\nkind: Config\nclusters: [ { name: green\nusers: }\n")
    return file


def unreadable_authority(folder):
    authority = {"certificate-authority": str(folder / "there-is-no.crt")}
    return kubeconfig(folder, SERVER | authority, {})


def plugin(folder, command):
    asks = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(command), "interactiveMode": "Never"}
    return kubeconfig(folder, SERVER, {"exec": asks})


def missing_plugin(folder):
    return plugin(folder, folder / "there-is-no-plugin")


def hanging_plugin(folder):
    script = folder / "plugin"
    script.write_text(HANGING.format(pids=folder / "pids"))
    script.chmod(0o755)
    return plugin(folder, script)


def no_scheme(folder):
    return kubeconfig(folder, {"server": "127.0.0.1:1"}, {})


class Way(namedtuple("Way", "what breaks says seconds")):
    """What is wrong with green's kubeconfig, what makes it so, words that /ready has to say of it, and about how many
    seconds it takes to see all that."""

    def watch(self, version, folder):
        with world(folder) as place:
            clusters = [("blue", place.blue), ("green", self.breaks(folder))]
            more = {"clusters": [{"name": name, "kubeconfig": str(file)} for name, file in clusters]}
            try:
                with place.worker(version, more) as worker:
                    findings = self.findings(place, worker)
            finally:
                left = left_behind(folder)
        # Asked of each, so that none is left in any case.
        return [*findings, Finding("plugins left behind", f"{left} processes" if left else "none", left == 0)]

    def findings(self, place, worker):
        """Of one that has ended, too: then nothing answers any more."""

        def answers():
            return all(worker.page(path) for path in ("/live", "/ready"))

        def says():
            return re.search(self.says, worker.part("cluster green")["why"])

        instance = min(place.nodes())
        pages = while_it_runs(worker, PAGE, answers)
        served = while_it_runs(worker, SERVED, lambda: place.is_cordoned(instance), place.interrupt(instance))
        known = pages is not None and while_it_runs(worker, KNOWN, says) is not None
        green = worker.part("cluster green") if pages is not None else {"ready": False, "why": ""}
        live = (worker.page("/live") or ("no answer", ""))[0]
        runs, ended = worker.runs(), f"ended with {worker.process.poll()}"
        obeyed = ends(worker) if runs else None
        code = worker.process.poll()
        return [
            Finding("the worker", "runs" if runs else ended, runs),
            Finding("its pages answer", after(pages, PAGE) if runs else ENDED, pages is not None),
            Finding("/live", str(live), live == 200),
            Finding("/ready says of green", green["why"] or "nothing", known and not green["ready"]),
            Finding(
                "blue's node is cordoned after a notice", after(served, SERVED) if runs else ENDED, served is not None
            ),
            Finding("it ends when told to", f"with {code} {after(obeyed, OBEYED)}" if runs else ENDED, code == 0),
        ]


def ends(worker):
    """As a pod is ended, however it takes that."""
    worker.process.terminate()
    return within(OBEYED, lambda: not worker.runs())


def while_it_runs(worker, limit, ask, clock=None):
    """As `within`, and nothing any more once it has ended."""
    seconds = within(limit, lambda: not worker.runs() or ask(), clock)
    return seconds if worker.runs() else None


WAYS = [
    Way("kubeconfig is broken YAML", broken_yaml, "kubeconfig", 20),
    Way("certificate authority cannot be read", unreadable_authority, "certificate", 20),
    Way("credential plugin does not exist", missing_plugin, "plugin", 20),
    Way("credential plugin hangs for an hour", hanging_plugin, "plugin", 60),
    Way("server has no scheme", no_scheme, "scheme|https?://", 20),
]


def left_behind(folder):
    """How many processes of the plugin run still, after the worker has ended. They are ended here."""
    file = folder / "pids"
    pids = [int(line) for line in file.read_text().split()] if file.exists() else []
    running = [pid for pid in pids if runs(pid)]
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(running)


def runs(pid):
    """Also false for one that has ended and that nobody has asked for its exit code."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")
