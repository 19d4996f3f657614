"""The certificate that the gateway ends TLS with, the computes' own, read again when its files change."""

from __future__ import annotations

import hmac
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from lamplighter.gateway.ports import Listening
from lamplighter.gateway.wire.errors import Malformed

log = structlog.get_logger("lamplighter.gateway")

#: What Postgres 17 and later agree on, and what browsers and drivers of SQL over HTTP speak.
POSTGRES = "postgresql"
HTTP = "http/1.1"
_LOOK_EVERY = 1.0
_MOCK_LABEL = b"lamplighter gateway: salts of roles that are not there"


@dataclass(frozen=True, slots=True)
class Served:
    """`binding` is the certificate's hash for SCRAM's channel binding; None if it cannot be bound to.

    `leaf` is the certificate itself (DER). `mock_key` comes from the private key: nobody else can compute it, and a
    gateway that is started anew has the same, so that its salts tell no role that is there from one that is not.
    """

    context: ssl.SSLContext
    binding: bytes | None
    leaf: bytes
    mock_key: bytes = field(repr=False)


class Certificates:
    """Looks at the files at most once a second. A pair that does not fit, half renewed, leaves the former one."""

    def __init__(self) -> None:
        self._files: tuple[Path, Path] | None = None
        self._seen: object = None
        self._looked = 0.0
        self._served: Served | None = None
        #: The present one and the one before it, which a compute may still have.
        self._leaves: tuple[bytes, ...] = ()
        self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Neither names nor authorities count: the certificate has to be ours, see `is_ours`.
        self._client.check_hostname = False
        self._client.verify_mode = ssl.CERT_NONE

    @property
    def towards_computes(self) -> ssl.SSLContext:
        return self._client

    def configure(self, listening: Listening) -> None:
        files = None
        if listening.certificate is not None and listening.key is not None:
            files = (Path(listening.certificate), Path(listening.key))
        if files != self._files:
            self._files, self._served, self._seen, self._looked = files, None, None, 0.0

    def current(self) -> Served | None:
        """None where the gateway has no certificate: then it speaks no TLS of its own."""
        now = time.monotonic()
        if self._files is not None and now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._look(*self._files)
        return self._served

    def is_ours(self, leaf: bytes | None) -> bool:
        """Whether a compute's certificate (DER) is the one that we serve, or the one before it."""
        if leaf not in self._leaves and self._files is not None:
            # Renewed less than a second ago, maybe.
            self._look(*self._files)
        return leaf in self._leaves

    def _look(self, certificate: Path, key: Path) -> None:
        try:
            seen = [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in (certificate.stat(), key.stat())]
            if seen != self._seen:
                self._served = _load(certificate, key)
                self._seen = seen
                leaf = self._served.leaf
                if leaf not in self._leaves[:1]:
                    self._leaves = (leaf, *self._leaves[:1])
        except (OSError, ValueError) as error:
            log.warning("gateway.certificate_unread", certificate=str(certificate), error=str(error))


def _load(certificate: Path, key: Path) -> Served:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # As Postgres: nothing is resumed, nothing renegotiated.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols([POSTGRES, HTTP])
    context.load_cert_chain(certificate, key)
    first = certificate.read_text().partition("-----END CERTIFICATE-----")
    leaf = ssl.PEM_cert_to_DER_cert(first[0] + first[1])
    return Served(context, _binding_of(leaf), leaf, hmac.digest(key.read_bytes(), _MOCK_LABEL, "sha256"))


def _binding_of(leaf: bytes) -> bytes | None:
    try:
        # Here, because clients wait for a gateway that starts.
        from lamplighter.gateway.binding import tls_server_end_point  # noqa: PLC0415

        return tls_server_end_point(leaf)
    except Malformed:
        return None
    except ImportError as error:
        # Its files may have been taken away meanwhile. TLS works without; clients that insist on binding are refused.
        log.warning("gateway.no_channel_binding", error=str(error))
        return None
