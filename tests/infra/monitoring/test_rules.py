"""Recording rules and alerts: promtool takes them, each alert fires in its case and not in the neighbouring one,
and each has what a person needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import places

RULES = ["rules.yaml", "alerts.yaml"]
CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))


def promtool(*words):
    ended = subprocess.run([places.program("promtool"), *map(str, words)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_promtool_takes_the_rules():
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *(places.PROMETHEUS / name for name in RULES))
    assert f"{len(places.recordings())} rules found" in said
    assert f"{len(places.alerts())} rules found" in said


def test_prometheus_rules_are_made_as_the_installation_says(tmp_path):
    """The loop of docs/install.md, the same wherever it stands, with the cluster taken out: its objects hold our rules
    and nothing else."""
    loop_pattern = re.compile(r"^for file in rules alerts; do\n.*?^done$", re.DOTALL | re.MULTILINE)
    (loop,) = set(loop_pattern.findall(places.INSTALL.read_text()))
    stand_in = f'kubectl() {{ echo ---; cat; }}\n{loop}\n'
    made = subprocess.run(["bash", "-euc", stand_in], cwd=places.ROOT, capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(made.stdout))
    assert [one["kind"] for one in objects] == ["PrometheusRule"] * len(RULES)
    for name, one in zip(RULES, objects, strict=True):
        assert one["spec"] == {"groups": places.rule_groups(name)}
        written = tmp_path / name
        written.write_text(yaml.safe_dump(one["spec"]))
        promtool("check", "rules", written)


def test_promtool_takes_the_example_of_a_configuration(tmp_path):
    """Debian's Prometheus is built without the discovery of Kubernetes: all but that is checked."""
    example = yaml.safe_load((places.PROMETHEUS / "prometheus.yaml").read_text())
    assert example["rule_files"] == RULES
    for name in RULES:
        shutil.copy(places.PROMETHEUS / name, tmp_path)
    (scrape,) = example["scrape_configs"]
    assert scrape.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    checked = tmp_path / "prometheus.yaml"
    checked.write_text(yaml.safe_dump(example))
    promtool("check", "config", checked)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_alerts_fire_in_their_cases(case):
    promtool("test", "rules", case)


def test_promtool_notices_a_wrong_expectation(tmp_path):
    """That the tests above can fail."""
    text = CASES[0].read_text().replace("../../../../infra", str(places.ROOT / "infra"))
    assert "values: '0x24'" in text
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace("values: '0x24'", "values: '1x24'"))
    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", broken)


def cases_of_alerts():
    """For each alert: in how many cases it has to fire, and in how many to be silent."""
    fires, silent = {}, {}
    for case in CASES:
        for test in yaml.safe_load(case.read_text())["tests"]:
            for expected in test["alert_rule_test"]:
                counts = fires if expected["exp_alerts"] else silent
                counts[expected["alertname"]] = counts.get(expected["alertname"], 0) + 1
    return fires, silent


def test_every_alert_has_both_cases():
    fires, silent = cases_of_alerts()
    assert set(fires) == set(places.alerts()), "alerts without a case in which they fire, or cases without an alert"
    assert set(silent) == set(places.alerts()), "alerts without a neighbouring case in which they are silent"


def test_every_recording_is_used():
    used = " ".join(rule["expr"] for rule in places.alerts().values())
    unused = [name for name in places.recordings() if name not in used]
    assert not unused, f"recorded, and no alert asks for it: {unused}"


@pytest.mark.parametrize("name", places.alerts())
def test_an_alert_has_what_a_person_needs(name):
    rule = places.alerts()[name]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    lost = name in places.alerts_of("offramp-being-lost")
    assert rule["labels"]["severity"] == ("critical" if lost else "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{places.RUNBOOK_URL}#{places.anchor(name)}"
    # Absence has no value.
    assert "$value" in rule["annotations"]["description"] or "absent" in rule["expr"]
    assert rule["annotations"]["description"].endswith(".")
    assert not rule["annotations"]["summary"].endswith(".")


@pytest.mark.parametrize("name", places.alerts())
def test_a_threshold_carries_its_arithmetic(name):
    text = (places.PROMETHEUS / "alerts.yaml").read_text()
    above = text[: text.index(f"- alert: {name}\n")].rstrip().splitlines()
    assert above[-1].lstrip().startswith("#"), f"say above {name} why its threshold is what it is"


def test_the_runbook_has_a_section_for_each_alert_and_no_other():
    text = places.RUNBOOK.read_text()
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections == list(places.alerts()), "in the order of alerts.yaml"
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert "**Do.**" in section, f"nothing to do about {section.splitlines()[0]}: then it should not be an alert"
    within = set(re.findall(r"\]\(#([\w-]+)\)", text))
    assert within <= places.anchors(text)
