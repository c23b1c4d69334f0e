"""Secrets in logs: answers that cannot be read, and that hold what nobody may see."""

import json
import re

from harness.waiting import until
from monitoring.gateway import answer
from worlds import Finding, world

# The password in a pod's environment, which stands nowhere else.
MARK = "hunter2-is-the-password"
# A letter for each server: its texts go on for long with it, so that it can be told how much of whose is in a line.
LETTERS = {"pods": "x", "services": "y", "queue": "z"}
WHO = {"pods": "the API server", "services": "a proxy before it", "queue": "SQS"}
LENGTH = 4000
# How much of a server's text helps somebody. The rest is cut off.
MOST = 300

# A controller of somebody else's has written a list of containers that is none: the API server of a version that
# changes a type, or an aggregated one, can send this.
BROKEN_POD = {
    "metadata": {"name": "shop-1", "namespace": "shop", "annotations": {"note": LETTERS["pods"] * LENGTH}},
    "spec": {"containers": {"not": "a list", "env": [{"name": "DB_PASSWORD", "value": MARK}]}},
}


def watch(version, folder):
    """The pods cannot be parsed, the services are a proxy's page, and the queue answers with a fault. Each of them
    holds the password beyond what may be shown."""
    asked = {"pods": 0, "services": 0, "queue": 0}
    pods = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [BROKEN_POD]}
    page = f"<html><body>Bad Gateway {LETTERS['services'] * LENGTH} {MARK}</body></html>"
    fault = {"__type": "com.amazonaws.sqs#InternalError", "message": f"{LETTERS['queue'] * LENGTH} {MARK}"}
    answers = {
        "pods": answer("200 OK", "application/json", json.dumps(pods)),
        "services": answer("502 Bad Gateway", "text/html", page),
        "queue": answer("500 Internal Server Error", "application/x-amz-json-1.0", json.dumps(fault)),
    }

    def spoilt(about):
        asked[about] += 1
        return answers[about], 0

    def cluster_fault(method, path, body):
        kind = re.match(r"/api/v1/(pods|services)\?", path)
        return spoilt(kind[1]) if kind else None

    def queue_fault(method, path, body):
        return spoilt("queue") if b"MaxNumberOfMessages" in body else None

    with world(folder) as place:
        place.kubernetes.fault, place.aws.fault = cluster_fault, queue_fault
        with place.worker(version) as worker:
            # What is said about an answer is said before the next one is asked for.
            until("each was asked for again and again", lambda: all(count >= 3 for count in asked.values()))
            texts = worker.said() + (worker.page("/ready") or (0, ""))[1]
    lines = texts.splitlines()
    marked = sum(MARK in line for line in lines)
    longest = {about: max(map(len, re.findall(f"{letter}*", texts))) for about, letter in LETTERS.items()}
    return [
        Finding("the password in log or /ready", f"in {marked} lines" if marked else "nowhere", marked == 0),
        *(
            Finding(f"longest text of {WHO[about]} in a line", f"{length} characters", length <= MOST)
            for about, length in longest.items()
        ),
        # Only shown: our own words and a folder's name are in it, too.
        Finding("longest line of the log", f"{max(map(len, lines))} characters", True),
    ]
