"""Every call of the Python clients' admin classes is answered: done, or refused with a code of its own.

Java's is in `test_java.py`. What the answers hold is looked at elsewhere, and by the suites that those projects ship.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiokafka.errors
import confluent_kafka
import kafka
import kafka.admin
import kafka.errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewTopic as AioNewTopic
from aiokafka.admin.config_resource import ConfigResource as AioConfigResource
from aiokafka.admin.config_resource import ConfigResourceType as AioConfigResourceType
from aiokafka.admin.new_partitions import NewPartitions as AioNewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition as AioTopicPartition
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
)

from tests.acceptance.kafka.conftest import Node

UNANSWERED = {
    confluent_kafka.KafkaError._TIMED_OUT,
    confluent_kafka.KafkaError._UNSUPPORTED_FEATURE,
    confluent_kafka.KafkaError._TRANSPORT,
    confluent_kafka.KafkaError.UNSUPPORTED_VERSION,
}


def test_every_call_of_librdkafkas_admin_client(
    cluster: Node, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    made, group, none = topic(1), name("group"), name("none")
    place = confluent_kafka.TopicPartition(made, 0, 0)
    resource = ConfigResource(ResourceType.TOPIC, made)
    change = ConfigEntry("retention.ms", "50000", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ResourceType.TOPIC, made, incremental_configs=[change])
    rules = AclBindingFilter(
        ResourceType.TOPIC, none, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    places = confluent_kafka.ConsumerGroupTopicPartitions(group, [place])
    calls: dict[str, Callable[[], Any]] = {
        "create_topics": lambda: admin.create_topics([NewTopic(name("new"), 1, 1)]),
        "create_partitions": lambda: admin.create_partitions([NewPartitions(made, 2)]),
        "list_topics": lambda: admin.list_topics(timeout=60),
        "describe_topics": lambda: admin.describe_topics(confluent_kafka.TopicCollection([made])),
        "describe_cluster": lambda: admin.describe_cluster(include_authorized_operations=True),
        "describe_configs": lambda: admin.describe_configs([resource]),
        "incremental_alter_configs": lambda: admin.incremental_alter_configs([changed]),
        "alter_configs": lambda: admin.alter_configs([resource]),
        "list_offsets": lambda: admin.list_offsets({place: OffsetSpec.max_timestamp()}),
        "delete_records": lambda: admin.delete_records([place]),
        "alter_consumer_group_offsets": lambda: admin.alter_consumer_group_offsets([places]),
        "list_consumer_group_offsets": lambda: admin.list_consumer_group_offsets(
            [confluent_kafka.ConsumerGroupTopicPartitions(group)]
        ),
        "list_consumer_groups": admin.list_consumer_groups,
        "list_groups": admin.list_groups,
        "describe_consumer_groups": lambda: admin.describe_consumer_groups([group]),
        "delete_consumer_groups": lambda: admin.delete_consumer_groups([group]),
        "describe_acls": lambda: admin.describe_acls(rules),
        "delete_acls": lambda: admin.delete_acls([rules]),
        "describe_user_scram_credentials": admin.describe_user_scram_credentials,
        "alter_user_scram_credentials": lambda: admin.alter_user_scram_credentials(
            [UserScramCredentialDeletion(none, ScramMechanism.SCRAM_SHA_256)]
        ),
        "elect_leaders": lambda: admin.elect_leaders(confluent_kafka.ElectionType.PREFERRED, [place]),
        "delete_topics": lambda: admin.delete_topics([none]),
    }
    for word, call in calls.items():
        answer = call()
        for future in answer.values() if isinstance(answer, dict) else [answer]:
            if not hasattr(future, "result"):
                continue
            try:
                future.result(timeout=60)
            except confluent_kafka.KafkaException as refused:
                assert refused.args[0].code() not in UNANSWERED, (word, refused)


def test_the_calls_of_kafka_pythons_admin_client(
    cluster: Node, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group, none = topic(1), name("group"), name("none")
    place = kafka.TopicPartition(made, 0)
    calls: dict[str, Callable[[Any], Any]] = {
        "list_topics": lambda admin: admin.list_topics(),
        "describe_topics": lambda admin: admin.describe_topics([made]),
        "describe_topic_partitions": lambda admin: admin.describe_topic_partitions([made]),
        "describe_cluster": lambda admin: admin.describe_cluster(),
        "describe_features": lambda admin: admin.describe_features(),
        "describe_log_dirs": lambda admin: admin.describe_log_dirs(),
        "describe_metadata_quorum": lambda admin: admin.describe_metadata_quorum(),
        "describe_producers": lambda admin: admin.describe_producers([place]),
        "describe_transactions": lambda admin: admin.describe_transactions([none]),
        "list_transactions": lambda admin: admin.list_transactions(),
        "find_hanging_transactions": lambda admin: admin.find_hanging_transactions(),
        "list_groups": lambda admin: admin.list_groups(),
        "describe_groups": lambda admin: admin.describe_groups([group]),
        "list_config_resources": lambda admin: admin.list_config_resources(),
        "list_partition_reassignments": lambda admin: admin.list_partition_reassignments(),
        "describe_user_scram_credentials": lambda admin: admin.describe_user_scram_credentials(),
        "alter_user_scram_credentials": lambda admin: admin.alter_user_scram_credentials(
            [kafka.admin.UserScramCredentialDeletion(none, kafka.admin.ScramMechanism.SCRAM_SHA_256)]
        ),
        "alter_group_offsets": lambda admin: admin.alter_group_offsets(
            group, {place: kafka.OffsetAndMetadata(0, "", -1)}
        ),
        "delete_group_offsets": lambda admin: admin.delete_group_offsets(group, [place]),
        "delete_groups": lambda admin: admin.delete_groups([none]),
        "abort_transaction": lambda admin: admin.abort_transaction(kafka.admin.AbortTransactionSpec(place, 1, 0, 0)),
    }
    admin = kafka.KafkaAdminClient(bootstrap_servers=cluster.bootstrap, request_timeout_ms=20_000)
    try:
        for word, call in calls.items():
            try:
                call(admin)
            except kafka.errors.KafkaTimeoutError as late:
                raise AssertionError(word) from late
            except (kafka.errors.UnsupportedVersionError, kafka.errors.IncompatibleBrokerVersion) as unknown:
                raise AssertionError(word) from unknown
            except kafka.errors.BrokerResponseError:
                continue
    finally:
        admin.close()


async def test_every_call_of_aiokafkas_admin_client(
    cluster: Node, topic: Callable[..., str], name: Callable[[str], str]
) -> None:
    made, group = topic(1), name("group")
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        resource = AioConfigResource(AioConfigResourceType.TOPIC, made)
        changed = AioConfigResource(AioConfigResourceType.TOPIC, made, {"retention.ms": "50000"})
        new = name("new")
        assert (await admin.create_topics([AioNewTopic(new, 1, 1)])).topic_errors[0][1] == 0
        assert (await admin.create_partitions({made: AioNewPartitions(2)})).topic_errors[0][1] == 0
        assert made in await admin.list_topics()
        assert [one["topic"] for one in await admin.describe_topics([made])] == [made]
        assert len((await admin.describe_cluster())["brokers"]) == 1
        assert (await admin.alter_configs([changed]))[0].resources[0][0] == 0
        assert (await admin.describe_configs([resource]))[0].resources[0][0] == 0
        assert await admin.delete_records({AioTopicPartition(made, 0): RecordsToDelete(0)})
        async with asyncio.timeout(60):  # Apache Kafka makes the coordinator's topic when it is first asked for it
            while True:
                with contextlib.suppress(aiokafka.errors.BrokerResponseError):
                    assert await admin.find_coordinator(group) == 1
                    break
                await asyncio.sleep(0.1)
        await admin.list_consumer_groups()
        assert await admin.describe_consumer_groups([group])
        assert await admin.list_consumer_group_offsets(group) == {}
        assert (await admin.delete_topics([new])).topic_error_codes[0][1] == 0
    finally:
        await admin.close()
