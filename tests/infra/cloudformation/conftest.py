import course as courses
import pytest
import servers


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    with servers.Emulator(tmp_path_factory.mktemp("ministack")) as running:
        yield running


@pytest.fixture(scope="session")
def course(emulator, tmp_path_factory):
    """Run once, looked at by many tests. The stacks can be deleted after use, too."""
    yield courses.run(emulator, tmp_path_factory.mktemp("course"))
    emulator.delete("course-hooks")
    emulator.delete("course")
