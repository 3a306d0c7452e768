"""What the monitor knows of the cluster: each kind of fact asked for at its own pace, and kept until asked again.

A call that takes long is made less often (`Cadence`), so a large cluster is sampled more slowly and never overrun.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from console import kafka
from console.monitor.rates import Cadence

log = logging.getLogger("sluice.monitor")

CONFIGS = ("cleanup.policy", "retention.ms")
CONFIG_CHUNK = 200


class Facts:
    """The newest answers. Empty until the first round."""

    def __init__(self) -> None:
        self.cluster: Any = None
        self.capabilities: Any = None
        self.topics: dict[str, Any] = {}
        self.starts: dict[Any, int] = {}
        self.ends: dict[Any, int] = {}
        self.newest: dict[Any, int] = {}  # place → epoch ms of its newest record
        self.configs: dict[str, dict[str, str | None]] = {}
        self.sizes: dict[str, int] | None = None
        self.disk: tuple[int, int] | None = None  # bytes free and in all, of the fullest disk that brokers keep logs on
        self.acls: int | None = None  # how many there are
        self.listings: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.committed: dict[str, dict[Any, int]] = {}
        self.share_lag: dict[str, int | None] = {}
        self.ends_at = self.committed_at = 0.0  # epoch seconds


class Sampler:
    def __init__(self, admin: Callable[[], Any]) -> None:
        self._admin = admin
        self.facts = Facts()
        self._paces = {
            "cluster": Cadence(10, 60),
            "capabilities": Cadence(60, 600),
            "topics": Cadence(1, 30),
            "ends": Cadence(0.9, 15, share=2.0),
            "starts": Cadence(2, 30),
            "newest": Cadence(2, 60),
            "listings": Cadence(1, 20),
            "committed": Cadence(0.9, 15, share=2.0),
            "groups": Cadence(2, 30),
            "configs": Cadence(10, 120),
            "sizes": Cadence(5, 60),
            "acls": Cadence(10, 120),
        }
        self._newest_ends: dict[Any, int] = {}

    def round(self) -> str:
        """Asks for what is due. Returns what is wrong, in the cluster's words, or "" when all is well."""
        trouble = ""
        for name, pace in self._paces.items():
            began = time.monotonic()
            if not pace.is_due(began):
                continue
            try:
                getattr(self, f"_ask_{name}")(self._admin())
            except kafka.UnsupportedByCluster as error:
                log.info("%s: %s", name, error)
                pace.due = began + 600
                continue
            except (kafka.ClientError, kafka.SettingsError) as error:
                trouble = trouble or f"{name}: {error}"
                if isinstance(error, kafka.Unreachable | kafka.TimedOut | kafka.SettingsError):
                    return trouble  # the others would wait as long
                pace.due = began + 5
                continue
            now = time.monotonic()
            pace.done(now, now - began)
        return trouble

    def _ask_cluster(self, admin: Any) -> None:
        self.facts.cluster = admin.cluster()

    def _ask_capabilities(self, admin: Any) -> None:
        self.facts.capabilities = admin.probe()

    def _ask_topics(self, admin: Any) -> None:
        facts = self.facts
        before, facts.topics = facts.topics, admin.topics()
        for name in facts.topics.keys() - before.keys():
            facts.configs.pop(name, None)
        if facts.topics.keys() - facts.configs.keys():
            self._paces["configs"].due = 0.0
        places = self.places()
        for known in (facts.starts, facts.ends, facts.newest, self._newest_ends):
            for place in known.keys() - places:
                del known[place]
        if places - facts.starts.keys():
            self._paces["starts"].due = 0.0

    def places(self) -> set[Any]:
        return {
            kafka.TopicPartition(topic.name, partition.index)
            for topic in self.facts.topics.values()
            for partition in topic.partitions
        }

    def _ask_ends(self, admin: Any) -> None:
        began = time.time()
        found = admin.offsets(self.places(), kafka.types.At.LATEST)
        self.facts.ends = {place: one.offset for place, one in found.items() if not one.error and one.offset >= 0}
        self.facts.ends_at = (began + time.time()) / 2  # somewhere in between the offsets were read

    def _ask_starts(self, admin: Any) -> None:
        found = admin.offsets(self.places(), kafka.types.At.EARLIEST)
        self.facts.starts = {place: one.offset for place, one in found.items() if not one.error and one.offset >= 0}

    def _ask_newest(self, admin: Any) -> None:
        """Only of partitions that have grown since."""
        ends = self.facts.ends
        grown = {
            place
            for place, end in ends.items()
            if self._newest_ends.get(place) != end and not place.topic.startswith("__")
        }
        if not grown:
            return
        found = admin.offsets(grown, kafka.types.At.MAX_TIMESTAMP)
        for place, one in found.items():
            if not one.error and one.timestamp >= 0:
                self.facts.newest[place] = one.timestamp
            self._newest_ends[place] = ends[place]

    def _ask_listings(self, admin: Any) -> None:
        facts = self.facts
        known = facts.listings
        facts.listings = {one.name: one for one in admin.groups()}
        if known.keys() != facts.listings.keys() or any(
            known[n].state != one.state for n, one in facts.listings.items()
        ):
            self._paces["groups"].due = self._paces["committed"].due = 0.0

    def _ask_committed(self, admin: Any) -> None:
        facts = self.facts
        began = time.time()
        share = [name for name, one in facts.listings.items() if one.kind is kafka.types.GroupKind.SHARE]
        plain = [name for name in facts.listings if name not in set(share)]
        found = admin.group_offsets(plain) if plain else {}
        facts.committed = {
            name: {place: one.offset for place, one in places.items() if one.offset >= 0}
            for name, places in found.items()
        }
        facts.committed_at = (began + time.time()) / 2
        facts.share_lag = {}
        if share:
            for name, places in admin.share_offsets(share).items():
                lags = [one.lag for one in places.values()]
                facts.share_lag[name] = None if not lags or any(lag < 0 for lag in lags) else sum(lags)
                facts.committed[name] = {place: one.start for place, one in places.items() if one.start >= 0}

    def _ask_groups(self, admin: Any) -> None:
        self.facts.groups = admin.describe_groups(list(self.facts.listings)) if self.facts.listings else {}

    def _ask_configs(self, admin: Any) -> None:
        names = list(self.facts.topics)
        found: dict[str, dict[str, str | None]] = {}
        for at in range(0, len(names), CONFIG_CHUNK):
            resources = [
                kafka.types.ConfigResource(kafka.types.ConfigKind.TOPIC, name) for name in names[at : at + CONFIG_CHUNK]
            ]
            for resource, entries in admin.configs(resources, CONFIGS).items():
                found[resource.name] = {entry.name: entry.value for entry in entries}
        self.facts.configs = found

    def _ask_sizes(self, admin: Any) -> None:
        """Bytes on disk by topic: of each partition, its largest replica."""
        largest: dict[Any, int] = {}
        disks = []
        for folder in admin.log_dirs():
            if folder.total > 0 and folder.usable >= 0:
                disks.append((folder.usable, folder.total))
            for log_size in folder.logs:
                if not log_size.future:
                    largest[log_size.origin] = max(largest.get(log_size.origin, 0), log_size.size)
        sizes: dict[str, int] = {}
        for place, size in largest.items():
            sizes[place.topic] = sizes.get(place.topic, 0) + size
        self.facts.sizes = sizes
        self.facts.disk = min(disks, key=lambda disk: disk[0] / disk[1], default=None)

    def _ask_acls(self, admin: Any) -> None:
        self.facts.acls = len(admin.acls())
