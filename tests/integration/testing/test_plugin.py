"""The pytest plugin as a user meets it: suites run by a pytest of their own against a real platform."""

from __future__ import annotations


def test_every_test_gets_a_branch_of_its_own(suite, branches):
    """What a test writes, neither the next test nor the parent sees; the branches are gone at the end."""
    suite.write(
        """
        import psycopg, pytest

        @pytest.mark.parametrize("number", [1, 2])
        def test_words(neon_dsn, neon_branch, number):
            with psycopg.connect(neon_dsn, autocommit=True) as conn:
                assert conn.execute("select word from words").fetchall() == [("hello",)]
                conn.execute("insert into words values ('mine')")
            note(id=neon_branch.id, name=neon_branch.name, project=neon_branch.project_id)
            assert neon_branch.dsn == neon_branch.connection_string == neon_dsn
            assert neon_branch.endpoint_id in neon_dsn or "127.0.0.1" in neon_dsn
            assert neon_branch.branch.id == neon_branch.id
        """
    )

    notes = suite.passes()

    assert len({note["id"] for note in notes}) == 2
    assert {note["project"] for note in notes} == {branches.project_id}
    assert all(note["name"].startswith("lamp-test-main-") for note in notes)
    assert branches.names() == {"main"}


def test_a_module_and_a_session_share_a_branch(suite, branches):
    for name in ("test_a.py", "test_b.py"):
        suite.write(
            """
            def test_one(neon_module_branch, neon_session_branch, neon_module_dsn, neon_session_dsn):
                note(module=neon_module_branch.id, session=neon_session_branch.id)
                assert neon_module_dsn == neon_module_branch.dsn
                assert neon_session_dsn == neon_session_branch.dsn

            def test_two(neon_module_branch, neon_session_branch, neon_branch):
                note(module=neon_module_branch.id, session=neon_session_branch.id, own=neon_branch.id)
            """,
            name,
        )

    notes = suite.passes()

    assert [note["module"] for note in notes[:2]] == [notes[0]["module"]] * 2
    assert [note["module"] for note in notes[2:]] == [notes[2]["module"]] * 2
    assert notes[0]["module"] != notes[2]["module"]
    assert len({note["session"] for note in notes}) == 1
    assert len({value for note in notes for value in note.values()}) == 5
    assert branches.names() == {"main"}


def test_tests_that_fail_leave_no_branch_and_show_no_password(suite, branches):
    suite.write(
        """
        def test_fails(neon_branch, neon_dsn):
            dsn = neon_dsn
            note(password=dsn.split(":")[2].split("@")[0])
            assert dsn == neon_branch

        def test_breaks(neon_session_branch):
            raise RuntimeError
        """
    )

    outcome = suite.run("--showlocals", "--tb=long")

    assert outcome.counts["failed"] == 2, outcome.text
    assert outcome.counts["error"] == 0, outcome.text
    assert len(outcome.notes[0]["password"]) > 8
    assert outcome.notes[0]["password"] not in outcome.text
    assert ":***@" in outcome.text
    assert branches.names() == {"main"}


def test_a_test_may_delete_its_branch_itself(suite, branches):
    suite.write("def test_delete(neon, neon_branch): neon.branches.delete(neon_branch.project_id, neon_branch.id)")

    suite.passes()

    assert branches.names() == {"main"}


def test_workers_share_nothing(suite, branches):
    """With pytest-xdist each worker has a session branch of its own, and no two tests meet in one branch."""
    suite.write(
        """
        import os, psycopg, pytest

        @pytest.mark.parametrize("number", range(6))
        def test_words(neon_session_dsn, neon_session_branch, neon_branch, number):
            with psycopg.connect(neon_branch.dsn, autocommit=True) as conn:
                conn.execute("insert into words values ('mine')")
                assert conn.execute("select count(*) from words").fetchall() == [(2,)]
            worker = os.environ["PYTEST_XDIST_WORKER"]
            assert worker in neon_branch.name and worker in neon_session_branch.name
            note(worker=worker, own=neon_branch.id, session=neon_session_branch.id)
        """
    )

    notes = suite.passes("-p", "xdist", "-n", "3")

    workers = {note["worker"] for note in notes}
    assert len(workers) == 3
    assert len({note["session"] for note in notes}) == 3
    assert len({(note["worker"], note["session"]) for note in notes}) == 3
    assert len({note["own"] for note in notes}) == 6
    assert branches.names() == {"main"}
