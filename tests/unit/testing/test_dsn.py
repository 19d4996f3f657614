"""Connection strings in test reports: usable, and without their password."""

from __future__ import annotations

import json
import pickle
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.testing import Dsn

URI = "postgresql://neondb_owner:npg_s3cret@ep-1.example.test:5432/neondb?sslmode=require"


def test_it_is_the_string_in_all_ways_but_its_repr():
    dsn = Dsn(URI)

    assert isinstance(dsn, str)
    assert (str(dsn), f"{dsn}", json.loads(json.dumps(dsn)), dsn + "") == (URI, URI, URI, URI)
    assert urlsplit(dsn).password == "npg_s3cret"
    assert pickle.loads(pickle.dumps(dsn)) == URI
    assert repr(dsn) == "'postgresql://neondb_owner:***@ep-1.example.test:5432/neondb?sslmode=require'"


def test_containers_show_it_without_its_password():
    assert "s3cret" not in repr({"dsn": [Dsn(URI)]})


@pytest.mark.parametrize(
    "uri", ["postgresql://host/db?user=u&password=s3cret", "postgresql://host/db?Password=s3cret&a=b"]
)
def test_a_password_among_the_parameters_is_hidden_too(uri):
    assert "s3cret" not in repr(Dsn(uri))


@given(user=st.text(), password=st.text(min_size=9))
def test_no_password_shows_however_it_is_written(user, password):
    escaped = quote(password, safe="", errors="surrogatepass")
    uri = f"postgresql://{quote(user, safe='', errors='surrogatepass')}:{escaped}@ep-1.example.test/neondb"

    assert escaped not in repr(Dsn(uri)).replace(quote(user, safe="", errors="surrogatepass"), "", 1)
