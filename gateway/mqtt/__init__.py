"""MQTT 3.1, 3.1.1 and 5 without input and output: bytes, values and `now` in, bytes and engine calls out."""
