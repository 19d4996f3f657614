"""Certificates for names that are not Postgres's, by the platform's own authority."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from lamplighter.compute.tls import (
    RENEW_BEFORE,
    SERVER_LIFE,
    Certificates,
    OperatorPair,
    Signed,
    authority_in_use,
    ensure_tls,
)

OWNER = (os.getuid(), os.getgid())
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
HOST = "console.example.org"


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path / "tls", OWNER)
    made.open(now=NOW)
    return made


def leaf_of(signed: Signed) -> x509.Certificate:
    """The certificate, which is for servers of `HOST` alone, after a look at who signed it."""
    leaf, authority = x509.load_pem_x509_certificates(signed.chain)
    assert authority == x509.load_pem_x509_certificate(signed.authority.read_bytes())
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(HOST)]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    return leaf


def test_it_is_by_the_authority_that_clients_have_already(certificates: Certificates, tmp_path: Path):
    before = {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    signed = certificates.sign([HOST], now=NOW)
    assert leaf_of(signed).not_valid_after_utc == NOW + SERVER_LIFE
    assert signed.authority == authority_in_use(tmp_path / "tls")
    signed.serve(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before


def test_its_key_is_not_shown(certificates: Certificates):
    assert b"PRIVATE KEY" in certificates.sign([HOST], now=NOW).key
    assert "PRIVATE KEY" not in repr(certificates.sign([HOST], now=NOW))


def test_it_stays_until_it_is_about_to_end(certificates: Certificates):
    first = certificates.sign([HOST], now=NOW)
    due = NOW + SERVER_LIFE - RENEW_BEFORE
    assert certificates.sign([HOST], first, now=due - dt.timedelta(seconds=1)) is first
    second = certificates.sign([HOST], first, now=due)
    assert leaf_of(second).not_valid_before_utc > leaf_of(first).not_valid_before_utc


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_it_follows_an_authority_that_is_made_anew(certificates: Certificates, tmp_path: Path, name: str):
    first = certificates.sign([HOST], now=NOW)
    (tmp_path / "tls" / name).unlink()
    second = certificates.sign([HOST], first, now=NOW)
    leaf_of(second)
    assert second.chain != first.chain


def test_beside_a_certificate_of_the_operators(tmp_path: Path):
    """There is an authority then, which signs nothing else: Postgres goes on with the operator's pair."""
    theirs = ensure_tls(tmp_path / "theirs", OWNER, now=NOW)
    certificates = Certificates(tmp_path / "tls", OWNER, operator=OperatorPair(theirs.certificate, theirs.key))
    files = certificates.open(now=NOW)
    signed = certificates.sign([HOST], now=NOW)
    leaf_of(signed)
    assert stat.S_IMODE((tmp_path / "tls" / "ca.key").stat().st_mode) == 0o600
    assert not certificates.refresh(now=NOW)
    assert files.certificate.read_bytes() == theirs.certificate.read_bytes()
    assert authority_in_use(tmp_path / "tls") is None


def test_a_host_that_is_not_ascii_is_refused(certificates: Certificates):
    with pytest.raises(ValueError, match="A-label"):
        certificates.sign(["b\u00fccher.example.org"], now=NOW)


def test_a_former_pair_that_cannot_be_read_is_refused(certificates: Certificates):
    former = certificates.sign([HOST], now=NOW)
    with pytest.raises(ValueError, match="PEM"):
        certificates.sign([HOST], replace(former, chain=b"damaged"), now=NOW)
