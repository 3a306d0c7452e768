"""The monitor: samples the cluster about once a second, publishes the picture, keeps the history.

`sampling` asks the broker, `rates` turns offsets seen over time into rates and ETA, `ages` reads how old the oldest
unread record is, `compose` makes the picture, `publish` writes it to `__sluice_metrics`, `presence` counts devices
online; `run` is the loop around them.
"""
