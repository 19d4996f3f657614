"""AWS: `aws-secret:NAME[#JSONKEY]` in Secrets Manager (an ARN is a name too), `aws-ssm:NAME` in the Parameter Store.

Over boto3, the extra `aws`. What it raises, logs at DEBUG and keeps in its frames holds the value, so none of its
errors gets out of here, and its loggers say nothing below INFO while a value is in flight.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, ClassVar, Final, Self, TypeVar

from lamplighter.keys.errors import PolicyError, SinkError, SinkNotFound, SinkRefused, SinkUnreachable, SinkUnsafe
from lamplighter.keys.sinks.base import SOAK, Capabilities, Receipt, Sink
from lamplighter.keys.sinks.http import date_of, join_address, split_address
from lamplighter.keys.value import KeyBuffer

T = TypeVar("T")

#: `was` is how a rotation that goes on later knows which region it began in; nobody writes it.
_OPTIONS: Final = frozenset({"profile", "region", "was"})
_SECRET: Final = re.compile(
    r"(?P<name>[A-Za-z0-9/_+=.@-]{1,512}|arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):\d{12}:secret:[^\s#?:]+)"
    r"(?:#(?P<key>[^\s#?]{1,200}))?"
)
_PARAMETER: Final = re.compile(
    r"(?P<name>[A-Za-z0-9/_.-]{1,1011}|arn:aws[a-z-]*:ssm:(?P<region>[a-z0-9-]+):\d{12}:parameter/[A-Za-z0-9/_.-]+)"
)
#: So that the same rotation, resumed, makes the same version.
_TOKENS: Final = uuid.UUID("6f3d0c5e-3c4b-5a59-9a53-6b8f5b0a7d11")
_LOGGERS: Final = ("boto3", "botocore", "s3transfer", "urllib3")
_REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "CredentialRetrievalError",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOTokenLoadError",
        "SignatureDoesNotMatch",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "UnrecognizedClientException",
    }
)
_MISSING: Final = frozenset({"ParameterNotFound", "ParameterVersionNotFound", "ResourceNotFoundException"})
_BUSY: Final = re.compile(r"Throttl|TooMany|LimitExceeded|RequestLimit|ServiceUnavailable|InternalServ|InternalFailure")
#: botocore's own: nothing came, or nothing that makes sense.
_NO_ANSWER: Final = frozenset(
    {
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ProxyConnectionError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
        "SSLError",
    }
)
#: What becomes of an ended session or of missing credentials.
_LOG_IN: Final = "set AWS_PROFILE or the keys of an account, or log in with `aws sso login`"


class _SenselessError(Exception):
    """AWS said yes, and not what it says with that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What is left of an error of boto3: nothing that anybody sent."""

    code: str
    status: int
    request_id: str


class _Quiet:
    """Holds loggers of boto3 at INFO while anybody is within; afterwards each is as it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: dict[str, int] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            for name in self._names():
                logger = logging.getLogger(name)
                if logger.level < logging.INFO and (logger.level or name in _LOGGERS):
                    self._before.setdefault(name, logger.level)
                    logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    for name, level in self._before.items():
                        logging.getLogger(name).setLevel(level)
                    self._before.clear()

    def _names(self) -> list[str]:
        """A child with a level of its own does not ask its parent."""
        known = list(logging.root.manager.loggerDict)
        return [*_LOGGERS, *(each for each in known if each.partition(".")[0] in _LOGGERS and "." in each)]


_quiet: Final = _Quiet()


class _Client:
    """One service of AWS. Whatever it raises becomes a SinkError that holds nothing of what was sent."""

    def __init__(self, service: str, address: str, *, region: str | None, profile: str | None) -> None:
        self._address = address
        self._raw = self._made(service, region, profile)

    def call(self, what: Callable[[Any], T]) -> T:
        """What `what` gives for the client of boto3. Raises SinkError."""
        failure = self._tried(what)
        if isinstance(failure, _Failure):
            raise self._error(failure)
        return failure

    def find(self, what: Callable[[Any], T]) -> T | None:
        """None where AWS has no such thing."""
        failure = self._tried(what)
        if isinstance(failure, _Failure):
            if failure.code.rpartition(".")[2] in _MISSING:
                return None
            raise self._error(failure)
        return failure

    def close(self) -> None:
        self._raw.close()

    def _made(self, service: str, region: str | None, profile: str | None) -> Any:
        def make() -> Any:
            config = import_module("botocore.config").Config(
                connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3}
            )
            session = import_module("boto3").Session(profile_name=profile, region_name=region)
            return session.client(service, config=config)

        made = self._caught(make)
        if not isinstance(made, _Failure):
            return made
        if made.code == "ModuleNotFoundError":
            raise SinkError("boto3 is not installed: pip install 'lamplighter[aws]'", address=self._address)
        if made.code == "NoRegionError":
            hint = "set AWS_REGION, or write ?region=REGION after the name"
            raise SinkError("which region is not known", address=self._address, hint=hint)
        raise self._error(made)

    def _tried(self, what: Callable[[Any], T]) -> T | _Failure:
        with _quiet.held():
            return self._caught(lambda: what(self._raw))

    def _caught(self, what: Callable[[], T]) -> T | _Failure:
        try:
            return what()
        except Exception as error:  # noqa: BLE001 - boto3 raises of many packages, and all of it may hold the value
            said = getattr(error, "response", None)
            known = said if isinstance(said, dict) else {}
            code = (known.get("Error") or {}).get("Code") or type(error).__name__
            about = known.get("ResponseMetadata") or {}
            status, request_id = about.get("HTTPStatusCode"), about.get("RequestId")
        return _Failure(
            code=code if isinstance(code, str) and re.fullmatch(r"[A-Za-z._]{1,64}", code) else "",
            status=status if isinstance(status, int) else 0,
            request_id=request_id if isinstance(request_id, str) and _is_uuid(request_id) else "",
        )

    def _error(self, failure: _Failure) -> SinkError:
        code, status = failure.code.rpartition(".")[2], failure.status
        kind, hint = SinkError, None
        if code in _REFUSED or status in (401, 403):
            kind, hint = SinkRefused, _LOG_IN
        elif code in _MISSING or status == 404:
            kind = SinkNotFound
        elif code in _NO_ANSWER or _BUSY.search(code) or status >= 500 or status == 429:
            kind = SinkUnreachable
        if code == "_SenselessError":
            return SinkUnreachable("AWS gave an answer that makes no sense", address=self._address)
        about = ", ".join(filter(None, (code, failure.request_id and f"request {failure.request_id}")))
        text = (
            f"AWS answers HTTP {status} ({about})" if status else f"AWS cannot be asked: {about or 'no reason given'}"
        )
        return kind(text, address=self._address, status=status, hint=hint)


def _region() -> str | None:
    """AWS's own tools take the first, boto3 the second alone."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None


class _AwsSink(Sink):
    """Options: `region` and `profile`; otherwise what the environment and ~/.aws say."""

    service: ClassVar[str]

    def __init__(self, name: str, options: Mapping[str, str], *, region: str | None) -> None:
        self.name = name
        self._options = dict(options)
        self._arn_region = region
        self._held: _Client | None = None

    @property
    def options(self) -> Mapping[str, str]:
        """Which region this is, where the address does not say it: no other process shall write in another one."""
        if self._arn_region or "region" in self._options:
            return {}
        was = self._options.get("was") or _region()
        return {"was": was} if was else {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, versioned=True, effect="next read", soak=SOAK["next read"])

    @property
    def _client(self) -> _Client:
        """Made when it is first needed: that takes a tenth of a second and more."""
        if self._held is None:
            region = self._arn_region or self._options.get("region") or self._options.get("was") or _region()
            profile = self._options.get("profile")
            self._held = _Client(self.service, self.describe(), region=region, profile=profile)
        return self._held

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _named(self) -> dict[str, str | None]:
        return {name: self._options.get(name) for name in ("profile", "region")}


class AwsSecretSink(_AwsSink):
    """A secret of Secrets Manager, or one member of the JSON object that it is."""

    kind: ClassVar[str] = "aws-secret"
    service: ClassVar[str] = "secretsmanager"

    def __init__(self, name: str, key: str | None, options: Mapping[str, str], *, region: str | None) -> None:
        super().__init__(name, options, region=region)
        self.key = key

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        _, place, given = split_address(address, options, _OPTIONS)
        found = _SECRET.fullmatch(place)
        if not found:
            raise PolicyError(
                f"{address!r} is no address of a secret: write aws-secret:NAME or aws-secret:ARN, "
                "with #JSONKEY after it for a member of a JSON object"
            )
        return cls(found["name"], found["key"], given, region=found["region"])

    def describe(self) -> str:
        return join_address("aws-secret", self.name + (f"#{self.key}" if self.key else ""), self._named())

    def check(self) -> str:
        client = self._client
        known = self._known(client)
        if known is None:
            if self.name.startswith("arn:"):
                raise SinkNotFound("there is no secret of this ARN", address=self.describe())
            return f"{self.name} will be made"
        self._check_alive(known)
        if self.key and _current(known):
            self._read(client, VersionStage="AWSCURRENT")
        return f"{self.name} is there; whether it may be written shows only when it is"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        if not _is_text(value):
            raise SinkError("a secret of AWS is text here, and this value is none", address=self.describe())
        client = self._client
        known = self._known(client)
        if known is None:
            version = self._create(client, value, marker)
        else:
            self._check_alive(known)
            version = self._put(client, value, marker, known)
        receipt = self._receipt(client)
        if receipt is None or receipt.version != version:
            raise SinkError("somebody else changed it at the same time", address=self.describe(), hint="run it again")
        return receipt

    def read_back(self) -> KeyBuffer | None:
        return self._read(self._client, VersionStage="AWSCURRENT")

    def previous(self) -> KeyBuffer | None:
        return self._read(self._client, VersionStage="AWSPREVIOUS")

    def metadata(self) -> Receipt | None:
        client = self._client
        receipt = self._receipt(client)
        if receipt is None or self.key is None:
            return receipt
        value = self._read(client, VersionStage="AWSCURRENT")
        if value is None:
            return None
        value.wipe()
        return receipt

    def delete(self) -> None:
        client = self._client
        if self.key is None:
            client.find(lambda raw: raw.delete_secret(SecretId=self.name, ForceDeleteWithoutRecovery=True))
            return
        value = self._read(client, VersionStage="AWSCURRENT")
        if value is None:
            return
        value.wipe()
        key = self.key
        current = _current(self._known(client) or {})
        token = str(uuid.uuid4())
        self._pend(client, token, lambda raw: _without(self._raw_text(raw, current), key))
        self._promote(client, token, current)

    # The steps of a write

    def _known(self, client: _Client) -> dict[str, Any] | None:
        return client.find(lambda raw: _sane(raw.describe_secret(SecretId=self.name), "ARN"))

    def _token(self, marker: str, current: str | None) -> str:
        """The id of the version that this rotation makes.

        Of a JSON object it is another one when other members have changed since: a version that was left pending by a
        rotation that was killed would bring their old values back.
        """
        return str(uuid.uuid5(_TOKENS, f"{self.describe()} {marker} {current if self.key else ''}"))

    def _create(self, client: _Client, value: KeyBuffer, marker: str) -> str:
        """The first version is current at once."""
        if self.name.startswith("arn:"):
            raise SinkNotFound("there is no secret of this ARN", address=self.describe())
        token = self._token(marker, None)
        client.call(
            lambda raw: _sane(
                raw.create_secret(Name=self.name, ClientRequestToken=token, SecretString=_with(None, self.key, value)),
                "VersionId",
            )
        )
        return token

    def _put(self, client: _Client, value: KeyBuffer, marker: str, known: Mapping[str, Any]) -> str:
        """As AWS's own rotations: a pending version, compared with what it should be, then made the current one."""
        current = _current(known)
        if self.key and current:
            present = self._read(client, VersionId=current)
            if present is not None and _same(present, value):
                return current
        token = self._token(marker, current)
        if token not in (known.get("VersionIdsToStages") or {}):
            base = current if self.key else None
            self._pend(client, token, lambda raw: _with(self._raw_text(raw, base), self.key, value))
        written = self._read(client, VersionId=token)
        # AWS refuses another value for a token that was used; who imitates it may not.
        if written is None or not _same(written, value):
            raise SinkError("this rotation's version holds another value already", address=self.describe())
        # Of a secret that had no version yet, AWS makes the first one current by itself.
        if token not in (current, _current(self._known(client) or {})):
            self._promote(client, token, current)
        return token

    def _pend(self, client: _Client, token: str, content: Callable[[Any], str]) -> None:
        client.call(
            lambda raw: _sane(
                raw.put_secret_value(
                    SecretId=self.name,
                    ClientRequestToken=token,
                    SecretString=content(raw),
                    VersionStages=["AWSPENDING"],
                ),
                "VersionId",
            )
        )

    def _promote(self, client: _Client, token: str, current: str | None) -> None:
        """Fails when `current` is not the current version any more: other members may have changed with it."""
        moved = {"RemoveFromVersionId": current} if current else {}
        client.call(
            lambda raw: raw.update_secret_version_stage(
                SecretId=self.name, VersionStage="AWSCURRENT", MoveToVersionId=token, **moved
            )
        )
        with suppress(SinkError):
            # The value is current already: a label that stays behind does no harm.
            client.call(
                lambda raw: raw.update_secret_version_stage(
                    SecretId=self.name, VersionStage="AWSPENDING", RemoveFromVersionId=token
                )
            )

    def _raw_text(self, raw: Any, version: str | None) -> str | None:
        if version is None:
            return None
        answer = _sane(raw.get_secret_value(SecretId=self.name, VersionId=version), "SecretString")
        return str(answer["SecretString"])

    def _read(self, client: _Client, **which: str) -> KeyBuffer | None:
        """Raises SinkError where a member of a JSON object is asked for, and there is no such object."""
        key = self.key

        def read(raw: Any) -> KeyBuffer | bool:
            answer = _sane(raw.get_secret_value(SecretId=self.name, **which), "VersionId")
            text = answer.get("SecretString")
            content = answer.get("SecretBinary") if text is None else text.encode()
            if key is not None:
                members = _object(text)
                if members is None:
                    return False
                content = str(members[key]).encode() if isinstance(members.get(key), str) else b""
            return KeyBuffer(bytearray(content)) if content else True

        found = client.find(read)
        if found is False:
            raise SinkError("is no JSON object, so it has no members", address=self.describe())
        return found if isinstance(found, KeyBuffer) else None

    def _receipt(self, client: _Client) -> Receipt | None:
        known = self._known(client)
        if known is None or known.get("DeletedDate") or not (version := _current(known)):
            return None
        return Receipt(version=version, updated_at=_time(known.get("LastChangedDate")), server_date=_date(known))

    def _check_alive(self, known: Mapping[str, Any]) -> None:
        if known.get("DeletedDate"):
            raise SinkError(
                "the secret is to be deleted",
                address=self.describe(),
                hint=f"take that back: aws secretsmanager restore-secret --secret-id {self.name}",
            )


class AwsParameterSink(_AwsSink):
    """A SecureString of the Parameter Store of Systems Manager. Its KMS key and tier stay; the marker is a label."""

    kind: ClassVar[str] = "aws-ssm"
    service: ClassVar[str] = "ssm"

    @classmethod
    def parse(cls, address: str, options: Mapping[str, str]) -> Self:
        _, place, given = split_address(address, options, _OPTIONS)
        found = _PARAMETER.fullmatch(place)
        if not found:
            raise PolicyError(f"{address!r} is no address of a parameter: write aws-ssm:NAME, as aws-ssm:/neon/api-key")
        return cls(found["name"], given, region=found["region"])

    def describe(self) -> str:
        return join_address("aws-ssm", self.name, self._named())

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(readable=True, versioned=True, comment=True, effect="next read", soak=SOAK["next read"])

    def check(self) -> str:
        known = self._known(self._client)
        state = "is there" if known else "will be made"
        return f"{self.name} {state}; whether it may be written shows only when it is"

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        if not _is_text(value):
            raise SinkError("a parameter holds text, and this value is none", address=self.describe())
        client = self._client
        known = self._known(client)
        # Left out, AWS would go back to the account's usual key.
        kept = {name: known[name] for name in ("KeyId", "Tier", "DataType") if known.get(name)}
        answer = client.call(
            lambda raw: _sane(
                raw.put_parameter(
                    Name=self.name, Value=_text(value), Type="SecureString", Overwrite=bool(known), **kept
                ),
                "Version",
            )
        )
        version = int(answer["Version"])
        with suppress(SinkError):
            # The value is there; the right to label may be missing.
            client.call(
                lambda raw: raw.label_parameter_version(
                    Name=self.name, ParameterVersion=version, Labels=[_label(marker)]
                )
            )
        receipt = self._receipt(client)
        return Receipt(
            version=str(version),
            updated_at=receipt.updated_at if receipt else None,
            server_date=_date(answer),
        )

    def read_back(self) -> KeyBuffer | None:
        return self._read(self._client, self.name)

    def previous(self) -> KeyBuffer | None:
        client = self._client
        receipt = self._receipt(client)
        version = int(receipt.version or 0) if receipt else 0
        return self._read(client, f"{self.name}:{version - 1}") if version > 1 else None

    def metadata(self) -> Receipt | None:
        return self._receipt(self._client)

    def delete(self) -> None:
        self._client.find(lambda raw: raw.delete_parameter(Name=self.name))

    def _known(self, client: _Client) -> dict[str, Any]:
        """What the parameter is like; empty when there is none. Raises SinkUnsafe for one that is plain text."""
        # An ARN does not tell `/name` from `name`.
        path = self.name.partition(":parameter")[2]
        wanted = [path, path[1:]] if self.name.startswith("arn:") else [self.name]
        answer = client.call(
            lambda raw: _sane(
                raw.describe_parameters(ParameterFilters=[{"Key": "Name", "Option": "Equals", "Values": wanted}]),
                "Parameters",
            )
        )
        known: dict[str, Any] = next(iter(answer.get("Parameters") or ()), {})
        if known and known.get("Type") != "SecureString":
            raise SinkUnsafe(
                f"the parameter is a {known.get('Type')}, which is kept in the open",
                address=self.describe(),
                hint="delete it, so that it can be made as a SecureString",
            )
        return known

    def _read(self, client: _Client, name: str) -> KeyBuffer | None:
        def read(raw: Any) -> KeyBuffer:
            text = _sane(raw.get_parameter(Name=name, WithDecryption=True), "Parameter")["Parameter"]["Value"]
            return KeyBuffer(bytearray(text.encode()))

        return client.find(read)

    def _receipt(self, client: _Client) -> Receipt | None:
        # Without decryption: nothing of this is the value.
        def read(raw: Any) -> Receipt:
            answer = _sane(raw.get_parameter(Name=self.name, WithDecryption=False), "Parameter")
            known = answer["Parameter"]
            return Receipt(
                version=str(known["Version"]),
                updated_at=_time(known.get("LastModifiedDate")),
                server_date=_date(answer),
            )

        return client.find(read)


def _sane(answer: dict[str, Any], needed: str) -> dict[str, Any]:
    """boto3 makes nothing, or a part, of a page that a proxy gave for an answer."""
    if answer.get(needed) is None:
        raise _SenselessError
    return answer


def _text(value: KeyBuffer) -> str:
    """boto3 takes nothing else. Only ever called in an argument of boto3's."""
    with value.reveal() as view:
        return str(view, "utf-8")


def _is_text(value: KeyBuffer) -> bool:
    try:
        _text(value)
    except UnicodeDecodeError:
        return False
    return True


def _same(left: KeyBuffer, right: KeyBuffer) -> bool:
    with left, left.reveal() as one, right.reveal() as other:
        return hmac.compare_digest(one, other)


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        known = json.loads(text or "")
    except ValueError:
        return None
    return known if isinstance(known, dict) else None


def _with(text: str | None, key: str | None, value: KeyBuffer) -> str:
    """What the secret is to be: the value, or the JSON object with this member, the others as they were."""
    if key is None:
        return _text(value)
    members = {} if text is None else _object(text)
    if members is None:
        raise TypeError
    return json.dumps({**members, key: _text(value)})


def _without(text: str | None, key: str) -> str:
    return json.dumps({name: found for name, found in (_object(text) or {}).items() if name != key})


def _current(known: Mapping[str, Any]) -> str | None:
    for version, stages in (known.get("VersionIdsToStages") or {}).items():
        if "AWSCURRENT" in stages:
            return str(version)
    return None


def _label(marker: str) -> str:
    """A label of a parameter's version: letters, digits and `.-_`, not a digit at first, 100 at most."""
    return "lamplighter-" + re.sub(r"[^A-Za-z0-9]+", "-", marker).strip("-")[:88]


def _time(found: object) -> datetime | None:
    return found.astimezone(UTC) if isinstance(found, datetime) else None


def _date(answer: Mapping[str, Any]) -> datetime | None:
    return date_of((answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {})
