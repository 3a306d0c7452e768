"""The Kafka protocol as bytes: message definitions, codec, framing, record batches, error codes.

Sans-IO and free of clocks: every function takes bytes and values and gives bytes and values. Both halves of
the broker package use it; it imports neither.

- `schema`  Kafka's message definitions as data: which API has which versions and fields.
- `codec`   `struct`, `encode`, `decode`: classes and straight-line code made from the schema on first use.
- `framing` length prefixes and request/response headers.
- `batch`   RecordBatch v2: split, validate, patch, iterate, build.
- `errors`  the protocol's error codes.
"""
