"""Facts in, text out: how `lamp doctor` shows what it found. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamplighter.cli.text import fields, human_bytes, plural, table

if TYPE_CHECKING:
    from lamplighter.platform.checkup import Checkup, DriversFacts, GatewayFacts, HostFacts, PortFacts, PostgresFacts
    from lamplighter.platform.leftovers import Leftover

_INDENT = "  "


def checkup_text(checkup: Checkup, *, fix: bool = False) -> str:
    """A block for each subject, the verdict last."""
    blocks = [
        _block("Host", _host(checkup.host)),
        _block("PostgreSQL", _postgres(checkup.postgres)),
        _block("Storage", _storage(checkup)),
        _block("Ports", _ports(checkup)),
        _block("Gateway", _gateway(checkup.gateway)),
        _block("Platform", _platform(checkup)),
        _block("Leftovers", _leftovers(checkup.leftovers, fix=fix)),
    ]
    if checkup.notes:
        blocks.append(_block("Notes", list(checkup.notes)))
    blocks.append(_verdict(checkup))
    return "\n\n".join(blocks)


def _block(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"{_INDENT}{line}".rstrip() for line in lines)])


def _host(host: HostFacts) -> list[str]:
    missing = [name for name, path in host.programs.items() if path is None]
    present = ", ".join(name for name, path in host.programs.items() if path is not None)
    return fields(
        [
            ("system", f"{host.system}, kernel {host.kernel}, Python {host.python}"),
            ("machine", f"{plural(host.cpus, 'CPU')}, {human_bytes(host.memory_bytes)} of memory"),
            ("user", f"{host.user}; Postgres runs as {host.run_as}"),
            ("programs", present + (f"; not found: {', '.join(missing)}" if missing else "")),
            ("limits", host.limits),
        ]
    )


def _postgres(majors: tuple[PostgresFacts, ...]) -> list[str]:
    rows = [
        (
            str(one.major),
            one.how if one.installed else "not installed",
            _tls(one),
            (one.pgvector or "none") if one.installed else "",
            str(one.extensions) if one.installed else "",
            one.bin_dir or f"can be fetched {one.how}",
        )
        for one in majors
    ]
    lines = table(("MAJOR", "VERSION", "TLS", "PGVECTOR", "EXTENSIONS", "WHERE"), rows)
    for one in majors:
        lines += [f"{one.major}: no {name}: {why}" for name, why in one.unavailable]
    return lines


def _tls(one: PostgresFacts) -> str:
    if not one.installed:
        return ""
    return "yes" if one.tls else "no"


def _storage(checkup: Checkup) -> list[str]:
    drivers = checkup.drivers
    pairs = [("place", f"{drivers.place} ({drivers.filesystem})")]
    if checkup.storage.pool is not None:
        pool = checkup.storage.pool
        pairs.append(("pool", f"{human_bytes(pool.size_bytes)}, {pool.fs}, {'' if pool.mounted else 'not '}mounted"))
    pairs.append(("space", f"{human_bytes(checkup.free_bytes)} free, {human_bytes(checkup.reserve_bytes)} in reserve"))
    pairs.append(("driver", f"{drivers.chosen or 'none'}: {drivers.why or drivers.untried}"))
    if drivers.cost is not None:
        cost = drivers.cost
        what = f"{cost.milliseconds:.0f} ms and {human_bytes(cost.own_bytes)} of data"
        pairs.append(("a branch", f"{what}, measured on {cost.files} files with {human_bytes(cost.source_bytes)}"))
    return [*fields(pairs), *_drivers(drivers)]


def _drivers(drivers: DriversFacts) -> list[str]:
    if not drivers.drivers:
        return []
    rows = [
        (
            one.driver,
            "works" if one.usable else "no",
            f"{one.clone_ms:.1f} ms for a bare clone" if one.clone_ms is not None else one.why,
        )
        for one in drivers.drivers
    ]
    return table(("DRIVER", "HERE", "WHY, OR COST"), rows)


def _ports(checkup: Checkup) -> list[str]:
    api, ports = checkup.api, checkup.endpoints
    taken = f"{ports.taken} of {ports.last - ports.first + 1} taken"
    shown = f" ({'; '.join(ports.holders)}{'; ...' if ports.taken > len(ports.holders) else ''})"
    pairs = [("API", _port(api) if api.port else "any free port")]
    if checkup.domain is not None:
        pairs.append(("domain", _port(checkup.domain)))
    pairs.append(("endpoints", f"{ports.first} to {ports.last}: {taken}{shown if ports.taken else ''}"))
    return fields(pairs)


def _port(port: PortFacts) -> str:
    return f"{port.host}:{port.port} is {'free' if port.free else f'taken by {port.holder}'}"


def _gateway(gateway: GatewayFacts) -> list[str]:
    pooler = (
        f"PgBouncer {gateway.pooler_version} ({gateway.pooler})" if gateway.pooler else f"none: {gateway.no_pooler}"
    )
    return fields(
        [
            ("relay", gateway.relay),
            ("pooler", pooler),
            ("redirect", "works (lamp up --redirect)" if gateway.redirect else f"no: {gateway.no_redirect}"),
        ]
    )


def _platform(checkup: Checkup) -> list[str]:
    platform, catalog = checkup.platform, checkup.catalog
    if platform.state == "stopped":
        return [f"none runs on {platform.data_dir}"]
    state = "runs" if platform.state == "running" else "starts or stops"
    lines = [f"{state} on {platform.data_dir} (process {platform.pid})"]
    if catalog is not None and catalog.reachable:
        lines.append(
            f"catalog: PostgreSQL {catalog.version}, answers in {catalog.answer_ms:g} ms, "
            f"{catalog.migrations} of {plural(catalog.migrations_known or 0, 'migration')}"
        )
    elif catalog is not None:
        lines.append(f"catalog: cannot be read: {catalog.why}")
    return lines


def _leftovers(leftovers: tuple[Leftover, ...], *, fix: bool) -> list[str]:
    if not leftovers:
        return ["none"]
    lines = [f"{one.kind}: {one.what}" + (f" - {one.do}" if fix else "") for one in leftovers]
    if fix:
        return lines
    return [
        *lines,
        "`lamp up` mends what it may when it starts; --fix tells who takes away what, and removes kernel redirects.",
    ]


def _verdict(checkup: Checkup) -> str:
    if not checkup.problems:
        return "A platform can run here."
    lines = [f"{problem.what}\n{_INDENT}{_INDENT}do: {problem.do}" for problem in checkup.problems]
    return _block("Problems: no platform can run here as it is", lines)
