"""Names: every metric and label in dashboards, rules and documents is one of the running binary, and every metric
of the binary is to be seen somewhere."""

import pytest

import names
import places

# Metrics that no dashboard and no rule shows, and why.
SHOWN_NOWHERE = {
    "process_threads": "the number of threads is that of the cores",
    "process_virtual_memory_bytes": "address space that is reserved says nothing about memory that is used",
}


@pytest.fixture(scope="module")
def scrape(runs):
    return names.Scrape(runs.metrics_page)


def test_queries_of_dashboards_use_what_exists(scrape):
    wrong = {
        f"{board}: {title}": complaints
        for board, title, target in places.queries()
        if (complaints := names.complaints(places.substituted(target["expr"]), scrape, {}))
    }
    assert not wrong, "dashboards have to work without our recording rules, too"


def test_rules_use_what_exists(scrape):
    recordings = places.recordings()
    rules = recordings | places.alerts()
    wrong = {
        name: complaints
        for name, rule in rules.items()
        if (complaints := names.complaints(rule["expr"], scrape, recordings))
    }
    assert not wrong


def test_texts_of_alerts_use_labels_that_are_left(scrape):
    """`{{ $labels.x }}` of a label that the expression sums away is an empty word at 3 a.m."""
    for name, rule in places.alerts().items():
        left = names.labels_left(rule["expr"], scrape, places.recordings())
        used = names.labels_of_template(" ".join(rule["annotations"].values()))
        assert used <= left, f"{name}: {used - left}"


def test_documents_name_metrics_that_exist(scrape):
    known = {sample for sample in scrape.values} | scrape.documented_names()
    for document in sorted(places.ROOT.glob("docs/*.md")) + [places.ROOT / "README.md"]:
        unknown = names.metrics_of_text(document.read_text()) - known
        assert not unknown, f"{document.name} names metrics that do not exist: {sorted(unknown)}"


def test_a_document_that_lists_metrics_lists_all(scrape):
    """Holds for each document with a table of metrics, such as the operator's guide."""
    for document in sorted(places.ROOT.glob("docs/*.md")):
        listed = names.metrics_of_table(document.read_text())
        if listed:
            assert listed == scrape.documented_names(), document.name


def test_every_metric_is_shown(scrape):
    expressions = [places.substituted(target["expr"]) for _, _, target in places.queries()]
    expressions += [rule["expr"] for rule in (places.recordings() | places.alerts()).values()]
    used = {metric for expression in expressions for metric, *_ in names.selectors(expression)}
    shown = {name for name in scrape.documented_names() if used & {name, f"{name}_bucket", f"{name}_sum", f"{name}_count"}}
    assert scrape.documented_names() - shown == set(SHOWN_NOWHERE), "put it on a dashboard, or say why it is on none"


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("sum(offramp_no_such_total)", "no metric"),
        ("sum by (pod) (offramp_jobs)", "no label pod"),
        ('offramp_jobs{stage="dran"}', "never has stage='dran'"),
        ('offramp_jobs{stage=~"drain|dran"}', "never has stage='dran'"),
        ('rate(offramp_calls_total{reslt="done"}[5m]) > 0 and on (job) offramp_jobs', "no label reslt"),
        ('sum by (job, le) (offramp:jobs:sum{trigger="hook"})', "no label trigger"),
        ('offramp_time_left_seconds_bucket{le="0"}', "match both"),
    ],
)
def test_wrong_names_are_noticed(scrape, expression, complaint):
    assert any(complaint in said for said in names.complaints(expression, scrape, places.recordings()))


def test_tables_of_metrics_are_read():
    table = "| metric | meaning |\n|---|---|\n| `offramp_jobs{cluster,stage}` | x |\n| `process_open_fds` | y |\n"
    assert names.metrics_of_table(table) == {"offramp_jobs", "process_open_fds"}
    assert names.metrics_of_text("see `offramp_jobs`, offramp_x_total and OFFRAMP_CONFIG") == {"offramp_jobs", "offramp_x_total"}
