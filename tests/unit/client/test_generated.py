"""What is generated is up to date, the sync client is the async one without async, and the converter does just that."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.operations import OPERATIONS
from lamplighter.client.names import GROUPS

TOOLS = Path(__file__).parents[3] / "tools"
sys.path.insert(0, str(TOOLS))
convert = importlib.import_module("async_to_sync").convert
NoTwinError = importlib.import_module("async_to_sync").NoTwinError
sys.path.remove(str(TOOLS))


@pytest.mark.parametrize("tool", ["generate_client.py", "async_to_sync.py"])
def test_generated_files_are_up_to_date(tool):
    done = subprocess.run([sys.executable, TOOLS / tool, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Both clients


def public(owner) -> dict[str, object]:
    return {name: each for name, each in inspect.getmembers(owner) if not name.startswith("_")}


def classes(side: str) -> dict[str, type]:
    found = {}
    for name in GROUPS:
        module = importlib.import_module(f"lamplighter.client.{side}.resources.{name}")
        found |= {each: cls for each, cls in vars(module).items() if inspect.isclass(cls)}
    for name, cls in (("client", "AsyncNeon" if side == "_async" else "Neon"), ("pages", "Pager"), ("pages", "Page")):
        module = importlib.import_module(f"lamplighter.client.{side}.{name}")
        found[cls.removeprefix("Async")] = getattr(module, cls)
    return found


def shape(function) -> list[tuple[str, object, object]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", sorted(classes("_async")))
def test_sync_classes_have_the_same_methods_with_the_same_parameters(name):
    ours, theirs = classes("_async")[name], classes("_sync")[name]
    renamed = {"aclose": "close"}
    assert {renamed.get(each, each) for each in public(ours)} == set(public(theirs))
    for each, member in public(ours).items():
        twin = public(theirs)[renamed.get(each, each)]
        assert callable(member) == callable(twin)
        if inspect.isfunction(member):
            assert shape(member) == shape(twin), each
            assert not inspect.iscoroutinefunction(twin)


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_every_method_of_the_table_is_there_and_awaited_unless_it_is_a_list(group):
    cls = classes("_async")[group.class_name]
    for call in group.calls:
        method = getattr(cls, call.method)
        assert call.doc in inspect.getdoc(method)
        assert inspect.iscoroutinefunction(inspect.unwrap(method)) == (call.paged is None)


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_what_starts_operations_can_wait_for_them(group):
    cls = classes("_async")[group.class_name]
    for call in group.calls:
        operation = OPERATIONS[call.id]
        starts = not operation.safe and "operations" in getattr(operation.reply, "model_fields", ())
        assert ("wait" in inspect.signature(getattr(cls, call.method)).parameters) == starts, call.id


# The converter


class WithoutAsync(ast.NodeTransformer):
    """The same done to the syntax tree, where comments and layout are lost: what the converter is held against."""

    def visit_AsyncFunctionDef(self, node):
        return ast.FunctionDef(**vars(self.generic_visit(node)))

    def visit_AsyncFor(self, node):
        return ast.For(**vars(self.generic_visit(node)))

    def visit_AsyncWith(self, node):
        return ast.With(**vars(self.generic_visit(node)))

    def visit_Await(self, node):
        return self.generic_visit(node).value

    def visit_comprehension(self, node):
        node.is_async = 0
        return self.generic_visit(node)


EXPRESSIONS = st.recursive(
    st.sampled_from(["x", "client.get(1)", "'text'", "[]", "awaited", "asynchronous.run()", "a + b"]),
    lambda inner: st.one_of(
        inner.map("(await {})".format),
        inner.map("f({}, key=1)".format),
        inner.map("[y async for y in {}]".format),
        inner.map("{{k: v async for k, v in {} if k}}".format),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}, {pair[1]})"),
    ),
    max_leaves=5,
)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


STATEMENTS = st.recursive(
    st.one_of(EXPRESSIONS, EXPRESSIONS.map("x = await {}".format), EXPRESSIONS.map("return {}  # a note".format)),
    lambda inner: st.one_of(
        st.tuples(EXPRESSIONS, inner).map(lambda pair: f"async for x in {pair[0]}:\n{indented(pair[1])}"),
        st.tuples(EXPRESSIONS, inner).map(lambda pair: f"async with {pair[0]} as x, await y:\n{indented(pair[1])}"),
        inner.map(lambda body: f"async def f(x: int) -> None:\n{indented(body)}"),
        st.tuples(inner, inner).map("\n".join),
        inner.map(lambda body: f"if x:\n{indented(body)}\nelse:\n    pass"),
    ),
    max_leaves=6,
).map(lambda body: f"async def main() -> None:\n{indented(body)}\n")


@given(source=STATEMENTS)
def test_the_converter_takes_out_async_and_nothing_else(source):
    wanted = WithoutAsync().visit(ast.parse(source))
    assert ast.dump(ast.parse(convert(source))) == ast.dump(wanted)


@given(source=STATEMENTS)
def test_what_was_converted_stays_as_it_is(source):
    once = convert(source)
    assert convert(once) == once


@given(text=st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\\\"'"), max_size=80))
def test_text_without_a_word_of_async_is_left_alone(text):
    source = f'"""{text}"""\n# {text}\nx = 1\n'
    if not any(word in text for word in ("sync", "await", "Await", "Coroutine")):
        assert convert(source) == source


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("async def f() -> Awaitable[list[int]]: ...\n", "def f() -> list[int]: ...\n"),
        ("x: Callable[P, Coroutine[Any, Any, T]]\n", "x: Callable[P, T]\n"),
        ("cast('Callable[P, Awaitable[Raw[T]]]', x)\n", "cast('Callable[P, Raw[T]]', x)\n"),
        ("class AsyncNeon(Groups): ...\n", "class Neon(Groups): ...\n"),
        ("async def __aenter__(self): ...\n", "def __enter__(self): ...\n"),
        ("from a._async.base import Resource\n", "from a._sync.base import Resource\n"),
        ("import anyio\n\nawait anyio.sleep(1)\n", "import time\n\ntime.sleep(1)\n"),
        ('"""Use it as `async with AsyncNeon() as neon: await neon.users.me()`."""\n',
         '"""Use it as `with Neon() as neon: neon.users.me()`."""\n'),
        ("# An async client; await nothing twice.\n", "# An async client; nothing twice.\n"),
        ("x = self.await_time\n", "x = self.await_time\n"),
    ],
)  # fmt: skip
def test_names_and_types(source, wanted):
    assert convert(source) == wanted


@pytest.mark.parametrize("source", ["import asyncio\n", "await anyio.to_thread.run_sync(f)\n", "lock = anyio.Lock()\n"])
def test_what_has_no_twin_is_refused(source):
    with pytest.raises(NoTwinError):
        convert(source)
