import pytest
from contradictions import table
from servers import ControlPlane

ROWS = pytest.StashKey()


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture
def rows(request):
    """What was seen in each world of test_contradictions.py, printed at the end."""
    return request.config.stash[ROWS]


def pytest_terminal_summary(terminalreporter, config):
    if rows := config.stash[ROWS]:
        terminalreporter.section("contradictions")
        terminalreporter.write_line(table(rows))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """With two nodes in two zones, so that two replicas of a worker have room."""
    with ControlPlane(tmp_path_factory.mktemp("cluster")) as running:
        running.add_nodes(
            [
                {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}}}
                for name, zone in (("a", "eu-west-1a"), ("b", "eu-west-1b"))
            ]
        )
        yield running
