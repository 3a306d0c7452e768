"""Changes to topics: permission, broker call, record, announcement."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from console import announcements, audit, kafka, snapshot
from console.accounts.permissions import Permission, demand


class InternalTopic(Exception):
    """The topic is Sluice's own, and changing it would break the product."""


class NothingToChange(Exception):
    """Every value asked for is already in force."""


def create(*, actor: Any, name: str, partitions: int, replication: int = -1, configs: Mapping[str, str]) -> None:
    """Creates a topic. `partitions` and `replication` of -1 leave the number to the cluster."""
    demand(actor, Permission.TOPIC_CREATE)
    _refuse_internal(name)
    after = {"partitions": partitions, "replication": replication, "configs": dict(configs)}
    with audit.change(actor, "topic.create", kind="topic", name=name, after=after):
        kafka.admin().create_topic(name, partitions, replication, dict(configs))
    announcements.topic_created(
        snapshot.Topic(name=name, partitions=max(partitions, 1), cleanup=configs.get("cleanup.policy"))
    )


def configure(*, actor: Any, name: str, values: Mapping[str, str], reset: frozenset[str] = frozenset()) -> None:
    """Sets configuration entries, and returns those in `reset` to the cluster's default."""
    demand(actor, Permission.TOPIC_CONFIGURE)
    _refuse_internal(name)
    resource = kafka.types.ConfigResource(kafka.types.ConfigKind.TOPIC, name)
    now = {entry.name: entry.value for entry in kafka.admin().configs([resource]).get(resource, ())}
    changed = {key: value for key, value in values.items() if now.get(key) != value}
    if not changed and not reset:
        raise NothingToChange(_("Nothing to change: these values are already in force."))
    before = {key: now.get(key) for key in (*changed, *sorted(reset))}
    after = {**changed, **dict.fromkeys(sorted(reset))}
    with audit.change(actor, "topic.configure", kind="topic", name=name, before=before, after=after):
        kafka.admin().alter_configs(resource, set=changed, delete=sorted(reset))
    announcements.changed("topic", name)


def add_partitions(*, actor: Any, name: str, total: int) -> None:
    """Gives the topic `total` partitions. Keys are spread anew over all of them from then on."""
    demand(actor, Permission.TOPIC_CONFIGURE)
    _refuse_internal(name)
    now = _topic(name)
    before = {"partitions": len(now.partitions)}
    with audit.change(
        actor, "topic.add-partitions", kind="topic", name=name, before=before, after={"partitions": total}
    ):
        kafka.admin().add_partitions(name, total)
    announcements.changed("topic", name)


def purge(*, actor: Any, name: str) -> int:
    """Deletes every record that is in the topic now. Returns how many there were at most."""
    demand(actor, Permission.TOPIC_PURGE)
    _refuse_internal(name)
    places = [kafka.TopicPartition(name, partition.index) for partition in _topic(name).partitions]
    starts = kafka.admin().offsets(places, kafka.types.At.EARLIEST)
    ends = kafka.admin().offsets(places, kafka.types.At.LATEST)
    upto = {place: found.offset for place, found in ends.items() if not found.error}
    count = sum(max(0, end - starts[place].offset) for place, end in upto.items() if not starts[place].error)
    before = {str(place.partition): [starts[place].offset, end] for place, end in sorted(upto.items())}
    with audit.change(actor, "topic.purge", kind="topic", name=name, before=before) as change:
        outcome = kafka.admin().delete_records(
            {place: end for place, end in upto.items() if end > starts[place].offset}
        )
        failed = {place.partition: found.error for place, found in outcome.items() if found.error}
        change.after = {
            str(place.partition): found.offset for place, found in sorted(outcome.items()) if not found.error
        }
        if failed:
            change.detail = f"partitions not purged: {failed}"
            raise kafka.ClientError(_("Some partitions were not purged: %(which)s") % {"which": failed})
    announcements.changed("topic", name)
    return count


def delete(*, actor: Any, name: str) -> None:
    """Deletes the topic and everything in it."""
    demand(actor, Permission.TOPIC_DELETE)
    _refuse_internal(name)
    now = _topic(name)
    before = {"id": now.id, "partitions": len(now.partitions)}
    with audit.change(actor, "topic.delete", kind="topic", name=name, before=before):
        kafka.admin().delete_topic(name)
    announcements.topic_deleted(name)


def _topic(name: str) -> kafka.types.Topic:
    found = kafka.admin().topics([name])
    if name not in found:
        raise kafka.errors.UnknownTopic(
            3, "UNKNOWN_TOPIC_OR_PARTITION", _("There is no topic %(name)s.") % {"name": name}
        )
    return found[name]


def _refuse_internal(name: str) -> None:
    if name.startswith("__"):
        raise InternalTopic(_("Topics that begin with __ are Sluice's own and are not changed here."))
