"""Bridges to other MQTT brokers: kept here, run by the bridge process, which tells how they are doing."""
