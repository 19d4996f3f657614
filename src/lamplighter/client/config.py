"""Which server the SDK and the command talk to, and with which key. Pure: environment and contexts are arguments.

A key is only ever sent to the server that it was given with: a context's key to that context's host, NEON_API_KEY to
NEON_API_HOST (to Neon's cloud when that is not set). Nothing here, nor any frame of a traceback from here, shows a key.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from lamplighter.api.secret import Secret
from lamplighter.client.errors import ConfigurationError

NEON_CLOUD: Final = "https://console.neon.tech/api/v2"
BASE: Final = "/api/v2"
#: The context that `lamp up` writes, and that is used when nothing else is said.
LOCAL: Final = "local"

KEY_VARIABLE: Final = "NEON_API_KEY"
HOST_VARIABLE: Final = "NEON_API_HOST"
CONTEXT_VARIABLE: Final = "LAMP_CONTEXT"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_PORTS: Final = {"https": 443, "http": 80}


# Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where requests go, and the key that they carry. `str()` and `repr()` hold no key.

    `source` says who decided: `arguments`, `NEON_API_KEY`, or as in `context local`. `name` is the context's, if it
    was one; `org_id` and `project_id` are that context's defaults.
    """

    base_url: str
    api_key: Secret = field(repr=False)
    source: str
    name: str | None = None
    org_id: str | None = None
    project_id: str | None = None

    def __str__(self) -> str:
        return f"{self.base_url} ({self.source})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A named server. Its key is here, or in the OS keychain (`in_keychain`), or nowhere after `lamp logout`.

    `data_dir` is set in contexts that `lamp up` wrote. `more` holds what a newer version may have written.
    """

    base_url: str
    api_key: Secret | None = None
    in_keychain: bool = False
    org_id: str | None = None
    project_id: str | None = None
    data_dir: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key_place(self) -> str | None:
        """`keychain`, `file`, or None."""
        if self.in_keychain:
            return "keychain"
        return "file" if self.api_key else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All named servers, and the name of the one that `lamp use` chose."""

    current: str | None = None
    named: Mapping[str, Context] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> Context:
        """Raises ConfigurationError, which names those that there are."""
        if name not in self.named:
            raise ConfigurationError(f"there is no context {name!r}; {_there_are(self)}")
        return self.named[name]

    def put(self, name: str, context: Context) -> Contexts:
        return replace(self, named={**self.named, check_name(name): context})

    def use(self, name: str | None) -> Contexts:
        """With `name` as the current one. Raises ConfigurationError."""
        if name is not None:
            self.get(name)
        return replace(self, current=name)

    def without(self, name: str) -> Contexts:
        """Raises ConfigurationError."""
        self.get(name)
        named = {each: context for each, context in self.named.items() if each != name}
        return replace(self, named=named, current=None if self.current == name else self.current)


class ContextSource(Protocol):
    """Where contexts come from. Both methods raise ConfigurationError.

    They are called only when they are needed: a broken file is no obstacle for who does not use it.
    """

    def read(self) -> Contexts: ...

    def key(self, name: str, context: Context) -> Secret:
        """The key of a context that has one."""
        ...


def _there_are(contexts: Contexts) -> str:
    if not contexts.named:
        return "there are none yet: `lamp login` and `lamp up` make them"
    return f"there are: {', '.join(contexts.named)}"


# Parts of a server


def check_name(name: str) -> str:
    """The name, if a context may have it. Raises ConfigurationError."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a context: use up to 64 letters, digits, dots, dashes and underscores"
        )
    return name


def seal(key: Secret) -> Secret:
    """The key without blanks around it. Raises ConfigurationError for what cannot be one."""
    sealed = Secret(key.reveal().strip())
    if not sealed:
        raise ConfigurationError("the API key is empty")
    if not _printable(sealed):
        raise ConfigurationError(
            "the API key holds blanks or characters that no key has: was it copied whole, and alone?"
        )
    return sealed


def _printable(key: Secret) -> bool:
    return all("!" <= character <= "~" for character in key.reveal())


def normalise(url: str) -> str:
    """The base URL in the one way that we write it: `https://host[:port][/prefix]/api/v2`.

    It may be given with or without a slash at the end, with or without `/api/v2`. Raises ConfigurationError for
    anything but http and https, and for a URL with a user, a password, a query or a fragment.
    """
    scheme, host, port, path = _split(url.strip())
    prefix = path.rstrip("/").removesuffix(BASE).rstrip("/")
    if not _PATH.fullmatch(prefix) or any(part in (".", "..") for part in prefix.split("/")):
        raise _bad_url(scheme, host, "its path can hold letters, digits, `.`, `_`, `~` and `-` only")
    shown = "" if port in (None, _PORTS[scheme]) else f":{port}"
    return f"{scheme}://{host}{shown}{prefix}{BASE}"


def _split(url: str) -> tuple[str, str, int | None, str]:
    if any(character <= " " or character == "\x7f" for character in url) or "\\" in url:
        raise ConfigurationError("the server's URL holds blanks, control characters or backslashes")
    parts = _parts(url)
    if parts is None:
        raise ConfigurationError("the server's URL cannot be read; write it as https://HOST")
    scheme, host, port, path, extra = parts
    if scheme not in _PORTS:
        raise ConfigurationError("the server's URL has to begin with https:// (or http://)")
    if extra:
        # It may hold a password or a key: it is not repeated.
        raise _bad_url(scheme, host, "it can have no user, password, query or fragment")
    if not _is_host(host):
        raise _bad_url(scheme, host, "that is no host name, nor an address")
    return scheme, host, port, path


def _parts(url: str) -> tuple[str, str, int | None, str, bool] | None:
    """None where there are none. Errors of urllib repeat the URL, so they end here."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        port = parts.port
    except ValueError:
        return None
    if port == 0 or parts.netloc.endswith(":"):
        return None
    extra = "@" in parts.netloc or "?" in url or "#" in url
    return parts.scheme.lower(), f"[{host}]" if ":" in host else host, port, parts.path, extra


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None and ".." not in host
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return "%" not in host


def _bad_url(scheme: str, host: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{scheme}://{host}... is no URL of a server: {why}")


def host_of(base_url: str) -> str:
    """Host and port of a normalised URL, for showing."""
    return base_url.partition("://")[2].partition("/")[0]


def is_private(base_url: str) -> bool:
    """Whether a key on its way to this normalised URL cannot be read by others: https, or this machine alone."""
    if base_url.startswith("https:"):
        return True
    name = urlsplit(base_url).hostname or ""
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def reachable(base_url: str) -> str:
    """The URL by which this machine reaches a server that listens on all of its addresses; any other as it is."""
    return base_url.replace("://0.0.0.0:", "://127.0.0.1:", 1).replace("://[::]:", "://[::1]:", 1)


# Choosing


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says, its key sealed: a traceback with locals would show all of `os.environ`."""

    key: Secret | None
    host: str | None
    context: str | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Environment:
        """Variables that are empty count as not set."""
        key = environ.get(KEY_VARIABLE, "").strip()
        return cls(
            Secret(key) if key else None,
            environ.get(HOST_VARIABLE, "").strip() or None,
            environ.get(CONTEXT_VARIABLE, "").strip() or None,
        )

    def url(self) -> str:
        """Where NEON_API_KEY belongs."""
        if self.host is None:
            return NEON_CLOUD
        try:
            return normalise(self.host)
        except ConfigurationError as error:
            raise ConfigurationError(f"{HOST_VARIABLE}: {error}") from None


def choose(
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    context: str | None = None,
    environ: Mapping[str, str] | Environment,
    contexts: ContextSource,
) -> Server:
    """The server to talk to, by the first of these that says anything.

    1. arguments: `context`; or `api_key`, which goes to `base_url`, else to NEON_API_HOST, else to Neon's cloud;
       or `base_url` alone, with the key that NEON_API_KEY or a context has for exactly that server;
    2. NEON_API_KEY, which goes to NEON_API_HOST, else to Neon's cloud; or NEON_API_HOST alone, with a context's key;
    3. a context: LAMP_CONTEXT, else the one that `lamp use` chose, else `local`.

    Raises ConfigurationError, which says what to set.
    """
    given = Secret(api_key) if isinstance(api_key, str) else api_key
    env = environ if isinstance(environ, Environment) else Environment.of(environ)
    del api_key, environ  # a traceback that shows locals is not to show them
    key = None if given is None else seal(given)
    if context is not None:
        if key is not None or base_url is not None:
            raise ConfigurationError("give a context, or an API key with its base URL, but not both")
        return _of_context(contexts.read(), context, contexts)
    if key is not None:
        return Server(base_url=env.url() if base_url is None else normalise(base_url), api_key=key, source="arguments")
    if base_url is not None:
        return _of_host(normalise(base_url), env, contexts)
    if env.key is not None:
        return _of_environment(env)
    if env.host is not None:
        return _of_host(env.url(), env, contexts)
    known = contexts.read()
    return _of_context(known, env.context or known.current or LOCAL, contexts, asked=env.context is not None)


def _of_environment(env: Environment) -> Server:
    assert env.key is not None
    try:
        key = seal(env.key)
    except ConfigurationError as error:
        raise ConfigurationError(f"{KEY_VARIABLE}: {error}") from None
    return Server(base_url=env.url(), api_key=key, source=KEY_VARIABLE)


def _of_context(known: Contexts, name: str, source: ContextSource, *, asked: bool = True) -> Server:
    """`asked` is False when nobody named a context: then a missing one is no mistake in a name."""
    if name not in known.named and not asked and known.current is None:
        raise ConfigurationError(
            f"no server to talk to: set {KEY_VARIABLE} (and {HOST_VARIABLE} for another server than Neon's cloud), "
            "or run `lamp login`, or `lamp up` for a server of your own" + _use_hint(known)
        )
    context = known.get(name)
    if context.key_place is None:
        raise ConfigurationError(f"the context {name!r} has no key; `lamp login {name}` gives it one")
    return Server(
        base_url=context.base_url,
        api_key=source.key(name, context),
        source=f"context {name}",
        name=name,
        org_id=context.org_id,
        project_id=context.project_id,
    )


def _use_hint(known: Contexts) -> str:
    return f"; or choose a context with `lamp use`: {', '.join(known.named)}" if known.named else ""


def _of_host(url: str, env: Environment, source: ContextSource) -> Server:
    """The server at `url`, with a key that somebody gave for exactly that server."""
    if env.key is not None and env.url() == url:
        return _of_environment(env)
    known = source.read()
    names = [name for name, context in known.named.items() if context.base_url == url and context.key_place]
    preferred = [name for name in (env.context, known.current) if name in names]
    if preferred or len(names) == 1:
        return _of_context(known, (preferred or names)[0], source)
    if names:
        raise ConfigurationError(f"several contexts have a key for {url}: name one of {', '.join(names)}")
    elsewhere = f"; {KEY_VARIABLE} goes to {env.url()} alone" if env.key is not None else ""
    raise ConfigurationError(
        f"no API key for {url}: give one with it, or run `lamp login --api-host {url.removesuffix(BASE)}`{elsewhere}"
    )


# The file


_FIELDS: Final = ("org_id", "project_id", "data_dir")


def parse(text: Secret) -> Contexts | str:
    """What the file of contexts says; a sentence where it is broken, which repeats nothing of it."""
    known = _loaded(text)
    if not isinstance(known, dict) or not isinstance(known.get("contexts", {}), dict):
        return 'it is no JSON of the form {"current": ..., "contexts": {...}}'
    current = known.get("current")
    named: dict[str, Context] = {}
    for name, fields in known.get("contexts", {}).items():
        context = _context(fields)
        if isinstance(context, str) or not _NAME.fullmatch(name):
            return f"its context {name!r}: {context if isinstance(context, str) else 'that is no name for one'}"
        named[name] = context
    if not isinstance(current, str | None) or (current is not None and current not in named):
        return 'its "current" is none of its contexts'
    more = {key: value for key, value in known.items() if key not in ("current", "contexts")}
    return Contexts(current=current, named=named, more=more)


def _context(fields: Any) -> Context | str:
    if not isinstance(fields, dict):
        return "it is no object"
    key, where = fields.get("api_key"), fields.get("key_in")
    if not (key is None or (isinstance(key, Secret) and key)) or where not in (None, "keychain", "file"):
        return 'api_key has to be a string, and key_in "keychain" or "file"'
    if not all(isinstance(fields.get(each), str | None) for each in _FIELDS):
        return "org_id, project_id and data_dir have to be strings"
    url = _normalised(fields.get("base_url"))
    if url is None:
        return "its base_url is no URL of a server"
    more = {name: value for name, value in fields.items() if name not in ("base_url", "api_key", "key_in", *_FIELDS)}
    chosen = {name: fields.get(name) for name in _FIELDS}
    in_keychain = where == "keychain"
    return Context(base_url=url, api_key=None if in_keychain else key, in_keychain=in_keychain, more=more, **chosen)


def _normalised(url: Any) -> str | None:
    try:
        return normalise(url) if isinstance(url, str) else None
    except ConfigurationError:
        return None


def render(contexts: Contexts) -> Secret:
    """The file's text. `parse` reads it back."""
    return Secret(
        json.dumps(
            {
                "current": contexts.current,
                "contexts": {name: _fields(context) for name, context in contexts.named.items()},
                **contexts.more,
            },
            default=_revealed,
            indent=2,
        )
        + "\n"
    )


def _fields(context: Context) -> dict[str, Any]:
    given: dict[str, Any] = {"base_url": context.base_url, "api_key": context.api_key}
    given["key_in"] = "keychain" if context.in_keychain else None
    given |= {name: getattr(context, name) for name in _FIELDS}
    return {name: value for name, value in given.items() if value is not None} | dict(context.more)


def _revealed(value: Any) -> str:
    assert isinstance(value, Secret)
    return value.reveal()


def _loaded(text: Secret) -> Any:
    """The JSON with every `api_key` sealed; None where it is none. The error would hold all of the text."""
    try:
        return json.loads(text.reveal(), object_pairs_hook=_sealed)
    except (ValueError, RecursionError):
        return None


def _sealed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: Secret(value) if name == "api_key" and isinstance(value, str) else value for name, value in pairs}


# What `lamp up` writes


def with_platform(
    known: Contexts,
    *,
    data_dir: str,
    base_url: str,
    api_key: Secret | None,
    project_id: str | None,
    is_there: Callable[[str], bool],
) -> tuple[Contexts, str | None]:
    """The contexts with that of a platform that is up, and its name.

    The context of the same data directory stays and gets the new URL, and the key if there is a new one. Else, when
    the key is known, it becomes `local`; or `local-2` and so on, where that name is a user's own or belongs to
    a platform whose directory still is there. None: the key is not known, and no context has it.
    """
    url = reachable(normalise(base_url))
    for name, context in known.named.items():
        if context.data_dir == data_dir:
            found = replace(context, base_url=url, project_id=project_id or context.project_id)
            if api_key is not None:
                found = replace(found, api_key=api_key, in_keychain=False)
            return known.put(name, found), name
    if api_key is None:
        return known, None
    name, number = LOCAL, 1
    while (taken := known.named.get(name)) is not None and (taken.data_dir is None or is_there(taken.data_dir)):
        number += 1
        name = f"{LOCAL}-{number}"
    return known.put(name, Context(base_url=url, api_key=api_key, project_id=project_id, data_dir=data_dir)), name
