"""The chart as helm renders it."""

import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "infra/helm/offramp"
# Each file is a way in which somebody may use the chart.
VALUE_SETS = sorted((CHART / "ci").glob("*-values.yaml"))

# The least that a worker needs to be told.
LEAST = {
    "image": {"repository": "registry.example.com/offramp"},
    "config": {
        "queue": {"url": "https://sqs.eu-west-1.amazonaws.com/111122223333/offramp"},
        "clusters": [{"name": "blue"}],
    },
}


def helm(*words, values=None, kubeconfig="/nonexistent"):
    """Runs helm; `values` are given as a file of their own. No cluster that somebody works with is ever asked."""
    command = ["helm", *map(str, words)]
    if values is not None:
        command += ["--values", "-"]
    return subprocess.run(
        command,
        input=yaml.safe_dump(values) if values is not None else None,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render(values=None, *more):
    """The objects that `helm template` gives."""
    done = helm("template", "offramp", CHART, "--namespace", "offramp", *more, values=values)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def refusal(values, *more):
    """What helm says about values that it does not take."""
    done = helm("template", "offramp", CHART, *more, values=values)
    assert done.returncode != 0, f"helm takes {values}"
    return done.stderr


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document]


def the(kind, documents):
    """The one object of a kind."""
    found = [document for document in documents if document["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def kinds(documents):
    return sorted(document["kind"] for document in documents)


def pod_of(documents):
    return the("Deployment", documents)["spec"]["template"]["spec"]


def container_of(documents):
    (container,) = pod_of(documents)["containers"]
    return container


def configuration(documents):
    """The worker's file, as it stands in the ConfigMap."""
    return the("ConfigMap", documents)["data"]["offramp.yaml"]


def laid_over(values, change):
    """`values` with `change` over them, as helm does it with two files."""
    if not isinstance(values, dict) or not isinstance(change, dict):
        return change
    both = dict(values)
    for key, value in change.items():
        both[key] = laid_over(values[key], value) if key in values else value
    return both
