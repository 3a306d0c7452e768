"""The past of every series that charts draw: `history.read(["cluster/in"], now=…, window=3600)`.

Kept in `history.sqlite3`, apart from the main database; the monitor alone writes it (`Writer`).
"""

from console.history.store import Columns, Writer, read

__all__ = ["Columns", "Writer", "read"]
