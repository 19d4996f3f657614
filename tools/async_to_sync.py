"""Writes src/lamplighter/client/_sync from src/lamplighter/client/_async, which is the source of both.

    python tools/async_to_sync.py [--check]

Works on tokens, so that comments and layout stay. What has no twin in the table below is refused rather than guessed.
`driver.py` is written by hand on both sides: it is where the two really differ.
"""

# ruff: noqa: INP001 - scripts, not a package

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tokenize import TokenInfo

from generated import CLIENT, finish

SOURCE = CLIENT / "_async"
TARGET = CLIENT / "_sync"
BY_HAND = {"driver.py"}
PACKAGE = (
    '"""The client without async. Made of `_async` by tools/async_to_sync.py, but for the driver. Do not edit."""\n'
)

#: Names that change, wherever they stand: in code, in comments and in strings. `AsyncThing` is always `Thing`.
NAMES = {
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "_async": "_sync",
    "aclose": "close",
    "aiter": "iter",
    "anext": "next",
    "asynccontextmanager": "contextmanager",
}
#: Names that only make sense with async.
REFUSED = {"asyncio", "AsyncGenerator", "__await__"}
#: What an await gives is the last argument of these.
AWAITED = {"Awaitable", "Coroutine"}
#: Modules of which only some functions have a twin.
MODULES = {"anyio": ("time", {"sleep"})}

_WORDS = re.compile(
    r"\b(?:(?:await|async(?=\s+(?:def|for|with)\b))\s+"
    r"|Async(?P<thing>[A-Z]\w*)"
    r"|(?P<name>" + "|".join(NAMES) + r")\b)"
)
_AWAITED = re.compile(r"\b(?:" + "|".join(AWAITED) + r")\[")
Edit = tuple[int, int, str]
Offset = Callable[[tuple[int, int]], int]


class NoTwinError(Exception):
    """The source has something that has no twin without async."""


def convert(source: str) -> str:
    """The same module without async. Raises `NoTwinError`."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def offset(place: tuple[int, int]) -> int:
        return lines[place[0] - 1] + place[1]

    edits: list[Edit] = []
    for index, token in enumerate(tokens):
        start, end = offset(token.start), offset(token.end)
        if token.type == tokenize.NAME:
            edits += _name_edits(tokens, index, start, end, offset)
        elif token.type not in _LAYOUT and (text := _prose(token.string)) != token.string:
            edits.append((start, end, text))
    for start, end, text in sorted(edits, reverse=True):
        source = source[:start] + text + source[end:]
    return source


_LAYOUT = {tokenize.OP, tokenize.NUMBER, tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}


def _prose(text: str) -> str:
    """What becomes of a comment or of a string, which may be a type."""
    text = _WORDS.sub(_word, text)
    while found := _AWAITED.search(text):
        depth, last = 1, found.end()
        for end, character in enumerate(text[found.end() :], found.end()):
            depth += (character in "([{") - (character in ")]}")
            last = end + 1 if character == "," and depth == 1 else last
            if depth == 0:
                text = text[: found.start()] + text[last:end].lstrip() + text[end + 1 :]
                break
        else:
            raise NoTwinError(f"{found[0]} has no end in {text!r}")
    return text


def _word(found: re.Match[str]) -> str:
    return NAMES[found["name"]] if found["name"] else found["thing"] or ""


def _name_edits(tokens: Sequence[TokenInfo], index: int, start: int, end: int, offset: Offset) -> list[Edit]:
    """What becomes of one name in code."""
    token, after = tokens[index], tokens[index + 1]
    text = token.string
    if text in {"async", "await"}:
        # Up to the next token, but no line break is taken: it may end a comment.
        stop = offset(after.start) if after.start[0] == token.end[0] and after.type != tokenize.COMMENT else end
        return [(start, stop, "")]
    if text in AWAITED:
        # Without a bracket it is an import, which goes when nothing uses it.
        return _unwrapped(tokens, index, start, offset) if after.string == "[" else []
    if text in MODULES and tokens[index - 1].string != ".":
        return [(start, end, _module(tokens, index))]
    if text in NAMES:
        return [(start, end, NAMES[text])]
    if text in REFUSED:
        raise NoTwinError(f"line {token.start[0]}: {text} has no twin; add it to NAMES or write it otherwise")
    if thing := re.fullmatch(r"Async([A-Z]\w*)", text):
        return [(start, end, thing[1])]
    return []


def _unwrapped(tokens: Sequence[TokenInfo], index: int, start: int, offset: Offset) -> list[Edit]:
    """`Awaitable[X]` and `Coroutine[Any, Any, X]` are `X`."""
    depth, last = 0, tokens[index + 2].start
    for token, after in pairwise(tokens[index + 1 :]):
        if token.string in "([{" and token.type == tokenize.OP:
            depth += 1
        elif token.string in ")]}" and token.type == tokenize.OP:
            depth -= 1
            if depth == 0:
                return [(start, offset(last), ""), (offset(token.start), offset(token.end), "")]
        elif token.string == "," and depth == 1:
            last = after.start
    raise NoTwinError(f"line {tokens[index].start[0]}: {tokens[index].string} has no end")


def _module(tokens: Sequence[TokenInfo], index: int) -> str:
    """`anyio.sleep` is `time.sleep`, and `import anyio` is `import time`."""
    twin, known = MODULES[tokens[index].string]
    if tokens[index - 1].string == "import":
        return twin
    if tokens[index + 1].string == "." and tokens[index + 2].string in known:
        return twin
    raise NoTwinError(f"line {tokens[index].start[0]}: only {sorted(known)} of {tokens[index].string} have a twin")


def twin(path: Path) -> str:
    """The text of the module beside one of the async ones, not yet formatted."""
    name = path.relative_to(SOURCE)
    if path == SOURCE / "__init__.py":
        return PACKAGE
    try:
        text = convert(path.read_text())
    except NoTwinError as error:
        raise NoTwinError(f"{name}, {error}") from None
    return f"# Made of _async/{name} by tools/async_to_sync.py; `make generate` writes it anew. Do not edit.\n{text}"


def main() -> int:
    sources = [path for path in sorted(SOURCE.rglob("*.py")) if path.name not in BY_HAND]
    files = {TARGET / path.relative_to(SOURCE): twin(path) for path in sources}
    owned = [path for path in sorted(TARGET.rglob("*.py")) if path.name not in BY_HAND]
    return finish(files, owned, (__doc__ or "").splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
