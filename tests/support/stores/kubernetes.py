"""What Kubernetes' API does with Secrets: merge patches, versions of resources, who manages which fields."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import yaml

from support.stores.server import Request, Response, Store, _Server, route

SECRETS = "/api/v1/namespaces/{namespace}/secrets"
MERGE = "application/merge-patch+json"


class KubernetesStore(Store):
    request_header: ClassVar[str] = "Audit-Id"

    def __init__(self, *, token: str) -> None:
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        self.namespaces = {"default"}
        self.forbidden: set[str] = set()
        #: Done before the next change is looked at: what somebody else does at the same time.
        self.meanwhile: list[Any] = []
        #: Whoever came in by a certificate needs no token.
        self.by_certificate = False
        self._version = 100
        super().__init__(token=token)

    def add(self, name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
        made = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace},
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
        }
        self.secrets[namespace, name] = made
        self.touch(made, "kubectl")
        return made

    def touch(self, secret: dict[str, Any], manager: str) -> None:
        """As every change does."""
        self._version += 1
        at = self.tick().strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = secret["metadata"]
        metadata.setdefault("creationTimestamp", at)
        metadata["resourceVersion"] = str(self._version)
        others = [each for each in metadata.get("managedFields", ()) if each["manager"] != manager]
        metadata["managedFields"] = [*others, {"manager": manager, "operation": "Update", "time": at}]

    def plain(self, name: str, key: str, namespace: str = "default") -> bytes | None:
        data = self.secrets.get((namespace, name), {}).get("data", {})
        return base64.b64decode(data[key]) if key in data else None

    # Requests

    def allowed(self, request: Request) -> bool:
        return self.by_certificate or super().allowed(request)

    def refused(self, status: int, request: Request) -> Response:
        reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict"}.get(status, "Invalid")
        said = f"{request.path} {request.body.decode(errors='replace')}"
        known = {"kind": "Status", "status": "Failure", "message": said, "reason": reason, "code": status}
        return Response(status, known)

    @route("GET", SECRETS + "/{name}")
    def get(self, request: Request, namespace: str, name: str) -> Response:
        if "get" in self.forbidden:
            return self.refused(403, request)
        found = self.secrets.get((namespace, name))
        return Response(200, found) if found else self.refused(404, request)

    @route("POST", SECRETS)
    def create(self, request: Request, namespace: str) -> Response:
        self._interfere()
        if "create" in self.forbidden:
            return self.refused(403, request)
        if namespace not in self.namespaces:
            return self.refused(404, request)
        made = request.json()
        name = made["metadata"]["name"]
        if (namespace, name) in self.secrets:
            return self.refused(409, request)
        made["metadata"]["namespace"] = namespace
        self.secrets[namespace, name] = made
        self.touch(made, request.query["fieldManager"])
        return Response(201, made)

    @route("PATCH", SECRETS + "/{name}")
    def patch(self, request: Request, namespace: str, name: str) -> Response:
        self._interfere()
        if "patch" in self.forbidden:
            return self.refused(403, request)
        found = self.secrets.get((namespace, name))
        if found is None:
            return self.refused(404, request)
        if request.headers["content-type"] != MERGE:
            return self.refused(415, request)
        change = request.json()
        wanted = change["metadata"].pop("resourceVersion", None)
        if wanted not in (None, found["metadata"]["resourceVersion"]):
            return self.refused(409, request)
        if found.get("immutable") and "data" in change:
            return self.refused(422, request)
        for text in change.get("data", {}).values():
            assert text is None or base64.b64decode(text, validate=True) is not None
        _merge(found, change)
        self.touch(found, request.query["fieldManager"])
        return Response(200, found)

    @route("DELETE", SECRETS + "/{name}")
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        found = self.secrets.pop((namespace, name), None)
        return Response(200, {"kind": "Status", "status": "Success"}) if found else self.refused(404, request)

    @route("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
    def review(self, request: Request) -> Response:
        asked = request.json()
        verb = asked["spec"]["resourceAttributes"]["verb"]
        return Response(201, {**asked, "status": {"allowed": verb not in self.forbidden}})

    def _interfere(self) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    """RFC 7386."""
    for name, found in change.items():
        if found is None:
            into.pop(name, None)
        elif isinstance(found, dict):
            _merge(into.setdefault(name, {}), found)
        else:
            into[name] = found


def kubeconfig(path: Path, server: str, user: dict[str, Any], **cluster: Any) -> Path:
    """A kubeconfig with one context, `here`, which is the current one."""
    known = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "this", "user": "me"}}],
        "clusters": [{"name": "this", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(yaml.safe_dump(known))
    return path


class _TlsServer(_Server):
    context: ssl.SSLContext

    def get_request(self) -> Any:
        connection, address = super().get_request()
        return self.context.wrap_socket(connection, server_side=True), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def with_tls(store: Store, context: ssl.SSLContext) -> Iterator[str]:
    """The same store behind TLS: its URL."""
    server = _TlsServer(("127.0.0.1", 0), store)
    server.context = context
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Authority:
    """Makes certificates that a server asks for and gives."""

    def __init__(self) -> None:
        self.certificate, self._key = _certificate("authority", None)

    @property
    def pem(self) -> str:
        return _pem(self.certificate)

    def issue(self, name: str) -> tuple[str, str]:
        """Certificate and key, in PEM."""
        from cryptography.hazmat.primitives import serialization

        certificate, key = _certificate(name, (self.certificate, self._key))
        plain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _pem(certificate), plain.decode()

    def server(self, directory: Path, name: str = "127.0.0.1") -> ssl.SSLContext:
        """Asks for a certificate of this authority, and takes a client without one."""
        certificate, key = self.issue(name)
        path = directory / "server.pem"
        path.write_text(certificate + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=self.pem)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def _pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(name: str, issuer: tuple[Any, Any] | None) -> tuple[Any, Any]:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names: x509.GeneralName = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    by, by_key = (issuer[0], issuer[1]) if issuer else (None, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(by_key, hashes.SHA256()), key
