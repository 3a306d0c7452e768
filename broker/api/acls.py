"""ACLs: DescribeAcls, CreateAcls, DeleteAcls 1-3 (KIP-140; patterns KIP-290; user resources KIP-373).

Kafka with an authorizer answers these; ours always has one, which is on once there is an ACL.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from broker.api.failures import error_of
from broker.api.registry import Context, handles
from broker.cluster.acls import (
    CLUSTER_NAME,
    OPERATIONS_OF,
    Acl,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from broker.cluster.metadata import Change, acl_key
from broker.log.failures import LogError
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeAclsResponse = struct("DescribeAclsResponse")
DescribedResource = struct("DescribeAclsResponse.DescribeAclsResource")
DescribedAcl = struct("DescribeAclsResponse.AclDescription")
CreateAclsResponse = struct("CreateAclsResponse")
CreatedAcl = struct("CreateAclsResponse.AclCreationResult")
DeleteAclsResponse = struct("DeleteAclsResponse")
DeletedByFilter = struct("DeleteAclsResponse.DeleteAclsFilterResult")
DeletedAcl = struct("DeleteAclsResponse.DeleteAclsMatchingAcl")

NOT_ALLOWED = "Cluster authorization failed."


class InvalidAcl(ValueError):
    """A binding or filter Kafka would not take; the message is for the client (INVALID_REQUEST)."""


@handles(29, min=1, max=3)
def describe_acls(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER):
        return DescribeAclsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
    try:
        wanted = _filter(request)
    except InvalidAcl as problem:
        return DescribeAclsResponse(error_code=ErrorCode.INVALID_REQUEST, error_message=str(problem))
    resources: dict[tuple[int, str, int], Any] = {}
    for acl in ctx.broker.metadata.image.acls:
        if wanted.matches(acl):
            key = (acl.resource_type, acl.name, acl.pattern_type)
            if key not in resources:
                resources[key] = DescribedResource(
                    resource_type=acl.resource_type, resource_name=acl.name, pattern_type=acl.pattern_type
                )
            resources[key].acls.append(
                DescribedAcl(
                    principal=acl.principal,
                    host=acl.host,
                    operation=acl.operation,
                    permission_type=acl.permission,
                )
            )
    return DescribeAclsResponse(error_message=None, resources=list(resources.values()))


def _filter(request: Any) -> AclFilter:
    try:
        wanted = AclFilter(
            resource_type=ResourceType(request.resource_type_filter),
            pattern_type=PatternType(request.pattern_type_filter),
            name=request.resource_name_filter,
            principal=request.principal_filter,
            host=request.host_filter,
            operation=Operation(request.operation),
            permission=Permission(request.permission_type),
        )
    except ValueError as problem:
        raise InvalidAcl(f"The filter has an element this broker does not know: {problem}") from problem
    if 0 in (wanted.resource_type, wanted.pattern_type, wanted.operation, wanted.permission):
        raise InvalidAcl("The filter contains UNKNOWN elements.")
    return wanted


@handles(30, min=1, max=3)
async def create_acls(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        refused = CreatedAcl(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
        return CreateAclsResponse(results=[refused for _ in request.creations])
    results = []
    changes: list[Change] = []
    for creation in request.creations:
        try:
            acl = _binding(creation)
        except InvalidAcl as problem:
            results.append(CreatedAcl(error_code=ErrorCode.INVALID_REQUEST, error_message=str(problem)))
            continue
        if acl not in ctx.broker.metadata.image.acls:
            changes.append((acl_key(acl), {}))
        results.append(CreatedAcl(error_message=None))
    try:
        await ctx.broker.metadata.change(changes)
    except LogError as problem:
        results = [CreatedAcl(error_code=error_of(problem), error_message=str(problem)) for _ in results]
    return CreateAclsResponse(results=results)


def _binding(creation: Any) -> Acl:
    try:
        acl = Acl(
            resource_type=ResourceType(creation.resource_type),
            pattern_type=PatternType(creation.resource_pattern_type),
            name=creation.resource_name,
            principal=creation.principal,
            host=creation.host,
            operation=Operation(creation.operation),
            permission=Permission(creation.permission_type),
        )
    except ValueError as problem:
        raise InvalidAcl(f"The ACL has an element this broker does not know: {problem}") from problem
    if acl.resource_type not in OPERATIONS_OF:
        raise InvalidAcl(f"Invalid resource type {acl.resource_type.name}")
    if acl.pattern_type not in (PatternType.LITERAL, PatternType.PREFIXED):
        raise InvalidAcl(f"Invalid pattern type {acl.pattern_type.name}")
    if acl.permission not in (Permission.ALLOW, Permission.DENY):
        raise InvalidAcl(f"Invalid permission type {acl.permission.name}")
    if acl.operation in (Operation.UNKNOWN, Operation.ANY):
        raise InvalidAcl(f"Invalid operation {acl.operation.name}")
    if acl.operation != Operation.ALL and acl.operation not in OPERATIONS_OF[acl.resource_type]:
        raise InvalidAcl(f"Operation {acl.operation.name} is not supported on {acl.resource_type.name}")
    if acl.resource_type == ResourceType.CLUSTER and acl.name != CLUSTER_NAME:
        raise InvalidAcl(f"The only valid name for the CLUSTER resource is {CLUSTER_NAME}.")
    if not acl.name:
        raise InvalidAcl("Resource name should not be empty")
    kind, separator, name = acl.principal.partition(":")
    if not separator or not kind or not name:
        raise InvalidAcl(f"Could not parse principal from `{acl.principal}` (no colon is present or a part is empty)")
    if acl.host != "*" and not _is_address(acl.host):
        raise InvalidAcl(f"Invalid host: {acl.host}")
    return acl


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@handles(31, min=1, max=3)
async def delete_acls(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        refused = DeletedByFilter(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=NOT_ALLOWED)
        return DeleteAclsResponse(filter_results=[refused for _ in request.filters])
    results = []
    gone: dict[Acl, None] = {}
    for one in request.filters:
        try:
            wanted = _filter(one)
        except InvalidAcl as problem:
            results.append(DeletedByFilter(error_code=ErrorCode.INVALID_REQUEST, error_message=str(problem)))
            continue
        matching = [acl for acl in ctx.broker.metadata.image.acls if wanted.matches(acl)]
        gone.update(dict.fromkeys(matching))
        results.append(DeletedByFilter(error_message=None, matching_acls=[_deleted(acl) for acl in matching]))
    try:
        await ctx.broker.metadata.change([(acl_key(acl), None) for acl in gone])
    except LogError as problem:
        results = [DeletedByFilter(error_code=error_of(problem), error_message=str(problem)) for _ in results]
    return DeleteAclsResponse(filter_results=results)


def _deleted(acl: Acl) -> Any:
    return DeletedAcl(
        error_message=None,
        resource_type=acl.resource_type,
        resource_name=acl.name,
        pattern_type=acl.pattern_type,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission_type=acl.permission,
    )
