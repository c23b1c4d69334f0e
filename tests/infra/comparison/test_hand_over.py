"""An upgrade and the way back: a worker of 0.1.1 and one of the present version have the same queue, one after the other
or side by side, while a scale-in and a spot interruption are under way. Their records differ in format, and neither
may lose what the other has begun."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness import offramp
from harness.waiting import until
from worlds import Clock, Version, within, world

RECORD = "offramp.sh/record"
# Propagation, a deregistration delay and two graces, with as much again: it is waited for, not measured.
LONGEST = 600
# Version 0.1.1 knows no such field.
UPGRADING = {"messages": "off"}


def before():
    """The version to come from and to go back to."""
    binary = os.environ.get("E2E_OFFRAMP_BEFORE", "")
    if not binary:
        pytest.skip("E2E_OFFRAMP_BEFORE names no binary: its commit is not in this clone")
    assert Path(binary).is_file(), f"E2E_OFFRAMP_BEFORE is {binary!r}: build-version.sh builds it"
    says = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return Version(says.stdout.removeprefix("offramp ").strip(), binary)


def worker(place, version, name):
    more = UPGRADING if version.name == "now" else {}
    return place.worker(version, more, log=f"{name}.log")


def now():
    return Version("now", offramp.binary())


def formats(place, instances):
    """The format of the record of each node, or nothing where it has none."""
    nodes = place.nodes()
    notes = [nodes[one]["metadata"].get("annotations", {}) if one in nodes else {} for one in instances]
    return [json.loads(note[RECORD])["v"] if RECORD in note else None for note in notes]


def depth(place, queue="offramp"):
    counts = place.sandbox.look("state")["queues"][queue]
    return counts["waiting"] + counts["in_flight"]


def begin(place):
    """One instance goes by its hook, another by an interruption."""
    ((group, state),) = place.sandbox.look("state")["groups"].items()
    place.sandbox.control(f"desired/{group}?capacity={state['desired'] - 1}")

    def leaving():
        members = place.sandbox.look("state")["groups"][group]["members"]
        return next((one for one, state in members.items() if state != "InService"), None)

    hooked = until("a member leaves", leaving)
    interrupted = next(one for one in sorted(place.nodes()) if one != hooked)
    place.interrupt(interrupted)
    return hooked, interrupted


def is_over(place, instances):
    """Both instances have ended, and nothing is owed any more."""
    state = place.sandbox.look("state")["instances"]
    ended = all(state.get(one, {}).get("state") in (None, "shutting-down", "terminated") for one in instances)
    return ended and depth(place) == 0


def look_back(place, hooked, said):
    story = place.sandbox.look("story")
    answers = [line for line in story if f"of {hooked} is answered with CONTINUE" in line]
    assert len(answers) == 1, f"{story}\n{said}"
    assert not [line for line in story if "has timed out" in line]
    assert depth(place, "offramp-dlq") == 0
    assert "panicked" not in said


@pytest.mark.parametrize("upgrade", [True, False], ids=["upgrade", "rollback"])
def test_what_one_version_has_begun_the_other_ends(upgrade, tmp_path):
    first, second = (before(), now()) if upgrade else (now(), before())
    written = 1 if upgrade else 2
    with world(tmp_path) as place:
        with worker(place, first, "first") as one:
            one.waits_until_ready()
            instances = begin(place)
            until("both nodes have a record", lambda: formats(place, instances) == [written, written])
        # The worker has been killed.
        clock = Clock()
        with worker(place, second, "second") as other:
            took = within(LONGEST, lambda: is_over(place, instances), clock, pause=1)
            assert took is not None, f"{place.sandbox.look('state')}\n{other.said()}"
            look_back(place, instances[0], other.said())
        print(f"{first.name} -> {second.name}: over {took:.0f} s after the kill")


def test_both_versions_work_side_by_side(tmp_path):
    with world(tmp_path) as place:
        with worker(place, before(), "old") as old, worker(place, now(), "new") as new:
            old.waits_until_ready()
            new.waits_until_ready()
            instances = begin(place)
            took = within(LONGEST, lambda: is_over(place, instances), pause=1)
            said = f"{old.said()}\n{new.said()}"
            assert took is not None, f"{place.sandbox.look('state')}\n{said}"
            look_back(place, instances[0], said)
        print(f"side by side: over after {took:.0f} s")


def test_a_message_of_our_own_waits_for_a_worker_that_knows_it(tmp_path):
    with world(tmp_path) as place:
        instance = sorted(place.nodes())[0]
        message = {
            "version": "0",
            "id": f"record/{instance}/1",
            "detail-type": "Overdue Record",
            "source": "offramp",
            "account": offramp.ACCOUNT,
            "region": offramp.REGION,
            "time": "2026-03-14T09:26:53Z",
            "resources": [],
            "detail": {"version": 1, "EC2InstanceId": instance},
        }
        with worker(place, before(), "old") as old:
            old.waits_until_ready()
            place.sandbox.send(json.dumps(message))
            until(
                "it was received",
                lambda: place.sandbox.look("state")["queues"]["offramp"]["in_flight"] == 1,
            )
        assert depth(place) == 1 and depth(place, "offramp-dlq") == 0
        with worker(place, now(), "new") as new:
            new.waits_until_ready()
            took = within(60, lambda: depth(place) == 0, pause=0.5)
            assert took is not None, new.said()
            assert new.line("record notice taken on")
