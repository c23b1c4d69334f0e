from concurrent.futures import ThreadPoolExecutor

import pytest
from table import table
from worlds import versions

RUNS = pytest.StashKey()
# How many workers are watched at the same time, each with a sandbox: most of them wait most of the time, and two cores
# are enough.
AT_ONCE = 6


@pytest.fixture(scope="session")
def runs(request, tmp_path_factory):
    """Every case that was asked for with every version, all begun at once: for each case the findings to come by the
    names of the versions."""
    cases = [item.callspec.params["case"] for item in request.session.items if "runs" in item.fixturenames]
    begun = {case: {} for case in cases}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The longest first, so that the others run beside it.
        for case in sorted(cases, key=lambda case: -case.seconds):
            for version in versions():
                folder = tmp_path_factory.mktemp(f"{case.watch.__name__}-{version.name}")
                begun[case][version.name] = pool.submit(case.watch, version, folder)
        request.config.stash[RUNS] = begun
        yield begun


def pytest_terminal_summary(terminalreporter, config):
    begun = config.stash.get(RUNS, {})
    # One that could not be watched has failed its test, which says why.
    seen = {
        case.name: {name: run.result() for name, run in by_version.items()}
        for case, by_version in begun.items()
        if all(run.done() and not run.exception() for run in by_version.values())
    }
    if seen:
        terminalreporter.section("comparison")
        terminalreporter.write_line(table(seen))
