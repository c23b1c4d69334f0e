"""What the course led to (course.py): the real worker on the deployed queue."""

import json

import course as courses


def told(course, words):
    return [line for line in course.story if words in line]


def test_every_trigger_came_through_the_deployed_queue(course):
    received = {line["instance"] for line in lines(course) if "notice taken on" in line["message"]}
    assert set(course.victims.values()) <= received
    assert len(set(course.victims.values())) == 5


def lines(course):
    return [json.loads(line) for line in course.logs.splitlines() if line.startswith("{")]


def test_the_spot_instance_without_a_hook_was_detached_and_drained(course):
    spot = course.victims["spot"]
    assert told(course, f"{spot} is Detaching in {courses.GROUP}")
    assert outcomes(course, spot) == ["left"]


def outcomes(course, instance):
    return [
        line["outcome"] for line in lines(course) if line.get("instance") == instance and "outcome" in line
    ]


def test_every_held_instance_left_by_an_answered_hook(course):
    for name in ("rebalance, then spot", "hook", "lost event"):
        instance = course.victims[name]
        (answer,) = told(course, f"offramp of {instance} is answered with CONTINUE")
        ended = told(course, f"{instance} is shutting down")
        assert ended and ended[0] > answer, "lines begin with their time"
    assert told(course, f"offramp of {course.victims['hook']} gets a heartbeat")
    assert not told(course, "has timed out")


def test_the_pods_had_left_before_the_hooks_were_answered(course):
    for name in ("rebalance, then spot", "hook", "lost event"):
        instance = course.victims[name]
        evictions = [line["message"] for line in lines(course) if line.get("instance") == instance]
        pods = {words.split()[1] for words in evictions if words.startswith("evict ")}
        assert pods
        (answer,) = told(course, f"offramp of {instance} is answered")
        for pod in pods:
            (ended,) = told(course, f"pod {pod} has ended")
            assert ended < answer
        assert outcomes(course, instance)[-1] == "left"


def test_the_reprieved_node_was_put_back(course):
    reprieve = course.victims["reprieve"]
    story = [line.split(" ", 1)[1] for line in told(course, reprieve)]
    out = story.index(f"{reprieve} is deregistered from blue-web with port 30080")
    back = story.index(f"{reprieve} is registered in blue-web with port 30080")
    assert out < back
    assert outcomes(course, reprieve) == ["stale"]


def test_a_worker_that_is_stopped_hands_its_message_back(course):
    assert course.handed_back == (1, 0), "visible at once, and not in flight until its lease ends"


def test_the_unreadable_message_was_set_aside_with_its_reason(course):
    # A copy whose answer comes too late is sent twice.
    assert {letter["Body"] for letter in course.dead_letters} == {courses.POISON}
    for letter in course.dead_letters:
        reason = letter["MessageAttributes"]["offramp.reason"]["StringValue"]
        assert "`detail.instance-id` is missing" in reason


def test_both_queues_end_empty(course):
    assert course.at_the_end == (0, 0, 0, 0)
