"""The branch is a real one: by the API that the plugin has built in, and by TLS."""

from __future__ import annotations

import datetime as dt
import os

import psycopg
import pytest
import requests

pytestmark = pytest.mark.usefixtures("visit")
CONSOLE = "https://console.neon.tech/api/v2"


def asked(neon_branch, branch_id):
    headers = {"authorization": f"Bearer {os.environ['NEON_API_KEY']}"}
    answer = requests.get(
        f"{CONSOLE}/projects/{neon_branch.project_id}/branches/{branch_id}", headers=headers, timeout=30
    )
    answer.raise_for_status()
    return answer.json()["branch"]


def test_it_is_a_child_of_the_default_branch(neon_branch):
    assert asked(neon_branch, neon_branch.branch_id)["parent_id"] == neon_branch.parent_id
    assert asked(neon_branch, neon_branch.parent_id)["default"]


def test_it_expires_by_itself(neon_branch):
    """Ten minutes from its creation, as the plugin asks."""
    branch = asked(neon_branch, neon_branch.branch_id)
    expires, created = (dt.datetime.fromisoformat(branch[name]) for name in ("expires_at", "created_at"))
    assert dt.timedelta(minutes=9) < expires - created < dt.timedelta(minutes=11)


def test_the_connection_is_encrypted(neon_connection_psycopg):
    query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert neon_connection_psycopg.execute(query).fetchone() == (True,)


def test_a_wrong_password_is_refused(neon_branch):
    wrong = psycopg.conninfo.make_conninfo(neon_branch.connection_string, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
