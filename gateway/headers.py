"""What MQTT 5 says of a message, as headers of its record and as JSON of the gateway's own records."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from broker.client.records import MESSAGE_ID
from gateway import contract
from gateway.ports import PublishProperties


def headers_from(properties: PublishProperties) -> list[tuple[str, bytes | str | None]]:
    """The headers that say what MQTT 5 properties say."""
    found: list[tuple[str, bytes | str | None]] = []
    if properties.content_type is not None:
        found.append((contract.H_CONTENT_TYPE, properties.content_type))
    if properties.response_topic is not None:
        found.append((contract.H_RESPONSE_TOPIC, properties.response_topic))
    if properties.correlation_data is not None:
        found.append((contract.H_CORRELATION, properties.correlation_data))
    if properties.message_expiry is not None:
        found.append((contract.H_EXPIRY, str(properties.message_expiry)))
    if properties.payload_format is not None:
        found.append((contract.H_FORMAT, str(properties.payload_format)))
    for name, value in properties.user:
        found.append((MESSAGE_ID if name == MESSAGE_ID else contract.H_USER + name, value))
    return found


def properties_object(properties: PublishProperties | None) -> dict[str, Any]:
    """MQTT 5 properties as JSON has them."""
    if properties is None:
        return {}
    found = {name: value for name, value in asdict(properties).items() if value is not None and value != ()}
    if properties.correlation_data is not None:
        found["correlation_data"] = base64.b64encode(properties.correlation_data).decode()
    return found


def properties_of(found: dict[str, Any]) -> PublishProperties | None:
    """The reverse of `properties_object`."""
    if not found:
        return None
    correlation = found.get("correlation_data")
    return PublishProperties(
        payload_format=found.get("payload_format"),
        message_expiry=found.get("message_expiry"),
        content_type=found.get("content_type"),
        response_topic=found.get("response_topic"),
        correlation_data=base64.b64decode(correlation) if correlation is not None else None,
        user=tuple((str(name), str(value)) for name, value in found.get("user", ())),
    )
