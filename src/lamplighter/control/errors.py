"""What can go wrong inside the control plane. What clients are told is in `lamplighter.api.errors`.

ControlError
├── CatalogError
│   ├── CatalogTooNew      `found`, `known`: the database was migrated by a later version
│   ├── CatalogDiverged    `migration`: an earlier migration is missing from the database
│   └── MigrationChanged   `migration`: an applied file is not what it was
├── SealBroken             `belongs_to`: the key file is not the one that sealed this
└── OperationsError
    ├── ProjectBusy        `project_id`: answered as 423
    ├── LeaseLost          `operation_id`: another engine may have this operation by now
    ├── InvalidTransition  `status`, `event`: a fault of ours
    └── StepError          what a step of an operation raises on purpose
        ├── Permanent      trying again cannot help
        └── Skip           there is nothing to do: the operation ends as skipped
"""
# ruff: noqa: D415 - names say what happened, as those of api.errors do; a class docstring is its message

from __future__ import annotations

from uuid import UUID


class ControlError(Exception):
    """the control plane cannot go on"""

    def __init__(self, message: str | None = None) -> None:
        self.message = (self.__doc__ or "").strip() if message is None else message
        super().__init__(self.message)


class CatalogError(ControlError):
    """the catalog cannot be used"""


class CatalogTooNew(CatalogError):
    """the catalog was made by a later version of Lamplighter: start that version"""

    def __init__(self, *, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"the catalog has migration {found:04}, this version of Lamplighter knows them up to {known:04}: "
            "start the later version, or restore the catalog from before it"
        )


class CatalogDiverged(CatalogError):
    """a migration is missing from the catalog although later ones were applied: restore the catalog from a backup"""

    def __init__(self, migration: str) -> None:
        self.migration = migration
        super().__init__(
            f"migration {migration} is missing from the catalog although later ones were applied: "
            "restore the catalog from a backup"
        )


class MigrationChanged(CatalogError):
    """an applied migration differs from its file: install the version that applied it"""

    def __init__(self, migration: str) -> None:
        self.migration = migration
        super().__init__(
            f"migration {migration} was applied with another content than this version of Lamplighter has: "
            "install an unmodified release"
        )


class SealBroken(ControlError):
    """a stored password cannot be opened: the key file is not the one it was sealed with; restore it from a backup"""

    def __init__(self, belongs_to: str) -> None:
        self.belongs_to = belongs_to
        super().__init__()


class OperationsError(ControlError):
    """the operation cannot be scheduled or run"""


class ProjectBusy(OperationsError):
    """project already has running conflicting operations, scheduling of new ones is prohibited"""

    def __init__(self, project_id: str) -> None:
        self.project_id = project_id
        super().__init__()


class LeaseLost(OperationsError):
    """the lease of this operation is gone: another engine may be running it"""

    def __init__(self, operation_id: UUID) -> None:
        self.operation_id = operation_id
        super().__init__()


class InvalidTransition(OperationsError):
    """an operation cannot go on like this from where it is"""

    def __init__(self, status: str, event: str) -> None:
        self.status = status
        self.event = event
        super().__init__(f"an operation that is {status} cannot be {event}")


class StepError(OperationsError):
    """the step ended the operation"""


class Permanent(StepError):
    """trying again cannot help"""


class Skip(StepError):
    """there is nothing to do"""
