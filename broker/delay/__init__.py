"""The delay service: records of `sluice.delay` are appended to their target topics at their times.

It is an ordinary client of the cluster, the embedded broker or any Kafka. Theory:

- **The truth is a compacted topic.** `__sluice_delays` has a record for every pending delivery, key = its row number,
  and one named `position`: the next offset of `sluice.delay` to read. Partition p of it belongs to partition p of
  `sluice.delay`. A local SQLite file holds the same rows with an index by time; it only spares reading them again, and
  nothing is lost with it. So neither the number of pending deliveries nor the retention of `sluice.delay` matters: what
  is pending is on the local disk, not in memory, and in a topic of its own.
- **Nothing is written but in Kafka transactions.** Taking in: pending rows, the removal of cancelled ones, dead
  letters for what makes no sense, and the new position. Firing: the records in their target topics and the removal of
  their rows. A read_committed reader sees each delivery once, whatever is killed when.
- **One owner per partition.** The consumer group `__sluice_delay` says who owns a partition; the transactional id
  `__sluice_delay-<partition>` makes sure: a new owner's first act fences the old one and settles what it left open.
- **Any doubt is a restart.** A transaction whose outcome isn't certain ends the partition's worker; its successor
  fences, reads the topic, and knows. There is no second recovery path.
"""
