"""`lamp ca` on a directory that a platform has been in; nothing runs."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from lamplighter.cli.ca import ca
from lamplighter.cli.errors import Failure
from lamplighter.compute.tls import Certificates, OperatorPair, ensure_tls

OWNER = (os.getuid(), os.getgid())


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    ensure_tls(tmp_path / "platform" / "tls", OWNER)
    return tmp_path / "platform"


def run(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(ca, ["--data-dir", str(data_dir), *arguments], standalone_mode=False)


def test_the_certificate_alone_is_printed(data_dir: Path) -> None:
    """So that it can be sent to a file, and verifies the server's certificate."""
    printed = run(data_dir).stdout
    assert printed == (data_dir / "tls" / "ca.crt").read_text()
    ssl.create_default_context(cadata=printed)
    leaf = x509.load_pem_x509_certificate((data_dir / "tls" / "server.crt").read_bytes())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(printed.encode()))


def test_the_path_is_a_line(data_dir: Path) -> None:
    assert run(data_dir, "--path").stdout == f"{data_dir / 'tls' / 'ca.crt'}\n"


def test_json_has_both(data_dir: Path) -> None:
    told = json.loads(run(data_dir, "--output", "json").stdout)
    assert told["certificate"] == Path(told["path"]).read_text()
    der = ssl.PEM_cert_to_DER_cert(told["certificate"])
    assert told["sha256"] == hashlib.sha256(der).hexdigest()
    assert told["expires_at"].endswith("Z")


def test_the_private_key_is_nowhere(data_dir: Path) -> None:
    for arguments in ((), ("--path",), ("--output", "json")):
        assert "PRIVATE" not in run(data_dir, *arguments).stdout


def failure(data_dir: Path) -> Failure:
    error = run(data_dir).exception
    assert isinstance(error, Failure)
    return error


def test_no_platform(tmp_path: Path) -> None:
    told = failure(tmp_path)
    assert (told.exit_code, told.hint) == (3, "`lamp up` makes its authority; --data-dir names another directory")


def test_an_operators_certificate_has_no_authority_of_ours(data_dir: Path, tmp_path: Path) -> None:
    """Nor when the platform had one of its own before."""
    theirs = ensure_tls(tmp_path / "theirs", OWNER)
    operator = OperatorPair(theirs.certificate, theirs.key)
    Certificates(data_dir / "tls", OWNER, operator=operator).open()
    told = failure(data_dir)
    assert told.exit_code == 3
    assert "operator's" in told.message
    assert "sslrootcert" in told.hint


def test_damage_is_told(data_dir: Path) -> None:
    (data_dir / "tls" / "ca.crt").write_text("nonsense")
    assert "damaged" in failure(data_dir).message
