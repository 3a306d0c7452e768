"""Other projects' integration suites against the embedded broker.

    python -m tests.acceptance.suites.run [confluent-kafka-python | kafka-python] [--checkout FOLDER] [-- OPTIONS]

Each suite has a manifest beside this file: where it comes from, how it is told of a broker, and every one of its test
ids, with "run" or the reason why it can't apply to one embedded broker. A test that the manifest doesn't name, or names
in vain, is an error, so a newer suite is looked through before it is believed. The suite's code is fetched into a
cache (or taken from --checkout) and never becomes part of this repository.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from broker.client import Admin, Settings, types
from tests.acceptance.kafka.embedded import EmbeddedBroker
from tests.acceptance.kafka.java import cache

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One manifest."""

    name: str
    repository: str
    commit: str
    folder: str
    requirements: tuple[str, ...]
    options: tuple[str, ...]
    environment: dict[str, str]
    broker_environment: dict[str, str]
    broker_configs: dict[str, str]
    tests: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Suite":
        data = tomllib.loads(path.read_text("utf-8"))
        return cls(
            name=path.stem,
            repository=data["repository"],
            commit=data["commit"],
            folder=data["folder"],
            requirements=tuple(data["requirements"]),
            options=tuple(data["options"]),
            environment=data["environment"],
            broker_environment=data.get("broker_environment", {}),
            broker_configs=data.get("broker_configs", {}),
            tests=data["tests"],
        )

    @property
    def chosen(self) -> list[str]:
        return [test for test, verdict in self.tests.items() if verdict == "run"]


def checkout(suite: Suite) -> Path:
    """The suite's sources at its commit, cloned once."""
    folder = cache() / f"{suite.name}-{suite.commit[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as building:
            subprocess.run(["git", "clone", "-q", suite.repository, building], check=True, timeout=600)
            subprocess.run(["git", "-C", building, "checkout", "-q", suite.commit], check=True, timeout=60)
            shutil.copytree(building, folder)
    return folder


def environment(suite: Suite) -> Path:
    """The interpreter of an environment with the suite's requirements."""
    folder = cache() / f"{suite.name}-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *suite.requirements]
    subprocess.run(install, check=True, timeout=900)
    return python


def collected(python: Path, folder: Path, suite: Suite, environ: dict[str, str]) -> set[str]:
    command = [python, "-m", "pytest", suite.folder, "--collect-only", "-q", "-p", "no:warnings", "-o", "addopts="]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    found = set(re.findall(r"^(\S+::.+)$", done.stdout, re.MULTILINE))
    if not found:
        raise SystemExit(f"{suite.name}: nothing was collected: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


def run(suite: Suite, folder: Path, more: list[str]) -> int:
    python = environment(suite)
    broker = EmbeddedBroker(environ=dict(suite.broker_environment)).start()
    try:
        with Admin(Settings(bootstrap=broker.bootstrap)) as admin:
            for name, value in suite.broker_configs.items():
                admin.alter_configs(types.ConfigResource(types.ConfigKind.BROKER, ""), set={name: value})
        values = {"bootstrap": broker.bootstrap, "folder": str(folder)}
        environ = os.environ | {name: text.format(**values) for name, text in suite.environment.items()}
        there = collected(python, folder, suite, environ)
        unnamed, gone = there - suite.tests.keys(), suite.tests.keys() - there
        if unnamed or gone:
            print(f"{suite.name}: the manifest does not name {sorted(unnamed)} and names in vain {sorted(gone)}")
            return 1
        report = broker.folder / "report.xml"
        command = [python, "-m", "pytest", *suite.chosen, *suite.options, f"--junitxml={report}", *more]
        status = subprocess.run(command, cwd=folder, env=environ, timeout=3600, check=False).returncode
        counts = ElementTree.parse(report).getroot()[0].attrib
        left_out = len(suite.tests) - len(suite.chosen)
        print(
            f"{suite.name}: {counts['tests']} run, {counts['failures']} failed, {counts['errors']} errors, "
            f"{counts['skipped']} skipped themselves; {left_out} don't apply, each with its reason"
        )
        return status
    finally:
        broker.stop()


def main() -> int:
    known = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("suite", nargs="?", choices=sorted(known), help="all, if none is named")
    options.add_argument("--checkout", type=Path, help="the suite's sources, if they are there already")
    options.add_argument("more", nargs="*", help="options for pytest, after --")
    given = options.parse_args()
    status = 0
    for name in [given.suite] if given.suite else sorted(known):
        suite = Suite.read(known[name])
        status |= run(suite, given.checkout or checkout(suite), given.more)
    return status


if __name__ == "__main__":
    sys.exit(main())
