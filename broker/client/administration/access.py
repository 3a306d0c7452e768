"""The admin's calls for who may do what: ACLs, SCRAM users, client quotas."""

import secrets
from collections.abc import Iterable, Mapping, Sequence

from broker.client.administration.link import ANY_BROKER, CONTROLLER, Link
from broker.client.administration.scram import salted_password
from broker.client.administration.types import (
    Acl,
    AclFilter,
    Credential,
    Operation,
    Pattern,
    Permission,
    Quota,
    QuotaEntity,
    ResourceType,
    Scram,
    User,
)
from broker.client.errors import UnknownUser, from_code
from broker.wire import codec
from broker.wire.codec import Struct

DESCRIBE_ACLS, CREATE_ACLS, DELETE_ACLS = 29, 30, 31
DESCRIBE_QUOTAS, ALTER_QUOTAS = 48, 49
DESCRIBE_SCRAM, ALTER_SCRAM = 50, 51
SALT_BYTES = 24
ENTITY_TYPES = {"user": "user", "client_id": "client-id", "ip": "ip"}


async def acls(link: Link, matching: AclFilter) -> tuple[Acl, ...]:
    answer = await link.ask(DESCRIBE_ACLS, codec.struct("DescribeAclsRequest")(**_filter(matching)), ANY_BROKER)
    _refuse(answer)
    return tuple(_acl(each, rule) for each in answer.resources for rule in each.acls)


def _filter(matching: AclFilter) -> dict[str, object]:
    return {
        "resource_type_filter": matching.resource,
        "resource_name_filter": matching.name,
        "pattern_type_filter": matching.pattern,
        "principal_filter": matching.principal,
        "host_filter": matching.host,
        "operation": matching.operation,
        "permission_type": matching.permission,
    }


def _acl(resource: Struct, rule: Struct) -> Acl:
    return Acl(
        resource=ResourceType(resource.resource_type),
        name=resource.resource_name,
        pattern=Pattern(resource.pattern_type),
        principal=rule.principal,
        host=rule.host,
        operation=Operation(rule.operation),
        permission=Permission(rule.permission_type),
    )


async def create(link: Link, rules: Sequence[Acl]) -> None:
    make = codec.struct("CreateAclsRequest.AclCreation")
    creations = [
        make(
            resource_type=rule.resource,
            resource_name=rule.name,
            resource_pattern_type=rule.pattern,
            principal=rule.principal,
            host=rule.host,
            operation=rule.operation,
            permission_type=rule.permission,
        )
        for rule in rules
    ]
    answer = await link.ask(
        CREATE_ACLS, codec.struct("CreateAclsRequest")(creations=creations), CONTROLLER, reads=False
    )
    for each in answer.results:
        _refuse(each)


async def delete(link: Link, matching: Sequence[AclFilter]) -> tuple[Acl, ...]:
    make = codec.struct("DeleteAclsRequest.DeleteAclsFilter")
    request = codec.struct("DeleteAclsRequest")(filters=[make(**_filter(each)) for each in matching])
    answer = await link.ask(DELETE_ACLS, request, CONTROLLER, reads=False)
    deleted: dict[Acl, None] = {}
    for result in answer.filter_results:
        _refuse(result)
        for each in result.matching_acls:
            _refuse(each)
            deleted[_acl(each, each)] = None
    return tuple(deleted)


async def users(link: Link, names: Iterable[str] | None) -> tuple[User, ...]:
    make = codec.struct("DescribeUserScramCredentialsRequest.UserName")
    wanted = None if names is None else [make(name=name) for name in names]
    if wanted == []:
        return ()
    answer = await link.ask(DESCRIBE_SCRAM, codec.struct("DescribeUserScramCredentialsRequest")(users=wanted))
    _refuse(answer)
    found = []
    for each in answer.results:
        if each.error_code:
            error = from_code(each.error_code, each.error_message)
            if isinstance(error, UnknownUser):
                continue
            raise error
        credentials = [Credential(Scram(info.mechanism), info.iterations) for info in each.credential_infos]
        found.append(User(name=each.user, credentials=tuple(sorted(credentials, key=lambda c: c.mechanism))))
    return tuple(sorted(found, key=lambda user: user.name))


async def put_user(link: Link, name: str, password: str, mechanism: Scram, iterations: int) -> None:
    salt = secrets.token_bytes(SALT_BYTES)
    upsertion = codec.struct("AlterUserScramCredentialsRequest.ScramCredentialUpsertion")(
        name=name,
        mechanism=mechanism,
        iterations=iterations,
        salt=salt,
        salted_password=salted_password(mechanism.label, password, salt, iterations),
    )
    await _alter_scram(link, codec.struct("AlterUserScramCredentialsRequest")(upsertions=[upsertion]))


async def delete_user(link: Link, name: str, mechanism: Scram) -> None:
    make = codec.struct("AlterUserScramCredentialsRequest.ScramCredentialDeletion")
    deletions = [make(name=name, mechanism=mechanism)]
    await _alter_scram(link, codec.struct("AlterUserScramCredentialsRequest")(deletions=deletions))


async def _alter_scram(link: Link, request: Struct) -> None:
    for each in (await link.ask(ALTER_SCRAM, request, CONTROLLER, reads=False)).results:
        _refuse(each)


async def quotas(link: Link) -> tuple[Quota, ...]:
    request = codec.struct("DescribeClientQuotasRequest")(components=[], strict=False)
    answer = await link.ask(DESCRIBE_QUOTAS, request)
    _refuse(answer)
    found = []
    for entry in answer.entries or []:
        parts = {each.entity_type: each.entity_name or "" for each in entry.entity}
        entity = QuotaEntity(parts.get("user"), parts.get("client-id"), parts.get("ip"))
        found.append(Quota(entity, {each.key: each.value for each in entry.values}))
    return tuple(found)


async def alter_quota(link: Link, entity: QuotaEntity, limits: Mapping[str, float], remove: Iterable[str]) -> None:
    part = codec.struct("AlterClientQuotasRequest.EntityData")
    change = codec.struct("AlterClientQuotasRequest.OpData")
    named = [(label, getattr(entity, field)) for field, label in ENTITY_TYPES.items()]
    entry = codec.struct("AlterClientQuotasRequest.EntryData")(
        entity=[part(entity_type=label, entity_name=name or None) for label, name in named if name is not None],
        ops=[
            *(change(key=key, value=float(value)) for key, value in limits.items()),
            *(change(key=key, remove=True) for key in remove),
        ],
    )
    request = codec.struct("AlterClientQuotasRequest")(entries=[entry])
    for each in (await link.ask(ALTER_QUOTAS, request, CONTROLLER, reads=False)).entries:
        _refuse(each)


def _refuse(answer: Struct) -> None:
    if answer.error_code:
        raise from_code(answer.error_code, answer.error_message)
