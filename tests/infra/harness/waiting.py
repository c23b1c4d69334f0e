"""Waiting with a bound."""

import time

# Seconds. Far longer than anything here takes, also on a busy machine: whoever waits so long has found a fault.
LIMIT = 120


def until(what, ask, limit=LIMIT, pause=0.1):
    """Asks until the answer is something, and gives it. Limit and pause are seconds."""
    end = time.monotonic() + limit
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {limit} s in vain: {what}"
        time.sleep(pause)
