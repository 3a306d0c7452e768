"""Client telemetry: GetTelemetrySubscriptions 0, PushTelemetry 0 (KIP-714), answered honestly.

No metric of clients is collected, so every client is told to push nothing; one that pushes all the same is refused with
the codes Kafka has for it. Client-metrics subscriptions can be kept as configs, but nothing reads them.
"""

from __future__ import annotations

import os
from typing import Any

from broker.api.registry import Context, handles
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

GetTelemetrySubscriptionsResponse = struct("GetTelemetrySubscriptionsResponse")
PushTelemetryResponse = struct("PushTelemetryResponse")

NO_ID = bytes(16)
PUSH_INTERVAL_MS = 300_000
MAX_BYTES = 1_048_576


@handles(71, min=0, max=0)
def get_telemetry_subscriptions(ctx: Context, header: RequestHeader, request: Any) -> Any:
    known = request.client_instance_id != NO_ID
    return GetTelemetrySubscriptionsResponse(
        client_instance_id=request.client_instance_id if known else os.urandom(16),
        subscription_id=0,
        accepted_compression_types=[4, 3, 1, 2],
        push_interval_ms=PUSH_INTERVAL_MS,
        telemetry_max_bytes=MAX_BYTES,
        delta_temporality=True,
        requested_metrics=[],
    )


@handles(72, min=0, max=0)
def push_telemetry(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if request.client_instance_id == NO_ID:
        return PushTelemetryResponse(error_code=ErrorCode.INVALID_REQUEST)
    if request.subscription_id != 0:
        return PushTelemetryResponse(error_code=ErrorCode.UNKNOWN_SUBSCRIPTION_ID)
    if len(request.metrics) > MAX_BYTES:
        return PushTelemetryResponse(error_code=ErrorCode.TELEMETRY_TOO_LARGE)
    return PushTelemetryResponse()
