"""Settings for every test: Hypothesis draws the same examples on each run where `CI` is set, new ones elsewhere.

What a test records as the property `totals` is printed at the end of the run.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in getattr(report, "user_properties", ()):
                if name == "totals" and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
