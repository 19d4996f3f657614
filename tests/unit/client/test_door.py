"""The package's own names: what is documented, and at what price."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lamplighter
from lamplighter.client import errors

HEAVY = ("pydantic", "httpx2", "anyio", "psycopg", "click", "rich", "lamplighter.client")


def test_import_lamplighter_loads_nothing_heavy():
    program = f"import sys, lamplighter; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert ast.literal_eval(loaded) == []


def test_names_are_those_that_the_docstring_tells():
    told = set(re.findall(r"`(\w+)`", lamplighter.__doc__)) | {"__version__"}
    assert told == set(lamplighter.__all__)


def test_every_error_class_is_at_the_door():
    classes = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert classes <= set(lamplighter.__all__)


@pytest.mark.parametrize("name", lamplighter.__all__)
def test_every_name_is_there_and_listed(name):
    assert getattr(lamplighter, name) is getattr(lamplighter, name)
    assert name in dir(lamplighter)


def test_other_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="neon"):
        _ = lamplighter.neon


def test_what_is_used_as_a_type_is_what_is_used_at_run_time():
    """The imports for the type checker and the lazy ones are two lists: they have to name the same places."""
    tree = ast.parse(Path(lamplighter.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    for node in ast.walk(checked):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = __import__(node.module, fromlist=[alias.name])
                assert getattr(lamplighter, alias.asname or alias.name) is getattr(module, alias.name)
