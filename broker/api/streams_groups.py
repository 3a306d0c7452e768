"""Streams groups (KIP-1071) are not kept here: StreamsGroupDescribe 0-1 says so of every group it is asked about.

StreamsGroupHeartbeat is not offered, so that Kafka Streams uses a classic group.
"""

from __future__ import annotations

from typing import Any

from broker.api.registry import Context, handles
from broker.cluster.acls import Operation, ResourceType
from broker.wire.codec import struct
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader

StreamsGroupDescribeResponse = struct("StreamsGroupDescribeResponse")
DescribedGroup = struct("StreamsGroupDescribeResponse.DescribedGroup")


@handles(89, min=0, max=1)
def streams_group_describe(ctx: Context, header: RequestHeader, request: Any) -> Any:
    return StreamsGroupDescribeResponse(groups=[_described(ctx, group_id) for group_id in request.group_ids])


def _described(ctx: Context, group_id: str) -> Any:
    code, message = ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a streams group."
    if not ctx.allows(Operation.DESCRIBE, ResourceType.GROUP, group_id):
        code, message = ErrorCode.GROUP_AUTHORIZATION_FAILED, "Group authorization failed."
    elif not group_id:
        code, message = ErrorCode.INVALID_GROUP_ID, "The group id is empty."
    return DescribedGroup(error_code=code, error_message=message, group_id=group_id, topology=None)
