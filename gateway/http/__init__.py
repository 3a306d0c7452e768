"""The HTTP door: publishing for whoever speaks no MQTT. Sans-IO; docs/http.md says what it speaks."""
