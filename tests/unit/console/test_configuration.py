"""The console's settings from the environment."""

import stat
import threading
from pathlib import Path

import pytest

from console.configuration import Configuration, InvalidConfiguration


def test_defaults_serve_this_machine_only() -> None:
    configuration = Configuration.from_environment({})
    assert configuration.allowed_hosts == ["127.0.0.1", "[::1]", "localhost"]
    assert "http://127.0.0.1:8000" in configuration.origins
    assert not configuration.secure


def test_a_public_address_is_the_only_origin_over_https() -> None:
    configuration = Configuration.from_environment({"SLUICE_PUBLIC_URL": "https://sluice.example.org"})
    assert configuration.origins == {"https://sluice.example.org"}
    assert "sluice.example.org" in configuration.allowed_hosts
    assert configuration.secure


@pytest.mark.parametrize(
    "wrong", [{"SLUICE_PUBLIC_URL": "sluice"}, {"SLUICE_HTTP": "8000x"}, {"SLUICE_TRUSTED_PROXIES": "everyone"}]
)
def test_what_makes_no_sense_is_refused_by_name(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidConfiguration, match=next(iter(wrong))):
        Configuration.from_environment(wrong)


def test_processes_that_start_together_agree_on_one_secret_key(tmp_path: Path) -> None:
    configuration = Configuration.from_environment({"SLUICE_DATA": str(tmp_path / "data")})
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(configuration.secret_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 50
    path = tmp_path / "data" / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["secret_key"]
