"""Projects that a test makes on a platform it shares go with the test: each holds ports, memory and a directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.lamp import Lamp, wait_for


def project_ids(lamp: Lamp) -> set[str]:
    return {one["id"] for one in lamp.call("GET", "/projects", limit=400)["projects"]}


@contextmanager
def only_for_now(lamp: Lamp) -> Iterator[None]:
    """Delete what was made within the block and is still there."""
    before = project_ids(lamp)
    try:
        yield
    finally:
        for project_id in project_ids(lamp) - before:
            delete(lamp, project_id)


def delete(lamp: Lamp, project_id: str) -> None:
    """Delete a project as soon as nothing is under way in it, its protected branches too."""
    path = f"/projects/{project_id}"
    for branch in lamp.call("GET", f"{path}/branches")["branches"]:
        if branch["protected"]:
            lamp.call("PATCH", f"{path}/branches/{branch['id']}", {"branch": {"protected": False}})
    wait_for(lambda: lamp.request("DELETE", path).status_code in (200, 404), what=f"the deletion of {project_id}")
