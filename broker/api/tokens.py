"""Delegation tokens (KIP-48): CreateDelegationToken 1-3, RenewDelegationToken 1-2, ExpireDelegationToken 1-2,
DescribeDelegationToken 1-3. None are issued: answered as a Kafka answers without a secret key for them.
"""

from __future__ import annotations

from typing import Any

from broker.api.registry import Context, handles
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

CreateDelegationTokenResponse = struct("CreateDelegationTokenResponse")
RenewDelegationTokenResponse = struct("RenewDelegationTokenResponse")
ExpireDelegationTokenResponse = struct("ExpireDelegationTokenResponse")
DescribeDelegationTokenResponse = struct("DescribeDelegationTokenResponse")


@handles(38, min=1, max=3)
def create_delegation_token(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return CreateDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)


@handles(39, min=1, max=2)
def renew_delegation_token(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return RenewDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)


@handles(40, min=1, max=2)
def expire_delegation_token(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return ExpireDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)


@handles(41, min=1, max=3)
def describe_delegation_token(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return DescribeDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)
