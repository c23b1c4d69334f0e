"""A dead-letter queue that hangs: it takes messages and never says so, while there are many that nobody can read."""

from harness.waiting import until
from monitoring.gateway import Gateway
from worlds import Clock, Finding, after, within, world

UNREADABLE = 60
# A notice of two minutes has to reach its node at once.
CORDONED = 5
# The liveness probe fails once nothing has moved for a minute.
WATCHED = 70


def watch(version, folder):
    hanging = []

    def fault(method, path, body):
        if b"MessageBody" in body and b"offramp-dlq" in body:
            hanging.append(path)
            return Gateway.STALL
        return None

    with world(folder) as place:
        place.aws.fault = fault
        for number in range(UNREADABLE):
            place.sandbox.send(f"no event at all, number {number}")
        with place.worker(version) as worker:
            # Four receives bring ten each, and whoever waits for the dead-letter queue receives no more.
            until("the dead-letter queue hangs", lambda: hanging)
            within(10, lambda: taken(place) >= 40)
            hangs = Clock()
            instance = min(place.nodes())
            cordoned, statuses = [], []
            sent = place.interrupt(instance)

            def look():
                if not cordoned and place.is_cordoned(instance):
                    cordoned.append(sent())
                statuses.append((hangs(), (worker.page("/live") or (0, ""))[0]))

            within(WATCHED, look, hangs, pause=0.5)
    seconds = cordoned[0] if cordoned else None
    first = next(((at, status) for at, status in statuses if status != 200), None)
    live = f"{first[1] or 'no answer'} after {first[0]:.0f} s" if first else f"200 for {WATCHED} s"
    return [
        Finding("node cordoned after the spot notice", after(seconds, WATCHED), bool(cordoned) and seconds <= CORDONED),
        Finding("/live", live, first is None),
    ]


def taken(place):
    return place.sandbox.look("state")["queues"]["offramp"]["in_flight"]
