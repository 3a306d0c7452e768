"""The log: partitions in Kafka's segment format, made durable by one shared journal.

Theory. An append is *staged*: checked, given its offsets, kept in memory. A *group* of staged appends is written
to the journal as one frame and fdatasync'ed; only then is it *applied*: the high watermark moves, readers see
it, and its bytes go (lazily, in large writes) to the partition's segment. So segment files never hold anything
that is not durable, a failed journal write takes back memory only, and recovery is: cut each segment to the last
checkpoint, replay the journal. A *checkpoint* fsyncs dirty segments in the background and then drops journal files.

The order of appends is one sequence over all partitions, and what a crash leaves is a prefix of it.

Nothing here reads a clock, awaits or logs. A store belongs to one thread; only `Group.write` and
`Checkpoint.write` are made to run in another one.
"""
