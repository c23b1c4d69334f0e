"""`make bench-cluster`: offramp beside a bare client on a real control plane. Each run has a cluster of its own, the two
sides take turns, and the figures are medians. Prints a table; nothing is asserted about the figures.

Words: the stories to measure, all of them without any."""

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import yaml
from servers import OUTSIDER, ControlPlane

# Beside these, the ratio of `last pod gone s` is printed.
COMPARED = {"spot": 3, "hooks": 3, "dense": 3, "returning": 3}
# Only offramp: how often.
ALONE = {"replicas": 3, "late3": 1, "late6": 1, "blocked": 1, "lone": 1, "slow": 1, "removal": 1, "watched": 1}
TITLES = {
    "spot": "500 spot notices at once, 10 pods each",
    "hooks": "500 hooks at once, 10 pods each, behind 5 target groups",
    "dense": "200 spot notices at once, 30 pods each",
    "returning": "100 spot notices at once, 10 pods each that the scheduler puts elsewhere",
    "replicas": "500 hooks at once, three replicas",
    "late3": "500 spot notices at once, watches 3 s late",
    "late6": "500 spot notices at once, watches 6 s late",
    "blocked": "20 spot notices beside 300 hooks whose budget allows nothing",
    "lone": "50 spot notices one after the other, Auto Scaling and ELB answer in 50 ms",
    "slow": "10 spot notices one after the other, Auto Scaling and ELB answer in 8 s",
    "removal": "a hook alone behind two target groups of five minutes, twice",
    "watched": "5,000 nodes and 100,000 pods watched",
}
GONE = "last pod gone s"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": [OUTSIDER], "verbs": ["create", "patch", "update", "delete"]},
        {"level": "None"},
    ],
}
MAY_ALL = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": OUTSIDER},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OUTSIDER}],
}
# Seconds. Far longer than any of them takes.
LIMIT = 3600


@contextmanager
def empty_cluster(story):
    """What happens by itself is left out where only what is held is measured, and the scheduler where nothing has to be
    put anywhere."""
    beside = {"watched": (), "returning": ("kube-controller-manager", "kube-scheduler", "kwok")}
    with tempfile.TemporaryDirectory() as folder:
        servers = beside.get(story, ("kube-controller-manager", "kwok"))
        with ControlPlane(Path(folder), AUDIT, servers) as cluster:
            cluster.apply([MAY_ALL])
            yield cluster


def measure(program, story, side):
    with empty_cluster(story) as cluster:
        files = [cluster.kubeconfig, cluster.kubeconfig_of(OUTSIDER, OUTSIDER), cluster.api.audit_log]
        words = [program, story, side, *map(str, files)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    figures = json.loads(done.stdout)
    print(f"  {story}, {side}: {json.dumps({name: round(value, 3) for name, value in figures.items()})}", flush=True)
    return figures


def medians(runs):
    return {name: median(run[name] for run in runs) for name in runs[0]}


def in_words(value):
    return "" if value is None else f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def show(story, sides):
    print(f"\n{TITLES[story]}")
    names = list(dict.fromkeys(name for figures in sides.values() for name in figures))
    print(f"  {'':<46}" + "".join(f"{side:>12}" for side in sides))
    for name in names:
        print(f"  {name:<46}" + "".join(f"{in_words(figures.get(name)):>12}" for figures in sides.values()))
    if len(sides) == 2:
        bare, offramp = (figures[GONE] for figures in sides.values())
        print(f"  {'ratio of ' + GONE:<46}{offramp / bare:>24.3f}", flush=True)


def main(program, *stories):
    print(subprocess.run([program, "machine", "", "", "", ""], stdout=subprocess.PIPE, text=True, check=True).stdout)
    results = {}
    for story, times in COMPARED.items():
        if not stories or story in stories:
            runs = {"bare": [], "offramp": []}
            for _ in range(times):
                for side, done in runs.items():
                    done.append(measure(program, story, side))
            results[story] = {side: medians(done) for side, done in runs.items()}
    for story, times in ALONE.items():
        if not stories or story in stories:
            results[story] = {"offramp": medians([measure(program, story, "offramp") for _ in range(times)])}
    for story, sides in results.items():
        show(story, sides)


if __name__ == "__main__":
    main(*sys.argv[1:])
