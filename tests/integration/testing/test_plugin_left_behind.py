"""What runs leave behind, and what becomes of it: kill -9, branches that are overdue, sessions that are long."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta

from support.lamp import Lamp
from support.waiting import wait_for


def test_what_a_killed_run_leaves_is_gone_with_the_next(suite, branches, lamp: Lamp):
    """kill -9 takes every chance to clean up; the branch's own end and the next run's sweep see to it."""
    suite.write(
        """
        import threading

        def test_hangs(neon_branch):
            note(name=neon_branch.name)
            threading.Event().wait(60)
        """,
        "test_hangs.py",
    )
    with suite.start("--neon-branch-ttl", "10s", "test_hangs.py") as process:
        try:
            (left,) = wait_for(suite.notes, seconds=60, what="the run to make its branch")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert left["name"] in branches.of_tests()
    kept = lamp.branch(branches.project_id, name="lamp-test-gw0-mine", endpoint=False)

    wait_for(lambda: all(end <= datetime.now(UTC) for end in expiries(branches)), what="the branch's time to end")
    suite.write("def test_next(neon_branch): pass", "test_next.py").passes("test_next.py")

    assert branches.of_tests() == {kept["branch"]["name"]}


def expiries(branches) -> list[datetime]:
    found = branches.lamp.call("GET", f"/projects/{branches.project_id}/branches")["branches"]
    return [datetime.fromisoformat(branch["expires_at"]) for branch in found if "expires_at" in branch]


def test_the_sweep_takes_what_is_overdue_and_nothing_else(suite, branches, lamp: Lamp):
    """An overdue branch with a child outlives its time; once the child is gone, the next run need not wait."""
    path = f"/projects/{branches.project_id}/branches"

    def make(name: str, **fields: object) -> str:
        made = lamp.call("POST", path, {"branch": {"name": name}, **fields})
        lamp.settle(branches.project_id)
        return str(made["branch"]["id"])

    mark = {"lamplighter-testing": "k3v9x0ab12cd"}
    make("lamp-test-gw0-k3v9x0ab12cd-not-yet", annotation_value=mark)
    make("preview-1", annotation_value=mark)
    overdue = make("lamp-test-gw0-k3v9x0ab12cd-overdue", annotation_value=mark)
    child = lamp.branch(branches.project_id, "child", parent=overdue, endpoint=False)["branch"]["id"]
    end = (datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lamp.call("PATCH", f"{path}/{overdue}", {"branch": {"expires_at": end}})
    wait_for(lambda: datetime.now(UTC) > datetime.fromisoformat(end), what="the branch's end")
    lamp.call("DELETE", f"{path}/{child}")
    lamp.settle(branches.project_id)

    suite.write("def test_next(neon_branch): pass").passes()

    assert branches.names() == {"main", "preview-1", "lamp-test-gw0-k3v9x0ab12cd-not-yet"}


def test_a_branch_in_use_is_kept_beyond_its_time(suite, branches):
    """A session that is longer than the time of its branch keeps it."""
    suite.write(
        """
        import threading
        from datetime import UTC, datetime, timedelta

        def end_of(neon, branch):
            found = neon.branches.get(branch.project_id, branch.id)
            note(expires_at=found.expires_at.isoformat())
            return found.expires_at

        def test_first(neon, neon_session_branch):
            end = end_of(neon, neon_session_branch)
            while end - datetime.now(UTC) > timedelta(seconds=7):
                threading.Event().wait(0.1)

        def test_second(neon, neon_session_branch):
            end_of(neon, neon_session_branch)
        """
    )

    first, second = suite.passes("--neon-branch-ttl", "16s")

    gained = datetime.fromisoformat(second["expires_at"]) - datetime.fromisoformat(first["expires_at"])
    assert gained >= timedelta(seconds=7)
    assert branches.names() == {"main"}
