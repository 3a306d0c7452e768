"""Settings for every test.

Hypothesis draws the same examples on each run, and new ones in the long runs (`-m torture`), which look for what nobody
thought of. Nothing it does has a deadline: how long an example takes says how busy the machine is.

What test modules leave running is told at the end of the run, by a warning with their names.

What a test records as the property `totals` is printed at the end of the run.
"""

import warnings
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leftovers import Leftovers

# these measure the machine, or what the dice gave, rather than the test
UNSTEADY = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("steady", deadline=None, suppress_health_check=UNSTEADY, derandomize=True)
settings.register_profile("new", deadline=None, suppress_health_check=UNSTEADY, derandomize=False)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "torture":
        settings.load_profile("new")


@pytest.fixture(scope="session", autouse=True)
def leftovers() -> Iterator[Leftovers]:
    """The first to be set up, so that it looks when all others are torn down."""
    noted = Leftovers()
    yield noted
    for each in noted.found():
        warnings.warn(each, stacklevel=1)


@pytest.fixture(scope="module", autouse=True)
def _noted_leftovers(request: pytest.FixtureRequest, leftovers: Leftovers) -> Iterator[None]:
    yield
    leftovers.note(request.module.__name__)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", ()):
                if name == "totals" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
