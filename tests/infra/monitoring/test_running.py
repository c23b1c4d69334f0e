"""A real Prometheus with the shipped rules watches the real binary: every query gives something or a documented nothing,
the alerts are silent in the ordinary demo, and fire in a world that earns them."""

import pytest

import names
import places
from runs import EARNED

# Queries that give nothing in the demo, because nothing of the kind happens there, by panel and letter of the query.
# Unless they are listed below, they have to give something in the bad world.
NOTHING_IN_THE_DEMO = {
    "Alerts that fire A": "no alert fires",
    "Calls that failed A": "no call has to fail; a PATCH that meets another one may",
    "Messages received C": "every message asks for something",
    "Faults A": "no read or action has to fail",
    "Faults B": "the queue is always there",
    "Faults C": "no message goes out of flight",
    "Faults D": "no target group is configured",
    "Actions that were not done B": "no controller tolerates a cordon",
    "Faults E": "a sweep can read everything",
    "Messages received D": "there is no later version",
    "Messages received E": "no event and no message is lost",
    "The queue D": "the dead-letter queue takes everything",
}
# Queries that give nothing in either world, and why that is right.
NOTHING_ANYWHERE = {
    "Faults C": "only a worker that has no CPU for half a minute lets a message go out of flight",
    "Faults D": "no target group is configured",
    "Actions that were not done B": "no controller tolerates a cordon",
    "Messages received D": "there is no later version",
    "Messages received E": "no event and no message is lost",
    "The queue D": "the dead-letter queue of the bad world takes everything",
}


def title_of(query):
    board, title, target = query
    return f"{board}: {title} {target['refId']}"


@pytest.mark.parametrize("query", places.queries(), ids=title_of)
def test_a_panel_shows_something(runs, query):
    _, title, target = query
    title = f"{title} {target['refId']}"
    expression = places.substituted(target["expr"])
    # Asked in both worlds, so that an error shows in either.
    in_the_demo, in_the_bad_world = runs.demo().series(expression), runs.bad_world().series(expression)
    if title in NOTHING_ANYWHERE:
        assert not in_the_demo and not in_the_bad_world
    elif title in NOTHING_IN_THE_DEMO:
        assert in_the_bad_world
    else:
        assert in_the_demo


def test_the_documented_nothings_are_still_queries():
    titles = {f"{title} {target['refId']}" for _, title, target in places.queries()}
    assert set(NOTHING_IN_THE_DEMO) | set(NOTHING_ANYWHERE) <= titles


@pytest.mark.parametrize("board", places.dashboards())
@pytest.mark.parametrize("variable", places.FILTERS)
def test_variables_have_values(runs, board, variable):
    variables = {one["name"]: one for one in places.dashboards()[board]["templating"]["list"]}
    words = variables[variable]["query"]["query"]
    selector, label = words.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    series = runs.demo().series(places.substituted(selector))
    values = {one["metric"][label] for one in series}
    expected = {
        "namespace": {"ops"},
        "job": {"offramp"},
        "cluster": {"blue", "green", "unknown"},
        "trigger": {"hook", "spot", "capacity_reservation", "rebalance", "record"},
    }
    assert values == expected[variable]


@pytest.mark.parametrize("world", ["demo", "bad_world"])
def test_every_rule_can_be_evaluated(runs, world):
    groups = getattr(runs, world)().prometheus.ask("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == set(places.recordings()) | set(places.alerts())
    wrong = {name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"}
    assert not wrong


@pytest.mark.parametrize("name", places.recordings())
def test_a_recording_has_values(runs, name):
    assert runs.demo().series(name)


# Alerts whose expression is true in neither world, and why that is right. Their cases are in rules/look_into_it.yaml.
TRUE_IN_NEITHER_WORLD = {
    "OfframpReplicaNotReady": "every installation has one replica",
    "OfframpMessagesOld": "a sandbox delivers its messages at once",
    "OfframpIsolationSlow": "a node is isolated within milliseconds, or not at all",
    "OfframpRemovalsLate": "the demo has time enough, and in the bad world no removal finishes",
    "OfframpRemovalsUnfinished": "the demo has time enough, and in the bad world no removal finishes",
    "OfframpPodsForced": "no disruption budget blocks up to the deadline",
    "OfframpHooksNotOurs": "every instance with a hook is a node of a cluster that its metadata names",
    "OfframpEndUnclear": "a sandbox's Auto Scaling never refuses an answer, and knows no states but the usual",
    "OfframpClockWrong": "the worker and the sandbox run on one machine",
    "OfframpTwins": "no two nodes of a sandbox name one instance",
    "OfframpNodesUnidentified": "every node of a sandbox names its instance",
    "OfframpSweepsPartial": "in both worlds the workers are younger than six sweeps",
    "OfframpUnfinished": "a sandbox loses no event, and its records are all readable",
    "OfframpThrottled": "a sandbox has no limits of calls",
}


@pytest.mark.parametrize("name", places.alerts())
def test_the_expression_of_an_alert_finds_what_it_looks_at(runs, name):
    """An alert that looks at series that are not there would be silent for ever. Each of them is there in the demo,
    so that a silent alert says that all is well."""
    expression = places.alerts()[name]["expr"]
    selectors = [selector for *_, selector in names.selectors(expression)]
    assert [selector for selector in selectors if not runs.demo().series(selector)] == []
    true = any(world.series(expression) for world in (runs.demo(), runs.bad_world()))
    assert true != (name in TRUE_IN_NEITHER_WORLD)


def test_no_alert_fires_in_the_ordinary_demo(runs):
    assert runs.demo().alerts("firing") == {}


# A busy machine may show a message that waits, or a cordon under way, in a few scrapes in a row. The shortest `for` is
# a minute.
MOMENT = 10


def test_nothing_is_nearly_lost_in_the_ordinary_demo(runs):
    """Most alerts wait for two minutes, and the demo does not last much longer: that none fires would say little. But
    none is even on its way for more than a moment."""
    lost = places.alerts_of("offramp-being-lost")
    on_their_way = {name: span for (name, _), span in runs.demo().alerts("pending").items() if name in lost}
    assert {name: span for name, span in on_their_way.items() if span > MOMENT} == {}


@pytest.mark.parametrize(("name", "installation"), sorted(EARNED))
def test_an_alert_fires_in_a_world_that_earns_it(runs, name, installation):
    """With its own `for`: nothing is shortened but the interval of scrapes."""
    assert (name, installation) in runs.bad_world().alerts("firing")


def test_every_alert_of_what_is_lost_was_earned():
    assert places.alerts_of("offramp-being-lost") <= {name for name, _ in EARNED}


def test_misfortunes_of_one_installation_are_not_told_of_another(runs):
    lost = places.alerts_of("offramp-being-lost")
    told = {(name, job) for name, job in runs.bad_world().alerts("firing") if name in lost}
    assert told == {(name, job) for name, job in EARNED if name in lost}
