"""The monitor: samples the cluster about once a second, publishes the picture, keeps the history.

`sampling` asks the broker, `rates` turns offsets seen over time into rates, lag, age and ETA, `compose` makes the picture,
`publish` writes it to `__sluice_metrics`, `presence` counts devices online; `command` runs it all.
"""
