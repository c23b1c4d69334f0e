"""Where things are, and the files that are tested."""

import json
import re
import shutil
from pathlib import Path

import yaml
from harness import offramp

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "infra/prometheus"
GRAFANA = ROOT / "infra/grafana"
RUNBOOK = ROOT / "docs/runbook.md"
INSTALL = ROOT / "docs/install.md"
RUNBOOK_URL = "https://github.com/offramp-sh/offramp/blob/main/docs/runbook.md"


def program(name):
    """A program that the Makefile's target puts into PATH."""
    found = shutil.which(name)
    assert found, f"{name} is not in PATH: run `make monitoring`, which fetches it"
    return found


def worker_with_a_bug():
    """Built from tests/processes beside the binary."""
    binary = Path(offramp.binary()).parent / "examples/worker_with_a_bug"
    assert binary.is_file(), f"{binary} is not there: run `make monitoring`, which builds it"
    return str(binary)


def rule_groups(name):
    return yaml.safe_load((PROMETHEUS / name).read_text())["groups"]


def recordings():
    return {rule["record"]: rule for group in rule_groups("rules.yaml") for rule in group["rules"]}


def alerts():
    return {rule["alert"]: rule for group in rule_groups("alerts.yaml") for rule in group["rules"]}


def alerts_of(group_name):
    groups = {group["name"]: group["rules"] for group in rule_groups("alerts.yaml")}
    return {rule["alert"] for rule in groups[group_name]}


def dashboards():
    """Every dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(GRAFANA.glob("*.json"))}


def panels(dashboard):
    """The panels that ask for something, in reading order."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries():
    """(dashboard, panel title, query) of every query of every panel."""
    return [
        (name, panel["title"], target)
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


# What Grafana puts in for its variables. A minute for the rates, because the demo lasts two; a range as long as the runs.
FILTERS = dict.fromkeys(("namespace", "job", "cluster", "trigger"), ".*")
VARIABLES = FILTERS | {"__rate_interval": "1m", "__range": "10m"}


def substituted(expression):
    """What Grafana sends: the variables replaced by their values."""
    for name, value in VARIABLES.items():
        expression = re.sub(rf"\$\{{{name}}}|\${name}\b", value, expression)
    assert "$" not in expression, f"a variable that is not known: {expression}"
    return expression


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {anchor(heading) for heading in headings}
