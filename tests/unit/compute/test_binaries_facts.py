"""What programs print, parsed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.compute.providers.facts import (
    APT_PACKAGES,
    built_with_openssl,
    describe_missing,
    found_libraries,
    missing_libraries,
    needed_glibc,
    parse_pg_config,
    parse_server_version,
    pip_complaint,
)
from lamplighter.compute.providers.libpq import OPTION, renamed, unguessable

LDD = """\
	linux-vdso.so.1 (0x00007f345c32a000)
	libssl.so.3 => not found
	libxml2.so.2 => not found
	libssl.so.3 => not found
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f345ae1e000)
	libpq.so.5 => /a place/lib/libpq.so.5 (0x00007f10ac416000)
	/lib64/ld-linux-x86-64.so.2 (0x00007f345c32c000)
"""

words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=12)
sonames = words.map(lambda word: f"lib{word}.so.1")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("postgres (PostgreSQL) 17.11\n", (17, "17.11")),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", (15, "15.18")),
        ("postgres (PostgreSQL) 19beta2\n", (19, "19beta2")),
        ("initdb (PostgreSQL) 18rc1", (18, "18rc1")),
    ],
)
def test_versions_as_they_are_printed(printed: str, expected: tuple[int, str]) -> None:
    assert parse_server_version(printed) == expected


@given(st.integers(10, 99), st.integers(0, 99), st.text(max_size=20))
def test_every_version_is_found_whatever_follows(major: int, minor: int, rest: str) -> None:
    assert parse_server_version(f"postgres (PostgreSQL) {major}.{minor} {rest}") == (major, f"{major}.{minor}")


@given(st.text(max_size=60).filter(lambda text: "PostgreSQL" not in text))
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="no PostgreSQL version"):
        parse_server_version(text)


@given(st.dictionaries(words, st.lists(words, max_size=4).map(" = ".join)))
def test_pg_config_is_read_back(facts: dict[str, str]) -> None:
    printed = "".join(f"{name} = {value}\n" for name, value in facts.items())
    assert parse_pg_config(printed) == facts


@pytest.mark.parametrize(
    ("configure", "expected"),
    [
        ("'--with-openssl' '--with-zstd'", True),
        ("'--with-ssl=openssl'", True),
        ("'--with-ssl' 'openssl'", True),
        ("'--without-icu' '--with-libxml'", False),
        ("", False),
    ],
)
def test_openssl_in_the_configure_line(configure: str, expected: bool) -> None:
    assert built_with_openssl(configure) is expected


def test_missing_and_found_libraries_of_ldd() -> None:
    assert missing_libraries(LDD) == ("libssl.so.3", "libxml2.so.2")
    assert found_libraries(LDD) == (Path("/lib/x86_64-linux-gnu/libc.so.6"), Path("/a place/lib/libpq.so.5"))


@given(st.lists(sonames), st.lists(sonames))
def test_each_missing_library_is_told_once(missing: list[str], there: list[str]) -> None:
    lines = [f"\t{name} => not found" for name in missing]
    lines += [f"\t{name} => /lib/{name} (0x00007f00)" for name in there]
    assert missing_libraries("\n".join(lines)) == tuple(sorted(set(missing)))


@given(st.sets(st.sampled_from(sorted(APT_PACKAGES)) | sonames, min_size=1))
def test_the_advice_names_libraries_and_known_packages(libraries: set[str]) -> None:
    sentence = describe_missing(libraries)
    assert all(name in sentence for name in libraries)
    assert all(APT_PACKAGES[name] in sentence for name in libraries & set(APT_PACKAGES))
    assert ("apt-get" in sentence) == bool(libraries & set(APT_PACKAGES))


def test_the_newest_glibc_that_is_asked_for() -> None:
    said = "postgres: libc.so.6: version `GLIBC_2.9' not found\npostgres: version `GLIBC_2.34' not found"
    assert needed_glibc(said) == "2.34"
    assert needed_glibc(LDD) is None


def test_pips_noise_becomes_a_sentence() -> None:
    noise = (
        "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError'\n"
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
        "ERROR: Could not find a version that satisfies the requirement x (from versions: none)\n"
        "ERROR: No matching distribution found for x\n"
    )
    assert pip_complaint(noise).startswith("No matching distribution found for x (WARNING: Retrying")
    assert pip_complaint("/usr/bin/python3: No module named pip\n") == "/usr/bin/python3: No module named pip"
    assert pip_complaint("") == "pip said nothing"


@given(st.lists(st.sampled_from([b"sslkeylogfile", b"sslkey", b"\0", b"logfile", b"x"]), max_size=8))
def test_the_option_is_gone_and_nothing_else_moves(parts: list[bytes]) -> None:
    """Renaming is complete, keeps the length, and can be undone: no other byte has changed."""
    library = b"".join(parts) + OPTION + b"".join(parts)
    name = unguessable(13)
    changed = renamed(library, name)
    assert OPTION not in changed
    assert len(changed) == len(library)
    assert changed.replace(name, b"sslkeylogfile") == library


def test_a_name_of_another_length_would_move_the_library() -> None:
    with pytest.raises(ValueError, match="short"):
        renamed(OPTION, b"short")
