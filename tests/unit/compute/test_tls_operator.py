"""Certificates that the operator brings: what is checked, and how a new pair comes in."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.tls import (
    Certificates,
    CertificateUnfit,
    OperatorPair,
    ascii_domain,
    authority_in_use,
    binding_hash,
    hosts_of,
    names_here,
)

OWNER = (os.getuid(), os.getgid())
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
PEM = serialization.Encoding.PEM


@dataclass
class Brought:
    """An operator's directory, with an authority that signs what the operator asks for."""

    place: Path
    signer: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def pair(self) -> OperatorPair:
        return OperatorPair(self.place / "fullchain.pem", self.place / "privkey.pem")

    def certificate(self, key: Any, names: tuple[str, ...], life: tuple[dt.timedelta, dt.timedelta], algorithm: Any):
        begins, ends = life
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db")]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "The operator's")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + begins)
            .not_valid_after(NOW + ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .sign(self.signer, algorithm)
        )

    def renew(
        self,
        *,
        key: Any = None,
        names: tuple[str, ...] = ("*.db.example.org", "db.example.org"),
        life: tuple[dt.timedelta, dt.timedelta] = (-DAY, 90 * DAY),
        algorithm: Any = hashes.SHA256(),  # noqa: B008 - it holds nothing
    ) -> x509.Certificate:
        key = key or ec.generate_private_key(ec.SECP256R1())
        made = self.certificate(key, names, life, algorithm)
        above = self.certificate(self.signer, (), (-DAY, 900 * DAY), algorithm)
        self.pair.certificate.write_bytes(made.public_bytes(PEM) + above.public_bytes(PEM))
        self.write_key(key)
        return made

    def write_key(self, key: Any, kind: Any = serialization.PrivateFormat.PKCS8, password: bytes | None = None) -> None:
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        self.pair.key.unlink(missing_ok=True)
        self.pair.key.touch(0o600)
        self.pair.key.write_bytes(key.private_bytes(PEM, kind, how))


@pytest.fixture
def brought(tmp_path: Path) -> Brought:
    (tmp_path / "etc").mkdir()
    return Brought(tmp_path / "etc")


def certificates(place: Path, brought: Brought, **more: Any) -> Certificates:
    return Certificates(place / "tls", OWNER, operator=brought.pair, **more)


def in_use(place: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((place / "tls" / "server.crt").read_bytes())


def test_a_pair_is_copied_whole(tmp_path: Path, brought: Brought) -> None:
    """The chain too, and the key for nobody but Postgres."""
    made = brought.renew()
    files = certificates(tmp_path, brought).open(now=NOW)
    assert in_use(tmp_path) == made
    assert len(x509.load_pem_x509_certificates(files.certificate.read_bytes())) == 2
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert files.authority is None
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.certificate, files.key)


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
@pytest.mark.parametrize("kind", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_all_usual_keys_are_taken(tmp_path: Path, brought: Brought, key: Any, kind: Any) -> None:
    brought.renew(key=key)
    brought.write_key(key, kind)
    files = certificates(tmp_path, brought).open(now=NOW)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.certificate, files.key)


def test_a_file_with_both_gives_the_key_to_nobody_else(tmp_path: Path, brought: Brought) -> None:
    """The certificate's copy is for everybody to read."""
    brought.renew()
    both = brought.pair.key
    both.write_bytes(b"-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n" + both.read_bytes())
    both.write_bytes(both.read_bytes() + brought.pair.certificate.read_bytes())
    files = Certificates(tmp_path / "tls", OWNER, operator=OperatorPair(both, both)).open(now=NOW)
    assert b"PRIVATE" not in files.certificate.read_bytes()
    assert b"CERTIFICATE" not in files.key.read_bytes()


def _unreadable(brought: Brought) -> None:
    brought.pair.key.unlink()


def _no_certificate(brought: Brought) -> None:
    brought.pair.certificate.write_text("nonsense")


def _no_key(brought: Brought) -> None:
    brought.pair.key.write_text("nonsense")


def _broken_key(brought: Brought) -> None:
    brought.pair.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def _another_key(brought: Brought) -> None:
    brought.write_key(ec.generate_private_key(ec.SECP256R1()))


def _open_key(brought: Brought) -> None:
    brought.pair.key.chmod(0o644)


def _group_may_write(brought: Brought) -> None:
    brought.pair.key.chmod(0o660)


def _passphrase(brought: Brought) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    brought.renew(key=key)
    brought.write_key(key, password=b"secret")


def _ended(brought: Brought) -> None:
    brought.renew(life=(-90 * DAY, 0 * DAY))


def _not_begun(brought: Brought) -> None:
    brought.renew(life=(DAY, 90 * DAY))


def _wrong_order(brought: Brought) -> None:
    one = x509.load_pem_x509_certificates(brought.pair.certificate.read_bytes())
    brought.pair.certificate.write_bytes(b"".join(each.public_bytes(PEM) for each in reversed(one)))


def _no_hash(brought: Brought) -> None:
    brought.signer = ed25519.Ed25519PrivateKey.generate()
    brought.renew(algorithm=None)


def _too_small(brought: Brought) -> None:
    brought.renew(key=rsa.generate_private_key(65537, 1024))


def _directory(brought: Brought) -> None:
    brought.pair.certificate.unlink()
    brought.pair.certificate.mkdir()


def _pipe(brought: Brought) -> None:
    brought.pair.key.unlink()
    os.mkfifo(brought.pair.key, 0o600)


def _huge(brought: Brought) -> None:
    brought.pair.certificate.write_bytes(brought.pair.certificate.read_bytes() + b"\n" * 1024 * 1024)


UNFIT = {
    _unreadable: ("privkey.pem", "no such file"),
    _no_certificate: ("fullchain.pem", "PEM"),
    _no_key: ("privkey.pem", "PEM"),
    _broken_key: ("privkey.pem", "cannot be read"),
    _another_key: ("privkey.pem", "not the key of"),
    _open_key: ("privkey.pem", "chmod 600"),
    _group_may_write: ("privkey.pem", "chmod 600"),
    _passphrase: ("privkey.pem", "passphrase"),
    _ended: ("fullchain.pem", "ended on 2030-01-01"),
    _not_begun: ("fullchain.pem", "clock"),
    _wrong_order: ("fullchain.pem", "must come first"),
    _no_hash: ("fullchain.pem", "Ed25519"),
    _too_small: ("fullchain.pem", "OpenSSL refuses it"),
    _directory: ("fullchain.pem", "no file"),
    _pipe: ("privkey.pem", "no file"),
    _huge: ("fullchain.pem", "1 MiB"),
}


@pytest.mark.parametrize("spoil", UNFIT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_is_unfit_is_refused_at_the_start(tmp_path: Path, brought: Brought, spoil: Any) -> None:
    """With the file's name and what to do, and nothing is copied."""
    brought.renew()
    spoil(brought)
    with pytest.raises(CertificateUnfit) as caught:
        certificates(tmp_path, brought).open(now=NOW)
    name, said = UNFIT[spoil]
    assert caught.value.path.name == name
    assert said in str(caught.value)
    assert not (tmp_path / "tls").exists() or not list((tmp_path / "tls").iterdir())


@pytest.mark.parametrize("spoil", UNFIT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_becomes_unfit_leaves_the_former_pair(tmp_path: Path, brought: Brought, spoil: Any) -> None:
    """A half-written pair is no reason to fail: it is told, and taken when it is whole."""
    former = brought.renew()
    tls = certificates(tmp_path, brought)
    tls.open(now=NOW)
    spoil(brought)
    assert not tls.refresh(now=NOW)
    assert tls.problem is not None
    assert UNFIT[spoil][1] in tls.problem
    assert in_use(tmp_path) == former
    for path in (brought.pair.certificate, brought.pair.key):
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
    brought.signer = ec.generate_private_key(ec.SECP256R1())
    after = brought.renew()
    assert tls.refresh(now=NOW)
    assert tls.problem is None
    assert in_use(tmp_path) == after


def test_nothing_new_is_no_change(tmp_path: Path, brought: Brought) -> None:
    brought.renew()
    tls = certificates(tmp_path, brought)
    tls.open(now=NOW)
    before = {path.name: path.stat() for path in (tmp_path / "tls").iterdir()}
    assert not tls.refresh(now=NOW)
    os.utime(brought.pair.key)
    assert not tls.refresh(now=NOW)
    assert {path.name: path.stat() for path in (tmp_path / "tls").iterdir()} == before


def test_links_that_lead_elsewhere_are_followed(tmp_path: Path, brought: Brought) -> None:
    """As certbot and Kubernetes renew: the paths stay, and what they lead to changes."""
    live = tmp_path / "live"
    brought.renew()
    live.symlink_to(brought.place)
    tls = Certificates(tmp_path / "tls", OWNER, operator=OperatorPair(live / "fullchain.pem", live / "privkey.pem"))
    tls.open(now=NOW)
    (tmp_path / "next").mkdir()
    after = Brought(tmp_path / "next").renew()
    live.unlink()
    live.symlink_to(tmp_path / "next")
    assert tls.refresh(now=NOW)
    assert in_use(tmp_path) == after


def test_a_copy_that_was_damaged_is_made_anew(tmp_path: Path, brought: Brought) -> None:
    made = brought.renew()
    tls = certificates(tmp_path, brought)
    files = tls.open(now=NOW)
    for path in (files.certificate, files.key):
        path.write_bytes(b"")
        assert tls.refresh(now=NOW)
    files.key.chmod(0o644)
    assert tls.refresh(now=NOW)
    assert in_use(tmp_path) == made
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_the_end_is_told_before_it_comes(tmp_path: Path, brought: Brought) -> None:
    """Although no file changes."""
    brought.renew(life=(-DAY, 90 * DAY))
    tls = certificates(tmp_path, brought)
    tls.open(now=NOW)
    assert tls.notes == ()
    tls.refresh(now=NOW + 80 * DAY)
    assert "ends on 2030-04-01" in tls.notes[0]
    tls.refresh(now=NOW + 90 * DAY)
    assert tls.problem is not None
    assert "ended on" in tls.problem


def test_names_that_are_not_there_are_told(tmp_path: Path, brought: Brought) -> None:
    """It is used nevertheless: not all clients verify names."""
    brought.renew(names=("db.example.org",))
    tls = certificates(tmp_path, brought, hosts=hosts_of(domain="db.example.org"))
    tls.open(now=NOW)
    assert tls.notes == ("The certificate does not name *.db.example.org: sslmode=verify-full fails there.",)


def test_from_the_operators_to_our_own_and_back(tmp_path: Path, brought: Brought) -> None:
    """The paths stay, and so does our authority."""
    own = Certificates(tmp_path / "tls", OWNER)
    files = own.open(now=NOW)
    authority = (tmp_path / "tls" / "ca.crt").read_bytes()
    assert authority_in_use(tmp_path / "tls") == files.authority
    made = brought.renew()
    theirs = certificates(tmp_path, brought).open(now=NOW)
    assert (theirs.certificate, theirs.key) == (files.certificate, files.key)
    assert in_use(tmp_path) == made
    assert authority_in_use(tmp_path / "tls") is None
    assert own.refresh(now=NOW)
    assert (tmp_path / "tls" / "ca.crt").read_bytes() == authority
    assert authority_in_use(tmp_path / "tls") == files.authority


def test_our_own_is_renewed_by_refresh(tmp_path: Path) -> None:
    tls = Certificates(tmp_path, OWNER, hosts=("*.db.example.org",))
    tls.open(now=NOW)
    assert not tls.refresh(now=NOW + DAY)
    assert tls.refresh(now=NOW + 370 * DAY)
    leaf = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "*.db.example.org" in names.get_values_for_type(x509.DNSName)


def test_a_certificate_does_not_outlive_its_authority(tmp_path: Path) -> None:
    Certificates(tmp_path, OWNER).open(now=NOW)
    Certificates(tmp_path, OWNER).open(now=NOW + 3600 * DAY)
    ends = [
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes()).not_valid_after_utc
        for name in ("server.crt", "ca.crt")
    ]
    assert ends[0] <= ends[1]


def test_no_authority_without_a_platform(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        authority_in_use(tmp_path)


@pytest.mark.root
def test_a_key_of_another_user_is_given_to_postgres(tmp_path: Path, brought: Brought) -> None:
    brought.renew()
    tls = Certificates(tmp_path / "tls", (12345, 12345), operator=brought.pair)
    files = tls.open(now=NOW)
    assert (files.key.stat().st_uid, files.key.stat().st_gid) == (12345, 12345)
    assert Certificates(tmp_path / "tls", (54321, 54321), operator=brought.pair).open(now=NOW) == files
    assert files.key.stat().st_uid == 54321


def test_a_secret_is_in_no_message(tmp_path: Path, brought: Brought, caplog: pytest.LogCaptureFixture) -> None:
    brought.renew()
    secret = brought.pair.key.read_text().splitlines()[1]
    _open_key(brought)
    with pytest.raises(CertificateUnfit) as caught:
        certificates(tmp_path, brought).open(now=NOW)
    assert secret not in repr(caught.value) + str(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (hashes.SHA256(), "sha256"),
        (hashes.SHA384(), "sha384"),
        (hashes.SHA512(), "sha512"),
        (hashes.SHA224(), "sha224"),
    ],
)
def test_the_binding_has_the_signatures_hash(brought: Brought, algorithm: Any, name: str) -> None:
    """As RFC 5929 (4.1) says."""
    found = binding_hash(brought.renew(algorithm=algorithm))
    assert found is not None
    assert found.name == name


# Hosts


def test_hosts_of_a_domain() -> None:
    assert hosts_of(domain="DB.Example.org.") == ("*.db.example.org", "db.example.org")
    assert hosts_of() == ()
    assert hosts_of(address="10.0.0.7") == ("10.0.0.7",)
    assert hosts_of(address="2001:DB8::0:1", domain="a.b") == ("2001:db8::1", "*.a.b", "a.b")
    assert ascii_domain("bücher.example") == "xn--bcher-kva.example"


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_all_addresses_are_those_that_are_here(address: str) -> None:
    assert hosts_of(address=address, here=("10.0.0.7", "localhost", "here")) == ("10.0.0.7", "here")


@pytest.mark.parametrize("text", ["", ".", "*.db.org", "a..b", "-a.b", "a b", "10.0.0.1", "::1", "x" * 64, "a." * 120])
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(ValueError, match="is no domain"):
        hosts_of(domain=text)


@given(st.text(max_size=80))
def test_a_domain_is_ascii_or_refused(text: str) -> None:
    try:
        plain = ascii_domain(text)
    except ValueError:
        return
    assert plain.isascii()
    assert plain == plain.lower()
    assert ascii_domain(plain) == plain
    for host in hosts_of(domain=text):
        x509.DNSName(host)


def test_the_names_of_this_host_can_be_certified(tmp_path: Path) -> None:
    hosts = hosts_of(address="0.0.0.0", here=names_here())
    tls = Certificates(tmp_path, OWNER, hosts=hosts)
    tls.open(now=NOW)
    assert not tls.refresh(now=NOW)
