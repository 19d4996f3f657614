"""What outlives the control plane about a compute: its spec, and who its postmaster is.

Written before the postmaster is spawned (with no identity) and again after: whoever finds a record knows all there is
to look for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lamplighter.compute import process
from lamplighter.compute.places import replace_file
from lamplighter.compute.ports import ComputeSpec, Standby
from lamplighter.compute.process import ProcessIdentity


@dataclass(frozen=True, slots=True)
class Record:
    """`identity` None with phase `started` means: spawned at most, and not known by which pid.

    `log_offset` is where in the log this run of the compute begins; `spawned_at` is in seconds of the Unix epoch.
    """

    spec: ComputeSpec
    identity: ProcessIdentity | None = None
    phase: Literal["started", "crashed"] = "started"
    reason: str = ""
    spawned_at: float = 0.0
    log_offset: int = 0


def same_compute(one: ComputeSpec, other: ComputeSpec) -> bool:
    """Whether two specs ask for the same postmaster. The way into a mount namespace may differ from time to time."""
    return replace(one, enter=()) == replace(other, enter=())


def save(record: Record, path: Path) -> None:
    """Replace the record at `path`."""
    replace_file(path, render(record))


def load(path: Path) -> Record | None:
    """The record at `path`; None if there is none, or none that can be read (a host crash may leave it empty)."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def render(record: Record) -> str:
    """As JSON."""
    spec = asdict(record.spec) | {"data_dir": str(record.spec.data_dir), "settings": dict(record.spec.settings)}
    return json.dumps(
        {
            "spec": spec,
            "identity": record.identity and process.to_json(record.identity),
            "phase": record.phase,
            "reason": record.reason,
            "spawned_at": record.spawned_at,
            "log_offset": record.log_offset,
        }
    )


def parse(text: str) -> Record:
    """The inverse of `render`. Raises ValueError, KeyError or TypeError for anything else."""
    value: dict[str, Any] = json.loads(text)
    spec: dict[str, Any] = dict(value["spec"])
    spec["data_dir"] = Path(spec["data_dir"])
    spec["enter"] = tuple(spec["enter"])
    spec["standby"] = Standby(**spec["standby"]) if spec["standby"] else None
    return Record(
        spec=ComputeSpec(**spec),
        identity=process.from_json(value["identity"]) if value["identity"] else None,
        phase=value["phase"],
        reason=value["reason"],
        spawned_at=value["spawned_at"],
        log_offset=value["log_offset"],
    )
