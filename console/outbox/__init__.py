"""Records of compacted topics that follow rows of this database: written with the row, published once it is committed.

    with transaction.atomic():
        device.save()
        outbox.put(contract.DEVICES, device.name, contract.encode(device.record()))

A record that can't be published (the broker is away) waits in its row; the worker tries again every few seconds. Only
the newest value of a key waits, and one process at a time publishes it, so that a topic never ends with an older value.
"""

from console.outbox.delivery import drain, put, waiting

__all__ = ["drain", "put", "waiting"]
