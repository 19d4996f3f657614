"""TLS: passed through where it can be, ended where it must be, with channel binding either way."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl

import psycopg
import pytest

from lamplighter.gateway.ports import Backend, Route, SetRoute
from support.front import DOMAIN, PASSWORD, ROLE, free_port
from support.waiting import eventually


async def one(connection, query="SELECT 42"):
    return (await (await connection.execute(query)).fetchone())[0]


@pytest.fixture
async def plain(platform):
    """A compute without OpenSSL, asleep."""
    return await platform.add("ep-plain", tls=False)


@pytest.fixture
def verify(tls):
    return {"sslmode": "verify-full", "sslrootcert": str(tls.authority), "channel_binding": "require"}


def by_name(platform, endpoint, suffix="", **values):
    """libpq's words for an endpoint's host on the domain's port, without a name server."""
    return {"host": f"{endpoint.id}{suffix}.{DOMAIN}", "hostaddr": "127.0.0.1", "port": platform.domain_port, **values}


@pytest.mark.parametrize("sslmode", ["require", "verify-full"])
async def test_tls_is_end_to_end(platform, endpoint, tls, sslmode):
    """On its own port an endpoint's Postgres itself speaks TLS, and binds the password to it."""
    values = {"sslrootcert": str(tls.authority)} if sslmode == "verify-full" else {}
    async with await endpoint.connect(sslmode=sslmode, channel_binding="require", **values) as connection:
        assert await one(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True


async def test_without_tls(platform, plain):
    """A client that wants no TLS gets none."""
    assert await plain.select(sslmode="disable", channel_binding="disable") == 42


@pytest.mark.parametrize("binding", ["require", "prefer", "disable"])
async def test_computes_without_openssl_have_tls_all_the_same(platform, plain, verify, binding):
    """The gateway ends TLS and checks the password itself, with channel binding if the client can."""
    async with await plain.connect(**(verify | {"channel_binding": binding})) as connection:
        assert await one(connection) == 42
        assert connection.pgconn.ssl_in_use
        assert await one(connection, "SELECT current_user::text") == ROLE


async def test_a_wrong_password_is_refused_where_the_gateway_checks_it(platform, plain):
    """In Postgres's words, for a role that is there and for one that is not."""
    for user in (ROLE, "nobody_of_that_name"):
        with pytest.raises(psycopg.OperationalError, match=f'password authentication failed for user "{user}"'):
            await plain.connect(sslmode="require", user=user, password="wrong")


async def test_an_unknown_database_is_told_where_the_gateway_logs_in(platform, plain):
    """What the compute says against a login reaches the client."""
    with pytest.raises(psycopg.OperationalError, match='database "nothing" does not exist'):
        await plain.connect(sslmode="require", dbname="nothing")


async def test_the_pooled_address_binds_channels(platform, plain, verify):
    """A pooler knows no channel binding: the gateway does it, and logs in with the client's keys."""
    await platform.wake(plain.id)
    pooler = plain.route.compute
    port = free_port()
    await platform.set(plain.id, pooler_port=port, pooler=pooler)
    assert await plain.select(port=port, **verify) == 42
    assert await plain.select(port=port, sslmode="disable") == 42


async def test_the_pooled_address_wakes(platform, plain):
    """Without a pooler, its address says so, once the endpoint is awake."""
    await platform.set(plain.id, pooler_port=free_port())
    with pytest.raises(psycopg.OperationalError, match="runs no connection pooler"):
        await plain.connect(port=plain.route.pooler_port, sslmode="disable")
    assert platform.wakes[plain.id] == 1


async def test_sni_routes_without_decrypting(platform, endpoint, verify):
    """On the domain's port the name in the TLS hello leads to the endpoint, whose Postgres speaks TLS itself."""
    assert await endpoint.select(**by_name(platform, endpoint, **verify)) == 42
    assert platform.wakes == {endpoint.id: 1}
    await eventually(lambda: platform.open_of(endpoint.id) == 0)


async def test_sni_of_a_compute_without_openssl(platform, plain, verify):
    """Then TLS ends in the gateway."""
    assert await plain.select(**by_name(platform, plain, **verify)) == 42


async def test_sni_of_the_pooled_host(platform, plain, verify):
    """`ep-...-pooler.domain` leads to the pooler."""
    await platform.wake(plain.id)
    await platform.set(plain.id, pooler=plain.route.compute)
    assert await plain.select(**by_name(platform, plain, "-pooler", **verify)) == 42


@pytest.mark.parametrize("kind", ["secure", "plain"])
async def test_options_name_the_endpoint(platform, kind):
    """A client without SNI names it so; other options reach Postgres, and channels are bound through the gateway."""
    endpoint = await platform.add("ep-by-options", tls=kind == "secure")
    values = {
        "host": "127.0.0.1",
        "port": platform.domain_port,
        "sslsni": "0",
        "sslmode": "require",
        "channel_binding": "require",
        "options": f"endpoint={endpoint.id} -c statement_timeout=4321",
    }
    async with await endpoint.connect(**values) as connection:
        assert await one(connection, "SHOW statement_timeout") == "4321ms"


@pytest.mark.parametrize("way", ["open", "ended", "pooled"])
async def test_options_name_the_endpoint_at_its_own_port(platform, plain, way):
    """They are taken out wherever the gateway can read them; those that name another endpoint are refused."""
    values = {"sslmode": "disable" if way == "open" else "require"}
    if way == "pooled":
        await platform.wake(plain.id)
        values["port"] = free_port()
        await platform.set(plain.id, pooler_port=values["port"], pooler=plain.route.compute)
    for name in (plain.id, f"{plain.id}-pooler"):
        options = f"endpoint={name} -c statement_timeout=4321"
        async with await plain.connect(options=options, **values) as connection:
            assert await one(connection, "SHOW statement_timeout") == "4321ms"
    with pytest.raises(
        psycopg.OperationalError, match="name the endpoint 'ep-other', and this is the address of anoth"
    ):
        await plain.connect(options="endpoint=ep-other", **values)


async def test_options_without_tls(platform, plain):
    """They serve in plain text too, where the compute takes that."""
    values = {"port": platform.domain_port, "sslmode": "disable", "options": f"endpoint={plain.id}"}
    assert await plain.select(**values) == 42


@pytest.mark.parametrize("separator", [";", "$"])
@pytest.mark.parametrize("kind", ["secure", "plain"])
async def test_the_password_names_the_endpoint(platform, kind, separator):
    """The last resort of clients that have neither SNI nor options."""
    endpoint = await platform.add("ep-by-password", tls=kind == "secure")
    values = {"port": platform.domain_port, "sslsni": "0", "sslmode": "require"}
    named = f"endpoint={endpoint.id}{separator}"
    assert await endpoint.select(password=named + PASSWORD, **values) == 42
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await endpoint.connect(password=named + "wrong", **values)


async def test_no_endpoint_is_named(platform, endpoint):
    """Neon's sentence, with TLS and without."""
    for values in ({"sslmode": "require", "sslsni": "0"}, {"sslmode": "disable"}):
        with pytest.raises(psycopg.OperationalError, match="Endpoint ID is not specified"):
            await endpoint.connect(port=platform.domain_port, **values)


async def test_an_endpoint_that_is_not_there(platform, endpoint):
    """Neon's sentence for a host below the domain that is no endpoint's."""
    with pytest.raises(psycopg.OperationalError, match="requested endpoint could not be found"):
        await endpoint.connect(**by_name(platform, endpoint) | {"host": f"ep-other.{DOMAIN}"})


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_addresses_that_are_not_allowed_are_told(platform, plain, endpoint, sslmode):
    """Neon's sentence, with TLS and without; nobody is woken for it."""
    for each in (plain, endpoint):
        await platform.set(each.id, allowed=("203.0.113.0/24", "::1"))
        with pytest.raises(psycopg.OperationalError, match=r"This IP address 127\.0\.0\.1 is not allowed to connect"):
            await each.connect(sslmode=sslmode)
    assert not platform.wakes
    await platform.set(plain.id, allowed=("127.0.0.0-127.0.0.9",))
    assert await plain.select(sslmode="disable") == 42


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_disabled_endpoints_refuse(platform, endpoint, sslmode):
    """Neon's sentence."""
    await platform.set(endpoint.id, state="disabled")
    with pytest.raises(psycopg.OperationalError, match="The endpoint has been disabled"):
        await endpoint.connect(sslmode=sslmode)


@pytest.mark.parametrize("way", ["own", "sni", "options", "plain"])
async def test_cancel_requests_reach_their_session(platform, way):
    """By an endpoint's own port, by SNI, and where only the key of the session tells."""
    endpoint = await platform.add("ep-cancel", tls=way != "plain")
    other = await platform.add("ep-other")
    await other.select()
    values = {
        "own": {},
        "plain": {"sslmode": "require"},
        "sni": by_name(platform, endpoint),
        "options": {"port": platform.domain_port, "sslsni": "0", "options": f"endpoint={endpoint.id}"},
    }[way]
    async with await endpoint.connect(**values) as connection:
        running = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        async with await endpoint.connect(**values) as watching:
            await eventually(lambda: _sleeps(watching))
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running


@pytest.mark.parametrize("way", ["own", "sni", "options"])
async def test_old_cancel_requests_reach_their_session(platform, endpoint, way):
    """As psql sends them: in plain text, with nothing that names the endpoint."""
    values = {
        "own": {},
        "sni": by_name(platform, endpoint),
        "options": {"port": platform.domain_port, "sslsni": "0", "options": f"endpoint={endpoint.id}"},
    }[way]
    await cancels_in_the_open(endpoint, values)


async def cancels_in_the_open(endpoint, values):
    """Cancel what a connection of this endpoint does, as psql does it."""
    async with await endpoint.connect(**values) as connection:
        running = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        async with await endpoint.connect(**values) as watching:
            await eventually(lambda: _sleeps(watching))
        await asyncio.to_thread(connection.pgconn.get_cancel().cancel)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running


async def test_old_cancel_requests_reach_a_pooled_session(platform, plain):
    """One without TLS, whose key the gateway has not seen: its pooler is asked, too."""
    pooler = await platform.add("ep-as-pooler", tls=False)
    await platform.wake(pooler.id)
    # Nothing else may lead there.
    await platform.set(pooler.id, state="disabled")
    await platform.wake(plain.id)
    await platform.set(plain.id, pooler=pooler.route.compute)
    await cancels_in_the_open(plain, {"port": platform.domain_port, "options": f"endpoint={plain.id}-pooler"})


async def test_old_cancel_requests_find_their_session_among_many(own):
    """Though more endpoints are awake than one request is brought to, and come first in the table."""
    nobody = Backend("127.0.0.1", free_port(), tls=False)
    for number in range(70):
        route = Route(f"ep-many-{number}", "a-project", "awake", free_port(), compute=nobody)
        await own.ask(SetRoute(1000 + number, route))
    last = await own.add("ep-last", tls=False)
    await cancels_in_the_open(last, {"port": own.domain_port, "options": f"endpoint={last.id}"})


async def _sleeps(watching):
    return await one(watching, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")


@pytest.mark.parametrize("kind", ["secure", "plain"])
async def test_direct_tls(platform, verify, kind):
    """Clients of version 17 may begin with TLS at once, without a request for it."""
    endpoint = await platform.add("ep-direct", tls=kind == "secure")
    values = verify | {"sslnegotiation": "direct"}
    assert await endpoint.select(**values) == 42
    assert await endpoint.select(**by_name(platform, endpoint, **values)) == 42


async def test_a_renewed_certificate_is_used_without_a_restart(make_platform, tls, owner, place):
    """The files are looked at again."""
    from lamplighter.compute.tls import TlsFiles, ensure_tls

    directory = place / "tls"
    shutil.copytree(tls.authority.parent, directory)
    files = TlsFiles(*(directory / path.name for path in (tls.authority, tls.certificate, tls.key)))
    async with make_platform(tls=files) as platform:
        plain = await platform.add("ep-renewed", tls=False)
        before = await asyncio.to_thread(_certificate, plain.route.port)
        files.certificate.unlink()
        ensure_tls(directory, owner)
        await eventually(lambda: asyncio.to_thread(lambda: _certificate(plain.route.port) != before))
        assert await plain.select(sslmode="require", channel_binding="require") == 42


def _certificate(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
        assert sock.recv(1) == b"S"
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(sock) as secure:
            return secure.getpeercert(binary_form=True)
