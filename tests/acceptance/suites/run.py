"""Other projects' integration suites against the embedded broker.

    python -m tests.acceptance.suites.run [confluent-kafka-python | kafka-python] [--checkout FOLDER] [-- OPTIONS]

Each suite has a manifest beside this file: where it comes from, how it is told of a broker, and every one of its test
ids, with "run" or the reason why it can't apply to one embedded broker. A test that the manifest doesn't name, or names
in vain, or that skips itself, is an error, so a newer suite is looked through before it is believed. A manifest may ask
for a second run with another environment: all that run but what it leaves out, and what says "again" instead of "run".
The suite's code is fetched into a cache (or taken from --checkout) and never becomes part of this repository.
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
from tests.acceptance.suites.configs import install

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
    again: dict[str, str] | None
    """The environment of a second run; the broker has its default configs there."""
    not_again: tuple[str, ...]
    """What the second run leaves out: beginnings of test ids."""

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
            again=data["again"]["environment"] if "again" in data else None,
            not_again=tuple(data.get("again", {}).get("leaves_out", ())),
        )

    @property
    def chosen(self) -> list[str]:
        return [test for test, verdict in self.tests.items() if verdict == "run"]

    @property
    def chosen_again(self) -> list[str]:
        """For the second run; empty when there is none."""
        if self.again is None:
            return []
        wanted = [test for test, verdict in self.tests.items() if verdict in ("run", "again")]
        return [test for test in wanted if not test.startswith(self.not_again or "\0")]

    @property
    def excluded(self) -> list[str]:
        return [test for test, verdict in self.tests.items() if verdict not in ("run", "again")]


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
    """One or two runs, each against a broker of its own."""
    python = environment(suite)
    status = once(suite, folder, python, suite.chosen, {}, suite.broker_configs, more)
    if suite.again is not None:
        status |= once(suite, folder, python, suite.chosen_again, suite.again, {}, more)
    return status


def once(
    suite: Suite,
    folder: Path,
    python: Path,
    chosen: list[str],
    changes: dict[str, str],
    configs: dict[str, str],
    more: list[str],
) -> int:
    broker = EmbeddedBroker(environ=dict(suite.broker_environment)).start()
    try:
        install(broker.folder)
        with Admin(Settings(bootstrap=broker.bootstrap)) as admin:
            for name, value in configs.items():
                admin.alter_configs(types.ConfigResource(types.ConfigKind.BROKER, ""), set={name: value})
        values = {"bootstrap": broker.bootstrap, "folder": str(folder), "home": str(broker.folder)}
        environ = os.environ | {name: text.format(**values) for name, text in suite.environment.items()} | changes
        there = collected(python, folder, suite, environ)
        unnamed, gone = there - suite.tests.keys(), suite.tests.keys() - there
        if unnamed or gone:
            print(f"{suite.name}: the manifest does not name {sorted(unnamed)} and names in vain {sorted(gone)}")
            return 1
        report = broker.folder / "report.xml"
        command = [python, "-m", "pytest", *chosen, *suite.options, "-rs", f"--junitxml={report}", *more]
        status = subprocess.run(command, cwd=folder, env=environ, timeout=3600, check=False).returncode
        counts = ElementTree.parse(report).getroot()[0].attrib
        told = " ".join(f"{name}={value}" for name, value in changes.items())
        print(
            f"{suite.name}{told and f' ({told})'}: of {len(suite.tests)} collected {counts['tests']} run, "
            f"{counts['failures']} failed, {counts['errors']} errors, {counts['skipped']} skipped themselves; "
            f"{len(suite.excluded)} don't apply, each with its reason"
        )
        return status or int(int(counts["skipped"]) > 0)
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
