"""The TLS context of a server, and its files, which are read anew when one of them changes."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("sluice.gateway")


class NoCertificate(Exception):
    """A TLS listener is configured without a certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. With `client_ca`, client certificates are verified; `client_required` refuses those without."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = False


class Certificates:
    """Raises OSError (ssl.SSLError is one) when the files can't be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = self._stamps()
        self.context = self._load(_bare())

    def reload_if_changed(self) -> bool:
        """Use changed files for connections to come; those that are there stay. Files that can't be used are reported
        and left alone, as long as they stay as they are."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._load(_bare())  # first elsewhere: half of a changed pair would break the context in use
            self._load(self.context)
        except OSError as error:
            log.warning("the changed certificate %s is not used: %s", self._files.certificate, error)
            return False
        log.info("certificate %s read again", self._files.certificate)
        return True

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        files = self._files
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if files.client_required else ssl.CERT_OPTIONAL
        return context

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._files.certificate, self._files.key, self._files.client_ca):
            if path is not None:
                try:
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, status.st_ino))
                except OSError:
                    found.append((0, 0, 0))
        return tuple(found)


def _bare() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context
