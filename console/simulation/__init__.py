"""Plausible traffic for `manage.py simulate`: `telemetry` says what a device reports, `fleet` publishes it through real
MQTT connections, `reader` is a consumer group that falls behind and catches up."""
