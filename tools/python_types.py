"""Types of the operation table as a reader of Python source sees them: what a parameter takes, what a reply gives."""

# ruff: noqa: INP001 - scripts, not a package

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from lamplighter.api.models import base
from lamplighter.api.models.base import Model, OneOf

#: What a parameter takes in the place of a list and of a dictionary.
WIDER: dict[Any, str] = {list: "Sequence", dict: "Mapping"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request. `nullable`: null on the wire means something, and is not the same as leaving it out."""

    name: str
    annotation: Any
    required: bool
    nullable: bool
    deprecated: bool


def is_model(annotation: Any) -> TypeGuard[type[Model]]:
    return isinstance(annotation, type) and issubclass(annotation, Model)


def fields(model: type[Model]) -> list[Field]:
    """The fields of a request, under the names they have on the wire."""
    hints = get_type_hints(model, include_extras=True)
    return [
        Field(
            name=info.alias or name,
            annotation=hints[name],
            required=info.is_required(),
            nullable=_takes_null(hints[name]),
            deprecated=isinstance(info.json_schema_extra, dict) and bool(info.json_schema_extra.get("deprecated")),
        )
        for name, info in model.model_fields.items()
    ]


def field_type(model: Any, name: str) -> Any:
    return get_type_hints(model, include_extras=True)[name]


def model_of(annotation: Any) -> type[Model]:
    """The model in `Maybe[Model]` or the like."""
    found = [each for each in _members(annotation) if is_model(each)]
    if len(found) != 1:
        raise TypeError(f"{annotation} is not one model")
    return found[0]


def item_of(annotation: Any) -> Any:
    """What a list holds, be it optional or not."""
    found = [get_args(each)[0] for each in _members(annotation) if get_origin(each) is list]
    if len(found) != 1:
        raise TypeError(f"{annotation} is not a list")
    return found[0]


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [member for each in get_args(annotation) for member in _members(each)]
    return [annotation]


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _takes_null(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        # Maybe[...] is Annotated around a union with None, and marked: its None means "left out".
        return not _is_maybe(annotation) and _takes_null(get_args(annotation)[0])
    return NoneType in _members(annotation)


def _is_maybe(annotation: Any) -> bool:
    return any(isinstance(each, FieldInfo) and each.exclude_if for each in _metadata(annotation))


@dataclass(slots=True)
class Types:
    """Writes types, and remembers what has to be imported for them. `shadowed` are names that the class uses itself."""

    shadowed: set[str] = field(default_factory=set)
    _runtime: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _checked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def use(self, module: str, name: str, *, runtime: bool = False) -> str:
        (self._runtime if runtime else self._checked)[module].add(name)
        return name

    def taken(self, annotation: Any) -> str:
        """What a parameter takes: a model or a mapping, any sequence, an enum's values or others."""
        return _joined(self._taken(annotation))

    def given(self, annotation: Any, *, runtime: bool = False) -> str:
        """What a reply is. `runtime`: the text is to be evaluated, outside of the class."""
        return _joined(self._given(annotation, runtime))

    def _taken(self, annotation: Any) -> list[str]:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._taken_annotated(arguments[0], arguments[1:])
        if origin in {Union, UnionType}:
            return [text for each in arguments for text in self._taken(each)]
        if wider := WIDER.get(origin):
            return [f"{wider}[{', '.join(self.taken(each) for each in arguments)}]"]
        if origin is Literal:
            return ["Literal[" + ", ".join(f'"{value}"' for value in arguments) + "]"]
        if is_model(annotation):
            return [self.use(annotation.__module__, annotation.__name__), "Mapping[str, Any]"]
        return [_plain(annotation)]

    def _taken_annotated(self, inner: Any, metadata: tuple[Any, ...]) -> list[str]:
        for mark in metadata:
            if isinstance(mark, OneOf):
                return ["Literal[" + ", ".join(f'"{value}"' for value in mark.values) + "]", "str"]
            if isinstance(mark, FieldInfo) and mark.json_schema_extra == {"format": "uuid"}:
                return ["str", self.use("uuid", "UUID")]
        if inner is datetime:
            return [self.use("datetime", "datetime"), "str"]
        return self._taken(inner)

    def _given(self, annotation: Any, runtime: bool) -> list[str]:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._given(arguments[0], runtime)
        if origin in {Union, UnionType}:
            return [text for each in arguments for text in self._given(each, runtime)]
        if origin in {list, dict}:
            name = origin.__name__
            name = f"builtins.{name}" if name in self.shadowed and not runtime else name
            return [f"{name}[{', '.join(self.given(each, runtime=runtime) for each in arguments)}]"]
        if is_model(annotation):
            return [self.use(annotation.__module__, annotation.__name__, runtime=runtime)]
        return [_plain(annotation)]

    def imports(self) -> str:
        """The import statements for what was written."""
        lines = [f"from {module} import {', '.join(sorted(names))}" for module, names in self._runtime.items()]
        checked = {module: names - self._runtime.get(module, set()) for module, names in self._checked.items()}
        lines += ["if TYPE_CHECKING:"] if any(checked.values()) else []
        lines += [f"    from {module} import {', '.join(sorted(names))}" for module, names in checked.items() if names]
        return "\n".join(lines)


def _joined(texts: list[str]) -> str:
    unique = list(dict.fromkeys(texts))
    return " | ".join([each for each in unique if each != "None"] + ["None"] * ("None" in unique))


def _plain(annotation: Any) -> str:
    if annotation in {NoneType, None}:
        return "None"
    if annotation is Any:
        return "Any"
    if annotation in {str, int, float, bool, bytes, datetime}:
        return str(annotation.__name__)
    raise TypeError(f"there is no way to write {annotation!r}, used in {base.__name__} or a model of it")
