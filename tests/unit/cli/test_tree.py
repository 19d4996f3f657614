"""Trees as they are drawn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamplighter.cli.tree import ASCII, Node, draw


def drawn(nodes: list[Node]) -> list[str]:
    return [line.prefix + nodes[line.index].id for line in draw(nodes)]


def test_children_hang_below_their_parents() -> None:
    nodes = [Node("main"), Node("dev", "main"), Node("pr-1", "dev"), Node("pr-2", "dev"), Node("qa", "main")]
    assert drawn(nodes) == ["main", "├─ dev", "│  ├─ pr-1", "│  └─ pr-2", "└─ qa"]


def test_order_is_kept_and_roots_are_several() -> None:
    nodes = [Node("b", "a"), Node("a"), Node("c"), Node("d", "a")]
    assert drawn(nodes) == ["a", "├─ b", "└─ d", "c"]


def test_a_missing_parent_makes_a_root() -> None:
    lines = draw([Node("a", "gone"), Node("b", "a")])
    assert [(line.index, line.depth, line.astray) for line in lines] == [(0, 0, True), (1, 1, False)]


def test_a_circle_is_drawn_once() -> None:
    nodes = [Node("root"), Node("a", "c"), Node("b", "a"), Node("c", "b"), Node("self", "self")]
    assert drawn(nodes) == ["root", "self", "a", "└─ b", "   └─ c"]


def test_a_plain_style_for_plain_terminals() -> None:
    nodes = [Node("a"), Node("b", "a"), Node("c", "b"), Node("d", "a")]
    text = "\n".join(line.prefix + nodes[line.index].id for line in draw(nodes, style=ASCII))
    assert text == "a\n|- b\n|  `- c\n`- d"
    assert text.isascii()


def test_a_long_chain_needs_no_stack() -> None:
    """Deeper than Python may call itself."""
    lines = draw([Node("0"), *(Node(str(number), str(number - 1)) for number in range(1, 3000))])
    assert [line.depth for line in lines] == list(range(3000))


names = st.sampled_from("abcdefgh")


@given(st.lists(st.builds(Node, names, st.none() | names), max_size=12))
def test_every_node_is_drawn_once(nodes: list[Node]) -> None:
    """Whatever the links say: circles, parents that are not there, ids that come twice."""
    lines = draw(nodes)
    assert sorted(line.index for line in lines) == list(range(len(nodes)))


@given(st.lists(st.builds(Node, names, st.none() | names), max_size=12, unique_by=lambda node: node.id))
def test_what_is_below_a_line_is_its_parents_child(nodes: list[Node]) -> None:
    """A node is one deeper than the parent it names, which is the nearest line above of that depth."""
    above: dict[int, str] = {}
    for line in draw(nodes):
        node = nodes[line.index]
        if line.depth:
            assert above[line.depth - 1] == node.parent
            assert len(line.prefix) == 3 * line.depth
        else:
            assert line.prefix == ""
            assert line.astray == (node.parent is not None)
        above[line.depth] = node.id
