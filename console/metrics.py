"""The console's `/metrics`: the picture as OpenMetrics or Prometheus text.

Topics and groups are as many as users make, so each family names at most `NAMED` of them (those with the greatest
value); what is left out is summed as `(other)`, and counted in `sluice_metrics_left_out`. Routes and topic prefixes
come from the gateways' capped tables. Devices are never labels.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from console import snapshot
from console.snapshot import Picture
from gateway.contract import ROW_FIELDS

NAMED = 300
OTHER = "(other)"


def _cluster(picture: Picture) -> Iterator[Metric]:
    yield GaugeMetricFamily("sluice_sample_time_seconds", "When the broker was last sampled", value=picture.at / 1000)
    yield GaugeMetricFamily("sluice_up", "1 while the broker can be sampled", value=float(not picture.trouble))
    for field, value in (picture.live("cluster") or {}).items():
        if value is not None:
            yield GaugeMetricFamily(f"sluice_{field}", f"Cluster-wide: {field}", value=float(value))


def _named(
    name: str, text: str, label: str, values: Iterable[tuple[str, float | None]], *, add_up: bool = True
) -> tuple[Metric, int]:
    """A gauge by name, bounded; and how many names it leaves out."""
    family = GaugeMetricFamily(name, text, labels=[label])
    known = [(value, name) for name, value in values if value is not None]
    shown = heapq.nlargest(NAMED, known)
    for value, each in shown:
        family.add_metric([each], float(value))
    left_out = len(known) - len(shown)
    if left_out and add_up:
        family.add_metric([OTHER], float(sum(value for value, _ in known) - sum(value for value, _ in shown)))
    return family, left_out


def _topics_and_groups(picture: Picture) -> Iterator[Metric]:
    topics, groups = picture.user_topics(), picture.user_groups()
    families = [
        _named("sluice_topic_messages", "Records a topic holds", "topic", ((t.name, t.messages) for t in topics)),
        _named("sluice_topic_bytes", "A topic's size on disk", "topic", ((t.name, t.size) for t in topics)),
        _named("sluice_topic_in_rate", "Records a second written", "topic", ((t.name, t.in_rate) for t in topics)),
        _named("sluice_topic_out_rate", "Records a second read", "topic", ((t.name, t.out_rate) for t in topics)),
        _named("sluice_group_lag", "Records not yet read", "group", ((g.name, g.lag) for g in groups)),
        _named("sluice_group_rate", "Records a second read", "group", ((g.name, g.rate) for g in groups)),
        _named("sluice_group_members", "Members", "group", ((g.name, g.members) for g in groups)),
        _named(
            "sluice_group_age_seconds",
            "Age of the oldest record not yet read",
            "group",
            ((g.name, g.age) for g in groups),
            add_up=False,
        ),
    ]
    yield from (family for family, _ in families)
    left_out = GaugeMetricFamily("sluice_metrics_left_out", "Names that a family does not show", labels=["family"])
    for family, count in families:
        left_out.add_metric([family.name], count)
    yield left_out


def _traffic(picture: Picture) -> Iterator[Metric]:
    for kind in ("route", "prefix"):
        rows = {key.partition("/")[2]: row for key, row in picture.traffic.items() if key.startswith(kind + "/")}
        yield from (_counted(kind, field, rows) for field in ROW_FIELDS)
    connected = GaugeMetricFamily("sluice_bridge_connected", "1 while connected", labels=["bridge"])
    for key, row in picture.traffic.items():
        if key.startswith("bridge/"):
            connected.add_metric([key.partition("/")[2]], float(row.get("state") == "connected"))
    yield connected


def _counted(kind: str, field: str, rows: Mapping[str, Mapping[str, Any]]) -> Metric:
    text = f"MQTT, by {kind}, since the gateways' start: {field.replace('_', ' ')}"
    family = CounterMetricFamily(f"sluice_{kind}_{field}", text, labels=[kind])
    for name in sorted(rows):
        family.add_metric([name], float(rows[name].get(field, 0)))
    return family


class Collector:
    def collect(self) -> Iterator[Metric]:
        picture = snapshot.current()
        yield from _cluster(picture)
        yield from _topics_and_groups(picture)
        yield from _traffic(picture)


_registry = CollectorRegistry()
_registry.register(Collector())


def render(accept: str) -> tuple[bytes, str]:
    """The text, and its content type; `accept` is the request's header."""
    encode, kind = choose_encoder(accept)
    return encode(_registry), kind
