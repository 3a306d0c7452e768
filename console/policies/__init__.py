"""What devices may publish and subscribe: MQTT topic filters, kept here and followed by every gateway."""
