"""The audit's rules about keys, K001 to K017 and P005: one function each, from the facts to what is wrong. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Final

from lamplighter.keys.duration import show_duration
from lamplighter.keys.facts import KeyFact
from lamplighter.keys.findings import Problem, View, days
from lamplighter.keys.fold import Attempt

#: Clocks of two machines are never quite the same, and Neon's lists may have whole seconds.
CLOCK_TOLERANCE: Final = timedelta(seconds=60)
#: Neon says when a key was used a little later than we did it.
USE_TOLERANCE: Final = timedelta(minutes=15)

_CLI_LEFTOVER: Final = re.compile(r"neonctl-init-.+")
#: The more of them a key may do what its kind lets it, the higher.
_BREADTH: Final = {"project": 0, "organization": 1, "personal": 2}
_KINDS: Final = {"project": "one project", "organization": "a whole organization", "personal": "all that its user can"}


def _age(view: View, key: KeyFact) -> timedelta:
    return view.now - key.created_at


def _max_age(view: View, key: KeyFact) -> timedelta:
    if key.id == view.inventory.minter_id:
        return view.policy.defaults.minter_max_age
    return view.policy.limits_of(view.lineages.get(key.id)).max_age


def too_old(view: View) -> Iterator[Problem]:
    """K001."""
    for key in view.keys:
        age, limit = _age(view, key), _max_age(view, key)
        if age > limit:
            yield view.about(key, f"it is {days(age)} old; {show_duration(limit)} is the limit", view.renewal(key))


def unused(view: View) -> Iterator[Problem]:
    """K002."""
    for key in view.keys:
        limit = view.policy.limits_of(view.lineages.get(key.id)).unused
        if key.last_used_at is not None and view.now - key.last_used_at > limit:
            idle = days(view.now - key.last_used_at)
            yield view.about(key, f"it was last used {idle} ago", f"if nothing needs it: `lamp keys revoke {key.id}`")


def never_used(view: View) -> Iterator[Problem]:
    """K003."""
    for key in view.keys:
        limit = view.policy.limits_of(view.lineages.get(key.id)).never_used
        if key.last_used_at is None and _age(view, key) > limit:
            sentence = f"it is {days(_age(view, key))} old and was never used"
            yield view.about(key, sentence, f"if nothing needs it: `lamp keys revoke {key.id}`")


def creator_left(view: View) -> Iterator[Problem]:
    """K004. A personal key belongs to no organization: what its user lost shows in all that are looked at."""
    members = view.inventory.members
    for key in view.keys:
        if key.org_id is None:
            left = bool(members) and all(key.created_by not in ids for ids in members.values())
            sentence = "its user is not a member of the organization, so it reaches nothing there"
        else:
            left = key.org_id in members and key.created_by not in members[key.org_id]
            sentence = "whoever made it is no longer a member of the organization, but the key is still good"
        if left:
            yield view.about(key, sentence, view.renewal(key))


def no_owner(view: View) -> Iterator[Problem]:
    """K005. Adopted keys have names of any kind: without the journal they cannot be told."""
    if view.journal_failed:
        return
    for key in view.consumers:
        if key.id not in view.lineages and key.id not in view.inventory.maybe_minter:
            advice = f"`lamp keys adopt {key.id}`, or revoke it if nobody knows it: `lamp keys revoke {key.id}`"
            yield view.about(key, "nobody owns it: it is not in the journal, and its name says no lineage", advice)


def too_broad(view: View) -> Iterator[Problem]:
    """K006."""
    for key in view.consumers:
        declared = view.declared(key)
        if declared is None:
            continue
        scope, advice = declared.scope, view.renewal(key)
        if _BREADTH[key.kind] > _BREADTH[scope.kind]:
            sentence = f"it reaches {_KINDS[key.kind]}; the policy wants {_KINDS[scope.kind]}"
            yield view.about(key, sentence, advice)
        elif key.org_id is not None and scope.org_id is not None and key.org_id != scope.org_id:
            yield view.about(key, f"it is of {key.org_id}; the policy says {scope.org_id}", advice)
        elif key.kind == scope.kind == "project" and key.project_id != scope.project_id:
            yield view.about(key, f"it reaches project {key.project_id}; the policy says {scope.project_id}", advice)


def orphan(view: View) -> Iterator[Problem]:
    """K007. A name that was announced is not an orphan while its rotation is under way."""
    state = view.inventory.state
    if state is None:
        return
    announced = {each.intent.name for lineage in state.lineages.values() for each in lineage.unsure}
    watched = {name for lineage in state.lineages.values() for name in lineage.watched}
    for key in view.consumers:
        if key.id not in view.lineages or view.journal_of(key.id) is not None or key.name in announced:
            continue
        if key.name in watched:
            sentence = "it came late, of a request that had no answer: nobody has its value"
            yield view.about(key, sentence, "`lamp keys recover` revokes it")
            continue
        sentence = "its name is one of ours, but the journal does not know it"
        advice = (
            f"if another machine made it, look there; else `lamp keys adopt {key.id}` or "
            f"`lamp keys revoke {key.id} --force`"
        )
        yield view.about(key, sentence, advice)


def _superseded(view: View) -> Iterator[tuple[KeyFact, Attempt]]:
    """Live keys that have a proven successor, with it."""
    for key in view.consumers:
        known = view.journal_of(key.id)
        successor = view.successor(known.name) if known else None
        if known is None or successor is None or successor.key_id == key.id or key.id in known.revoked:
            continue
        rids = list(known.attempts)
        # What was begun later is not older than what it is to follow.
        if known.keys[key.id].rid not in rids[rids.index(successor.rid) :]:
            yield key, successor


def _soak_end(attempt: Attempt) -> datetime | None:
    if attempt.soak is not None:
        return attempt.soak.until
    verified = attempt.verified
    return verified.at + timedelta(seconds=attempt.intent.soak) if verified else None


def soak_overdue(view: View) -> Iterator[Problem]:
    """K008, and keys that the journal says are revoked."""
    for key, successor in _superseded(view):
        until = _soak_end(successor)
        lineage = view.lineages[key.id]
        over = view.now - until if until is not None else timedelta()
        if over > view.policy.limits_of(lineage).soak_grace:
            sentence = f"key {successor.key_id} took its place, and its soak was over {days(over)} ago"
            yield view.about(key, sentence, "`lamp keys recover` goes on with the rotation")
    for key in view.consumers:
        known = view.journal_of(key.id)
        if known is not None and key.id in known.revoked:
            sentence = "the journal says that it was revoked, and it is still live"
            yield view.about(key, sentence, f"`lamp keys revoke {key.id}`")


def used_after(view: View) -> Iterator[Problem]:
    """K009."""
    for key, successor in _superseded(view):
        verified, used = successor.verified, key.last_used_at
        if verified is not None and used is not None and used > verified.at:
            sentence = f"it was used after key {successor.key_id} had taken its place"
            advice = "find what still uses it, and let it take up the new key; the old one is revoked after that"
            yield view.about(key, sentence, advice, addresses=key.last_used_from)


def _outside(addresses: Iterable[str], networks: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are in none of the networks; what is no address is in none."""
    known = [ip_network(each) for each in networks]
    return tuple(each for each in addresses if not _within(each, known))


def _within(text: str, networks: list) -> bool:  # type: ignore[type-arg]
    try:
        address = ip_address(text)
    except ValueError:
        return False
    # Listeners for both versions show one of four as ::ffff:10.0.0.1.
    mapped = getattr(address, "ipv4_mapped", None)
    return any(address in network or (mapped is not None and mapped in network) for network in networks)


def strange_addresses(view: View) -> Iterator[Problem]:
    """K010."""
    for key in view.consumers:
        limits = view.policy.limits_of(view.lineages.get(key.id))
        outside = _outside(key.last_used_from, limits.addresses) if limits.addresses else ()
        advice = "if that is not yours: `lamp keys emergency`; else add the network to `addresses`"
        if outside:
            sentence = f"it was used from {_count(len(outside), 'address')} outside those allowed"
            yield view.about(key, sentence, advice, addresses=outside)
        many = limits.max_addresses
        if many is not None and len(set(key.last_used_from)) > many:
            sentence = f"it was used from {_count(len(set(key.last_used_from)), 'address')}; {many} is the limit"
            yield view.about(key, sentence, advice, addresses=key.last_used_from)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}es"


def unlimited_addresses(view: View) -> str | None:
    limits = [view.policy.defaults.limits, *(each.limits for each in view.policy.lineages.values())]
    if any(each.addresses or each.max_addresses is not None for each in limits):
        return None
    return "the policy has neither addresses nor max_addresses"


def two_live(view: View) -> Iterator[Problem]:
    """K011."""
    if view.journal_failed:
        return
    for lineage, keys in view.members_of.items():
        known = view.recorded(lineage)
        if len(keys) < 2 or (known is not None and (known.open or known.unsure or known.pending)):
            continue
        ids = ", ".join(str(key.id) for key in keys)
        yield Problem(
            sentence=f"it has {len(keys)} live keys ({ids}), and no rotation is under way",
            advice="find out which is in use, and revoke the others by id: `lamp keys revoke ID`",
            lineage=lineage,
            place=view.place(lineage),
        )


def same_name(view: View) -> Iterator[Problem]:
    """K012."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for key in view.keys:
        found[key.name].append(key.id)
    for name in sorted(found):
        if len(ids := found[name]) > 1:
            yield Problem(
                sentence=f"keys {', '.join(map(str, ids))} have the same name",
                advice="revoke all but one, by id; a name is the only handle for a key whose id was lost",
                name=name,
            )


def minter_elsewhere(view: View) -> Iterator[Problem]:
    """K013."""
    key = view.minter
    if key is None:
        return
    advice = "if that was not you: `lamp keys emergency`, for a minter can make any other key"
    place = ("neon", "minter_id")
    outside = _outside(key.last_used_from, view.policy.neon.minter_from) if view.policy.neon.minter_from else ()
    about = {"key_id": key.id, "name": key.name}
    if outside:
        sentence = f"the minter was used from {_count(len(outside), 'address')} outside those allowed"
        yield Problem(sentence=sentence, advice=advice, addresses=outside, place=("neon", "minter_from"), **about)  # type: ignore[arg-type]
    if key.last_used_at is not None and view.inventory.records and not _ours(view, key.last_used_at):
        sentence = f"the minter was used at {key.last_used_at.isoformat()}, and the manager did not do that"
        yield Problem(sentence=sentence, advice=advice, addresses=key.last_used_from, place=place, **about)  # type: ignore[arg-type]


def _ours(view: View, used: datetime) -> bool:
    """Whether the manager was at work then: by its journal, by its notes, or in this audit."""
    state, records = view.inventory.state, view.inventory.records or ()
    moments = [*(each.at for each in records), *view.inventory.uses, view.inventory.at]
    if any(abs(used - at) <= USE_TOLERANCE for at in moments):
        return True
    if view.inventory.at <= used <= view.now:
        return True
    # While a rotation is under way it lists keys without writing that down.
    attempts = [each for lineage in state.lineages.values() for each in lineage.attempts.values()] if state else []
    last = {rid: each.at for each in records if (rid := getattr(each, "rid", None)) is not None}
    spans = [(each.intent.at, last[each.rid] if each.end else view.now) for each in attempts]
    return any(begun <= used <= ended for begun, ended in spans)


def unknown_minter(view: View) -> str | None:
    if view.inventory.minter_id is None:
        return "which key is the minter's is not known: write minter_id into [neon]"
    return None


def due_soon(view: View) -> Iterator[Problem]:
    """K014."""
    for key in view.keys:
        left = _max_age(view, key) - _age(view, key)
        if timedelta() <= left < view.policy.limits_of(view.lineages.get(key.id)).due_soon:
            yield view.about(key, f"it has to be renewed within {days(left)}", view.renewal(key))


def project_gone(view: View) -> Iterator[Problem]:
    """K015."""
    for key in view.keys:
        known = view.inventory.projects.get(key.org_id or "")
        if key.project_id is not None and known is not None and key.project_id not in known:
            sentence = f"its project {key.project_id} is gone, or left the organization: the key does not work"
            yield view.about(key, sentence, f"`lamp keys revoke {key.id}`")


def too_many(view: View) -> Iterator[Problem]:
    """K016."""
    limits = view.policy.defaults
    counts: defaultdict[str, int] = defaultdict(int)
    for key in view.keys:
        if key.org_id is not None:
            counts[key.org_id] += 1
    found = [(each, counts[each], limits.max_keys) for each in sorted(counts)]
    found.append(("the account", sum(key.org_id is None for key in view.keys), limits.max_account_keys))
    for name, count, limit in found:
        if count > limit:
            yield Problem(
                sentence=f"{name} has {count} keys; {limit} is the limit",
                advice="revoke those that K002, K003 and K005 find",
                name=name,
                place=("defaults", "max_keys"),
            )


def clock(view: View) -> Iterator[Problem]:
    """K017."""
    for key in view.keys:
        advice = "compare this machine's clock with the server's: ages and limits cannot be trusted"
        if key.created_at - view.now > CLOCK_TOLERANCE:
            yield view.about(key, f"it was made in the future, at {key.created_at.isoformat()}", advice)
        if key.last_used_at is not None and key.created_at - key.last_used_at > CLOCK_TOLERANCE:
            yield view.about(key, "it was used before it was made", advice)


def cli_leftover(view: View) -> Iterator[Problem]:
    """P005."""
    for key in view.consumers:
        if _CLI_LEFTOVER.fullmatch(key.name):
            sentence = "a run of `neon init` made it, as each run makes another"
            yield view.about(key, sentence, f"`lamp keys revoke {key.id}`, if nothing was set up with it")
