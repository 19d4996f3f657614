"""`lamp ca`: what clients need in order to know that they talk to this platform's Postgres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lamplighter.cli.errors import NOT_THERE, Failure
from lamplighter.cli.options import data_dir_option, output_option
from lamplighter.cli.settings import data_dir_of


@click.command()
@data_dir_option
@click.option("--path", "only_path", is_flag=True, help="Print where its file is instead.")
@output_option
def ca(data_dir: Path | None, only_path: bool, output: str) -> None:
    """Print the certificate of the authority that this platform's Postgres is known by.

    It is for clients that verify whom they talk to: sslmode=verify-full with sslrootcert. The platform need not run.
    Where `lamp up` was given a certificate of your own there is none: clients know that by who signed it.

    \b
    Examples:
      lamp ca > lamplighter.crt
      psql "$DATABASE_URL&sslmode=verify-full&sslrootcert=$(lamp ca --path)"
      lamp ca --output json | jq -r .sha256
    """  # noqa: D301 - click wants the character itself
    path, pem = read_authority(data_dir_of(data_dir))
    if output == "json":
        import json  # noqa: PLC0415 - for JSON only

        from lamplighter.cli.harmless import escape_json  # noqa: PLC0415 - the same

        click.echo(escape_json(json.dumps(facts_of(path, pem), indent=2, ensure_ascii=False)))
    else:
        click.echo(str(path) if only_path else pem, nl=only_path)


def read_authority(data_dir: Path) -> tuple[Path, str]:
    """The file of the authority's certificate, and its PEM. Raises Failure where there is none, OSError."""
    from lamplighter.compute.tls import authority_in_use  # noqa: PLC0415 - some 100 ms that `--help` does without

    try:
        path = authority_in_use(data_dir / "tls")
        pem = path.read_text(encoding="ascii") if path else ""
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(
            f"there is no platform in {data_dir}, or it was never started",
            hint="`lamp up` makes its authority; --data-dir names another directory",
            status=NOT_THERE,
        ) from None
    except ValueError:
        raise Failure(
            f"the certificates in {data_dir / 'tls'} are damaged", hint="the next `lamp up` makes them anew"
        ) from None
    if path is None:
        raise Failure(
            f"the platform in {data_dir} uses a certificate of its operator's, and has no authority of its own",
            hint="clients know it by who signed it: sslrootcert=system for a public authority, else the file of yours",
            status=NOT_THERE,
        )
    return path, pem


def facts_of(path: Path, pem: str) -> dict[str, Any]:
    """For programs. `sha256` is the fingerprint, in small letters without colons."""
    from cryptography import x509  # noqa: PLC0415 - it is loaded
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - the same

    certificate = x509.load_pem_x509_certificate(pem.encode())
    return {
        "path": str(path),
        "certificate": pem,
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "expires_at": certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
    }
