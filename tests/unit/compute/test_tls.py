"""The platform's own certificates."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import stat

import pytest
from cryptography import x509

from lamplighter.compute.tls import RENEW_BEFORE, SERVER_LIFE, covers, ensure_tls

OWNER = (os.getuid(), os.getgid())
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_made_once_and_left_alone(tmp_path):
    files = ensure_tls(tmp_path, OWNER, now=NOW)
    before = contents(tmp_path)
    assert ensure_tls(tmp_path, OWNER, now=NOW + dt.timedelta(days=100)) == files
    assert contents(tmp_path) == before
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.certificate, files.key)


def test_renewed_before_it_ends_by_the_same_authority(tmp_path):
    files = ensure_tls(tmp_path, OWNER, now=NOW)
    before = contents(tmp_path)
    later = NOW + SERVER_LIFE - RENEW_BEFORE
    ensure_tls(tmp_path, OWNER, now=later)
    after = contents(tmp_path)
    assert before["server.crt"] != after["server.crt"]
    assert before["ca.crt"] == after["ca.crt"]
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(files.authority.read_bytes()))
    assert leaf.signature_hash_algorithm.name == "sha256"


def test_hosts_are_added(tmp_path):
    files = ensure_tls(tmp_path, OWNER, now=NOW)
    before = files.certificate.read_bytes()
    ensure_tls(tmp_path, OWNER, ("db.example.org", "*.db.example.org", "10.0.0.1"), now=NOW)
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert files.certificate.read_bytes() != before
    assert covers(leaf, ("localhost", "127.0.0.1", "::1", "*.db.example.org", "10.0.0.1"), NOW)
    assert not covers(leaf, ("other.example.org",), NOW)


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "server.crt", "server.key"])
@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_what_is_damaged_is_made_anew(tmp_path, name, damage):
    files = ensure_tls(tmp_path, OWNER, now=NOW)
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    ensure_tls(tmp_path, OWNER, now=NOW)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.certificate, files.key)
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(files.authority.read_bytes()))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
