"""Every snippet of the documentation does what its page says, on a real platform."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lamplighter.compute.binaries import default_cache
from support.lamp import Lamp

from .snippets import KINDS, Reader, alike, blocks_of, commands_of, pages

#: Blocks that are not run, by page: what installs, what stays in the foreground, what needs an account elsewhere.
NOT_RUN = {"ci.md": 1, "quickstart.md": 3}

#: Pages of somebody who has just run `lamp up`, and has nothing in the environment. All others have NEON_API_KEY.
WITH_CONTEXT = frozenset({"quickstart.md", "servers-and-keys.md"})


@pytest.fixture
def reader(lamp: Lamp, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    page: Path = request.getfixturevalue("page")
    config = tmp_path / "config"
    shutil.copytree(lamp.config_home, config)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "XDG_CONFIG_HOME": str(config),
        # Where psql and pg_dump are, if not on the PATH: HOME is another one here.
        "LAMP_CACHE_DIR": str(default_cache()),
    }
    if page.name not in WITH_CONTEXT:
        env |= {"NEON_API_KEY": lamp.key, "NEON_API_HOST": lamp.url}
    for name in ("NEON_API_KEY", "NEON_API_HOST", "XDG_CONFIG_HOME"):
        if name in env:
            monkeypatch.setenv(name, env[name])
    found = Reader(tmp_path, env, server=lamp.url.removesuffix("/api/v2"))
    found.expressions = {
        "secrets.NEON_API_KEY": lamp.key,
        "github.event.number": "42",
    }
    monkeypatch.chdir(found.place)
    yield found
    found.close()
    # Of a page that failed: the next one is not to find what it left.
    for project in lamp.call("GET", "/projects", search="orchard")["projects"]:
        for branch in lamp.call("GET", f"/projects/{project['id']}/branches")["branches"]:
            if not branch["default"]:
                lamp.settle(project["id"])
                lamp.call("DELETE", f"/projects/{project['id']}/branches/{branch['id']}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_page(page: Path, reader: Reader) -> None:
    """What a page tells its readers to do works, and shows what the page says."""
    for block in blocks_of(page):
        reader.read(block)


def test_every_block_is_of_a_kind_that_is_run_or_read() -> None:
    wrong = [
        f"{block.place}: {block.kind!r}" for page in pages() for block in blocks_of(page) if block.kind not in KINDS
    ]
    assert not wrong


def test_what_is_not_run_says_why_and_is_on_the_list() -> None:
    found: dict[str, int] = {}
    for page in pages():
        for block in blocks_of(page):
            assert block.mark == "" or block.not_run or block.file, f"{block.place}: {block.mark!r} means nothing"
            if block.not_run is not None:
                found[page.name] = found.get(page.name, 0) + 1
    assert found == NOT_RUN


def test_files_that_a_page_writes_are_used() -> None:
    for page in pages():
        blocks = blocks_of(page)
        for number, block in enumerate(blocks):
            if block.file is not None:
                later = "".join(each.text for each in blocks[number + 1 :] if each.kind in ("console", "sh", "yaml"))
                assert Path(block.file).suffix in (".py", ".sql", ".toml"), block.place
                assert "pytest" in later or block.file in later, f"{block.place}: nothing runs {block.file}"


class TestReading:
    """The test of the tests: what it does not see, it could not find wrong."""

    def test_blocks_are_found_with_their_marks(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("# A\n\n<!-- not run: why -->\n```console\n$ a\n```\ntext\n```python\nb = 1\n```\n")
        first, second = blocks_of(page)
        assert (first.kind, first.not_run, first.text) == ("console", "why", "$ a\n")
        assert (second.kind, second.not_run, second.line) == ("python", None, 9)

    def test_a_block_without_an_end_is_an_error(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("```python\na = 1\n")
        with pytest.raises(AssertionError, match="no end"):
            blocks_of(page)

    def test_commands_have_the_output_below_them(self) -> None:
        first, second = commands_of("$ a \\\n    b\nsaid\n$ c\n")
        assert (first.text, first.shown) == ("a \\\n    b", "said")
        assert (second.text, second.shown) == ("c", "")

    @pytest.mark.parametrize(
        ("shown", "real"),
        [
            ("a  b", "a b"),
            ("id br-quiet-moon-12345678", "id  br-cold-lake-a1b2c3d4"),
            ("id br-quiet-moon-12345678", "id  br-cold-lake-abcdefgh"),
            ("first\n…\nlast", "first\nand\nmore\nlast"),
            ("at 2026-01-31T12:00:00Z", "at 2027-02-01T13:00:00Z"),
            ("postgresql://a:npg_…@127.0.0.1:20000/b", "postgresql://a:npg_x1Y2@127.0.0.1:17400/b"),
        ],
    )
    def test_what_may_differ(self, shown: str, real: str) -> None:
        assert alike(shown, real)

    @pytest.mark.parametrize(
        ("shown", "real"),
        [
            ("a", "b"),
            ("a", "a\nb"),
            ("id br-quiet-moon-12345678", "id ep-quiet-moon-12345678"),
            ("first\n…\nlast", "first\nand\nmore"),
        ],
    )
    def test_what_may_not(self, shown: str, real: str) -> None:
        assert not alike(shown, real)

    @pytest.mark.parametrize(
        "text",
        [
            "```console\n$ false\n```\n",
            "```console\n$ echo a\nb\n```\n",
            "```python\nraise ValueError\n```\n",
            "```python\nprint(1)\n```\n```output\n2\n```\n",
            "```sh\nfalse\ntrue\n```\n",
            "```yaml\na: [\n```\n",
            "```rust\nfn main() {}\n```\n",
            "```yaml\njobs: {a: {steps: [{run: exit 3}]}}\n```\n",
        ],
    )
    def test_what_is_wrong_fails(self, text: str, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(text)
        reader = Reader(tmp_path, {"PATH": os.environ["PATH"]})

        def read() -> None:
            for block in blocks_of(page):
                reader.read(block)

        with pytest.raises(Exception):  # noqa: B017 - which one depends on the kind of block
            read()

    def test_a_shell_goes_on_where_it_was(self, tmp_path: Path) -> None:
        reader = Reader(tmp_path, {"PATH": os.environ["PATH"]})
        reader.shell("mkdir below; cd below; export WORD='two words'")
        assert alike("two words …/below", reader.shell('echo "$WORD" "$PWD"')[1])
