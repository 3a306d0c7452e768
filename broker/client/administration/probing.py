"""Finding out what a cluster can do, without changing anything.

An API that is not advertised is not there. One that is may still be switched off, by a feature level or by a missing
authorizer; a question that changes nothing tells.
"""

from broker.client.administration import access, configs
from broker.client.administration.link import Link
from broker.client.administration.types import AclFilter, ConfigKind, ConfigResource
from broker.client.capability import Ability, Capabilities
from broker.client.errors import ClientError, ClusterError, NotAuthorized, UnsupportedByCluster
from broker.wire import schema

YES = Ability(True)
CONSUMER_GROUP_HEARTBEAT, SHARE_GROUP_HEARTBEAT, SHARE_FETCH = 68, 76, 78
DESCRIBE_QUOTAS, ALTER_SCRAM, DESCRIBE_LOG_DIRS, LIST_TRANSACTIONS, INCREMENTAL_ALTER = 48, 51, 35, 66, 44
SECURITY_DISABLED = 54
BROKER_TOPIC = "__sluice_broker"
DEAD_LETTER_CONFIG = "errors.deadletterqueue.topic.name"


async def probe(link: Link) -> Capabilities:
    """Ask; raises ClientError only where the cluster can't be reached at all."""
    brokers = len(await link.brokers())
    versions = await link.versions()
    features = await link.features()

    def api(*keys: int) -> Ability:
        missing = [schema.api(key).name for key in keys if key not in versions]
        return Ability(False, f"the cluster has no {', '.join(missing)}") if missing else YES

    def feature(ability: Ability, name: str) -> Ability:
        if not ability or features.get(name, 1) > 0:
            return ability
        return Ability(False, f"the feature {name} is switched off in the cluster")

    modern = feature(api(CONSUMER_GROUP_HEARTBEAT), "group.version")
    shares = api(SHARE_GROUP_HEARTBEAT, SHARE_FETCH)
    if shares and "share.version" not in features and "group.version" in features:
        shares = Ability(False, "the feature share.version is switched off in the cluster")
    shares = feature(shares, "share.version")
    group_configs, dead_letters = await _group_configs(link)
    told = await _broker_topic(link)
    return Capabilities(
        cluster_id=link.picture.cluster_id,
        embedded=link.settings.embedded,
        brokers=brokers,
        consumer_groups=modern,
        share_groups=shares,
        share_dead_letters=shares and dead_letters,
        group_configs=group_configs,
        acls=await _acls(link, api(29, 30, 31)),
        scram_users=api(50, ALTER_SCRAM),
        quotas=api(DESCRIBE_QUOTAS, 49),
        log_dirs=api(DESCRIBE_LOG_DIRS),
        transactions=api(LIST_TRANSACTIONS, 65, 61, 27),
        broker_rates=told,
        authorization_summary=told,
    )


async def _acls(link: Link, ability: Ability) -> Ability:
    if not ability:
        return ability
    try:
        await access.acls(link, AclFilter(name="probe"))
    except NotAuthorized:
        return Ability(False, "this connection's user may not see ACLs")
    except ClusterError as error:
        if error.code == SECURITY_DISABLED:
            return Ability(False, "no authorizer is configured in the cluster")
        return Ability(False, str(error))
    return YES


async def _group_configs(link: Link) -> tuple[Ability, Ability]:
    """Whether groups have configurations (Kafka 3.8 on), and dead-letter ones among them (KIP-1191)."""
    resource = ConfigResource(ConfigKind.GROUP, "probe")
    try:
        found = await configs.describe(link, [resource], None, documentation=False)
    except (ClusterError, UnsupportedByCluster) as error:
        refused = Ability(False, f"the cluster has no group configurations: {error}")
        return refused, refused
    names = {entry.name for entry in found.get(resource, ())}
    if not names:
        refused = Ability(False, "the cluster tells no group configurations")
        return refused, refused
    if DEAD_LETTER_CONFIG not in names:
        return YES, Ability(False, "the cluster has no dead-letter topics for share groups (KIP-1191)")
    return YES, YES


async def _broker_topic(link: Link) -> Ability:
    absent = Ability(False, "only the embedded broker tells its rates and decisions")
    if not link.settings.embedded:
        return absent
    try:
        answer = await link.metadata([BROKER_TOPIC])
    except ClientError as error:
        return Ability(False, str(error))
    return YES if any(not each.error_code for each in answer.topics) else absent
