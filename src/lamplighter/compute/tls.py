"""A certificate of the platform's own for its Postgres servers.

An authority is made once and its certificate can be given to clients (`sslmode=verify-full`); the server's certificate
is signed with SHA-256, which SCRAM's channel binding needs, and made anew before it ends or when it lacks a host.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lamplighter.files import sync_directory

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
AUTHORITY_LIFE = dt.timedelta(days=3650)
SERVER_LIFE = dt.timedelta(days=397)
RENEW_BEFORE = dt.timedelta(days=30)
#: Clocks of clients may be behind.
_LEEWAY = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `certificate` holds the server's and then the authority's; `authority` is what clients trust."""

    authority: Path
    certificate: Path
    key: Path


def ensure_tls(
    directory: Path, owner: tuple[int, int], hosts: Iterable[str] = (), *, now: dt.datetime | None = None
) -> TlsFiles:
    """Make what is missing, about to end, unreadable, or lacks one of `hosts`; leave the rest alone.

    `owner` (uid, gid) gets the server's key; the authority's stays ours. `now` is in UTC.
    """
    now = now or dt.datetime.now(dt.UTC)
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    files = TlsFiles(directory / "ca.crt", directory / "server.crt", directory / "server.key")
    authority_key = directory / "ca.key"
    wanted = tuple(dict.fromkeys((*LOCAL_HOSTS, *hosts)))
    if not _authority_serves(files.authority, authority_key, now):
        _make_authority(files.authority, authority_key, now)
    if not _server_serves(files, wanted, now):
        _make_server(files, authority_key, owner, wanted, now)
    return files


def covers(certificate: x509.Certificate, hosts: Iterable[str], now: dt.datetime) -> bool:
    """Whether a certificate names all `hosts` and lasts a while yet."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(_names(hosts)) <= set(names) and _lasts(certificate, now)


def _lasts(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    return [_name(host) for host in hosts]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _authority_serves(certificate: Path, key: Path, now: dt.datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        return _load_key(key).public_key() == found.public_key() and _lasts(found, now)
    except (OSError, ValueError, TypeError):
        return False


def _server_serves(files: TlsFiles, hosts: Iterable[str], now: dt.datetime) -> bool:
    try:
        chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        if chain[0].public_key() != _load_key(files.key).public_key():
            return False
    except (OSError, ValueError, TypeError):
        return False
    return chain[-1] == authority and covers(chain[0], hosts, now)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(path)
    return key


def _make_authority(certificate: Path, key_file: Path, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: clients confuse authorities of one name and different keys.
    name = _subject(f"Lamplighter authority {x509.random_serial_number():x}"[:40])
    made = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _pem_key(key), None, 0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), None, 0o644)


def _make_server(
    files: TlsFiles, authority_key: Path, owner: tuple[int, int], hosts: Iterable[str], now: dt.datetime
) -> None:
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    signer = _load_key(authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(_subject("Lamplighter Postgres"), authority.subject, key, now, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    # A crash between the two leaves a pair that does not fit, which the next call finds and replaces.
    _write(files.key, _pem_key(key), owner, 0o600)
    chain = made.public_bytes(serialization.Encoding.PEM) + authority.public_bytes(serialization.Encoding.PEM)
    _write(files.certificate, chain, None, 0o644)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    life: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + life)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, owner: tuple[int, int] | None, mode: int) -> None:
    """As `files.write_atomic`, with an owner: a key must never be at its place under another one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), *owner)
            file.write(content)
            file.flush()
            os.fdatasync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
