import contextlib

import pytest

from runs import Runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("runs"))
    yield runs
    runs.close()


@pytest.fixture(scope="session", autouse=True)
def begun(request):
    """The runs take minutes: they begin with the first test, whoever asks for them later."""
    if any("runs" in item.fixturenames for item in request.session.items):
        # What goes wrong is told to those who ask.
        with contextlib.suppress(Exception):
            request.getfixturevalue("runs")
