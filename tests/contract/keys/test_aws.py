"""The sinks of AWS, against moto's server."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.keys.sink_contract import MARKER, SinkContract, content, fresh
from lamplighter.keys.errors import (
    PolicyError,
    SinkError,
    SinkNotFound,
    SinkRefused,
    SinkUnreachable,
    SinkUnsafe,
)
from lamplighter.keys.sinks.aws import AwsParameterSink, AwsSecretSink
from lamplighter.keys.sinks.base import Receipt, Sink
from lamplighter.keys.value import KeyBuffer
from support.scripted import Scripted, answer, breaks_off, reset, says
from support.stores.aws import SECRET_KEY, client, environment, moto
from support.stores.leaks import leaks, logged, shown


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture(autouse=True)
def surroundings(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment(url).items():
        monkeypatch.setenv(name, text)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 tries as often as it would, without its rests of some seconds between."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@pytest.fixture
def name() -> str:
    return f"neon/{secrets.token_hex(6)}"


@pytest.fixture
def manager(url: str) -> Iterator[Any]:
    with contextlib.closing(client(url, "secretsmanager")) as raw:
        yield raw


@pytest.fixture
def parameters(url: str) -> Iterator[Any]:
    with contextlib.closing(client(url, "ssm")) as raw:
        yield raw


class Rotated(AwsSecretSink):
    """Each write is one of a rotation of its own, as the driver's are."""

    numbers = itertools.count()

    def write(self, value: KeyBuffer, marker: str) -> Receipt:
        return super().write(value, f"{marker} {next(self.numbers)}")


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    made: list[Sink] = []

    def keep(sink: Sink) -> Sink:
        made.append(sink)
        return sink

    yield keep
    for sink in made:
        sink.close()


@pytest.fixture
def secret(name: str, closing) -> AwsSecretSink:
    return closing(AwsSecretSink.parse(f"aws-secret:{name}", {}))


@pytest.fixture
def member(name: str, closing) -> AwsSecretSink:
    return closing(AwsSecretSink.parse(f"aws-secret:{name}#api_key", {}))


@pytest.fixture
def parameter(name: str, closing) -> AwsParameterSink:
    return closing(AwsParameterSink.parse(f"aws-ssm:/{name}", {}))


def key(text: bytes = b"napi_0123456789") -> KeyBuffer:
    return KeyBuffer(bytearray(text))


def current(manager: Any, name: str) -> bytes | None:
    try:
        # Without the stage moto does not give the current version, as AWS does.
        return manager.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"].encode()
    except manager.exceptions.ResourceNotFoundException:
        return None


class TestSecret(SinkContract):
    @pytest.fixture
    def sink(self, manager: Any, name: str, closing) -> AwsSecretSink:
        manager.create_secret(Name=f"{name}-other", SecretString="another")
        return closing(Rotated.parse(f"aws-secret:{name}", {}))

    @pytest.fixture
    def held(self, manager: Any, name: str) -> Callable[[], bytes | None]:
        return lambda: current(manager, name)

    @pytest.fixture
    def neighbours(self, manager: Any, name: str) -> Callable[[], Any]:
        return lambda: current(manager, f"{name}-other")


class TestMember(SinkContract):
    @pytest.fixture
    def sink(self, manager: Any, name: str, closing) -> AwsSecretSink:
        manager.create_secret(Name=name, SecretString=json.dumps({"user": "somebody", "port": 5432}))
        return closing(Rotated.parse(f"aws-secret:{name}#api_key", {}))

    @pytest.fixture
    def held(self, manager: Any, name: str) -> Callable[[], bytes | None]:
        def held() -> bytes | None:
            found = json.loads(current(manager, name) or b"{}").get("api_key")
            return None if found is None else found.encode()

        return held

    @pytest.fixture
    def neighbours(self, manager: Any, name: str) -> Callable[[], Any]:
        def others() -> Any:
            known = json.loads(current(manager, name) or b"{}")
            return {each: known[each] for each in known if each != "api_key"}

        return others


class TestParameter(SinkContract):
    @pytest.fixture
    def sink(self, parameters: Any, name: str, closing) -> AwsParameterSink:
        parameters.put_parameter(Name=f"/{name}/other", Value="another", Type="SecureString")
        return closing(AwsParameterSink.parse(f"aws-ssm:/{name}", {}))

    @pytest.fixture
    def held(self, parameters: Any, name: str) -> Callable[[], bytes | None]:
        def held() -> bytes | None:
            try:
                return parameters.get_parameter(Name=f"/{name}", WithDecryption=True)["Parameter"]["Value"].encode()
            except parameters.exceptions.ParameterNotFound:
                return None

        return held

    @pytest.fixture
    def neighbours(self, parameters: Any, name: str) -> Callable[[], Any]:
        return lambda: parameters.get_parameter(Name=f"/{name}/other", WithDecryption=True)["Parameter"]["Value"]


# Secrets Manager


def stages(manager: Any, name: str) -> dict[str, list[str]]:
    return manager.describe_secret(SecretId=name)["VersionIdsToStages"]


def test_a_version_is_pending_before_it_is_current_and_the_one_before_is_kept(manager, name, secret):
    first = secret.write(key(b"one"), "key 1, rotation a")
    second = secret.write(key(b"two"), "key 2, rotation b")
    assert stages(manager, name) == {first.version: ["AWSPREVIOUS"], second.version: ["AWSCURRENT"]}
    assert content(secret.previous()) == b"one"


def test_the_same_write_again_makes_no_version_more(manager, name, secret):
    secret.write(key(b"one"), "key 1, rotation a")
    receipts = [secret.write(key(b"two"), "key 2, rotation b") for _ in range(3)]
    assert len({each.version for each in receipts}) == 1
    assert len(stages(manager, name)) == 2


def test_a_version_that_was_left_pending_is_made_current(manager, name, secret, monkeypatch):
    """A rotation that was killed between the two steps."""
    secret.write(key(b"one"), "key 1, rotation a")
    receipt = secret.write(key(b"two"), "key 2, rotation b")
    (before,) = [version for version in stages(manager, name) if version != receipt.version]
    move = {"SecretId": name, "VersionStage": "AWSCURRENT"}
    manager.update_secret_version_stage(**move, MoveToVersionId=before, RemoveFromVersionId=receipt.version)
    assert content(secret.read_back()) == b"one"
    again = secret.write(key(b"two"), "key 2, rotation b")
    assert again.version == receipt.version
    assert content(secret.read_back()) == b"two"


def test_another_value_for_the_same_rotation_is_refused(manager, name, secret):
    """AWS does that; those who imitate it take the first value and say yes."""
    secret.write(key(b"one"), "key 1, rotation a")
    secret.write(key(b"two"), "key 2, rotation b")
    with pytest.raises(SinkError, match="another value already"):
        secret.write(key(b"three"), "key 2, rotation b")
    assert current(manager, name) == b"two"


def test_a_secret_without_a_version_gets_its_first_one(manager, name, secret):
    manager.create_secret(Name=name)
    assert secret.metadata() is None
    secret.write(key(), MARKER)
    assert current(manager, name) == b"napi_0123456789"


def test_an_arn_is_a_name_too(manager, name, secret, closing, monkeypatch):
    secret.write(key(b"one"), "key 1, rotation a")
    arn = manager.describe_secret(SecretId=name)["ARN"]
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    sink = closing(AwsSecretSink.parse(f"aws-secret:{arn}", {}))
    sink.write(key(b"two"), "key 2, rotation b")
    assert current(manager, name) == b"two"
    gone = closing(AwsSecretSink.parse(f"aws-secret:{arn[:-8]}-gone-AbCdEf", {}))
    for action in (gone.check, lambda: gone.write(key(), MARKER)):
        with pytest.raises(SinkNotFound, match="ARN"):
            action()


def test_what_is_no_json_object_has_no_members(manager, name, member):
    for text in ("plain text", "[1]", '"text"'):
        manager.create_secret(Name=name, SecretString=text)
        for action in (member.check, member.read_back, member.metadata, lambda: member.write(key(), MARKER)):
            with pytest.raises(SinkError, match="no JSON object"):
                action()
        assert current(manager, name) == text.encode()
        manager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def test_a_member_of_a_secret_that_is_not_there_makes_it(manager, name, member):
    member.write(key(), MARKER)
    assert json.loads(current(manager, name) or b"") == {"api_key": "napi_0123456789"}


def test_a_version_left_pending_does_not_bring_other_members_back(manager, name, member):
    """A rotation is killed when its version is pending, somebody changes another member, and it goes on."""
    manager.create_secret(Name=name, SecretString='{"user": "before"}')
    receipt = member.write(key(), MARKER)
    (before,) = [version for version in stages(manager, name) if version != receipt.version]
    move = {"SecretId": name, "VersionStage": "AWSCURRENT"}
    manager.update_secret_version_stage(**move, MoveToVersionId=before, RemoveFromVersionId=receipt.version)
    changed = manager.put_secret_value(SecretId=name, SecretString='{"user": "after"}', VersionStages=["AWSPENDING"])[
        "VersionId"
    ]
    manager.update_secret_version_stage(**move, MoveToVersionId=changed, RemoveFromVersionId=before)
    member.write(key(), MARKER)
    assert json.loads(current(manager, name) or b"") == {"user": "after", "api_key": "napi_0123456789"}
    count = len(stages(manager, name))
    member.write(key(), MARKER)
    assert len(stages(manager, name)) == count


def test_a_secret_that_changes_meanwhile_is_left_as_it_is_now(manager, name, member, url, monkeypatch):
    """AWS moves a stage only from the version that has it: whoever was faster wins, and nothing is lost."""
    manager.create_secret(Name=name, SecretString='{"user": "before"}')
    promote = member._promote

    def late(client: Any, token: str, seen: str | None) -> None:
        changed = manager.put_secret_value(
            SecretId=name, SecretString='{"user": "after"}', VersionStages=["AWSPENDING"]
        )["VersionId"]
        manager.update_secret_version_stage(
            SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=changed, RemoveFromVersionId=seen
        )
        promote(client, token, seen)

    monkeypatch.setattr(member, "_promote", late)
    with pytest.raises(SinkError):
        member.write(key(), MARKER)
    assert json.loads(current(manager, name) or b"") == {"user": "after"}


def test_a_secret_that_is_to_be_deleted_is_left_alone(manager, name, secret):
    secret.write(key(), MARKER)
    manager.delete_secret(SecretId=name)
    for action in (secret.check, lambda: secret.write(key(b"two"), "key 2")):
        with pytest.raises(SinkError, match="to be deleted") as caught:
            action()
        assert "restore-secret" in (caught.value.hint or "")
    assert secret.metadata() is None


def test_binary_secrets_are_read(manager, name, secret):
    manager.create_secret(Name=name, SecretBinary=b"napi_0123456789")
    assert content(secret.read_back()) == b"napi_0123456789"


# The Parameter Store


def test_the_kms_key_and_the_tier_stay(parameters, name, parameter):
    known = {"Name": f"/{name}", "Type": "SecureString", "KeyId": "alias/team", "Tier": "Advanced"}
    parameters.put_parameter(**known, Value="old")
    parameter.write(key(), MARKER)
    newest = parameters.get_parameter_history(Name=f"/{name}")["Parameters"][-1]
    assert (newest["Version"], newest["KeyId"], newest["Tier"]) == (2, "alias/team", "Advanced")
    assert newest["Labels"] == ["lamplighter-key-12-rotation-abcdefghij"]


def test_a_parameter_that_is_plain_text_is_refused(parameters, name, parameter):
    parameters.put_parameter(Name=f"/{name}", Value="old", Type="String")
    for action in (parameter.check, lambda: parameter.write(key(), MARKER)):
        with pytest.raises(SinkUnsafe, match="in the open"):
            action()
    assert parameters.get_parameter(Name=f"/{name}")["Parameter"]["Value"] == "old"


def test_a_parameter_by_its_arn(parameters, name, parameter, closing):
    parameter.write(key(b"one"), MARKER)
    arn = f"arn:aws:ssm:eu-west-1:123456789012:parameter/{name}"
    sink = closing(AwsParameterSink.parse(f"aws-ssm:{arn}", {}))
    assert sink.check()
    assert content(sink.read_back()) == b"one"


# Both, when things go wrong


@pytest.fixture(params=["secret", "member", "parameter"])
def sink(request: pytest.FixtureRequest) -> Sink:
    return request.getfixturevalue(request.param)


def fails(action: Callable[[], Any], *hidden: bytes) -> SinkError:
    """The error, of which nothing secret can be seen."""
    with logged() as log, pytest.raises(SinkError) as caught:
        action()
    text = shown(caught.value) + log.getvalue()
    leaked = leaks(text, SECRET_KEY.encode(), *hidden)
    assert not leaked
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def writing(sink: Sink, value: bytes) -> Callable[[], Any]:
    return lambda: sink.write(key(value), MARKER)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "AccessDeniedException", SinkRefused),
        (400, "UnrecognizedClientException", SinkRefused),
        (400, "ExpiredTokenException", SinkRefused),
        (403, "SomethingElse", SinkRefused),
        (400, "ThrottlingException", SinkUnreachable),
        (400, "ValidationException", SinkError),
        (409, "ConflictException", SinkError),
        (422, "Unprocessable", SinkError),
        (429, "TooManyRequestsException", SinkUnreachable),
        (500, "InternalServiceError", SinkUnreachable),
        (503, "", SinkUnreachable),
    ],
)
def test_errors_of_aws(sink: Sink, monkeypatch: pytest.MonkeyPatch, status: int, code: str, expected):
    value = fresh()
    body = {"__type": code, "message": f"cannot take {value.decode()}", "Message": SECRET_KEY}
    with Scripted(says(status, body, media="application/x-amz-json-1.1")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.removesuffix("/api/v2"))
        for action in (writing(sink, value), sink.check, sink.metadata, sink.read_back):
            error = fails(action, value)
            assert type(error) is expected
            assert error.status == status
            assert code in str(error)
            assert error.address == sink.describe()


def test_a_code_that_is_the_value_is_not_shown(sink: Sink, monkeypatch: pytest.MonkeyPatch):
    value = fresh()
    steps = says(400, {"__type": value.decode()}, media="application/x-amz-json-1.1", x_amzn_requestid=value.decode())
    with Scripted(steps) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.removesuffix("/api/v2"))
        assert "HTTP 400" in str(fails(writing(sink, value), value))


@pytest.mark.parametrize(
    "step",
    [
        says(200, b"<html>Sign in</html>", media="text/html"),
        says(502, b"<html>Sign in</html>", media="text/html"),
        says(200, b'{"Name": "x'),
        breaks_off(answer(200, b'{"Name": "x', length=100)),
        reset,
    ],
    ids=["html", "bad-gateway", "half", "short", "reset"],
)
def test_answers_that_make_no_sense(sink: Sink, monkeypatch: pytest.MonkeyPatch, step):
    value = fresh()
    with Scripted(step) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.removesuffix("/api/v2"))
        error = fails(writing(sink, value), value)
        assert isinstance(error, SinkUnreachable)
        assert "Sign in" not in str(error)


def test_nobody_there(sink: Sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    value = fresh()
    assert isinstance(fails(writing(sink, value), value), SinkUnreachable)


def test_no_credentials_no_profile_and_no_region_say_what_to_do(sink: Sink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert isinstance(fails(sink.check), SinkRefused)
    monkeypatch.delenv("AWS_PROFILE")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    error = fails(sink.check)
    assert isinstance(error, SinkRefused)
    assert "AWS_PROFILE" in (error.hint or "")
    monkeypatch.delenv("AWS_REGION")
    sink.close()
    assert "which region" in str(fails(sink.check))


def test_bytes_that_are_no_text_are_refused(sink: Sink):
    for action in (writing(sink, b"\xff\xfe-not-text"),):
        assert "text" in str(fails(action, b"\xff\xfe-not-text"))
    assert sink.read_back() is None


def test_a_value_that_aws_does_not_take(parameter: AwsParameterSink, monkeypatch: pytest.MonkeyPatch):
    """Parameter validation of boto3 prints what it was given."""
    value = fresh() * 200
    monkeypatch.setattr(parameter, "name", "")
    error = fails(writing(parameter, value), value)
    assert isinstance(error, SinkError)


def test_boto3_says_nothing_of_the_value_whoever_listens(sink: Sink):
    """Even where somebody has set a logger of its own to DEBUG; afterwards it is as it was."""
    value = fresh()
    own = logging.getLogger("botocore.endpoint")
    own.setLevel(logging.DEBUG)
    try:
        with logged() as log:
            sink.write(key(value), MARKER)
            content(sink.read_back())
            logging.getLogger("botocore").debug("still there")
        assert (own.level, logging.getLogger("botocore").level) == (logging.DEBUG, logging.NOTSET)
    finally:
        own.setLevel(logging.NOTSET)
    assert not leaks(log.getvalue(), value, SECRET_KEY.encode())
    assert "still there" in log.getvalue()


def test_two_at_a_time_keep_the_loggers_quiet_until_both_are_done():
    from lamplighter.keys.sinks.aws import _quiet

    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with _quiet.held():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with _quiet.held():
        thread.start()
        assert inside.wait(30)
    assert logging.getLogger("botocore").level == logging.INFO
    leave.set()
    thread.join(30)
    assert logging.getLogger("botocore").level == logging.NOTSET


def test_a_rotation_goes_on_in_the_region_that_it_began_in(manager, name, closing, monkeypatch):
    begun = closing(AwsSecretSink.parse(f"aws-secret:{name}", {}))
    address, options = begun.describe(), dict(begun.options)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    again = closing(AwsSecretSink.parse(address, options))
    assert (again, again.options) == (begun, options)
    again.write(key(), MARKER)
    assert current(manager, name) == b"napi_0123456789"
    assert AwsSecretSink.parse(f"aws-secret:{name}?region=us-east-1", {}) != begun


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (AwsSecretSink, "aws-secret:a name"),
        (AwsSecretSink, "aws-secret:name#"),
        (AwsSecretSink, "aws-secret:arn:aws:s3:::bucket"),
        (AwsSecretSink, "aws-secret:name?colour=red"),
        (AwsParameterSink, "aws-ssm:na me"),
        (AwsParameterSink, "aws-ssm:/name#key"),
        (AwsParameterSink, "aws-ssm:/name:3"),
    ],
)
def test_addresses_that_cannot_be_meant(kind: type[Sink], address: str):
    with pytest.raises(PolicyError):
        kind.parse(address, {})
