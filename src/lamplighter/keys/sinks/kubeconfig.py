"""How to reach a Kubernetes cluster: a context of a kubeconfig, or the service account of the pod that this runs in.

A context's user may have a token, a client certificate, or a program that gives one of them (`exec`). What would send a
token unprotected, or is a password, is refused.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import yaml

from lamplighter.api.secret import Secret
from lamplighter.keys.errors import SinkError, SinkRefused, SinkUnsafe
from lamplighter.keys.harden import child_environment

_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: What programs that log in to clusters read of the environment.
_LOGIN_PREFIXES: Final = ("AWS_", "AZURE_", "AAD_", "CLOUDSDK_", "GOOGLE_", "KUBE")
#: In kubeconfigs, and in what login programs give.
_SECRET: Final = frozenset({"token", "client-key-data", "clientKeyData", "password", "id-token", "refresh-token"})
_PATHS: Final = frozenset({"certificate-authority", "client-certificate", "client-key", "tokenFile"})
_EXEC_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the API is and how to log in. `ca` and `certificate` are PEM; without a token the certificate is used."""

    server: str
    ca: str | None = None
    server_name: str | None = None
    token: Secret | None = None
    certificate: str | None = None
    key: Secret | None = field(default=None)

    def context(self) -> ssl.SSLContext:
        """Raises SinkError for certificates that are none."""
        why = ""
        try:
            context = _Named(ssl.PROTOCOL_TLS_CLIENT)
            context.name = self.server_name
            if self.ca is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(cadata=self.ca)
            if self.certificate is not None and self.key is not None:
                with _as_file(self.key, self.certificate) as path:
                    context.load_cert_chain(path)
        except (OSError, ValueError) as error:
            why = type(error).__name__
        if why:
            raise SinkError(f"the certificates of {self.server} cannot be used: {why}")
        return context


class _Named(ssl.SSLContext):
    """Checks the server's certificate against another name, where the kubeconfig has `tls-server-name`."""

    name: str | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        if self.name:
            options["server_hostname"] = self.name
        return super().wrap_socket(*args, **options)


@contextmanager
def _as_file(key: Secret, certificate: str) -> Iterator[str]:
    """Python's ssl takes keys from files alone: one in memory, or where there is none, one that is removed at once."""
    content = f"{key.reveal()}\n{certificate}\n".encode()
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("lamplighter", os.MFD_CLOEXEC)
        try:
            os.write(handle, content)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


# None of these takes the environment as an argument: a traceback that shows locals would show all of it.


def current_context() -> str | None:
    """The name of the context that is chosen; None without a kubeconfig. Raises SinkError."""
    name = _merged().get("current-context")
    return name if isinstance(name, str) and name else None


def find_cluster(context: str | None) -> Cluster:
    """That of a context, of the current one, or of the pod. Raises SinkError, SinkRefused, SinkUnsafe."""
    known = _merged()
    name = context or known.get("current-context")
    if not name:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            return _of_pod()
        raise SinkError("no cluster is chosen", hint="choose one: kubectl config use-context NAME")
    chosen = _named(known, "contexts", "context", name)
    cluster = _named(known, "clusters", "cluster", str(chosen.get("cluster")))
    user = _named(known, "users", "user", str(chosen.get("user"))) if chosen.get("user") else {}
    for option, why in (
        ("insecure-skip-tls-verify", "would give the token to whoever answers"),
        ("proxy-url", "is not supported"),
    ):
        if cluster.get(option):
            raise SinkUnsafe(f"{option} of the context {name} {why}")
    place = Cluster(
        server=str(cluster.get("server") or "").rstrip("/"),
        ca=_content(cluster, "certificate-authority"),
        server_name=cluster.get("tls-server-name") or None,
    )
    return _with_user(place, user, name)


def _with_user(place: Cluster, user: Mapping[str, Any], name: str) -> Cluster:
    if token := user.get("token"):
        return replace(place, token=token)
    if user.get("tokenFile"):
        return replace(place, token=Secret((_read(Path(str(user["tokenFile"]))) or "").strip()))
    certificate, key = _content(user, "client-certificate"), _secret(user, "client-key")
    if certificate and key:
        return replace(place, certificate=certificate, key=key)
    if isinstance(user.get("exec"), dict):
        return _executed(place, user["exec"], name)
    raise SinkRefused(
        f"the user of the context {name} has neither a token nor a client certificate",
        hint="passwords and auth-provider are not supported",
    )


def _of_pod() -> Cluster:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if ":" in host:
        host = f"[{host}]"
    token = _secret({"token": str(_POD / "token")}, "token")
    if token is None:
        raise SinkRefused("this pod has no token of a service account")
    return Cluster(server=f"https://{host}:{port}", ca=_read(_POD / "ca.crt"), token=Secret(token.reveal().strip()))


def _executed(place: Cluster, command: Mapping[str, Any], name: str) -> Cluster:
    """Ask the program of a kubeconfig for a token or a certificate, as kubectl does."""
    status = _credential([str(command.get("command")), *map(str, command.get("args") or ())], command)
    if token := status.get("token"):
        return replace(place, token=token)
    if status.get("clientCertificateData") and (key := status.get("clientKeyData")):
        return replace(place, certificate=str(status["clientCertificateData"]), key=key)
    raise SinkRefused(
        f"the program that logs in to the context {name} gave nothing to log in with",
        hint="see what it says: kubectl get secrets",
    )


def _credential(words: list[str], command: Mapping[str, Any]) -> dict[str, Any]:
    """Empty when it failed: what such programs say on stderr may hold anything."""
    with suppress(OSError, subprocess.SubprocessError, ValueError, AttributeError):
        done = subprocess.run(
            words,
            env=_login_environment(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_EXEC_TIMEOUT,
            check=True,
        )
        return _wrapped(json.loads(done.stdout).get("status") or {})
    return {}


def _login_environment(command: Mapping[str, Any]) -> dict[str, str]:
    env = child_environment(allow=tuple(name for name in os.environ if name.startswith(_LOGIN_PREFIXES)))
    env |= {name: text.reveal() for name, text in command.get("env") or ()}
    info = {"kind": "ExecCredential", "apiVersion": command.get("apiVersion"), "spec": {"interactive": False}}
    return env | {"KUBERNETES_EXEC_INFO": json.dumps(info)}


def _wrapped(known: Mapping[str, Any]) -> dict[str, Any]:
    """With what is secret in it as Secret: others who hold it may raise."""
    made = {name: Secret(str(found)) if name in _SECRET and found else found for name, found in known.items()}
    if isinstance(command := made.get("exec"), dict) and isinstance(command.get("env"), list):
        named = [each for each in command["env"] if isinstance(each, dict)]
        made["exec"] = {**command, "env": [(str(each.get("name")), Secret(str(each.get("value")))) for each in named]}
    return made


def _merged() -> dict[str, Any]:
    """All kubeconfigs of KUBECONFIG as one: the first that says a thing is right."""
    listed = [Path(each) for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    merged: dict[str, Any] = {}
    for path in listed or [Path("~/.kube/config")]:
        for name, found in _loaded(path.expanduser()).items():
            if isinstance(found, list):
                merged.setdefault(name, []).extend(_beside(each, path.expanduser().parent) for each in found)
            elif found and name == "current-context":
                merged.setdefault(name, found)
    return merged


def _loaded(path: Path) -> dict[str, Any]:
    text = _read(path)
    known: Any = None
    # The error of a parser shows a piece of what it read.
    with suppress(yaml.YAMLError):
        known = yaml.safe_load(text or "{}")
    if isinstance(known, dict):
        return known
    del text, known
    raise SinkError(f"{path} is no kubeconfig")


def _beside(entry: Any, directory: Path) -> dict[str, Any]:
    """An entry of a list, its paths relative to the kubeconfig's own, and with secrets wrapped."""
    made: dict[str, Any] = {}
    for name, inner in entry.items() if isinstance(entry, dict) else ():
        made[name] = _wrapped(inner) if isinstance(inner, dict) else inner
        for each in _PATHS & set(made[name] if isinstance(inner, dict) else ()):
            made[name][each] = str(directory / str(inner[each]))
    return made


def _named(known: Mapping[str, Any], plural: str, singular: str, name: str) -> dict[str, Any]:
    for each in known.get(plural) or ():
        if isinstance(each, dict) and each.get("name") == name and isinstance(each.get(singular), dict):
            return dict(each[singular])
    raise SinkError(f"the kubeconfig has no {singular} {name!r}", hint="see: kubectl config get-contexts")


def _content(known: Mapping[str, Any], name: str) -> str | None:
    """PEM from `NAME-data`, in base64, or from the file that NAME is the path of."""
    if data := known.get(f"{name}-data"):
        with suppress(ValueError, TypeError):
            return base64.b64decode(data.reveal() if isinstance(data, Secret) else data).decode("ascii")
        return None
    return _read(Path(str(known[name]))) if known.get(name) else None


def _secret(known: Mapping[str, Any], name: str) -> Secret | None:
    found = _content(known, name)
    return Secret(found) if found else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no text"
    raise SinkError(f"cannot read {path}: {why}")
