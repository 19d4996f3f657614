"""Endpoints in the names of hosts, and in front of passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.gateway.wire.hosts import label_of, split_pooler
from lamplighter.gateway.wire.password import split_endpoint

ids = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", fullmatch=True).filter(lambda ep: not ep.endswith("-pooler"))


@given(ids, st.booleans(), st.booleans(), st.booleans())
def test_a_host_leads_to_its_endpoint(endpoint, pooled, upper, dot):
    host = f"{endpoint}{'-pooler' if pooled else ''}.db.Example.org{'.' if dot else ''}"
    assert label_of(host.upper() if upper else host, "DB.example.org.") == (endpoint, pooled)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "db.example.org",
        ".db.example.org",
        "a.b.db.example.org",
        "ep-x.db.example.com",
        "ep-xdb.example.org",
        "ep_x.db.example.org",
        "-ep.db.example.org",
        "ep-.db.example.org",
        "ep x.db.example.org",
        "ep-x.db.example.org..",
        "e" * 64 + ".db.example.org",
    ],
)
def test_a_host_that_is_not_right_below_the_domain_is_nobodys(host):
    assert label_of(host, "db.example.org") is None


@pytest.mark.parametrize("domain", [None, ""])
def test_without_a_domain_no_host_is_an_endpoints(domain):
    assert label_of("ep-x.db.example.org", domain) is None


@given(st.text(max_size=60))
def test_any_host_is_looked_at_without_harm(host):
    found = label_of(host + ".d", "d")
    assert found is None or found[0]


@pytest.mark.parametrize(
    ("label", "expected"),
    [("ep-x-pooler", ("ep-x", True)), ("ep-x", ("ep-x", False)), ("-pooler", ("-pooler", False)), ("", ("", False))],
)
def test_a_name_by_way_of_the_pooler(label, expected):
    assert split_pooler(label) == expected


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        (b"", (None, b"")),
        (b"secret", (None, b"secret")),
        (b"endpoint=ep-x", (None, b"endpoint=ep-x")),
        (b"endpoint=ep-x;secret", ("ep-x", b"secret")),
        (b"endpoint=ep-x$secret", ("ep-x", b"secret")),
        (b"project=ep-x;secret", ("ep-x", b"secret")),
        (b"endpoint=ep-x;se;cr$et", ("ep-x", b"se;cr$et")),
        (b"endpoint=ep-x$se;cr$et", ("ep-x", b"se;cr$et")),
        (b"endpoint=ep-x;\n\xff", ("ep-x", b"\n\xff")),
        (b"endpoint=;x", ("", b"x")),
        (b"endpoint=\xff;x", (None, b"endpoint=\xff;x")),
        (b"my endpoint=ep-x;secret", (None, b"my endpoint=ep-x;secret")),
    ],
)
def test_an_endpoint_in_front_of_a_password(password, expected):
    assert split_endpoint(password) == expected


@given(ids, st.sampled_from(["endpoint=", "project="]), st.sampled_from([";", "$"]), st.binary(max_size=30))
def test_any_password_may_stand_behind_an_endpoint(endpoint, prefix, separator, password):
    assert split_endpoint((prefix + endpoint + separator).encode() + password) == (endpoint, password)
