"""What programs print about a Postgres, parsed. Pure: no process, no file.

The formats are those of `postgres --version`, `pg_config` without arguments and glibc's `ldd`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: Debian's and Ubuntu's package for each shared library that a build of ours may ask the system for.
APT_PACKAGES = {
    "libcrypto.so.3": "libssl3",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "liblz4.so.1": "liblz4-1",
    "libossp-uuid.so.16": "libossp-uuid16",
    "libreadline.so.8": "libreadline8",
    "libssl.so.3": "libssl3",
    "libxml2.so.2": "libxml2",
    "libxslt.so.1": "libxslt1.1",
    "libz.so.1": "zlib1g",
    "libzstd.so.1": "libzstd1",
}

_VERSION = re.compile(r"\(PostgreSQL\)\s+((\d+)(?:\.\d+|(?:beta|rc|devel)\d*)?)")
_MISSING = re.compile(r"^\s*(\S+)\s+=>\s+not found", re.MULTILINE)
_FOUND = re.compile(r"^\s*\S+\s+=>\s+(/.*?)\s+\(0x[0-9a-f]+\)\s*$", re.MULTILINE)
_GLIBC = re.compile(r"version [`']GLIBC_(\d+\.\d+)' not found")


def parse_server_version(text: str) -> tuple[int, str]:
    """`postgres (PostgreSQL) 17.11 (Debian ...)` -> `(17, "17.11")`. Raises ValueError for anything else."""
    match = _VERSION.search(text)
    if match is None:
        raise ValueError(f"no PostgreSQL version in {text.strip()[:200]!r}")
    return int(match[2]), match[1]


def parse_pg_config(text: str) -> dict[str, str]:
    """The `NAME = value` lines of `pg_config`; a value may hold ` = ` itself."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if equals and name.strip():
            facts[name.strip()] = value.strip()
    return facts


def built_with_openssl(configure: str) -> bool:
    """Whether the CONFIGURE line of `pg_config` asks for OpenSSL (meson builds print nothing and count as no)."""
    return "--with-openssl" in configure or bool(re.search(r"--with-ssl(?:=|'?\s+'?)openssl", configure))


def missing_libraries(ldd: str) -> tuple[str, ...]:
    """Sonames that `ldd` could not find, sorted, each once."""
    return tuple(sorted(set(_MISSING.findall(ldd))))


def found_libraries(ldd: str) -> tuple[Path, ...]:
    """The files that `ldd` resolved sonames to, in its order."""
    return tuple(Path(path) for path in _FOUND.findall(ldd))


def needed_glibc(text: str) -> str | None:
    """The newest glibc that `ldd` or the loader asks for in vain, such as `2.34`."""
    wanted = _GLIBC.findall(text)
    return max(wanted, key=lambda version: tuple(map(int, version.split("."))), default=None)


def describe_missing(libraries: Iterable[str]) -> str:
    """A sentence that names the libraries and, where known, the packages that bring them."""
    names = sorted(set(libraries))
    packages = sorted({APT_PACKAGES[name] for name in names if name in APT_PACKAGES})
    advice = f" (apt-get install {' '.join(packages)})" if packages else ""
    return f"system libraries are missing: {', '.join(names)}{advice}"


def pip_complaint(stderr: str) -> str:
    """The line of pip's noise that tells why, and the first sign of a broken network if there is one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    network = [line for line in lines if "Retrying" in line or "Connection" in line or "connection" in line]
    why = errors[-1] if errors else (lines[-1] if lines else "pip said nothing")
    return f"{why} ({network[0]})" if network and network[0] not in why else why
