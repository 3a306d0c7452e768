"""Users' SCRAM credentials: DescribeUserScramCredentials 0, AlterUserScramCredentials 0 (KIP-554).

The client salts the password; what is kept can't sign in. Iterations 4096 to 16384, as Kafka limits them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from broker.api.failures import error_of
from broker.api.registry import Context, handles
from broker.cluster import scram
from broker.cluster.acls import Operation, ResourceType
from broker.cluster.metadata import Change
from broker.log.failures import LogError
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

DescribeResponse = struct("DescribeUserScramCredentialsResponse")
DescribedUser = struct("DescribeUserScramCredentialsResponse.DescribeUserScramCredentialsResult")
CredentialInfo = struct("DescribeUserScramCredentialsResponse.CredentialInfo")
AlterResponse = struct("AlterUserScramCredentialsResponse")
AlteredUser = struct("AlterUserScramCredentialsResponse.AlterUserScramCredentialsResult")

NUMBERS = {name: number for number, name in scram.MECHANISM_NUMBERS.items()}


class Refused(Exception):
    """A credential can't be changed; carries the code and the words for the client."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@handles(50, min=0, max=0)
def describe_user_scram_credentials(ctx: Context, header: RequestHeader, request: Any) -> Any:
    if not ctx.allows(Operation.DESCRIBE, ResourceType.CLUSTER):
        return DescribeResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message="Cluster authorization failed."
        )
    kept = ctx.broker.metadata.image.scram
    named = Counter(user.name for user in request.users) if request.users else None
    results = []
    for name in named if named is not None else sorted(ctx.broker.metadata.image.users()):
        infos = [
            CredentialInfo(mechanism=NUMBERS[mechanism], iterations=credential.iterations)
            for (user, mechanism), credential in kept.items()
            if user == name
        ]
        if named is not None and named[name] > 1:
            results.append(
                DescribedUser(
                    user=name,
                    error_code=ErrorCode.DUPLICATE_RESOURCE,
                    error_message=f"Cannot describe SCRAM credentials for the same user twice in a single request: "
                    f"{name}",
                )
            )
        elif not infos:
            results.append(
                DescribedUser(
                    user=name,
                    error_code=ErrorCode.RESOURCE_NOT_FOUND,
                    error_message=f"Attempt to describe a user credential that does not exist: {name}",
                )
            )
        else:
            results.append(DescribedUser(user=name, error_message=None, credential_infos=infos))
    return DescribeResponse(error_message=None, results=results)


@handles(51, min=0, max=0)
async def alter_user_scram_credentials(ctx: Context, header: RequestHeader, request: Any) -> Any:
    wanted = [(one.name, one) for one in (*request.deletions, *request.upsertions)]
    allowed = ctx.allows(Operation.ALTER, ResourceType.CLUSTER)
    twice = Counter((name, one.mechanism) for name, one in wanted)
    problems: dict[str, Refused] = {}
    changes: dict[str, list[Change]] = {}
    for name, one in wanted:
        try:
            if not allowed:
                raise Refused(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")
            if twice[name, one.mechanism] > 1:
                raise Refused(
                    ErrorCode.DUPLICATE_RESOURCE, "A user credential cannot be altered twice in the same request"
                )
            changes.setdefault(name, []).append(_change(ctx, name, one))
        except Refused as refusal:
            problems.setdefault(name, refusal)
    kept = [change for name, some in changes.items() if name not in problems for change in some]
    try:
        await ctx.broker.metadata.change(kept)
    except LogError as problem:
        for name in changes:
            problems.setdefault(name, Refused(error_of(problem), str(problem)))
    return AlterResponse(
        results=[
            AlteredUser(user=name, error_code=problems[name].code, error_message=str(problems[name]))
            if name in problems
            else AlteredUser(user=name, error_message=None)
            for name in dict.fromkeys(name for name, _ in wanted)
        ]
    )


def _change(ctx: Context, name: str, one: Any) -> Change:
    mechanism = scram.MECHANISM_NUMBERS.get(one.mechanism)
    if not name:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty")
    if mechanism is None:
        raise Refused(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    key = ("scram", name, mechanism)
    if not hasattr(one, "salted_password"):
        if (name, mechanism) not in ctx.broker.metadata.image.scram:
            raise Refused(ErrorCode.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist")
        return key, None
    if f"User:{name}" == ctx.broker.credentials.internal_principal:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "This name is the broker's own")
    if one.iterations < scram.MIN_ITERATIONS:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations")
    if one.iterations > scram.MAX_ITERATIONS:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations")
    if not one.salt or not one.salted_password:
        raise Refused(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Empty salt or password")
    made = scram.from_salted_password(bytes(one.salted_password), bytes(one.salt), mechanism, one.iterations)
    return key, {
        "salt": made.salt.hex(),
        "stored_key": made.stored_key.hex(),
        "server_key": made.server_key.hex(),
        "iterations": made.iterations,
    }
