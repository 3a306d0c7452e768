"""Where the cluster is, from the environment."""

import json
from pathlib import Path

import pytest

from broker.client.settings import Settings, SettingsError


def test_a_cluster_is_named_by_the_environment() -> None:
    settings = Settings.from_env(
        {
            "SLUICE_KAFKA": "a:9092,[::1]:9093",
            "SLUICE_KAFKA_SECURITY": "sasl_ssl",
            "SLUICE_KAFKA_SASL_MECHANISM": "scram-sha-512",
            "SLUICE_KAFKA_USERNAME": "sluice",
            "SLUICE_KAFKA_PASSWORD": "secret",
        }
    )
    assert settings.addresses == (("a", 9092), ("::1", 9093))
    assert not settings.embedded
    assert settings.librdkafka()["sasl.mechanism"] == "SCRAM-SHA-512"
    assert "secret" not in repr(settings)


def test_without_one_the_embedded_brokers_credential_is_used(tmp_path: Path) -> None:
    credential = {"username": "__sluice", "password": "p", "bootstrap": "127.0.0.1:4711"}
    (tmp_path / "internal.json").write_text(json.dumps(credential))
    settings = Settings.from_env({"SLUICE_DATA": str(tmp_path)})
    assert (settings.bootstrap, settings.username, settings.embedded) == ("127.0.0.1:4711", "__sluice", True)
    assert settings.security == "SASL_PLAINTEXT"


@pytest.mark.parametrize(
    "environment",
    [
        {"SLUICE_KAFKA": "a:1", "SLUICE_KAFKA_SECURITY": "TLS"},
        {"SLUICE_KAFKA": "a:1", "SLUICE_KAFKA_SECURITY": "SASL_SSL"},
        {"SLUICE_KAFKA": "a:1", "SLUICE_KAFKA_SASL_MECHANISM": "GSSAPI"},
        {"SLUICE_DATA": "/nowhere"},
    ],
)
def test_what_cant_be_used_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        Settings.from_env(environment)


@pytest.mark.parametrize("content", ["", "[]", '{"username": "x"}', "\x00"])
def test_a_damaged_credential_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "internal.json").write_text(content)
    with pytest.raises(SettingsError):
        Settings.from_env({"SLUICE_DATA": str(tmp_path)})


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(SettingsError):
        _ = Settings(bootstrap="localhost").addresses
