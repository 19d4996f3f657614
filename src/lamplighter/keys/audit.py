"""Judges an inventory by a policy: findings, what is excused, what could not be looked at, and the exit code. Pure.

The same inventory, policy and time give the same audit, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

from lamplighter.keys import keyrules, parity
from lamplighter.keys.facts import Gap, Inventory, Source
from lamplighter.keys.findings import Finding, Need, Problem, Rule, View
from lamplighter.keys.fold import Lineage
from lamplighter.keys.policy import SEVERITIES, Ignore, Policy, Severity

ExitCode = Literal[0, 1, 2, 3, 4]
CLEAN: Final = 0
FINDINGS: Final = 1
#: Never made here: PolicyError and wrong options end with it.
USAGE: Final = 2
COULD_NOT_LOOK: Final = 3
UNFINISHED: Final = 4

IgnoreState = Literal["in force", "expired", "unused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excuse:
    """An ignore of the policy, and what came of it. `count` is how many findings it excuses, or would if it held."""

    ignore: Ignore
    state: IgnoreState
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """`findings` are those that count; `ignored` those that somebody answers for.

    `gaps` is what could not be looked at, `blind` the rules that a gap keeps from seeing all. `unasked` says for each
    rule that had nothing to go by why. `unfinished` are lineages that wait for `recover`.
    """

    at: datetime
    inventory: Inventory
    policy: Policy
    findings: tuple[Finding, ...] = ()
    ignored: tuple[Finding, ...] = ()
    excuses: tuple[Excuse, ...] = ()
    gaps: tuple[Gap, ...] = ()
    blind: frozenset[str] = frozenset()
    unasked: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[Severity, int]:
        """Findings by severity, the worst first."""
        return {each: sum(one.severity == each for one in self.findings) for each in reversed(SEVERITIES)}

    @property
    def exit_code(self) -> ExitCode:
        return exit_code(self)


def _needs(*needs: Need) -> frozenset[Need]:
    return frozenset(needs)


def _no_organization(view: View) -> str | None:
    return None if view.policy.org_ids else "the policy names no organization"


def _no_journal(view: View) -> str | None:
    asked = view.inventory.records is not None or any(gap.source == "journal" for gap in view.inventory.gaps)
    return None if asked else "there is no journal to go by"


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        id="K001",
        title="Key is too old",
        severity="high",
        why="Neon's keys never expire, so that one which leaked long ago works until it is replaced.",
        needs=_needs("keys"),
        check=keyrules.too_old,
    ),
    Rule(
        id="K002",
        title="Key is not used any more",
        severity="medium",
        why="A key that nobody needs can only do harm.",
        needs=_needs("keys"),
        check=keyrules.unused,
    ),
    Rule(
        id="K003",
        title="Key was never used",
        severity="medium",
        why="A key that was made and never used is either forgotten, or kept where nobody looks.",
        needs=_needs("keys"),
        check=keyrules.never_used,
    ),
    Rule(
        id="K004",
        title="Creator is no longer a member",
        severity="high",
        why="An organization's keys stay valid when whoever made them, and may have kept them, leaves.",
        needs=_needs("keys", "members"),
        check=keyrules.creator_left,
        unasked=_no_organization,
    ),
    Rule(
        id="K005",
        title="Key has no owner",
        severity="high",
        why="Nobody can say what breaks when it is revoked, so nobody revokes it.",
        needs=_needs("keys", "journal"),
        check=keyrules.no_owner,
    ),
    Rule(
        id="K006",
        title="Key reaches more than declared",
        severity="high",
        why="What leaks with a key is all that it reaches.",
        needs=_needs("keys", "journal"),
        check=keyrules.too_broad,
        unasked=lambda view: None if view.policy.lineages else "the policy has no lineage",
    ),
    Rule(
        id="K007",
        title="Key of ours is not in the journal",
        severity="high",
        why="A mint whose answer was lost, or another machine, made a key that no rotation will ever revoke.",
        needs=_needs("keys", "journal"),
        check=keyrules.orphan,
        unasked=_no_journal,
    ),
    Rule(
        id="K008",
        title="Superseded key is still live",
        severity="medium",
        why="The soak of its successor is over: a rotation that does not revoke changed nothing.",
        needs=_needs("keys", "journal"),
        check=keyrules.soak_overdue,
        unasked=_no_journal,
    ),
    Rule(
        id="K009",
        title="Superseded key is still used",
        severity="high",
        why="Some consumer did not take up the new key, and will fail when the old one is revoked; or it is not ours.",
        needs=_needs("keys", "journal"),
        check=keyrules.used_after,
        unasked=_no_journal,
    ),
    Rule(
        id="K010",
        title="Key is used from where it should not be",
        severity="high",
        why="Use from an address that nobody expects is how a leak shows first.",
        needs=_needs("keys", "journal"),
        check=keyrules.strange_addresses,
        unasked=keyrules.unlimited_addresses,
    ),
    Rule(
        id="K011",
        title="Lineage has two live keys",
        severity="medium",
        why="Outside of a rotation one logical key is one key; which of the two is in use, nobody knows.",
        needs=_needs("keys", "journal"),
        check=keyrules.two_live,
    ),
    Rule(
        id="K012",
        title="Keys have the same name",
        severity="low",
        why="They cannot be told apart in Neon's console.",
        needs=_needs("keys"),
        check=keyrules.same_name,
    ),
    Rule(
        id="K013",
        title="Minter is used by something else",
        severity="critical",
        why="The minter can make every other key, so only the manager may ever use it.",
        needs=_needs("keys", "journal", "minter"),
        check=keyrules.minter_elsewhere,
        unasked=keyrules.unknown_minter,
    ),
    Rule(
        id="K014",
        title="Key is due soon",
        severity="info",
        why="It reaches its greatest age within days.",
        needs=_needs("keys"),
        check=keyrules.due_soon,
    ),
    Rule(
        id="K015",
        title="Project of the key is gone",
        severity="low",
        why="A key of a project stops working when that is deleted or leaves the organization.",
        needs=_needs("keys", "projects"),
        check=keyrules.project_gone,
        unasked=_no_organization,
    ),
    Rule(
        id="K016",
        title="There are too many keys",
        severity="low",
        why="Nobody keeps track of so many; Neon advises fewer than 10,000 for an account.",
        needs=_needs("keys"),
        check=keyrules.too_many,
    ),
    Rule(
        id="K017",
        title="Times do not agree",
        severity="low",
        why="Ages and soaks are reckoned by these times.",
        needs=_needs("keys"),
        check=keyrules.clock,
    ),
    Rule(
        id="P001",
        title="Required secret is missing",
        severity="high",
        why="What should read it there fails, or reads an older one from elsewhere without a word.",
        needs=_needs("sinks"),
        check=parity.lacking,
        unasked=parity.no_sinks,
    ),
    Rule(
        id="P002",
        title="Secret is where it may not be",
        severity="critical",
        why="It is in reach of those for whom it was not made.",
        needs=_needs("sinks"),
        check=parity.forbidden,
        unasked=parity.no_parity,
    ),
    Rule(
        id="P003",
        title="Store was not updated",
        severity="high",
        why="It was last written before the present key was made, so it holds an older one, or none that works.",
        needs=_needs("keys", "journal", "sinks"),
        check=parity.stale,
        unasked=parity.no_sinks,
    ),
    Rule(
        id="P004",
        title="Store holds another value",
        severity="high",
        why="Its consumers work with a key that is not the one they should have.",
        needs=_needs("keys", "journal", "sinks"),
        check=parity.wrong_value,
        unasked=lambda view: _no_journal(view) or parity.no_values(view),
    ),
    Rule(
        id="P005",
        title="Leftover of Neon's own command",
        severity="low",
        why="Each run of `neon init` makes a personal key, and revokes none.",
        needs=_needs("keys"),
        check=keyrules.cli_leftover,
    ),
)

BY_ID: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in RULES})

_SUPPLY: Final[Mapping[Source, frozenset[Need]]] = {
    "account": frozenset(),
    "personal keys": frozenset({"keys"}),
    "organization keys": frozenset({"keys"}),
    "members": frozenset({"members"}),
    "projects": frozenset({"projects"}),
    "journal": frozenset({"journal"}),
    "minter": frozenset({"minter"}),
    "sink": frozenset({"sinks"}),
}


def audit(inventory: Inventory, policy: Policy, *, now: datetime) -> Audit:
    """Every rule, over everything. `now` has an offset."""
    view = View(inventory=inventory, policy=policy, now=now)
    unasked = {rule.id: why for rule in RULES if (why := rule.unasked(view)) is not None}
    found = sorted(_found(view, unasked), key=lambda finding: finding.order)
    marked = [_mark(each, policy, now) for each in found]
    missing = frozenset[Need]().union(*(_SUPPLY[gap.source] for gap in inventory.gaps))
    return Audit(
        at=now,
        inventory=inventory,
        policy=policy,
        findings=tuple(each for each in marked if each.ignored is None),
        ignored=tuple(each for each in marked if each.ignored is not None),
        excuses=tuple(_excuse(each, marked, now) for each in policy.ignores),
        gaps=tuple(sorted(inventory.gaps, key=lambda gap: (gap.source, gap.what, gap.reason))),
        blind=frozenset(rule.id for rule in RULES if rule.id not in unasked and rule.needs & missing),
        unasked=unasked,
        unfinished=_unfinished(inventory, now),
    )


def exit_code(audit: Audit) -> ExitCode:
    """The greatest that applies: a rotation to recover, then what could not be looked at, then findings."""
    if audit.unfinished:
        return UNFINISHED
    if audit.gaps:
        return COULD_NOT_LOOK
    least = SEVERITIES.index(audit.policy.defaults.fail_on)
    worst = max((SEVERITIES.index(each.severity) for each in audit.findings), default=-1)
    return FINDINGS if worst >= least else CLEAN


def needs_recover(lineage: Lineage, now: datetime) -> bool:
    """Whether something waits for `recover`, and not just for the end of a soak."""
    opened = lineage.open
    if opened is None or opened.soak is None:
        return lineage.unfinished
    rest = bool(lineage.unsure or lineage.pending or lineage.doomed or set(lineage.revoking) - lineage.revoked)
    return rest or now >= opened.soak.until


def _unfinished(inventory: Inventory, now: datetime) -> tuple[str, ...]:
    if inventory.state is None:
        return ()
    return tuple(sorted(name for name, each in inventory.state.lineages.items() if needs_recover(each, now)))


def _found(view: View, unasked: Mapping[str, str]) -> Iterator[Finding]:
    for rule in RULES:
        if rule.id in unasked:
            continue
        for problem in rule.check(view):
            yield Finding(
                rule=rule.id,
                severity=rule.severity,
                problem=problem,
                line=view.policy.line(*problem.place),
            )


def _matches(ignore: Ignore, rule: str, problem: Problem) -> bool:
    wanted = (ignore.key_id, ignore.name, ignore.lineage, ignore.sink)
    found = (problem.key_id, problem.name, problem.lineage, problem.sink)
    return ignore.rule == rule and all(want in (None, has) for want, has in zip(wanted, found, strict=True))


def _mark(finding: Finding, policy: Policy, now: datetime) -> Finding:
    for ignore in policy.ignores:
        if _matches(ignore, finding.rule, finding.problem) and not ignore.expired(now):
            return Finding(
                rule=finding.rule,
                severity=finding.severity,
                problem=finding.problem,
                line=finding.line,
                ignored=ignore,
            )
    return finding


def _excuse(ignore: Ignore, findings: list[Finding], now: datetime) -> Excuse:
    count = sum(_matches(ignore, each.rule, each.problem) for each in findings)
    state: IgnoreState = "expired" if ignore.expired(now) else "in force" if count else "unused"
    return Excuse(ignore=ignore, state=state, count=count)
