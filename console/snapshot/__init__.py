"""The in-memory picture that every list and page is served from: `snapshot.current()`."""

from console.snapshot.held import (
    age_ms,
    current,
    forget_group,
    forget_topic,
    is_stale,
    listen,
    put_topic,
    replace_with,
)
from console.snapshot.picture import Cluster, Feature, Group, Node, Picture, Topic, Totals

__all__ = [
    "Cluster",
    "Feature",
    "Group",
    "Node",
    "Picture",
    "Topic",
    "Totals",
    "age_ms",
    "current",
    "forget_group",
    "forget_topic",
    "is_stale",
    "listen",
    "put_topic",
    "replace_with",
]
