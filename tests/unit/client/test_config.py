"""Which server, and which key: all of it decided without a file, a keychain or an environment."""

from __future__ import annotations

import json
import string
import traceback
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api.secret import Secret
from lamplighter.client.config import (
    NEON_CLOUD,
    Context,
    Contexts,
    Server,
    check_name,
    choose,
    host_of,
    is_private,
    normalise,
    parse,
    reachable,
    render,
    seal,
    with_platform,
)
from lamplighter.client.errors import ConfigurationError

HOSTS = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{2,5}){0,2}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
PREFIXES = st.lists(st.from_regex(r"[A-Za-z0-9_~-]{1,6}", fullmatch=True), max_size=2).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
SCHEMES = st.sampled_from(["http", "https"])
PORTS = st.none() | st.integers(1, 65535)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
KEYS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=20).map(
    lambda end: Secret(f"napi_{end}")
)
SERVERS = st.sampled_from([NEON_CLOUD, "http://127.0.0.1:7432/api/v2", "https://one.example/api/v2"])
WORDS = st.none() | st.text(max_size=8)


@dataclass
class Known:
    """Contexts, and whose key was asked for."""

    contexts: Contexts = field(default_factory=Contexts)
    opened: list[str] = field(default_factory=list)
    reads: int = 0

    def read(self) -> Contexts:
        self.reads += 1
        return self.contexts

    def key(self, name: str, context: Context) -> Secret:
        self.opened.append(name)
        return context.api_key or Secret(f"keychain:{name}")


class Broken:
    """A file that cannot be read."""

    def read(self) -> Contexts:
        raise ConfigurationError("it is broken")

    def key(self, name: str, context: Context) -> Secret:
        raise AssertionError(name)


LOCAL = Context(base_url="http://127.0.0.1:7432/api/v2", api_key=Secret("napi_local"), project_id="quiet-sun-1")
CLOUD = Context(base_url=NEON_CLOUD, in_keychain=True, org_id="org-1")
BARE = Context(base_url="https://bare.example/api/v2")


def known(current: str | None = None, **named: Context) -> Known:
    return Known(Contexts(current=current, named=named))


class TestNormalise:
    @given(SCHEMES, HOSTS, PORTS, PREFIXES, st.sampled_from(["", "/", "/api/v2", "/api/v2/", "//"]))
    def test_one_server_has_one_url(self, scheme: str, host: str, port: int | None, prefix: str, end: str) -> None:
        """However it is written; and writing it again changes nothing."""
        place = f"{scheme}://{host}" + (f":{port}" if port else "")
        said = normalise(f"{place}{prefix}{end}")
        assert said == normalise(f"  {place.upper().replace('HTTP', 'Http')}{prefix}\n")
        assert said == normalise(said)
        assert said.endswith(f"{prefix}/api/v2")
        assert said.startswith(f"{scheme}://{host}")
        assert f":{port}/" in said or port in (None, {"http": 80, "https": 443}[scheme])

    @given(st.text(max_size=40))
    def test_anything_gives_a_url_or_says_why_not(self, text: str) -> None:
        try:
            said = normalise(text)
        except ConfigurationError as error:
            said = str(error)
            assert "URL" in said
            return
        assert said.startswith(("http://", "https://"))
        assert said == normalise(said)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "console.neon.tech",
            "ftp://a.example",
            "file:///etc/passwd",
            "https://",
            "https:///api/v2",
            "https://a.example:port",
            "https://a.example:0",
            "https://a.example:",
            "https://a.example:99999",
            "https://a b.example",
            "https://a.example/x y",
            "https://a.example/\u00e4",
            "https://b\u00fccher.example",
            "https://a.example/../x",
            "https://a.example/%2e%2e",
            "https://a.example\\@b.example",
            "https://a..example",
            "https://[::1",
            "https://[fe80::1%25eth0]",
            "https://a.example\nX-Header: 1",
            "https://a.example\t.b.example",
        ],
    )
    def test_what_is_no_url_of_a_server_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError):
            normalise(url)

    @pytest.mark.parametrize(
        "url",
        [
            "https://me:sekret@a.example",
            "https://sekret@a.example",
            "https://a.example?k=sekret",
            "https://a.example#sekret",
        ],
    )
    def test_a_url_with_a_secret_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            normalise(url)
        assert "sekret" not in str(caught.value)

    def test_reachable_is_an_address_that_one_can_connect_to(self) -> None:
        assert reachable("http://0.0.0.0:7432/api/v2") == "http://127.0.0.1:7432/api/v2"
        assert reachable("http://[::]:7432/api/v2") == "http://[::1]:7432/api/v2"
        assert reachable("http://10.0.0.0:7432/api/v2") == "http://10.0.0.0:7432/api/v2"

    @pytest.mark.parametrize(
        ("url", "private"),
        [
            ("https://a.example", True),
            ("http://localhost:7432", True),
            ("http://x.localhost", True),
            ("http://127.8.9.1", True),
            ("http://[::1]:1", True),
            ("http://a.example", False),
            ("http://10.0.0.1", False),
            ("http://0.0.0.0", False),
            ("http://127.0.0.1.example", False),
            ("http://localhost.example", False),
        ],
    )
    def test_http_is_private_on_this_machine_alone(self, url: str, private: bool) -> None:
        assert is_private(normalise(url)) is private

    def test_a_host_is_shown_with_its_port(self) -> None:
        assert host_of("http://[::1]:7432/api/v2") == "[::1]:7432"


class TestKeys:
    @pytest.mark.parametrize("text", ["", "  ", "a b", "a\nb", "a\x00", "schl\u00fcssel", "Bearer napi_x"])
    def test_what_cannot_be_a_key_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            seal(Secret(text))
        assert text == "" or text.strip() == "" or text not in str(caught.value)

    def test_blanks_around_it_are_not_of_it(self) -> None:
        assert seal(Secret(" napi_x\r\n")).reveal() == "napi_x"


class TestChoose:
    def test_a_key_alone_goes_to_neons_cloud(self) -> None:
        server = choose(api_key="napi_a", environ={}, contexts=Broken())
        assert (server.base_url, server.api_key.reveal(), server.source) == (NEON_CLOUD, "napi_a", "arguments")

    def test_a_key_alone_goes_to_the_host_of_the_environment(self) -> None:
        server = choose(
            api_key="napi_a", environ={"NEON_API_HOST": "http://h:1/", "NEON_API_KEY": "b"}, contexts=Broken()
        )
        assert (server.base_url, server.api_key.reveal()) == ("http://h:1/api/v2", "napi_a")

    def test_a_key_is_never_sent_to_a_context_that_is_only_the_current_one(self) -> None:
        assert choose(api_key="napi_a", environ={}, contexts=known("local", local=LOCAL)).base_url == NEON_CLOUD

    def test_the_environment_comes_before_contexts(self) -> None:
        """Even before LAMP_CONTEXT; nothing is read then, so that a broken file is no obstacle."""
        environ = {"NEON_API_KEY": " napi_e\n", "LAMP_CONTEXT": "local"}
        server = choose(environ=environ, contexts=Broken())
        assert (server.base_url, server.api_key.reveal(), server.source) == (NEON_CLOUD, "napi_e", "NEON_API_KEY")

    def test_a_context_that_is_named_comes_before_the_environment(self) -> None:
        environ = {"NEON_API_KEY": "napi_e", "NEON_API_HOST": "https://h.example"}
        server = choose(context="local", environ=environ, contexts=known("cloud", local=LOCAL, cloud=CLOUD))
        assert (server.base_url, server.api_key.reveal()) == (LOCAL.base_url, "napi_local")
        assert (server.source, server.name, server.project_id) == ("context local", "local", "quiet-sun-1")

    def test_lamp_context_comes_before_lamp_use_and_that_before_local(self) -> None:
        source = known("cloud", local=LOCAL, cloud=CLOUD)
        assert choose(environ={"LAMP_CONTEXT": "local"}, contexts=source).name == "local"
        assert choose(environ={}, contexts=source).name == "cloud"
        assert choose(environ={}, contexts=known(None, local=LOCAL, cloud=CLOUD)).name == "local"

    def test_only_the_key_that_is_used_is_fetched(self) -> None:
        source = known("cloud", local=LOCAL, cloud=CLOUD)
        choose(environ={}, contexts=source)
        assert source.opened == ["cloud"]

    def test_variables_that_are_empty_are_not_set(self) -> None:
        environ = {"NEON_API_KEY": "", "NEON_API_HOST": " ", "LAMP_CONTEXT": ""}
        assert choose(environ=environ, contexts=known(local=LOCAL)).name == "local"

    def test_a_host_gets_the_key_that_a_context_has_for_it(self) -> None:
        source = known("cloud", local=LOCAL, cloud=CLOUD)
        by_argument = choose(base_url="http://127.0.0.1:7432/", environ={"NEON_API_KEY": "napi_e"}, contexts=source)
        assert (by_argument.name, by_argument.api_key.reveal()) == ("local", "napi_local")
        by_variable = choose(environ={"NEON_API_HOST": "http://127.0.0.1:7432"}, contexts=source)
        assert by_variable == by_argument

    def test_a_host_gets_the_key_of_the_environment_when_it_is_for_it(self) -> None:
        environ = {"NEON_API_KEY": "napi_e", "NEON_API_HOST": "https://h.example"}
        server = choose(base_url="https://H.example/api/v2/", environ=environ, contexts=Broken())
        assert server.api_key.reveal() == "napi_e"

    def test_another_host_does_not_get_the_key_of_the_environment(self) -> None:
        """Which the error says, without the key."""
        with pytest.raises(ConfigurationError) as caught:
            choose(base_url="https://evil.example", environ={"NEON_API_KEY": "napi_e"}, contexts=known(local=LOCAL))
        assert "no API key for https://evil.example/api/v2" in str(caught.value)
        assert "NEON_API_KEY goes to https://console.neon.tech/api/v2 alone" in str(caught.value)
        assert "napi_e" not in str(caught.value)

    def test_of_several_contexts_of_a_host_one_has_to_be_named(self) -> None:
        named = {"a": CLOUD, "b": CLOUD, "local": LOCAL}
        with pytest.raises(ConfigurationError, match="name one of a, b"):
            choose(base_url=NEON_CLOUD, environ={}, contexts=known(None, **named))
        assert choose(base_url=NEON_CLOUD, environ={}, contexts=known("b", **named)).name == "b"
        assert choose(base_url=NEON_CLOUD, environ={"LAMP_CONTEXT": "a"}, contexts=known("b", **named)).name == "a"

    @pytest.mark.parametrize("more", [{"api_key": "napi_a"}, {"base_url": "https://a.example"}])
    def test_a_context_is_not_mixed_with_anything(self, more: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="not both"):
            choose(context="local", environ={}, contexts=known(local=LOCAL), **more)

    @pytest.mark.parametrize(
        ("source", "environ", "said"),
        [
            (known(), {}, "set NEON_API_KEY"),
            (known(cloud=CLOUD), {}, "choose a context with `lamp use`: cloud"),
            (known(cloud=CLOUD), {"LAMP_CONTEXT": "clod"}, "there is no context 'clod'; there are: cloud"),
            (known("bare", bare=BARE), {}, "the context 'bare' has no key; `lamp login bare`"),
            (known(), {"NEON_API_HOST": "https://a.example"}, "lamp login --api-host https://a.example`"),
            (known(), {"NEON_API_KEY": "k", "NEON_API_HOST": "a.example"}, "NEON_API_HOST: "),
            (known(), {"NEON_API_KEY": "a b"}, "NEON_API_KEY: the API key holds blanks"),
        ],
    )
    def test_an_error_says_what_to_do(self, source: Known, environ: dict[str, str], said: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            choose(environ=environ, contexts=source)
        assert said in str(caught.value)

    @given(
        api_key=st.none() | KEYS,
        base_url=st.none() | SERVERS,
        context=st.none() | st.sampled_from(["a", "b", "c"]),
        env_key=st.none() | KEYS,
        env_host=st.none() | SERVERS,
        env_context=st.none() | st.sampled_from(["a", "b"]),
        named=st.dictionaries(
            st.sampled_from(["a", "b", "local"]),
            st.builds(Context, base_url=SERVERS, api_key=st.none() | KEYS),
        ),
        current=st.none() | st.sampled_from(["a", "b"]),
    )
    def test_a_key_goes_only_where_it_was_given_for(self, **facts: object) -> None:
        """Whatever is set: the pair that is chosen is one that somebody gave as a pair, or the answer is an error."""
        api_key, base_url, env_key, env_host = (facts[name] for name in ("api_key", "base_url", "env_key", "env_host"))
        named: dict[str, Context] = facts["named"]  # type: ignore[assignment]
        current = facts["current"] if facts["current"] in named else None
        pairs = [(one.base_url, one.api_key) for one in named.values() if one.api_key]
        if env_key is not None:
            pairs.append((env_host or NEON_CLOUD, env_key))  # type: ignore[arg-type]
        if api_key is not None:
            pairs.append((base_url or env_host or NEON_CLOUD, api_key))  # type: ignore[arg-type]
        environ = {
            name: value.reveal() if isinstance(value, Secret) else str(value)
            for name, value in (
                ("NEON_API_KEY", env_key),
                ("NEON_API_HOST", env_host),
                ("LAMP_CONTEXT", facts["env_context"]),
            )
            if value is not None
        }
        try:
            server = choose(
                api_key=api_key,  # type: ignore[arg-type]
                base_url=base_url,  # type: ignore[arg-type]
                context=facts["context"],  # type: ignore[arg-type]
                environ=environ,
                contexts=Known(Contexts(current=current, named=named)),
            )
        except ConfigurationError as error:
            said = str(error)
        else:
            said = f"{server} {server!r}"
            assert (server.base_url, server.api_key) in pairs
            assert base_url in (None, server.base_url)
            assert facts["context"] in (None, server.name)
        assert "napi_" not in said

    @pytest.mark.parametrize(
        "given",
        [
            {"api_key": "napi_sekret x"},
            {"api_key": "napi_sekret", "base_url": "nonsense"},
            {"api_key": "napi_sekret", "context": "local"},
            {"api_key": "", "environ": {"NEON_API_KEY": "napi_sekret"}},
            {"environ": {"NEON_API_KEY": "napi_sekret x"}},
            {"environ": {"NEON_API_KEY": "napi_sekret", "NEON_API_HOST": "nonsense"}},
            {"base_url": "https://a.example", "environ": {"NEON_API_KEY": "napi_sekret"}},
            {"environ": {}, "contexts": known("x", x=replace(LOCAL, api_key=None), y=LOCAL)},
        ],
    )
    def test_no_frame_of_a_traceback_shows_a_key(self, given: dict[str, object]) -> None:
        """Of ours, that is: even where each local variable is printed."""
        with pytest.raises(ConfigurationError) as caught:
            choose(**{"environ": {}, "contexts": Known(), **given})  # type: ignore[arg-type]
        assert secrets_in(caught.value) == []


def secrets_in(error: BaseException) -> list[str]:
    """Frames, but this file's, whose local variables show a key; and the error's own text if it does."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in told.stack if frame.filename != __file__]
    assert frames
    found = [f"{frame.name}: {frame.locals}" for frame in frames if "napi_" in str(frame.locals)]
    return found + [text for text in (str(error), repr(error)) if "napi_" in text]


class TestFile:
    @given(
        named=st.dictionaries(
            NAMES,
            st.builds(
                Context,
                base_url=SERVERS,
                api_key=st.none() | KEYS,
                org_id=WORDS,
                project_id=WORDS,
                data_dir=WORDS,
                more=st.dictionaries(st.sampled_from(["new", "newer"]), st.integers() | st.text(max_size=4)),
            ),
            max_size=4,
        ),
        more=st.dictionaries(st.sampled_from(["version"]), st.integers()),
        data=st.data(),
    )
    def test_what_is_written_is_read_back(
        self, named: dict[str, Context], more: dict[str, int], data: st.DataObject
    ) -> None:
        """With what a newer version has put there."""
        current = data.draw(st.none() | st.sampled_from(sorted(named))) if named else None
        written = Contexts(current=current, named=named, more=more)
        assert parse(render(written)) == written

    def test_the_form_is_the_one_that_is_documented(self) -> None:
        text = render(Contexts(current="local", named={"local": replace(LOCAL, data_dir="/d"), "neon": CLOUD})).reveal()
        assert json.loads(text) == {
            "current": "local",
            "contexts": {
                "local": {
                    "base_url": "http://127.0.0.1:7432/api/v2",
                    "api_key": "napi_local",
                    "project_id": "quiet-sun-1",
                    "data_dir": "/d",
                },
                "neon": {"base_url": NEON_CLOUD, "key_in": "keychain", "org_id": "org-1"},
            },
        }

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "napi_sekret",
            '{"contexts": {"a": {"api_key": "napi_sekret"',
            "[]",
            "null",
            '{"contexts": []}',
            '{"contexts": {"a": "napi_sekret"}}',
            '{"contexts": {"a": {}}}',
            '{"contexts": {"a": {"base_url": "nonsense", "api_key": "napi_sekret"}}}',
            '{"contexts": {"a": {"base_url": "https://a", "api_key": ["napi_sekret"]}}}',
            '{"contexts": {"a": {"base_url": "https://a", "api_key": ""}}}',
            '{"contexts": {"a": {"base_url": "https://a", "key_in": "drawer"}}}',
            '{"contexts": {"a": {"base_url": "https://a", "org_id": 7}}}',
            '{"contexts": {"": {"base_url": "https://a"}}}',
            '{"contexts": {}, "current": "a"}',
            '{"contexts": {}, "current": ["a"]}',
            "[" * 100_000,
        ],
    )
    def test_what_is_broken_is_said_without_repeating_it(self, text: str) -> None:
        said = parse(Secret(text))
        assert isinstance(said, str)
        assert "napi_" not in said

    @given(st.text(max_size=60))
    def test_no_text_makes_it_fail(self, text: str) -> None:
        assert isinstance(parse(Secret(text)), Contexts | str)

    @pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "\u00e4", "a\n", "x" * 65])
    def test_a_name_that_no_context_may_have(self, name: str) -> None:
        with pytest.raises(ConfigurationError):
            check_name(name)

    def test_a_context_that_goes_is_no_longer_the_current_one(self) -> None:
        contexts = Contexts(current="local", named={"local": LOCAL, "neon": CLOUD})
        assert contexts.without("local") == Contexts(named={"neon": CLOUD})
        assert contexts.without("neon").current == "local"


def up(
    contexts: Contexts, data_dir: str = "/d", *, port: int = 7432, key: str | None = None, gone: tuple[str, ...] = ()
) -> tuple[Contexts, str | None]:
    return with_platform(
        contexts,
        data_dir=data_dir,
        base_url=f"http://127.0.0.1:{port}/api/v2",
        api_key=Secret(key) if key else None,
        project_id="quiet-sun-1" if key else None,
        is_there=lambda path: path not in gone,
    )


class TestPlatform:
    def test_the_first_start_makes_local(self) -> None:
        contexts, name = up(Contexts(), key="napi_a")
        assert name == "local"
        assert contexts.current is None
        assert choose(environ={}, contexts=Known(contexts)) == Server(
            base_url="http://127.0.0.1:7432/api/v2",
            api_key=Secret("napi_a"),
            source="context local",
            name="local",
            project_id="quiet-sun-1",
        )

    def test_a_later_start_keeps_the_key_and_mends_the_url(self) -> None:
        contexts, _ = up(Contexts(), key="napi_a")
        contexts, name = up(contexts, port=8000)
        assert name == "local"
        assert contexts.named["local"].api_key == Secret("napi_a")
        assert contexts.named["local"].base_url == "http://127.0.0.1:8000/api/v2"
        assert contexts.named["local"].project_id == "quiet-sun-1"

    def test_a_new_key_takes_the_old_ones_place(self) -> None:
        contexts, _ = up(Contexts(), key="napi_a")
        contexts, _ = up(contexts, key="napi_b")
        assert [one.api_key for one in contexts.named.values()] == [Secret("napi_b")]

    def test_a_platform_whose_key_is_not_known_gets_no_context(self) -> None:
        assert up(Contexts()) == (Contexts(), None)

    def test_another_directory_gets_a_name_of_its_own(self) -> None:
        """Unless the directory that had the name is gone."""
        contexts, _ = up(Contexts(), "/one", key="napi_a")
        both, name = up(contexts, "/two", key="napi_b")
        assert name == "local-2"
        assert both.named["local"] == contexts.named["local"]
        assert up(both, "/three", key="napi_c")[1] == "local-3"
        after, name = up(both, "/three", key="napi_c", gone=("/one",))
        assert name == "local"
        assert after.named["local"].api_key == Secret("napi_c")

    def test_a_users_own_context_is_never_written_over(self) -> None:
        mine = Contexts(named={"local": LOCAL})
        after, name = up(mine, key="napi_b", gone=("/d",))
        assert name == "local-2"
        assert after.named["local"] == LOCAL

    @given(
        st.lists(
            st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.integers(1, 9), st.booleans()), min_size=1, max_size=12
        )
    )
    def test_no_start_loses_a_key_or_sends_it_elsewhere(self, starts: list[tuple[str, int, bool]]) -> None:
        """Of any number of platforms: each directory's context has its latest key, and its latest URL."""
        contexts = Contexts()
        keys: dict[str, Secret] = {}
        urls: dict[str, str] = {}
        for number, (data_dir, port, anew) in enumerate(starts):
            first = data_dir not in keys
            key = f"napi_{number}" if anew or first else None
            contexts, name = up(contexts, data_dir, port=7000 + port, key=key)
            keys[data_dir] = Secret(key) if key else keys[data_dir]
            urls[data_dir] = f"http://127.0.0.1:{7000 + port}/api/v2"
            assert name is not None
            assert contexts.named[name].data_dir == data_dir
        assert {one.data_dir: one.api_key for one in contexts.named.values()} == keys
        assert {one.data_dir: one.base_url for one in contexts.named.values()} == urls


def test_every_pair_of_places_to_be_named_in_has_one_winner() -> None:
    """Arguments, environment, context: whatever is left out, the first of those that are there."""
    for argument, variable, context in product([True, False], repeat=3):
        source = known("local", local=LOCAL) if context else known()
        environ = {"NEON_API_KEY": "napi_e"} if variable else {}
        if not (argument or variable or context):
            with pytest.raises(ConfigurationError):
                choose(environ=environ, contexts=source)
            continue
        server = choose(api_key="napi_a" if argument else None, environ=environ, contexts=source)
        wanted = "arguments" if argument else "NEON_API_KEY" if variable else "context local"
        assert server.source == wanted
