"""Client quotas: DescribeClientQuotas 0-1, AlterClientQuotas 0-1 (KIP-546).

Entities: user, client-id, (user, client-id), ip; a name of None is the default. Keys: producer_byte_rate,
consumer_byte_rate, request_percentage, controller_mutation_rate; connection_creation_rate for ip.
All of them are enforced (`broker.server.quotas`).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping
from typing import Any

from broker.api.failures import error_of
from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.cluster.configs import INT_MAX, LONG_MAX
from broker.cluster.metadata import Change, QuotaEntity
from broker.log.failures import LogError
from broker.server.quotas import CONNECTIONS, FETCH, MUTATIONS, PRODUCE, REQUEST
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeResponse = struct("DescribeClientQuotasResponse")
DescribedEntry = struct("DescribeClientQuotasResponse.EntryData")
DescribedEntity = struct("DescribeClientQuotasResponse.EntityData")
DescribedValue = struct("DescribeClientQuotasResponse.ValueData")
AlterResponse = struct("AlterClientQuotasResponse")
AlteredEntry = struct("AlterClientQuotasResponse.EntryData")
AlteredEntity = struct("AlterClientQuotasResponse.EntityData")

EXACT, DEFAULT, ANY = 0, 1, 2
CLIENT_KEYS: Mapping[str, int | None] = {PRODUCE: LONG_MAX, FETCH: LONG_MAX, REQUEST: None, MUTATIONS: None}
"""Keys of users and clients: the largest whole number, or None where a fraction will do."""
IP_KEYS: Mapping[str, int | None] = {CONNECTIONS: INT_MAX}
ENTITY_TYPES = frozenset(("user", "client-id", "ip"))


class Refused(Exception):
    """A quota can't be changed; carries the code and the words for the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@handles(48, min=0, max=1)
def describe_client_quotas(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE_CONFIGS, ResourceType.CLUSTER):
        return DescribeResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
            error_message="Cluster authorization failed.",
            entries=None,
        )
    components = {one.entity_type: one for one in request.components}
    if len(components) != len(request.components) or not components.keys() <= ENTITY_TYPES:
        return DescribeResponse(
            error_code=ErrorCode.INVALID_REQUEST,
            error_message="Entity types must be user, client-id or ip, each at most once.",
            entries=None,
        )
    entries = [
        DescribedEntry(
            entity=[DescribedEntity(entity_type=kind, entity_name=name) for kind, name in entity],
            values=[DescribedValue(key=key, value=value) for key, value in values.items()],
        )
        for entity, values in ctx.broker.metadata.image.quotas.items()
        if _matches(entity, components, request.strict)
    ]
    return DescribeResponse(error_message=None, entries=entries)


def _matches(entity: QuotaEntity, components: dict[str, Any], strict: bool) -> bool:
    names = dict(entity)
    if strict and names.keys() != components.keys():
        return False
    for kind, one in components.items():
        if kind not in names:
            return False
        if one.match_type == EXACT and names[kind] != one.match:
            return False
        if one.match_type == DEFAULT and names[kind] is not None:
            return False
    return True


@handles(49, min=0, max=1)
async def alter_client_quotas(ctx: Context, header: RequestHeader, request: Any) -> Any:
    allowed = ctx.allows(Operation.ALTER_CONFIGS, ResourceType.CLUSTER)
    answers = []
    changes: list[Change] = []
    named = Counter(_entity(entry) for entry in request.entries)
    for entry in request.entries:
        error, message = ErrorCode.NONE, None
        try:
            if not allowed:
                raise Refused(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")
            if named[_entity(entry)] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, "Each entity must appear at most once.")
            changes.append(_change(ctx, entry))
        except Refused as refusal:
            error, message = refusal.code, str(refusal)
        answers.append(
            AlteredEntry(
                error_code=error,
                error_message=message,
                entity=[
                    AlteredEntity(entity_type=one.entity_type, entity_name=one.entity_name) for one in entry.entity
                ],
            )
        )
    if changes and not request.validate_only:
        try:
            await ctx.broker.metadata.change(changes)
        except LogError as problem:
            for answer in answers:
                answer.error_code = answer.error_code or error_of(problem)
    return AlterResponse(entries=answers)


def _entity(entry: Any) -> QuotaEntity:
    return tuple(sorted(((one.entity_type, one.entity_name) for one in entry.entity), key=repr))


def _change(ctx: Context, entry: Any) -> Change:
    kinds = [one.entity_type for one in entry.entity]
    if not kinds or len(set(kinds)) != len(kinds):
        raise Refused(ErrorCode.INVALID_REQUEST, "Invalid empty or duplicated client quota entity")
    if not set(kinds) <= ENTITY_TYPES:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Unhandled client quota entity type: {kinds}")
    if "ip" in kinds and len(kinds) > 1:
        raise Refused(ErrorCode.INVALID_REQUEST, "Invalid quota entity combination")
    if any(one.entity_name == "" for one in entry.entity):
        raise Refused(ErrorCode.INVALID_REQUEST, "Empty entity names are not allowed")
    entity = _entity(entry)
    if "ip" in kinds and not _is_address(entry.entity[0].entity_name):
        raise Refused(ErrorCode.INVALID_REQUEST, f"{entry.entity[0].entity_name} is not a valid IP address.")
    known = IP_KEYS if "ip" in kinds else CLIENT_KEYS
    values = dict(ctx.broker.metadata.image.quotas.get(entity, {}))
    if len({one.key for one in entry.ops}) != len(entry.ops):
        raise Refused(ErrorCode.INVALID_REQUEST, "A quota's key must appear at most once.")
    for one in entry.ops:
        if one.key not in known:
            raise Refused(ErrorCode.INVALID_REQUEST, f"Invalid configuration key {one.key}")
        if one.remove:
            values.pop(one.key, None)
        elif one.value <= 0 or one.value != one.value:
            raise Refused(ErrorCode.INVALID_REQUEST, f"Quota {one.key} must be greater than 0")
        else:
            _require_whole(one.key, one.value, known[one.key])
            values[one.key] = one.value
    key = ("quota", [list(pair) for pair in entity])
    return key, {"values": values} if values else None


def _is_address(name: str | None) -> bool:
    if name is None:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _require_whole(key: str, value: float, most: int | None) -> None:
    if most is None:
        return
    if value > most:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Proposed value for {key} is too large.")
    if value % 1.0 > 1e-6:
        raise Refused(ErrorCode.INVALID_REQUEST, f"{key} cannot be a fractional value.")
