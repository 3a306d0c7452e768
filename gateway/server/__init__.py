"""The shells around the MQTT core: sockets, TLS, WebSocket, PROXY headers, deadlines, backpressure."""
