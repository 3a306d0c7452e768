"""The supervisor's parts that need no process: listener variables, the data folder, its lock."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from console.supervisor import addresses, folder
from console.supervisor.children import children


def test_a_listener_variable_names_every_address_in_it() -> None:
    parsed = addresses.parse("X", "mqtt://127.0.0.1:1883, wss://[::1]:8084/mqtt,SASL_SSL://0.0.0.0:9093,")
    expected = [("mqtt", "127.0.0.1:1883"), ("wss", "[::1]:8084"), ("SASL_SSL", "0.0.0.0:9093")]
    assert [(a.scheme, str(a)) for a in parsed] == expected


def test_an_address_without_a_scheme_or_a_host_is_understood() -> None:
    (plain,) = addresses.parse("SLUICE_HTTP", "127.0.0.1:8000")
    (everywhere,) = addresses.parse("SLUICE_BROKER_LISTENERS", "PLAINTEXT://:9092")
    assert (plain.host, plain.port, everywhere.host) == ("127.0.0.1", 8000, "0.0.0.0")


@pytest.mark.parametrize("value", ["mqtt://127.0.0.1", "127.0.0.1:99999", "mqtt://127.0.0.1:port"])
def test_a_listener_that_is_no_address_is_refused_by_the_variables_name(value: str) -> None:
    with pytest.raises(addresses.BadAddress, match="SLUICE_X"):
        addresses.parse("SLUICE_X", value)


def test_the_brokers_listeners_count_only_when_it_is_embedded() -> None:
    assert {a.variable for a in addresses.configured({}, embedded=False)} == {"SLUICE_MQTT_LISTENERS", "SLUICE_HTTP"}
    assert "SLUICE_BROKER_LISTENERS" in {a.variable for a in addresses.configured({}, embedded=True)}


def test_a_taken_port_is_one_line_that_says_what_to_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = addresses.parse("SLUICE_HTTP", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(addresses.AddressTaken) as refused:
            addresses.require_free(wanted)
    assert "SLUICE_HTTP" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_data_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    folder.ready(data)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert list(data.iterdir()) == []


def test_a_data_folder_that_can_not_be_made_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(folder.FolderUnusable, match="SLUICE_DATA"):
        folder.ready(tmp_path / "file" / "data")


def test_a_locked_folder_is_refused_by_its_holders_process_id_and_free_once_the_holder_is_gone(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from console.supervisor import folder;"
        "folder.lock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(folder.FolderInUse, match=str(holder.pid)):
        folder.lock(tmp_path)
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    os.close(folder.lock(tmp_path))


def test_a_secret_file_is_for_its_owner_alone_from_the_first_byte(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    folder.write_secret(secret, "x")
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("x", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_the_broker_runs_only_when_it_is_embedded_and_is_stopped_last() -> None:
    embedded = [child.name for child in children(embedded=True, http="127.0.0.1:8000")]
    assert embedded[-1] == "broker"
    assert "broker" not in [child.name for child in children(embedded=False, http="127.0.0.1:8000")]


def test_the_mqtt_listener_that_pages_name_is_the_first_without_tls() -> None:
    found = addresses.mqtt({"SLUICE_MQTT_LISTENERS": "mqtts://0.0.0.0:8883,ws://:8083/mqtt,mqtt://127.0.0.1:1999"})
    assert found is not None and found.port == 1999
    assert addresses.mqtt({"SLUICE_MQTT_LISTENERS": "mqtts://0.0.0.0:8883"}) is None
    default = addresses.mqtt({})
    assert default is not None and default.port == 1883
