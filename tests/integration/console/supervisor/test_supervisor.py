"""The supervisor with small real children: what it starts, restarts, stops and takes along."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SLEEPER = "import time\nwhile True: time.sleep(60)"
SPAWNS_A_SLEEPER = (
    f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\nprint(p.pid)\np.wait()"
)
STUBBORN = f"import signal, os\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpid())\n{SLEEPER}"
SAYS_GOODBYE = f"""import signal, sys, time
def leave(*_):
    print('goodbye', time.monotonic())
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print('here')
{SLEEPER}"""
DEADLINE = 60.0


class Running:
    """A supervisor process and the lines it prints."""

    def __init__(self, folder: Path, children: dict[str, str], http: str = "127.0.0.1:1") -> None:
        spec = folder / "children.json"
        spec.write_text(json.dumps([(name, [sys.executable, "-uc", code]) for name, code in children.items()]))
        self.process = subprocess.Popen(
            [sys.executable, "-um", "tests.integration.console.supervisor.runner", str(folder), str(spec), http],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                line = self.lines.get(timeout=0.2)
                self.seen.append(line)
                if wanted(line):
                    return line
        raise AssertionError(f"not said within {DEADLINE} s; said: {self.seen}")

    def rest(self) -> list[str]:
        self.process.wait(DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and (not self.seen or "stopped" not in self.seen[-1]):
            with contextlib.suppress(queue.Empty):
                self.seen.append(self.lines.get(timeout=0.1))
        return self.seen


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(children: dict[str, str], **more: str) -> Running:
        started.append(Running(tmp_path, children, **more))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(DEADLINE)
        assert running.process.stdout
        running.process.stdout.close()


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def number(line: str) -> int:
    return int(line.rpartition("|")[2])


def test_a_childs_output_carries_its_name(start: Callable[..., Running]) -> None:
    start({"web": f"print('hello')\n{SLEEPER}"}).wait_for(lambda line: line == "web     | hello")


def test_a_child_that_ends_by_itself_is_started_again(start: Callable[..., Running]) -> None:
    running = start({"web": "print('attempt'); raise SystemExit(3)"})
    running.wait_for(lambda line: "ended with exit status 3" in line)
    running.wait_for(lambda line: line == "web     | attempt")
    running.wait_for(lambda line: "starting again in 0.5 s" in line)


def test_however_many_children_there_are_each_is_seen_to_end(start: Callable[..., Running]) -> None:
    steady = {f"steady-{number}": "import signal; signal.pause()" for number in range((os.cpu_count() or 1) + 4)}
    running = start({**steady, "last": "raise SystemExit(3)"})
    running.wait_for(lambda line: line.startswith("last") and "ended with exit status 3" in line)


def test_a_crashed_childs_own_children_do_not_stay_behind(start: Callable[..., Running]) -> None:
    code = SPAWNS_A_SLEEPER.replace("p.wait()", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    running = start({"web": code})
    grandchild = number(
        running.wait_for(lambda line: line.startswith("web") and line.rpartition("|")[2].strip().isdigit())
    )
    running.wait_for(lambda line: "ended with signal SIGKILL" in line)
    wait_until(lambda: gone(grandchild))


def test_sigterm_stops_the_front_before_the_broker(start: Callable[..., Running]) -> None:
    running = start({"web": SAYS_GOODBYE, "gateway": SAYS_GOODBYE, "broker": SAYS_GOODBYE})
    wait_until(lambda: sum("here" in line for line in drain(running)) == 3)
    running.process.terminate()
    assert running.process.wait(DEADLINE) == 0
    goodbyes = {line.split()[0]: float(line.split()[-1]) for line in running.rest() if "goodbye" in line}
    assert goodbyes["web"] < goodbyes["gateway"] < goodbyes["broker"]


def drain(running: Running) -> list[str]:
    with contextlib.suppress(queue.Empty):
        while True:
            running.seen.append(running.lines.get_nowait())
    return running.seen


def test_a_child_that_ignores_sigterm_is_killed_within_ten_seconds(start: Callable[..., Running]) -> None:
    running = start({"web": STUBBORN})
    stubborn = number(
        running.wait_for(lambda line: line.startswith("web") and line.rpartition("|")[2].strip().isdigit())
    )
    running.process.terminate()
    assert running.process.wait(DEADLINE) == 0
    assert gone(stubborn)


def test_children_and_theirs_end_with_a_killed_supervisor(start: Callable[..., Running]) -> None:
    running = start({"web": SPAWNS_A_SLEEPER, "worker": f"import os\nprint(os.getpid())\n{SLEEPER}"})
    pids = [
        number(running.wait_for(lambda line: line.rpartition("|")[2].strip().isdigit())),
        number(running.wait_for(lambda line: line.rpartition("|")[2].strip().isdigit())),
    ]
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: all(map(gone, pids)))


def test_a_line_over_the_limit_is_dropped_and_the_next_one_is_not(start: Callable[..., Running]) -> None:
    running = start({"web": f"print('x' * 300_000)\nprint('after')\n{SLEEPER}"})
    running.wait_for(lambda line: line == "web     | after")
    assert any("was dropped" in line for line in running.seen)


def test_the_state_file_tells_what_runs(start: Callable[..., Running], tmp_path: Path) -> None:
    start({"web": SLEEPER})

    def runs() -> bool:
        with contextlib.suppress(OSError, ValueError):
            (web,) = json.loads((tmp_path / "processes.json").read_text())["processes"]
            return bool(web["pid"]) and not gone(web["pid"])
        return False

    wait_until(runs)
