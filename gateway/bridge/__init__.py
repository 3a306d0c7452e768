"""Bridges to other MQTT brokers: a process of its own, so that it can stop, crash and be killed by itself."""
