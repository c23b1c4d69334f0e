"""What version 0.1 did wrong and the present version has to do right: both are put into the same misfortune at the same
time. The present version is judged; of the old one is told what it did, in the table at the end."""

import string

import alerts
import bad_clusters
import dead_letters
import leaks
import pytest
from worlds import Case

CASES = [
    Case("1 answers of servers hold secrets", leaks.watch, seconds=15),
    *(
        Case(f"2{letter} green's {way.what}", way.watch, seconds=way.seconds)
        for letter, way in zip(string.ascii_lowercase, bad_clusters.WAYS)
    ),
    Case("3 a dead-letter queue hangs", dead_letters.watch, seconds=90),
    Case("4a the queue cannot be opened", alerts.watch_queue, seconds=20),
    Case("4b a webhook refuses an eviction", alerts.watch_webhook, seconds=45),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_present_version_does_right(runs, case):
    *old, now = (run.result() for run in runs[case].values())
    wrong = [f"{finding.what}: {finding.seen}" for finding in now if not finding.right]
    assert not wrong, "\n".join(wrong)
    # The old one is watched in the same way, or the table would compare nothing.
    assert all([finding.what for finding in findings] == [finding.what for finding in now] for findings in old)
