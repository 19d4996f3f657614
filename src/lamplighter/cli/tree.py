"""Draw parents and children. Pure, and without recursion: a chain of branches may be thousands deep.

Every node is drawn once, whatever the links say: one whose parent is not there is drawn as a root, and so is the first
of a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Node:
    """`parent` is the id of another node; None for a root."""

    id: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """The four pieces that lines are made of, all of one width."""

    child: str
    last: str
    beside: str
    below: str


UNICODE: Final = Style("├─ ", "└─ ", "│  ", "   ")
ASCII: Final = Style("|- ", "`- ", "|  ", "   ")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One line: the place of its node in what was given, what is drawn before it, and how deep it is.

    `astray` nodes name a parent that is not there, or that comes below them.
    """

    index: int
    prefix: str
    depth: int
    astray: bool = False


def draw(nodes: Sequence[Node], *, style: Style = UNICODE) -> list[Drawn]:
    """Lines from top to bottom. Roots and siblings keep the order that they were given in."""
    places: dict[str, int] = {}
    for index, node in enumerate(nodes):
        places.setdefault(node.id, index)
    children: dict[int, list[int]] = {}
    roots = []
    for index, node in enumerate(nodes):
        above = None if node.parent is None else places.get(node.parent)
        if above is None or above == index:
            roots.append(index)
        else:
            children.setdefault(above, []).append(index)
    drawn: list[Drawn] = []
    seen: set[int] = set()
    # What no root leads to hangs on a circle: it begins at the first of those that are left.
    for index in (*roots, *range(len(nodes))):
        if index not in seen:
            drawn += _below(index, children, seen, style=style, astray=nodes[index].parent is not None)
    return drawn


def _below(root: int, children: dict[int, list[int]], seen: set[int], *, style: Style, astray: bool) -> list[Drawn]:
    """The root and all below it, depth first."""
    lines: list[Drawn] = []
    # Of each: its index, the prefix of its own line, and what the lines below it begin with.
    waiting = [(root, "", "", 0)]
    seen.add(root)
    while waiting:
        index, prefix, indent, depth = waiting.pop()
        lines.append(Drawn(index, prefix, depth, astray=astray and index == root))
        below = [one for one in children.get(index, ()) if one not in seen]
        seen.update(below)
        for one in reversed(below):
            last = one == below[-1]
            mine, theirs = (style.last, style.below) if last else (style.child, style.beside)
            waiting.append((one, indent + mine, indent + theirs, depth + 1))
    return lines
