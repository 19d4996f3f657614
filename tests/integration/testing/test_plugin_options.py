"""How the plugin is configured: options, settings, environment, contexts, a conftest; and what it says without."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from support.lamp import Lamp, sql, uri_of


def test_branches_end_by_themselves(suite, branches):
    suite.write("def test_end(neon_branch): note(expires_at=neon_branch.branch.expires_at.isoformat())")
    suite.settings["neon_branch_ttl"] = "2h"

    (note,) = suite.passes()

    left = datetime.fromisoformat(note["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=110) < left <= timedelta(hours=2)


def test_the_parent_is_taken_by_name_and_by_id(suite, lamp: Lamp, branches):
    seed = lamp.branch(branches.project_id, "seed")
    sql(uri_of(seed), "insert into words values ('seeded')")
    suite.write(
        """
        import psycopg

        def test_words(neon_branch):
            note(parent=neon_branch.branch.parent_id)
            with psycopg.connect(neon_branch.dsn) as conn:
                assert conn.execute("select count(*) from words").fetchall() == [(2,)]
        """
    )

    suite.passes("--neon-parent", "seed")
    suite.settings["neon_parent"] = seed["branch"]["id"]
    notes = suite.passes()

    assert [note["parent"] for note in notes] == [seed["branch"]["id"]] * 2
    assert branches.names() == {"main", "seed"}


def test_the_schema_without_the_data(suite, branches):
    suite.write(
        """
        import psycopg

        def test_words(neon_dsn):
            with psycopg.connect(neon_dsn) as conn:
                assert conn.execute("select count(*) from words").fetchall() == [(0,)]
        """
    )

    suite.passes("--neon-schema-only")

    assert branches.names() == {"main"}


def test_database_and_role_can_be_named(suite, lamp: Lamp, branches):
    """With two databases the server does not say which connection string is meant."""
    main = lamp.call("GET", f"/projects/{branches.project_id}/branches")["branches"][0]["id"]
    body = {"database": {"name": "other", "owner_name": "neondb_owner"}}
    lamp.call("POST", f"/projects/{branches.project_id}/branches/{main}/databases", body)
    lamp.settle(branches.project_id)
    suite.write(
        """
        import psycopg

        def test_name(neon_dsn):
            with psycopg.connect(neon_dsn) as conn:
                note(name=conn.execute("select current_database()").fetchone()[0])
        """
    )

    unnamed = suite.run()
    (note,) = suite.passes("--neon-branch-database", "other")

    assert unnamed.counts["error"] == 1, unnamed.text
    assert "--neon-branch-database NAME" in unnamed.text
    assert note == {"name": "other"}
    assert branches.names() == {"main"}


# Where nothing, or too little, is configured


def test_without_a_server_the_error_says_what_to_set(bare_suite):
    bare_suite.write("def test_one(neon_branch): pass\ndef test_plain(): pass")

    outcome = bare_suite.run()

    assert (outcome.counts["error"], outcome.counts["passed"]) == (1, 1), outcome.text
    assert "NEON_API_KEY" in outcome.text
    assert "Traceback" not in outcome.text
    assert "plugin.py" not in outcome.text


def test_with_several_projects_the_error_says_how_to_choose(suite, lamp: Lamp):
    lamp.project()
    del suite.env["NEON_PROJECT_ID"]
    suite.write("def test_one(neon_branch): pass")

    outcome = suite.run()

    assert outcome.counts["error"] == 1, outcome.text
    assert "--neon-project ID" in outcome.text


def test_the_project_can_be_named_in_every_way(suite, branches, tmp_path):
    del suite.env["NEON_PROJECT_ID"]
    suite.write("def test_one(neon_branch): note(project=neon_branch.project_id)")

    suite.passes("--neon-project", branches.project_id)
    suite.settings["neon_project"] = branches.project_id
    suite.passes()
    suite.settings.clear()
    context = {
        "base_url": suite.env.pop("NEON_API_HOST"),
        "api_key": suite.env.pop("NEON_API_KEY"),
        "project_id": branches.project_id,
    }
    place = tmp_path / "config" / "lamplighter"
    place.mkdir(parents=True, mode=0o700)
    (place / "contexts.json").write_text(json.dumps({"current": None, "contexts": {"mine": context}}))
    (place / "contexts.json").chmod(0o600)
    notes = suite.passes("--neon-context", "mine")

    assert [note["project"] for note in notes] == [branches.project_id] * 3


@pytest.mark.parametrize("ttl", ["25h", "soon"])
def test_a_time_that_no_branch_can_live_stops_the_run(suite, ttl):
    outcome = suite.write("def test_one(): pass").run("--neon-branch-ttl", ttl)

    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "write 30m, 2h or seconds, up to 24h" in outcome.text


def test_a_parent_that_is_not_there_is_an_error_of_the_fixture(suite):
    outcome = suite.write("def test_one(neon_branch): pass").run("--neon-parent", "nobody")

    assert outcome.counts["error"] == 1, outcome.text
    assert "there is no branch 'nobody'" in outcome.text


def test_a_wrong_key_is_an_error_of_the_fixture(suite):
    suite.env["NEON_API_KEY"] = "napi_wrong"

    outcome = suite.write("def test_one(neon_branch): pass").run()

    assert outcome.counts["error"] == 1, outcome.text
    assert "authentication" in outcome.text
    assert "napi_wrong" not in outcome.text


def test_a_conftest_may_bring_its_own_client_and_project(suite, branches):
    del suite.env["NEON_PROJECT_ID"]
    suite.write(
        f"""
        import pytest
        from lamplighter import Neon

        @pytest.fixture(scope="session")
        def neon():
            with Neon(timeout=30) as client:
                yield client

        @pytest.fixture(scope="session")
        def neon_project_id():
            return {branches.project_id!r}
        """,
        "conftest.py",
    )

    notes = suite.write("def test_one(neon_branch): note(project=neon_branch.project_id)").passes()

    assert notes == [{"project": branches.project_id}]
