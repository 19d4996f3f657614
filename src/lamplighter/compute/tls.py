"""The certificate of the platform's Postgres servers and of its gateway: its own authority's, or the operator's.

Both use the same two files, so that SCRAM's channel binding, which hashes the certificate, holds wherever TLS ends.
An own authority is made once and its certificate can be given to clients (`sslmode=verify-full`); the server's is made
anew before it ends or when it lacks a host. An operator's pair is checked and copied, again whenever it changes.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lamplighter.compute.errors import ComputeError
from lamplighter.files import sync_directory

log = structlog.get_logger(__name__)

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
AUTHORITY_LIFE: Final = dt.timedelta(days=3650)
SERVER_LIFE: Final = dt.timedelta(days=397)
RENEW_BEFORE: Final = dt.timedelta(days=30)
#: An operator is told so long before the end: certificates that renew themselves do so earlier.
WARN_BEFORE: Final = dt.timedelta(days=14)
_AUTHORITY = "ca.crt"
#: Clocks of clients may be behind.
_LEEWAY = dt.timedelta(hours=1)
_LARGEST_FILE = 1024 * 1024
#: What Postgres asks of a key that is root's: its group may read it, nobody else may do anything.
_KEY_FORBIDS = 0o037
_EVERYWHERE = (ipaddress.IPv4Address("0.0.0.0"), ipaddress.IPv6Address("::"))  # noqa: S104 - compared, not bound
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class CertificateUnfit(ComputeError):
    """A certificate or key of the operator's cannot be used. `path` is the file, `why` says what to do."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"The certificate cannot be used: {path}: {why}.")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `certificate` holds the server's and then the chain above it; `authority` is what clients trust.

    `authority` is None where the operator brought the pair. The paths stay, whoever the pair is from.
    """

    authority: Path | None
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class OperatorPair:
    """PEM files of the operator's, which are read only. `certificate` has the server's first, then what signed it."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Signed:
    """A pair for names that are not Postgres's, signed by the platform's own authority. PEM; it is in no file."""

    authority: Path
    chain: bytes
    key: bytes = field(repr=False)

    def serve(self, context: ssl.SSLContext) -> None:
        """Let a context use it."""
        with _in_memory(self.chain) as certificate, _in_memory(self.key) as key:
            context.load_cert_chain(certificate, key)


@dataclass(frozen=True, slots=True)
class _Pair:
    chain: tuple[x509.Certificate, ...]
    key_pem: bytes = field(repr=False)

    @property
    def chain_pem(self) -> bytes:
        return _pem_of(self.chain)


class Certificates:
    """The pair in use, kept fit. All methods block for some milliseconds, and one thread at a time may call them.

    `owner` (uid, gid) is who Postgres runs as. `notes` are sentences on what will make clients refuse a pair that is
    used nevertheless; `problem` is why the operator's present files are not used, None when they are.
    """

    def __init__(
        self,
        directory: Path,
        owner: tuple[int, int],
        *,
        hosts: Iterable[str] = (),
        operator: OperatorPair | None = None,
    ) -> None:
        self._directory = directory
        self._owner = owner
        self._hosts = tuple(hosts)
        self._operator = operator
        #: Of the operator's pair in use, as long as its files are those that were read.
        self._leaf: x509.Certificate | None = None
        self._seen: tuple[object, ...] | None = None
        self._told: tuple[str | None, tuple[str, ...]] = (None, ())
        self.problem: str | None = None
        self.notes: tuple[str, ...] = ()

    def open(self, *, now: dt.datetime | None = None) -> TlsFiles:
        """The files, made or copied. Raises CertificateUnfit for what the operator brought, OSError."""
        now = now or dt.datetime.now(dt.UTC)
        if self._operator is None:
            return ensure_tls(self._directory, self._owner, self._hosts, now=now)
        self._copy(self._operator, now)
        self._tell()
        return _files(self._directory, operator=True)

    def refresh(self, *, now: dt.datetime | None = None) -> bool:
        """Renew what nears its end, take in what the operator changed. True if the files are others now.

        Whoever uses them must then read them again: Postgres by SIGHUP. What is unfit leaves the former pair where it
        is, sets `problem`, is logged once, and is tried again at the next call: half of a new pair is no error.
        """
        now = now or dt.datetime.now(dt.UTC)
        try:
            if self._operator is not None:
                return self._copy(self._operator, now)
            before = _identity(_files(self._directory))
            changed = _identity(ensure_tls(self._directory, self._owner, self._hosts, now=now)) != before
            self.problem = None
        except (CertificateUnfit, OSError) as error:
            self.problem = str(error)
            return False
        else:
            return changed
        finally:
            self._tell()

    def sign(self, hosts: Sequence[str], former: Signed | None = None, *, now: dt.datetime | None = None) -> Signed:
        """A pair for `hosts`; `former` itself as long as it serves.

        Where the pair in use is the operator's, the authority is made for this. Raises OSError; ValueError for a host
        that is not ASCII, and for a `former` that cannot be read.
        """
        now = now or dt.datetime.now(dt.UTC)
        certificate, authority_key = self._directory / _AUTHORITY, self._directory / "ca.key"
        if not _authority_serves(certificate, authority_key, now):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            _make_authority(certificate, authority_key, now)
        if former is not None and _chain_serves(former.chain, certificate, hosts, now):
            return former
        key, chain = _sign("Lamplighter", certificate, authority_key, hosts=hosts, now=now)
        return Signed(certificate, _pem_of(chain), _pem_key(key))

    def _copy(self, operator: OperatorPair, now: dt.datetime) -> bool:
        files = _files(self._directory, operator=True)
        # Before they are read: what changes meanwhile is seen to differ next time.
        given = _stat_of(operator.certificate), _stat_of(operator.key)
        if self._leaf is not None and self._seen == (given, _identity(files)):
            _check_life(self._leaf, operator.certificate, now)
            self.problem, self.notes = None, notes_on(self._leaf, self._hosts, now=now)
            return False
        self._leaf = None
        pair = _read_pair(operator, now)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        changed = not _holds(files, pair, self._owner)
        if changed:
            _place(files, pair.key_pem, pair.chain_pem, self._owner)
        self._seen = given, _identity(files)
        self._leaf = pair.chain[0]
        self.problem, self.notes = None, notes_on(self._leaf, self._hosts, now=now)
        return changed

    def _tell(self) -> None:
        told = (self.problem, self.notes)
        if told != self._told:
            self._told = told
            for sentence in (self.problem, *self.notes):
                if sentence is not None:
                    log.warning("tls.certificate", problem=sentence)


# The platform's own


def ensure_tls(
    directory: Path, owner: tuple[int, int], hosts: Iterable[str] = (), *, now: dt.datetime | None = None
) -> TlsFiles:
    """Make what is missing, about to end, unreadable, or lacks one of `hosts`; leave the rest alone.

    `owner` (uid, gid) gets the server's key; the authority's stays ours. `now` is in UTC. A host that is no longer
    wanted is no reason to make a certificate: addresses come and go.
    """
    now = now or dt.datetime.now(dt.UTC)
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    files = _files(directory)
    certificate, authority_key = directory / _AUTHORITY, directory / "ca.key"
    wanted = tuple(dict.fromkeys((*LOCAL_HOSTS, *hosts)))
    if not _authority_serves(certificate, authority_key, now):
        _make_authority(certificate, authority_key, now)
    if not (_is_given_to(files.key, owner) and _server_serves(files, certificate, wanted, now)):
        _make_server(files, certificate, authority_key, owner=owner, hosts=wanted, now=now)
    return files


def _files(directory: Path, *, operator: bool = False) -> TlsFiles:
    # The same places for both: a compute's configuration need not change with who the pair is from.
    authority = None if operator else directory / _AUTHORITY
    return TlsFiles(authority, directory / "server.crt", directory / "server.key")


def authority_in_use(directory: Path) -> Path | None:
    """The file that clients are to trust, None where the certificate in use is the operator's.

    Raises FileNotFoundError where no platform has made certificates, OSError, ValueError for files that are damaged.
    """
    path = directory / _AUTHORITY
    chain = x509.load_pem_x509_certificates((directory / "server.crt").read_bytes())
    try:
        authority = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    return path if chain[-1] == authority else None


def covers(certificate: x509.Certificate, hosts: Iterable[str], now: dt.datetime) -> bool:
    """Whether a certificate names all `hosts` and lasts a while yet."""
    return not _unnamed(certificate, hosts) and _lasts(certificate, now)


def _unnamed(certificate: x509.Certificate, hosts: Iterable[str]) -> list[str]:
    try:
        names = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = set()
    return [host for host in hosts if _name(host) not in names]


def _lasts(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _name(host: str) -> x509.GeneralName:
    ip = _ip(host)
    return x509.DNSName(host) if ip is None else x509.IPAddress(ip)


def _authority_serves(certificate: Path, key: Path, now: dt.datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        return _load_key(key).public_key() == found.public_key() and _lasts(found, now)
    except (OSError, ValueError, TypeError):
        return False


def _server_serves(files: TlsFiles, authority: Path, hosts: Iterable[str], now: dt.datetime) -> bool:
    try:
        content = files.certificate.read_bytes()
        if x509.load_pem_x509_certificates(content)[0].public_key() != _load_key(files.key).public_key():
            return False
        return _chain_serves(content, authority, hosts, now)
    except (OSError, ValueError, TypeError):
        return False


def _chain_serves(chain_pem: bytes, authority: Path, hosts: Iterable[str], now: dt.datetime) -> bool:
    """Raises OSError, ValueError."""
    chain = x509.load_pem_x509_certificates(chain_pem)
    return chain[-1] == x509.load_pem_x509_certificate(authority.read_bytes()) and covers(chain[0], hosts, now)


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
        _builder(name, name, key, now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _pem_key(key), None, 0o600)
    _write(certificate, _pem_of([made]), None, 0o644)


def _make_server(
    files: TlsFiles,
    authority_file: Path,
    authority_key: Path,
    *,
    owner: tuple[int, int],
    hosts: Iterable[str],
    now: dt.datetime,
) -> None:
    key, chain = _sign("Lamplighter Postgres", authority_file, authority_key, hosts=hosts, now=now)
    _place(files, _pem_key(key), _pem_of(chain), owner)


def _sign(
    name: str, authority_file: Path, authority_key: Path, *, hosts: Iterable[str], now: dt.datetime
) -> tuple[ec.EllipticCurvePrivateKey, Sequence[x509.Certificate]]:
    """A new key, and the chain for it."""
    authority = x509.load_pem_x509_certificate(authority_file.read_bytes())
    signer = _load_key(authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + SERVER_LIFE, authority.not_valid_after_utc)
    made = (
        _builder(_subject(name), authority.subject, key, now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return key, (made, authority)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime, ends: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(ends)
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


# Hosts


def hosts_of(*, address: str = "127.0.0.1", domain: str | None = None, here: Iterable[str] = ()) -> tuple[str, ...]:
    """The hosts that a certificate must name, besides those of loopback. Pure.

    `address` is what the gateway listens on; of one that means all of the host's, `here` are meant. `domain` gives its
    endpoints' hosts too. Raises ValueError for a domain that is none.
    """
    found = list(here) if _ip(address) in _EVERYWHERE else [str(_ip(address) or ascii_domain(address))]
    if domain is not None:
        plain = ascii_domain(domain)
        found += [f"*.{plain}", plain]
    return tuple(dict.fromkeys(host for host in found if host not in LOCAL_HOSTS))


def ascii_domain(domain: str) -> str:
    """A domain as certificates and TLS name it: small letters, ASCII, no dot at its end. Raises ValueError. Pure."""
    try:
        plain = domain.strip().removesuffix(".").lower().encode("idna").decode()
    except UnicodeError:
        plain = ""
    # 253 bytes at most, of which an endpoint's own label with its dot takes up to 64.
    if len(plain) > 253 - 64 or not _is_host(plain):
        raise ValueError(f"{domain!r} is no domain: give one such as db.example.org, without `*.`")
    return plain


def names_here() -> tuple[str, ...]:
    """The host's name and its addresses, but those of loopback and those that hold on one link only."""
    found = [socket.gethostname().lower()]
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                ip = _ip(one.address)
                if ip and not (ip.is_loopback or ip.is_link_local):
                    found.append(str(ip))
    # A host's name may be anything; what no client can ask for has no place in a certificate.
    return tuple(dict.fromkeys(one for one in found if _ip(one) or (_is_host(one) and one not in LOCAL_HOSTS)))


def _is_host(name: str) -> bool:
    return _ip(name) is None and all(_LABEL.fullmatch(label) for label in name.split("."))


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


# The operator's


def _read_pair(operator: OperatorPair, now: dt.datetime) -> _Pair:
    """The operator's pair, after every check that its use would fail on. Raises CertificateUnfit."""
    certificate, key = operator.certificate, operator.key
    chain = _read_chain(certificate)
    key_pem, public = _read_key(key)
    leaf = chain[0]
    if _public_pem(leaf) != public:
        if any(_public_pem(one) == public for one in chain[1:]):
            raise CertificateUnfit(certificate, "the server's certificate must come first, before those that signed it")
        raise CertificateUnfit(key, f"it is not the key of {certificate}; give the two files of one certificate")
    _check_life(leaf, certificate, now)
    if binding_hash(leaf) is None:
        raise CertificateUnfit(
            certificate,
            "its signature names no hash (Ed25519 does not), without which no password login with SCRAM works over "
            "TLS; have it signed with ECDSA or RSA, and SHA-256",
        )
    pair = _Pair(chain, key_pem)
    _try(pair, certificate)
    return pair


def _check_life(certificate: x509.Certificate, path: Path, now: dt.datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        raise CertificateUnfit(path, f"it ended on {ends:%Y-%m-%d}; renew it")
    if now < begins:
        raise CertificateUnfit(path, f"it begins at {begins:%Y-%m-%d %H:%M} UTC; check the clock of this host")


def binding_hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    """The hash of `tls-server-end-point`: that of the certificate's signature, SHA-256 for MD5 and SHA-1. Pure.

    None where the signature has none of its own: RFC 5929 (4.1) leaves that undefined, and Postgres and libpq both give
    up the login.
    """
    try:
        found = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return hashes.SHA256() if isinstance(found, hashes.MD5 | hashes.SHA1) else found


def notes_on(certificate: x509.Certificate, hosts: Iterable[str], *, now: dt.datetime) -> tuple[str, ...]:
    """What will make clients refuse a certificate, a sentence each. Pure."""
    notes = []
    if unnamed := _unnamed(certificate, hosts):
        notes.append(f"The certificate does not name {', '.join(unnamed)}: sslmode=verify-full fails there.")
    left = certificate.not_valid_after_utc - now
    if left < WARN_BEFORE:
        notes.append(f"The certificate ends on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it.")
    return tuple(notes)


def _read_chain(path: Path) -> tuple[x509.Certificate, ...]:
    content, _ = _read(path)
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except ValueError:
        raise CertificateUnfit(path, "it holds no certificate that can be read; it must be PEM") from None


def _read_key(path: Path) -> tuple[bytes, bytes]:
    """The PEM of the key alone, and that of its public half."""
    content, mode = _read(path)
    if mode & _KEY_FORBIDS:
        raise CertificateUnfit(path, f"others may use this key (mode {mode:04o}); run `chmod 600` on it")
    found = _PRIVATE_KEY.search(content)
    if found is None:
        raise CertificateUnfit(path, "it holds no private key that can be read; it must be PEM")
    try:
        key = serialization.load_pem_private_key(found[0], None)
    except TypeError:
        raise CertificateUnfit(
            path, "the key has a passphrase; give one without, as `openssl pkey` writes it"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateUnfit(path, "its private key cannot be read") from None
    # As it is written there: not every kind of key reads back the same from what the library would write.
    return found[0] + b"\n", _pem_public(key.public_key())


def _read(path: Path) -> tuple[bytes, int]:
    """A regular file's bytes and permissions."""
    try:
        # Without this a named pipe would keep us waiting for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CertificateUnfit(path, os.strerror(error.errno or 0).lower()) from None
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise CertificateUnfit(path, "it is no file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(_LARGEST_FILE + 1)
    finally:
        os.close(handle)
    if len(content) > _LARGEST_FILE:
        raise CertificateUnfit(path, "it is larger than 1 MiB, which no certificate is")
    return content, stat.S_IMODE(facts.st_mode)


def _public_pem(certificate: x509.Certificate) -> bytes:
    return _pem_public(certificate.public_key())


def _pem_public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _try(pair: _Pair, path: Path) -> None:
    """Whether OpenSSL takes the pair: it has rules of its own on kinds and sizes of keys."""
    with _in_memory(pair.chain_pem) as certificate, _in_memory(pair.key_pem) as key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise CertificateUnfit(path, f"OpenSSL refuses it: {error.reason or error}") from None


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that is on no disk."""
    with os.fdopen(os.memfd_create("lamp-tls"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


# Files


def _stat_of(path: Path) -> tuple[object, ...]:
    """What changes when a file does, or what a link leads to."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _identity(files: TlsFiles) -> tuple[object, ...]:
    return _stat_of(files.certificate), _stat_of(files.key)


def _is_given_to(key: Path, owner: tuple[int, int]) -> bool:
    """Whether Postgres will read this key: it must be its user's, and nobody else's."""
    try:
        found = key.stat()
    except OSError:
        return False
    return stat.S_IMODE(found.st_mode) == 0o600 and (os.geteuid() != 0 or (found.st_uid, found.st_gid) == owner)


def _holds(files: TlsFiles, pair: _Pair, owner: tuple[int, int]) -> bool:
    if not _is_given_to(files.key, owner):
        return False
    try:
        return files.certificate.read_bytes() == pair.chain_pem and files.key.read_bytes() == pair.key_pem
    except OSError:
        return False


def _pem_of(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _place(files: TlsFiles, key: bytes, certificate: bytes, owner: tuple[int, int]) -> None:
    """Both files, as nearly at once as two renames are.

    Who reads between the two finds a pair that does not fit and reads again, or keeps the one it has, as Postgres does;
    after a crash there the next start finds it and replaces it.
    """
    staged_key = _stage(files.key, key, owner, 0o600)
    try:
        staged = _stage(files.certificate, certificate, None, 0o644)
    except BaseException:
        staged_key.unlink()
        raise
    staged_key.replace(files.key)
    staged.replace(files.certificate)
    sync_directory(files.key.parent)


def _write(path: Path, content: bytes, owner: tuple[int, int] | None, mode: int) -> None:
    _stage(path, content, owner, mode).replace(path)
    sync_directory(path.parent)


def _stage(path: Path, content: bytes, owner: tuple[int, int] | None, mode: int) -> Path:
    """As `files.write_atomic` before its rename, with an owner: a key must never be at its place under another one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    staged = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), *owner)
            file.write(content)
            file.flush()
            os.fdatasync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged
