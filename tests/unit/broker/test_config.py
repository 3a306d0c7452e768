"""Settings from the environment: what is understood, what is refused, what is unsafe."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import VARIABLES, BadSetting, from_environ, help_text, parse_listeners


def test_the_defaults_listen_on_loopback_only() -> None:
    config = from_environ({})
    assert [str(listener) for listener in config.listeners] == ["PLAINTEXT://127.0.0.1:9092"]
    assert config.flush_interval_ms is None


def test_help_names_every_variable() -> None:
    assert all(name in help_text() for name, _, _ in VARIABLES)


@pytest.mark.parametrize("address", ["PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://10.1.2.3:1", "PLAINTEXT://:9092"])
def test_listening_beyond_loopback_without_authentication_is_refused_unless_meant(address: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_INSECURE"):
        from_environ({"SLUICE_BROKER_LISTENERS": address})
    assert from_environ({"SLUICE_BROKER_LISTENERS": address, "SLUICE_INSECURE": "1"}).insecure


def test_sasl_may_listen_anywhere() -> None:
    config = from_environ({"SLUICE_BROKER_LISTENERS": "SASL_PLAINTEXT://0.0.0.0:9092,PLAINTEXT://[::1]:9093"})
    assert [listener.loopback for listener in config.listeners] == [False, True]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLUICE_BROKER_LISTENERS", "http://127.0.0.1:1"),
        ("SLUICE_BROKER_LISTENERS", "PLAINTEXT://127.0.0.1:port"),
        ("SLUICE_BROKER_LISTENERS", "PLAINTEXT://127.0.0.1"),
        ("SLUICE_BROKER_ADVERTISED", "SSL://broker:1"),
        ("SLUICE_FLUSH", "never"),
        ("SLUICE_FLUSH", "interval:0"),
        ("SLUICE_BROKER_PARTITIONS", "0"),
        ("SLUICE_BROKER_MECHANISMS", "GSSAPI"),
        ("SLUICE_BROKER_MECHANISMS", "OAUTHBEARER"),
        ("SLUICE_BROKER_SUPER_USERS", "admin"),
        ("SLUICE_BROKER_ACLS", "off"),
        ("SLUICE_INSECURE", "perhaps"),
        ("SLUICE_BROKER_JWKS", "/nowhere.json"),
    ],
)
def test_a_setting_that_can_not_be_understood_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable):
        from_environ({variable: value})


def test_tls_listeners_need_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="SLUICE_TLS_CERTIFICATE"):
        from_environ({"SLUICE_BROKER_LISTENERS": "SSL://127.0.0.1:1"})
    pem = tmp_path / "x.pem"
    pem.write_text("")
    paths = {"SLUICE_TLS_CERTIFICATE": str(pem), "SLUICE_TLS_KEY": str(pem)}
    with pytest.raises(BadSetting, match="SLUICE_INSECURE"):
        from_environ({"SLUICE_BROKER_LISTENERS": "SSL://0.0.0.0:1", **paths})
    assert from_environ({"SLUICE_BROKER_LISTENERS": "SSL://0.0.0.0:1", "SLUICE_TLS_CLIENT_CA": str(pem), **paths}).tls


def test_advertised_addresses_go_to_their_listeners() -> None:
    config = from_environ(
        {
            "SLUICE_BROKER_LISTENERS": "PLAINTEXT://127.0.0.1:1,SASL_PLAINTEXT://127.0.0.1:2",
            "SLUICE_BROKER_ADVERTISED": "SASL_PLAINTEXT://broker.example:9",
        }
    )
    assert [(one.advertised_host, one.advertised_port) for one in config.listeners] == [
        (None, None),
        ("broker.example", 9),
    ]


def test_two_listeners_of_one_protocol_have_names_of_their_own() -> None:
    names = [one.name for one in parse_listeners("X", "SSL://a:1,SSL://b:2")]
    assert names == ["SSL", "SSL-2"]
