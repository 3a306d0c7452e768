"""What only a cluster with a quorum of controllers could change: AddRaftVoter 0-1, RemoveRaftVoter 0 (KIP-853),
UnregisterController 0. The quorum is this node, and answers as a Kafka with a static quorum would.
"""

from __future__ import annotations

from typing import Any

from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

AddRaftVoterResponse = struct("AddRaftVoterResponse")
RemoveRaftVoterResponse = struct("RemoveRaftVoterResponse")
UnregisterControllerResponse = struct("UnregisterControllerResponse")


@handles(80, min=0, max=1)
def add_raft_voter(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return _refused(ctx, AddRaftVoterResponse, ErrorCode.UNSUPPORTED_VERSION, "The quorum is one node, for ever.")


@handles(81, min=0, max=0)
def remove_raft_voter(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return _refused(ctx, RemoveRaftVoterResponse, ErrorCode.UNSUPPORTED_VERSION, "The quorum is one node, for ever.")


@handles(94, min=0, max=0)
def unregister_controller(ctx: Context, header: RequestHeader, request: Any) -> Any:
    message = f"Controller ID {request.controller_id} is not currently registered."
    if request.controller_id == ctx.broker.node_id:
        message = "The only controller can't be unregistered."
    return _refused(ctx, UnregisterControllerResponse, ErrorCode.CONTROLLER_ID_NOT_REGISTERED, message)


def _refused(ctx: Context, response: Any, code: ErrorCode, message: str) -> Any:
    if not ctx.allows(Operation.ALTER, ResourceType.CLUSTER):
        code, message = ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed."
    return response(error_code=code, error_message=message)
