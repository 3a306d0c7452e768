"""Settings for every test.

Hypothesis draws the same examples on each run, and new ones in the long runs (`-m torture`), which look for what nobody
thought of. Nothing it does has a deadline: how long an example takes says how busy the machine is.

What a test records as the property `totals` is printed at the end of the run.
"""

import pytest
from hypothesis import HealthCheck, settings

# these measure the machine, or what the dice gave, rather than the test
UNSTEADY = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("steady", deadline=None, suppress_health_check=UNSTEADY, derandomize=True)
settings.register_profile("new", deadline=None, suppress_health_check=UNSTEADY, derandomize=False)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "torture":
        settings.load_profile("new")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", ()):
                if name == "totals" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
