"""Every sample event through every rule of the deployed stack, by ministack's TestEventPattern.

Wanted is what becomes a notice of the worker and comes from Auto Scaling or EC2 itself, in this account and
Region: read from the worker's own results of parsing the same samples, and not from a list here.
"""

import json
import re

import pytest
from harness.offramp import ACCOUNT, REGION
from templates import CENTRAL, ROOT, VARIANTS

SAMPLES = ROOT / "tests/fixtures/events"
PARSED = (
    ROOT / "crates/wire/src/snapshots/offramp_wire__tests__every_sample_event_has_its_expected_result.snap"
)

# The hook of the samples, which is a parameter of the stack.
HOOK = "drain-before-terminate"

RULE_OF_TRIGGER = {
    "hook": "LifecycleRule",
    "spot": "SpotRule",
    "capacity_reservation": "SpotRule",
    "rebalance": "RebalanceRule",
}
# Passages of a hook that this version serves: an instance that ends, goes back to the warm pool, or gets a new
# root volume. Launch hooks are none of ours.
SERVED_PASSAGES = {"Ending", "ToWarmPool", "RootVolume"}


def parsed():
    """What the worker makes of each sample: a trigger with its passage, or nothing."""
    results = {}
    for block in re.split(r"\n(?=\S)", PARSED.read_text().split("---\n", 2)[2].strip()):
        name, first, *rest = block.splitlines()
        found = re.match(r"\s+(hook|spot|capacity_reservation|rebalance)(?: (\w+))?", first)
        account = re.search(r"account (\w+), region ([\w-]+)", block)
        results[name] = (found, account)
    return results


def wanted_rule(name, found, origin):
    """The rule that has to pick a sample, or nothing."""
    event = json.loads((SAMPLES / f"{name}.json").read_text())
    straight = event.get("source") in ("aws.autoscaling", "aws.ec2")
    if found is None or not straight or origin.groups() != (ACCOUNT, REGION):
        return None
    if found[1] == "hook" and found[2] not in SERVED_PASSAGES:
        return None
    return RULE_OF_TRIGGER[found[1]]


@pytest.fixture(scope="module")
def patterns(emulator):
    emulator.create("patterns", CENTRAL, VARIANTS["pod-identity"] | {"HookNames": HOOK})
    yield emulator.patterns("patterns")
    emulator.delete("patterns")


def test_there_are_45_samples_and_eleven_of_them_are_wanted():
    files = {path.stem for path in SAMPLES.glob("*.json")}
    results = parsed()
    assert files == results.keys() and len(files) == 45
    wanted = {name: rule for name, result in results.items() if (rule := wanted_rule(name, *result))}
    counts = {rule: list(wanted.values()).count(rule) for rule in RULE_OF_TRIGGER.values()}
    assert counts == {"LifecycleRule": 5, "SpotRule": 5, "RebalanceRule": 1}


@pytest.mark.parametrize("name", sorted(parsed()))
def test_the_right_rule_and_no_other_picks(name, patterns, emulator):
    rule = wanted_rule(name, *parsed()[name])
    picked = emulator.picked_by(patterns, (SAMPLES / f"{name}.json").read_text())
    assert picked == ({rule} if rule else set())


def test_hooks_of_others_are_not_picked(patterns, emulator):
    event = json.loads((SAMPLES / "autoscaling-terminate-lifecycle-action.json").read_text())
    assert emulator.picked_by(patterns, json.dumps(event)) == {"LifecycleRule"}
    event["detail"]["LifecycleHookName"] = "Terminate-LC-Hook"
    assert emulator.picked_by(patterns, json.dumps(event)) == set()
