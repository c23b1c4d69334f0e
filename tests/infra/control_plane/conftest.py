import pytest
from servers import ControlPlane


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
