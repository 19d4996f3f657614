"""The policy file: which keys there should be, where they belong, how old they may get. Text in, dataclasses out; pure.

TOML. What is not known in it is an error, for a limit with a typo is a limit that nobody keeps.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import ip_network
from itertools import permutations
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from lamplighter.keys.naming import DEFAULT_PATTERN, DEFAULT_PREFIX, RID_LENGTH, Naming, check_lineage
from lamplighter.keys.records import Scope, ScopeKind, SinkRef
from lamplighter.keys.toml_table import Table, near

VERSION: Final = 1

Severity = Literal["info", "low", "medium", "high", "critical"]
#: From the least to the worst.
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "low", "medium", "high", "critical")

RULE_IDS: Final = frozenset(
    {*(f"K{number:03}" for number in range(1, 18)), *(f"P{number:03}" for number in range(1, 6))}
)

_SCOPES: Final[tuple[ScopeKind, ...]] = ("personal", "organization", "project")
_SINK_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_KIND: Final = re.compile(r"[a-z][a-z0-9-]*:.")
_ORG_ID: Final = re.compile(r"[a-z0-9-]{1,60}")
_MINTER: Final = re.compile(r"(?:keyring|vault|fd|file|context):.+")
#: How a sink may be written as a table: its fields, and the address that they make. The first that fits counts.
_FORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "github": (
        "github-env:{repo}/{environment}/{name}",
        "github-org:{org}/{name}",
        "github:{repo}/{name}",
    ),
    "dotenv": ("dotenv:{path}#{name}",),
    "command": ("command:{command}",),
    "keychain": ("keychain:{service}/{name}",),
    "vault": ("vault:{mount}/{path}#{field}",),
    "cloudflare-store": ("cloudflare-store:{account}/{store}/{name}",),
    "cloudflare-worker": ("cloudflare-worker:{account}/{script}/{name}",),
    "aws-secret": ("aws-secret:{name}",),
    "aws-ssm": ("aws-ssm:{name}",),
    "kubernetes": ("kubernetes:{namespace}/{secret}#{key}",),
    "vercel": ("vercel:{project}/{name}",),
    "gitlab": ("gitlab:{project}/{name}",),
    "gitlab-group": ("gitlab-group:{group}/{name}",),
}
_FIELD: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeonPolicy:
    """Where the keys are. `minter_from` are networks; empty: the minter may be used from anywhere.

    `personal`: whether the keys of the minter's user are looked at too, which a key of an organization cannot do.
    """

    base_url: str | None = None
    org_id: str | None = None
    minter: str | None = None
    minter_id: int | None = None
    minter_from: tuple[str, ...] = ()
    prefix: str = DEFAULT_PREFIX
    pattern: str = DEFAULT_PATTERN
    personal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is still all right. 90 and 45 days are those of the CIS AWS benchmark (2.12 and 2.11).

    `addresses` are networks from which a key may be used; empty: any. `max_addresses` is how many at a time.
    """

    max_age: timedelta = timedelta(days=90)
    unused: timedelta = timedelta(days=45)
    never_used: timedelta = timedelta(days=7)
    due_soon: timedelta = timedelta(days=14)
    soak_grace: timedelta = timedelta(hours=24)
    addresses: tuple[str, ...] = ()
    max_addresses: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """For what no lineage says otherwise. `soak` None: as long as the sinks ask for.

    `max_keys` is for each organization, `max_account_keys` for the user's own: Neon advises fewer than 10,000.
    """

    limits: Limits = Limits()
    minter_max_age: timedelta = timedelta(days=365)
    soak: timedelta | None = None
    max_keys: int = 50
    max_account_keys: int = 9_999
    fail_on: Severity = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineagePolicy:
    """One logical key. `sinks` are names in `Policy.sinks`.

    `consumer` is how long to wait for somebody else to use a new key; None: not at all. `allow` names variables that
    the smoke command may see.
    """

    name: str
    scope: Scope
    naming: Naming
    limits: Limits
    owner: str | None = None
    sinks: tuple[str, ...] = ()
    smoke: str | None = None
    soak: timedelta | None = None
    consumer: timedelta | None = None
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkPolicy:
    """`ref` is what `sinks.registry.sink_of` takes. One without a table of its own is named by its address."""

    name: str
    ref: SinkRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Where a secret has to be, may be and may not be: names in `Policy.sinks`."""

    name: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """A finding that somebody answers for, until a day. What is None matches anything; one of the four is not."""

    rule: str
    reason: str
    until: datetime
    key_id: int | None = None
    name: str | None = None
    lineage: str | None = None
    sink: str | None = None
    line: int = 1

    def expired(self, now: datetime) -> bool:
        return now >= self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`digest` is the SHA-256 of what the policy says: comments and spelling do not change it."""

    neon: NeonPolicy = NeonPolicy()
    defaults: Defaults = Defaults()
    lineages: Mapping[str, LineagePolicy] = field(default_factory=dict)
    sinks: Mapping[str, SinkPolicy] = field(default_factory=dict)
    parity: Mapping[str, Parity] = field(default_factory=dict)
    ignores: tuple[Ignore, ...] = ()
    digest: str = ""
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def line(self, *path: str) -> int:
        """The line of `("lineage", "ci")` and the like, of what is nearest around it, or 1."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return 1

    @property
    def org_ids(self) -> tuple[str, ...]:
        """Every organization whose keys this is about."""
        found = [self.neon.org_id, *(each.scope.org_id for each in self.lineages.values())]
        return tuple(sorted({each for each in found if each is not None}))

    def sinks_of(self, lineage: str) -> tuple[SinkRef, ...]:
        """In the order in which the policy names them."""
        return tuple(self.sinks[name].ref for name in self.lineages[lineage].sinks)

    def naming_of(self, lineage: str) -> Naming:
        """Of one that the policy does not have as well. Raises PolicyError where nothing may be called so."""
        known = self.lineages.get(lineage)
        return known.naming if known else Naming(lineage, prefix=self.neon.prefix)

    def limits_of(self, lineage: str | None) -> Limits:
        known = self.lineages.get(lineage) if lineage is not None else None
        return known.limits if known else self.defaults.limits


def parse_policy(text: str) -> Policy:
    """Raises PolicyError for all that is not a policy, and nothing else. Says nothing of whether sinks exist."""
    document = Table.document(text)
    version = document.number("version", least=0)
    if version != VERSION:
        # Before all else: of a newer one nothing else can be said.
        problem = "version is missing: write version = 1" if version is None else "only version 1 is known"
        raise document.error(problem, "version")
    neon = _neon(document.table("neon"))
    defaults = _defaults(document.table("defaults"))
    sinks = {name: _sink(name, table) for name, table in document.tables("sink")}
    _check_addresses(document, sinks)
    book = _SinkBook(sinks)
    lineages = {name: _lineage(name, table, neon, defaults, book) for name, table in document.tables("lineage")}
    parity = {name: _parity(name, table, book) for name, table in document.tables("parity")}
    ignores = tuple(_ignore(table, lineages, book) for table in document.array("ignore"))
    document.close()
    _check_owners_of_sinks(document, lineages)
    _check_names(document, lineages)
    return Policy(
        neon=neon,
        defaults=defaults,
        lineages=MappingProxyType(lineages),
        sinks=MappingProxyType(book.sinks),
        parity=MappingProxyType(parity),
        ignores=ignores,
        digest=digest_of(document.content),
        lines=MappingProxyType(dict(_lines(document))),
    )


def digest_of(content: Mapping[str, Any]) -> str:
    """Of what `tomllib` read: `sha256:` and 64 hexadecimal digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _plain(value: object) -> str:
    # Only dates get here.
    assert isinstance(value, datetime | date | time)
    return value.isoformat()


def _lines(document: Table) -> Iterator[tuple[tuple[str, ...], int]]:
    for name, value in document.content.items():
        yield (name,), document.line(name)
        for inner, deeper in value.items() if isinstance(value, dict) else ():
            yield (name, inner), document.line(name, inner)
            for key in deeper if isinstance(deeper, dict) else ():
                yield (name, inner, key), document.line(name, inner, key)


# Its tables


def _neon(table: Table) -> NeonPolicy:
    base_url, org_id, minter = table.text("base_url"), table.text("org_id"), table.text("minter")
    if base_url is not None and not table.checked(lambda: _is_url(base_url), "base_url"):
        raise table.error("this has to be http:// or https:// and a host, without a user or a query", "base_url")
    if org_id is not None and not _ORG_ID.fullmatch(org_id):
        raise table.error(f"{org_id!r} is no id of an organization", "org_id")
    if minter is not None and not _MINTER.fullmatch(minter):
        # It may be a key, put where its place was meant: it must not be shown.
        raise table.error(
            "this does not say where the minter key is",
            "minter",
            hint="write one of keyring:SERVICE/NAME, vault:MOUNT/PATH#FIELD, fd:NUMBER, file:PATH, context:NAME",
        )
    found = NeonPolicy(
        base_url=base_url,
        org_id=org_id,
        minter=minter,
        minter_id=table.number("minter_id", least=1),
        minter_from=_networks(table, "minter_from", ()),
        prefix=table.text("prefix", DEFAULT_PREFIX),
        pattern=table.text("pattern", DEFAULT_PATTERN),
        personal=table.flag("personal", default=True),
    )
    table.close()
    table.checked(lambda: Naming("a", prefix=found.prefix), "prefix")
    table.checked(lambda: Naming("a", prefix=found.prefix, pattern=found.pattern), "pattern")
    return found


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    # Asked for, because reading it is what finds out that it is no number.
    port_is_one = parts.port is None or parts.port > 0
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and port_is_one


def _networks(table: Table, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """As they are compared later: `10.0.0.1` is `10.0.0.1/32`."""
    if not table.has(name):
        return default
    found = []
    for text in table.texts(name):
        try:
            found.append(str(ip_network(text, strict=False)))
        except ValueError:
            raise table.error(f"{text!r} is no address and no network, such as 10.0.0.0/8", name) from None
    return tuple(found)


def _limits(table: Table, base: Limits) -> Limits:
    return Limits(
        max_age=table.span("max_age", base.max_age),
        unused=table.span("unused", base.unused),
        never_used=table.span("never_used", base.never_used),
        due_soon=table.span("due_soon", base.due_soon),
        soak_grace=table.span("soak_grace", base.soak_grace),
        addresses=_networks(table, "addresses", base.addresses),
        max_addresses=table.number("max_addresses", least=1) or base.max_addresses,
    )


def _defaults(table: Table) -> Defaults:
    base = Defaults()
    fail_on: Any = table.word("fail_on", SEVERITIES, base.fail_on)
    found = Defaults(
        limits=_limits(table, base.limits),
        minter_max_age=table.span("minter_max_age", base.minter_max_age),
        soak=table.span("soak"),
        max_keys=table.number("max_keys", base.max_keys, least=1),
        max_account_keys=table.number("max_account_keys", base.max_account_keys, least=1),
        fail_on=fail_on,
    )
    table.close()
    return found


def _sink(name: str, table: Table) -> SinkPolicy:
    if not _SINK_NAME.fullmatch(name):
        raise table.error("the name of a sink has up to 64 letters, digits, dots, dashes and underscores")
    table.text("comment")
    kind, address = table.text("type"), table.text("address")
    if (kind is None) == (address is None):
        raise table.error("write either an address, such as github:OWNER/REPO/NAME, or a type and its fields")
    if kind is not None:
        address = _address(table, kind)
    elif not _KIND.match(address or ""):
        raise table.error(f"{address!r} is no address: write KIND:PLACE, such as dotenv:.env#NEON_API_KEY", "address")
    options = table.pairs("options")
    table.close()
    return SinkPolicy(name=name, ref=SinkRef(address or "", tuple(sorted(options.items()))))


def _address(table: Table, kind: str) -> str:
    """Of a type and its fields."""
    if kind not in _FORMS:
        raise table.error(
            f"a {kind!r} cannot be written with fields{near(kind, _FORMS)}",
            "type",
            hint="write address = ..., as `--to` takes it",
        )
    forms = {form: _FIELD.findall(form) for form in _FORMS[kind]}
    given = {name for fields in forms.values() for name in fields if table.has(name)}
    for form, fields in forms.items():
        if given == set(fields):
            values = {name: table.required(name) for name in fields}
            return _FIELD.sub(lambda place, values=values: values[place[1]], form)  # type: ignore[misc]
    wanted = " or ".join(", ".join(fields) for fields in forms.values())
    raise table.error(f"a {kind} has the fields {wanted}")


class _SinkBook:
    """Sinks by name; one that is only written as an address gets in when it is first met."""

    def __init__(self, sinks: dict[str, SinkPolicy]) -> None:
        self.sinks = dict(sinks)
        self._names = {each.ref.address: name for name, each in sinks.items()}

    def name(self, table: Table, key: str, text: str) -> str:
        if text in self.sinks:
            return text
        if not _KIND.match(text):
            raise table.error(f"there is no sink {text!r}{near(text, self.sinks)}", key)
        if text not in self._names:
            self._names[text] = text
            self.sinks[text] = SinkPolicy(name=text, ref=SinkRef(text))
        return self._names[text]

    def names(self, table: Table, key: str) -> tuple[str, ...]:
        found = [self.name(table, key, text) for text in table.texts(key)]
        for name in found:
            if found.count(name) > 1:
                raise table.error(f"{name!r} is here twice", key)
        return tuple(found)


def _lineage(name: str, table: Table, neon: NeonPolicy, defaults: Defaults, book: _SinkBook) -> LineagePolicy:
    table.checked(lambda: check_lineage(name))
    kind: Any = table.word("scope", _SCOPES)
    scope = _scope(table, kind, neon)
    pattern = table.text("pattern", neon.pattern)
    naming = table.checked(lambda: Naming(name, prefix=neon.prefix, pattern=pattern), "pattern")
    found = LineagePolicy(
        name=name,
        scope=scope,
        naming=naming,
        limits=_limits(table, defaults.limits),
        owner=table.text("owner"),
        sinks=book.names(table, "sinks"),
        smoke=table.text("smoke"),
        soak=table.span("soak") if table.has("soak") else defaults.soak,
        consumer=table.span("consumer"),
        allow=table.texts("allow"),
    )
    table.close()
    return found


def _scope(table: Table, kind: ScopeKind, neon: NeonPolicy) -> Scope:
    org_id, project_id = table.text("org_id"), table.text("project_id")
    if kind == "personal":
        for key, value in (("org_id", org_id), ("project_id", project_id)):
            if value is not None:
                raise table.error("a personal key has none", key)
        return Scope(kind=kind)
    if org_id is None:
        org_id = neon.org_id
    if org_id is None:
        raise table.error("org_id is missing, here or in [neon]")
    if not _ORG_ID.fullmatch(org_id):
        raise table.error(f"{org_id!r} is no id of an organization", "org_id")
    if kind == "project":
        if project_id is None:
            raise table.error("project_id is missing")
        return Scope(kind=kind, org_id=org_id, project_id=project_id)
    if project_id is not None:
        raise table.error('only a key with scope = "project" has one', "project_id")
    return Scope(kind=kind, org_id=org_id)


def _parity(name: str, table: Table, book: _SinkBook) -> Parity:
    if not name.isprintable() or not 0 < len(name) <= 256:
        raise table.error("this is no name for a secret")
    lists = {key: book.names(table, key) for key in ("required", "optional", "forbidden")}
    table.close()
    for first, second in permutations(lists, 2):
        for sink in lists[first]:
            if sink in lists[second]:
                raise table.error(f"{sink!r} is in {first} and in {second}", second)
    return Parity(name=name, **lists)


def _ignore(table: Table, lineages: Mapping[str, LineagePolicy], book: _SinkBook) -> Ignore:
    rule = table.required("rule")
    if rule not in RULE_IDS:
        raise table.error(f"there is no rule {rule!r}{near(rule, RULE_IDS)}", "rule")
    sink, lineage = table.text("sink"), table.text("lineage")
    if lineage is not None and lineage not in lineages:
        raise table.error(f"there is no lineage {lineage!r}{near(lineage, lineages)}", "lineage")
    found = Ignore(
        rule=rule,
        key_id=table.number("key_id", least=1),
        name=table.text("name"),
        lineage=lineage,
        sink=None if sink is None else book.name(table, "sink", sink),
        reason=table.required("reason"),
        until=table.moment("until"),
        line=table.line(),
    )
    table.close()
    if (found.key_id, found.name, found.lineage, found.sink) == (None, None, None, None):
        raise table.error("say what it is about: key_id, name, lineage or sink")
    return found


# What holds between them


def _check_addresses(document: Table, sinks: Mapping[str, SinkPolicy]) -> None:
    seen: dict[str, str] = {}
    for name, each in sinks.items():
        first = seen.setdefault(each.ref.address, name)
        if first != name:
            raise document.error(f"this is the same place as sink.{first}", "sink", name)


def _check_owners_of_sinks(document: Table, lineages: Mapping[str, LineagePolicy]) -> None:
    """A place holds one key."""
    seen: dict[str, str] = {}
    for name, each in lineages.items():
        for sink in each.sinks:
            first = seen.setdefault(sink, name)
            if first != name:
                raise document.error(f"{sink!r} already holds the key of {first}", "lineage", name, "sinks")


def _check_names(document: Table, lineages: Mapping[str, LineagePolicy]) -> None:
    """A key's name has to say whose it is."""
    for first, second in permutations(lineages.values(), 2):
        if first.naming.pattern == second.naming.pattern and "{lineage}" in first.naming.pattern:
            # All other places are as long for one as for the other, so these never meet.
            continue
        example = first.naming.name(rid="a" * RID_LENGTH, at=datetime(2026, 1, 1, tzinfo=UTC))
        if second.naming.rid_of(example) is not None:
            raise document.error(
                f"its keys would have names of {first.name} too: put {{lineage}} into the pattern",
                "lineage",
                second.name,
                "pattern",
            )
