"""Certificates of the TLS listeners, read again when their files change.

New handshakes use the new certificate; connections that are there keep theirs and are not dropped.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from typing import Any

from broker.config import Listener, Tls

logger = logging.getLogger(__name__)

_SHORT = {
    "commonName": "CN",
    "organizationalUnitName": "OU",
    "organizationName": "O",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


class UnusableCertificate(ValueError):
    """The certificate or key can't be loaded; the message is one clear line."""


class Certificates:
    """The TLS contexts, one for listeners that demand a client's certificate and one for those that don't."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._contexts: dict[ssl.VerifyMode, ssl.SSLContext] = {}
        self._stamp = self._stamps()

    def context(self, listener: Listener) -> ssl.SSLContext:
        """The context for a listener: with a client authority set, SSL demands certificates and SASL_SSL accepts
        them. Raises UnusableCertificate."""
        mode = ssl.CERT_NONE
        if self._tls.client_ca is not None:
            mode = ssl.CERT_OPTIONAL if listener.sasl else ssl.CERT_REQUIRED
        if mode not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.verify_mode = mode
            self._load(context)
            self._contexts[mode] = context
        return self._contexts[mode]

    def reload_if_changed(self) -> bool:
        """Load the files again when one of them changed; a bad one is reported and the old stay in use.

        They are tried in a context of their own first: loading a certificate whose key is still another's leaves a
        context without a key.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            for context in self._contexts.values():
                self._load(context)
        except UnusableCertificate as error:
            logger.error("the changed certificate is not used: %s", error)
            return False
        logger.info("certificate %s loaded again", self._tls.certificate)
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        tls = self._tls
        try:
            context.load_cert_chain(tls.certificate, tls.key, tls.key_password or "")
            if tls.client_ca is not None:
                context.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise UnusableCertificate(f"SLUICE_TLS_CERTIFICATE {tls.certificate}: {error}") from error

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        paths = [path for path in (self._tls.certificate, self._tls.key, self._tls.client_ca) if path is not None]
        stamps = []
        for path in paths:
            try:
                found = path.stat()
            except OSError:
                stamps.append((0, 0))
            else:
                stamps.append((found.st_mtime_ns, found.st_size))
        return tuple(stamps)


def principal_of(certificate: Mapping[str, Any] | None) -> str | None:
    """The principal of a client's certificate: its distinguished name (RFC 2253), as Kafka's default builder has it."""
    if not certificate:
        return None
    parts = [
        "+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in relative)
        for relative in certificate.get("subject", ())
    ]
    return "User:" + ",".join(reversed(parts)) if parts else None


def _escaped(value: str) -> str:
    text = "".join("\\" + char if char in ',+"\\<>;' else char for char in value)
    if text.startswith(("#", " ")):
        text = "\\" + text
    if text.endswith(" ") and len(text) > 1:
        text = text[:-1] + "\\ "
    return text
