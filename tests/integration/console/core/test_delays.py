"""The page of pending deliveries against a broker and a delay service: searched, counted, taken back, on record."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.test import Client

from broker.client import ClientError, Settings
from broker.client.delays import Delays
from console import kafka
from console.accounts.permissions import Role
from tests.integration.console.core.conftest import ROOT


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page would rather say that something isn't known than wait for a service on a busy machine."""
    monkeypatch.setattr(kafka, "DELAYS_TIMEOUT", 60.0)


@pytest.fixture(scope="module")
def service(broker: str, data_folder: Path) -> Iterator[Delays]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    with (data_folder / "delay.out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "broker.delay"],
            cwd=ROOT,
            env=environ | {"SLUICE_DATA": str(data_folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        settings = Settings.from_env({"SLUICE_DATA": str(data_folder)})
        with Delays(settings, timeout=5.0) as delays:  # what is asked before it listens is not answered
            deadline = time.monotonic() + 180
            while True:
                try:
                    if not delays.counts().unknown:
                        break
                except ClientError:
                    pass
                assert time.monotonic() < deadline, (data_folder / "delay.out").read_text()
                time.sleep(0.1)
        with Delays(settings, timeout=60.0) as delays:
            yield delays
    finally:
        process.terminate()
        process.wait(60)


def page(client: Client, query: str = "") -> str:
    answer = client.get(f"/deliveries/{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_pending_deliveries_are_found_and_taken_back_by_those_who_may(
    signed_in: Callable[..., Client], service: Delays
) -> None:
    operator, viewer = signed_in(Role.OPERATOR), signed_in(Role.VIEWER)
    for number in range(60):
        service.deliver("orders", b"x", after=f"{number + 1}h", key=b"k", id=f"order-{number}")
    service.deliver("invoices", b"x", after="20m", key=b"other", id="invoice <1>")
    deadline = time.monotonic() + 120
    while service.counts().pending != 61:
        assert time.monotonic() < deadline
    first = page(operator)
    assert "invoices" in first and "invoice &lt;1&gt;" in first and "order-48" in first and "order-49" not in first
    last = service.page(limit=50).rows[-1].place
    assert "order-59" in page(operator, f"?after={'-'.join(map(str, last))}")
    assert "order-7<" in page(operator, "?id=order-7&key=k") and "order-8<" not in page(operator, "?id=order-7&key=k")
    assert "order-" not in page(operator, "?target=voic")
    (lone,) = service.page(target="invoices").rows
    url = f"/deliveries/{lone.partition}/{lone.row}/cancel/"
    assert url in page(operator) and url not in page(viewer)
    assert viewer.post(url).status_code == 403
    assert operator.get(url).status_code == 200
    assert operator.post(url).status_code == 302
    assert service.page(target="invoices").rows == ()
    assert operator.post(url).status_code == 422  # too late, and said
    entries = apps.get_model("audit", "Entry").objects.filter(action="delivery.cancel").order_by("pk")
    assert [entry.outcome for entry in entries] == ["done", "failed"]


def test_what_is_not_known_is_not_none(
    signed_in: Callable[..., Client], service: Delays, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise kafka.Unreachable("nobody answers")

    monkeypatch.setattr(kafka, "delays", fail)
    shown = page(signed_in())
    assert "nobody answers" in shown and "What is pending is not known" in shown and "Nothing is pending" not in shown
    assert "<b>–</b>" in shown and "<b>0</b>" not in shown


def test_the_command_lists_counts_and_takes_back(service: Delays, database: None) -> None:
    def said(*arguments: str) -> str:
        output = io.StringIO()
        call_command("delays", *arguments, stdout=output)
        return output.getvalue()

    for number in range(3):
        service.deliver("reports", b"x", after="2h", key=b"k", id=f"report-{number}")
    deadline = time.monotonic() + 120
    while said("list", "--target", "reports").count("\n") != 3:
        assert time.monotonic() < deadline
    first = json.loads(said("list", "--target", "reports", "--limit", "1"))
    assert (first["id"], first["key"], first["target"]) == ("report-0", "k", "reports")
    assert json.loads(said("counts"))["pending"] >= 3
    assert said("cancel", "--key", "k", "--id", "report-1") == "1 taken back\n"
    assert said("cancel", "--partition", str(first["partition"]), "--row", str(first["row"])) == "1 taken back\n"
    with pytest.raises(CommandError, match="nothing was pending"):
        said("cancel", "--key", "k", "--id", "report-1")
    assert [json.loads(line)["id"] for line in said("list", "--target", "reports").splitlines()] == ["report-2"]
    assert said("cancel", "--key", "k", "--id", "report-2") == "1 taken back\n"  # others count what is pending
