"""The tree of errors is as it is drawn, and each says something."""

from __future__ import annotations

import inspect
import re
from uuid import UUID

from lamplighter.control import errors

MADE = [
    errors.ControlError(),
    errors.CatalogError(),
    errors.CatalogTooNew(found=3, known=2),
    errors.CatalogDiverged("0002_x"),
    errors.MigrationChanged("0002_x"),
    errors.OperationsError(),
    errors.ProjectBusy("old-violet-32930710"),
    errors.LeaseLost(UUID(int=1)),
    errors.InvalidTransition("finished", "claimed"),
    errors.StepError(),
    errors.Permanent("the volume is gone"),
    errors.Skip(),
    errors.SealBroken("a role"),
]


def drawn() -> dict[str, str]:
    """Each class in the module's docstring, and the class that stands above it there."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines()[1:]:
        match = re.match(r"([^\w]*)(\w+)", line)
        if match is None or not hasattr(errors, match[2]):
            continue
        depth, name = len(match[1]), match[2]
        above = [(column, parent) for column, parent in above if column < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def test_the_tree_is_as_it_is_drawn():
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.ControlError)]
    assert drawn() == {cls.__name__: cls.__base__.__name__ for cls in classes if cls is not errors.ControlError}


def test_each_class_is_made_here_and_has_a_message():
    classes = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.ControlError)}
    assert {type(error) for error in MADE} == classes
    assert all(str(error) and str(error) == error.message for error in MADE)


def test_a_busy_project_is_told_in_neons_words():
    assert str(errors.ProjectBusy("p")) == (
        "project already has running conflicting operations, scheduling of new ones is prohibited"
    )


def test_a_message_given_replaces_the_default():
    assert str(errors.Permanent("the volume is gone")) == "the volume is gone"
