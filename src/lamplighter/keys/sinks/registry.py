"""From an address to a sink: which class knows the word before the colon is said by entry points.

Others add their stores by an entry point of the group `lamplighter.sinks`, such as `mystore = "my_package:MyStore"`.
Those that come with Lamplighter are imported only when one of their addresses is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from lamplighter.keys.errors import PolicyError
from lamplighter.keys.records import SinkRef
from lamplighter.keys.sinks.base import Sink

GROUP: Final = "lamplighter.sinks"

_HERE: Final = "lamplighter.keys.sinks"
#: The stores that come with Lamplighter: found without a look at what is installed, and not to be replaced.
BUILT_IN: Final[Mapping[str, str]] = {
    "aws-secret": f"{_HERE}.aws:AwsSecretSink",
    "aws-ssm": f"{_HERE}.aws:AwsParameterSink",
    "cloudflare-store": f"{_HERE}.cloudflare:CloudflareStoreSink",
    "cloudflare-worker": f"{_HERE}.cloudflare:CloudflareWorkerSink",
    "command": f"{_HERE}.command:CommandSink",
    "dotenv": f"{_HERE}.dotenv:DotenvSink",
    "github": f"{_HERE}.github:GitHubSink",
    "github-agents": f"{_HERE}.github:GitHubSink",
    "github-codespaces": f"{_HERE}.github:GitHubSink",
    "github-dependabot": f"{_HERE}.github:GitHubSink",
    "github-env": f"{_HERE}.github:GitHubSink",
    "github-org": f"{_HERE}.github:GitHubSink",
    "gitlab": f"{_HERE}.gitlab:GitLabSink",
    "gitlab-group": f"{_HERE}.gitlab:GitLabSink",
    "keychain": f"{_HERE}.keychain:KeychainSink",
    "kubernetes": f"{_HERE}.kubernetes:KubernetesSink",
    "vault": f"{_HERE}.vault:VaultSink",
    "vercel": f"{_HERE}.vercel:VercelSink",
}


def kinds() -> tuple[str, ...]:
    """Every word that an address may begin with."""
    return tuple(sorted({*BUILT_IN, *_installed()}))


def _installed() -> dict[str, EntryPoint]:
    return {each.name: each for each in entry_points(group=GROUP)}


def sink_class(kind: str) -> type[Sink]:
    """The class for the word before the colon. Raises PolicyError."""
    if kind in BUILT_IN:
        module, _, name = BUILT_IN[kind].partition(":")
        return _checked(kind, getattr(import_module(module), name))
    entry = _installed().get(kind)
    if entry is None:
        raise PolicyError(f"there is no kind of sink called {kind!r}", hint=f"there are {', '.join(kinds())}")
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise PolicyError(f"the sink {kind!r} of {entry.value} cannot be loaded: {type(error).__name__}") from None
    return _checked(kind, found)


def _checked(kind: str, found: object) -> type[Sink]:
    if not isinstance(found, type) or not issubclass(found, Sink):
        raise PolicyError(f"the entry point of {kind!r} names no sink")
    return found


def parse_sink(address: str, options: Mapping[str, str] | None = None) -> Sink:
    """The sink of an address. Touches nothing. Raises PolicyError, whose text shows the right form."""
    kind, colon, rest = address.partition(":")
    if not colon or not rest:
        raise PolicyError(
            f"{address!r} is no address of a sink: write KIND:PLACE, such as dotenv:.env#NEON_API_KEY",
            hint=f"kinds are {', '.join(kinds())}",
        )
    return sink_class(kind).parse(address, options or {})


def sink_of(ref: SinkRef) -> Sink:
    """The sink that a journal names."""
    return parse_sink(ref.address, dict(ref.options))


def no_options(address: str, options: Mapping[str, str], known: frozenset[str] = frozenset()) -> None:
    """For `parse`: raise PolicyError for an option that this kind of sink does not have."""
    for name in options:
        if name not in known:
            allowed = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise PolicyError(f"{address} has no option {name!r}", hint=allowed)
