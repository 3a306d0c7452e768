"""Where MQTT messages go on the broker, and records to devices: kept here and followed by every gateway."""
