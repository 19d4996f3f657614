"""What the naming table says of an operation and of a group of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Paged:
    """A list.

    `items` is the field that holds them (None: the reply itself is the list), `cursor` the place in the reply that
    says where the next page starts (None: all is on one page).
    """

    items: str | None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class At:
    """A parameter that takes a time or an LSN: two fields of the contract of which one is sent."""

    lsn: str
    timestamp: str
    parameter: str = "at"


@dataclass(frozen=True, slots=True)
class Call:
    """One operation (`id`) as a method. `doc` is a sentence that ends with a full stop; `note` is more of them.

    `renames` goes from the contract's name to the parameter's. `flatten` names objects in the body whose fields are
    parameters themselves, by dotted place. `whole` is the parameter that is the body as a whole, where its fields
    cannot be told apart. `unwrap` is the field of the reply that is returned. `times` are texts of the contract that
    are times. `left_out` are parameters of the query that are not offered.
    """

    id: str
    method: str
    doc: str
    note: str = ""
    renames: Mapping[str, str] = field(default_factory=dict)
    flatten: tuple[str, ...] = ()
    at: tuple[At, ...] = ()
    whole: str | None = None
    unwrap: str | None = None
    paged: Paged | None = None
    times: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """A group of methods, `neon.<name>`.

    `mixin` is the class in `_async/extras.py` with those of its methods that are more than one operation.
    """

    name: str
    doc: str
    calls: tuple[Call, ...]
    mixin: str | None = None

    @property
    def class_name(self) -> str:
        """`api_keys` is made of `ApiKeys`."""
        return "".join(part.capitalize() for part in self.name.split("_"))
