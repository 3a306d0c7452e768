"""A disk that forgets what was not synced: the log's file-system port, in memory, for power cuts and faults.

What a power cut may leave, per POSIX and no more: of each file, the content at its last `datasync` with any subset
of the later writes, torn at 512 bytes or 4 KiB, new blocks perhaps zeros, its length old or new; of each folder, the
names at its last `sync_folder` with any subset of the later changes (each rename whole or not at all).
"""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Callable, Sequence

from broker.log.files import Buffer

SECTORS = (512, 4096)


class PowerCut(BaseException):
    """The lights went out at this operation. Not an Exception: nothing may handle it."""


class Node:
    """A file's content: what is durable, what is seen, and what happened in between."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytes(content)
        self.live = bytearray(content)
        self.pending: list[tuple[int, bytes] | int] = []  # a write, or a new length

    def after_cut(self, chance: random.Random) -> Node:
        """One of the contents a power cut may leave."""
        pending = self.pending
        mode = chance.random()
        if not pending or mode < 0.2:
            return Node(self.durable)
        if mode < 0.35:
            return Node(bytes(self.live))
        if mode < 0.55:
            pending = pending[: chance.randrange(len(pending) + 1)]
            keep = 1.0
        else:
            keep = chance.choice((0.2, 0.5, 0.8, 0.95))
        content = bytearray(self.durable)
        sector = chance.choice(SECTORS)
        for change in pending:
            if isinstance(change, int):
                if chance.random() < max(keep, 0.5):
                    _resize(content, change)
            elif chance.random() < keep:
                if chance.random() < 0.5:
                    _write(content, *change)
                else:
                    self._torn(content, change, sector, chance)
        if chance.random() < 0.2:
            _resize(content, chance.choice((len(self.live), len(self.durable), max(len(content), len(self.live)))))
        return Node(bytes(content))

    def _torn(self, content: bytearray, change: tuple[int, bytes], sector: int, chance: random.Random) -> None:
        position, data = change
        fate = chance.choice(("prefix", "blocks", "zeros"))
        end = position + len(data)
        cut = chance.randrange(len(data) + 1)
        at = position
        while at < end:
            block_end = min(end, (at // sector + 1) * sector)
            piece = data[at - position : block_end - position]
            if fate == "prefix":
                if block_end - position > cut:
                    break
                _write(content, at, piece)
            elif chance.random() < 0.6:
                _write(content, at, piece)
            elif fate == "zeros" and at >= len(self.durable):
                _write(content, at, bytes(len(piece)))
            at = block_end


def _write(content: bytearray, position: int, data: bytes) -> None:
    if position > len(content):
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if size <= len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


class Folder:
    """A folder's names: durable, seen, and the changes in between."""

    def __init__(self) -> None:
        self.durable: dict[str, Node | Folder] = {}
        self.live: dict[str, Node | Folder] = {}
        self.pending: list[tuple[str, Node | Folder | None, str | None]] = []  # name, node or gone, renamed from

    def put(self, name: str, node: Node | Folder) -> None:
        self.live[name] = node
        self.pending.append((name, node, None))

    def drop(self, name: str) -> None:
        del self.live[name]
        self.pending.append((name, None, None))

    def move(self, source: str, target: str) -> None:
        node = self.live.pop(source)
        self.live[target] = node
        self.pending.append((target, node, source))

    def sync(self) -> None:
        self.durable = dict(self.live)
        self.pending.clear()

    def after_cut(self, chance: random.Random) -> Folder:
        """One of the folders a power cut may leave."""
        names = dict(self.durable)
        mode = chance.random()
        changes = self.pending
        if mode < 0.2:
            changes = []
        elif mode < 0.5:
            changes = changes[: chance.randrange(len(changes) + 1)]
        for name, node, source in changes:
            if mode >= 0.7 and chance.random() < 0.5:
                continue
            if node is None:
                names.pop(name, None)
                continue
            if source is not None and names.get(source) is node:
                del names[source]
            names[name] = node
        out = Folder()
        seen: set[int] = set()
        for name, node in names.items():
            if id(node) in seen and isinstance(node, Folder):
                continue
            seen.add(id(node))
            out.live[name] = node.after_cut(chance)
        out.durable = dict(out.live)
        return out


class DiskFile:
    """An open file."""

    def __init__(self, disk: Disk, node: Node, path: str) -> None:
        self._disk = disk
        self._node = node
        self._path = path

    def write(self, position: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        self._disk.operate("write", self._path)
        short = self._disk.short_by(len(self._node.live), position + len(data))
        if short:
            data = data[: max(0, len(data) - short)]
        _write(self._node.live, position, data)
        self._node.pending.append((position, data))
        if short:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, position: int, size: int) -> bytes:
        self._disk.look("read", self._path)
        return bytes(self._node.live[position : position + size])

    def datasync(self) -> None:
        self._disk.operate("datasync", self._path)
        if not self._disk.lying:
            self._node.durable = bytes(self._node.live)
            self._node.pending.clear()

    def truncate(self, size: int) -> None:
        if size == len(self._node.live):
            return
        self._disk.operate("truncate", self._path)
        _resize(self._node.live, size)
        self._node.pending.append(size)

    def allocate(self, size: int) -> None:
        self._disk.operate("allocate", self._path)
        if self._disk.short_by(len(self._node.live), size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > len(self._node.live):
            _resize(self._node.live, size)
            self._node.pending.append(size)

    def size(self) -> int:
        return len(self._node.live)


class DiskLock:
    """A lock; a power cut frees it."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.locks.discard(self._path)


class Disk:
    """The whole disk. `cut_at`: the operation (counted from 1) at which the power goes."""

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self.operations = 0
        self.cut_at = 0
        self.capacity = 0  # bytes; 0 is boundless
        self.lying = False  # datasync does nothing: what a disk with a write cache does
        self.locks: set[str] = set()
        self.before: Callable[[str, str], None] | None = None  # called before each operation that changes something
        self.reading: Callable[[str, str], None] | None = None

    # -- power and faults

    def operate(self, kind: str, path: str) -> None:
        """Count an operation; the power may go here, or a fault be raised by `before`."""
        self.operations += 1
        if self.operations == self.cut_at:
            raise PowerCut
        if self.before is not None:
            self.before(kind, path)

    def look(self, kind: str, path: str) -> None:
        """A read: a fault may be raised by `reading`."""
        if self.reading is not None:
            self.reading(kind, path)

    def after_cut(self, chance: random.Random) -> Disk:
        """The disk of one state that a power cut here and now may leave."""
        return Disk(self.root.after_cut(chance))

    def fingerprint(self) -> int:
        """Tells states apart."""
        return _fingerprint(self.root, 0)

    def used(self) -> int:
        """Bytes of all files."""
        return _used(self.root)

    def short_by(self, old: int, new: int) -> int:
        """How many bytes of a write up to `new` find no space."""
        if not self.capacity or new <= old:
            return 0
        return max(0, self.used() + new - old - self.capacity)

    # -- Files

    def _at(self, path: str) -> Node | Folder | None:
        node: Node | Folder | None = self.root
        if path == "/":
            return node
        for name in path.strip("/").split("/"):
            if not isinstance(node, Folder):
                return None
            node = node.live.get(name)
        return node

    def _parent(self, path: str) -> tuple[Folder, str]:
        head, _, name = path.rstrip("/").rpartition("/")
        folder = self._at(head) if head.strip("/") else self.root
        if not isinstance(folder, Folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return folder, name

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        node = self._at(path)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            folder, name = self._parent(path)
            self.operate("create", path)
            node = Node()
            folder.put(name, node)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return DiskFile(self, node, path)

    def list(self, folder: str) -> list[str]:
        node = self._at(folder)
        return sorted(node.live) if isinstance(node, Folder) else []

    def exists(self, path: str) -> bool:
        return self._at(path) is not None

    def size_of(self, path: str) -> int:
        node = self._at(path)
        if not isinstance(node, Node):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return len(node.live)

    def make_folder(self, path: str) -> None:
        built = ""
        for name in path.strip("/").split("/"):
            built += "/" + name
            if self._at(built) is None:
                folder, _ = self._parent(built)
                self.operate("make_folder", built)
                folder.put(name, Folder())

    def remove_folder(self, path: str) -> None:
        folder, name = self._parent(path)
        node = folder.live.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if isinstance(node, Folder) and node.live:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self.operate("remove_folder", path)
        folder.drop(name)

    def rename(self, source: str, target: str) -> None:
        folder, name = self._parent(source)
        other, new = self._parent(target)
        assert folder is other, "the log renames within a folder only"
        if name not in folder.live:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        self.operate("rename", target)
        folder.move(name, new)

    def remove(self, path: str) -> None:
        try:
            folder, name = self._parent(path)
        except FileNotFoundError:
            return
        if name in folder.live:
            self.operate("remove", path)
            folder.drop(name)

    def sync_folder(self, folder: str) -> None:
        node = self._at(folder)
        if not isinstance(node, Folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        self.operate("sync_folder", folder)
        node.sync()

    def lock(self, path: str, *, shared: bool = False) -> DiskLock | None:
        if path in self.locks:
            return None
        if not self.exists(path):
            self.open(path, create=True)
        self.locks.add(path)
        return DiskLock(self, path)

    def free(self, folder: str) -> int:
        return max(0, self.capacity - self.used()) if self.capacity else 1 << 40


def _fingerprint(folder: Folder, seed: int) -> int:
    value = seed
    for name, node in sorted(folder.live.items()):
        value = zlib.crc32(name.encode(), value)
        value = _fingerprint(node, value) if isinstance(node, Folder) else zlib.crc32(node.live, value)
    return value


def _used(folder: Folder) -> int:
    return sum(_used(node) if isinstance(node, Folder) else len(node.live) for node in folder.live.values())
