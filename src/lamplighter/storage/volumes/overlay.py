"""Volumes that are stacks of layers: frozen ones that clones share, and one of its own that each volume writes to.

    ROOT/layers/X/t     the tree of layer X     ROOT/volumes/ID/layers.json   which layers, uppermost first
    ROOT/layers/X/w     overlay's own work      ROOT/volumes/ID/options       a mount's options, from layers.json
                                                ROOT/volumes/ID/data          where it is mounted

A layer never changes once it is below another: a sleeping source is frozen, which is one write of `layers.json`. Root
mounts for the whole host; an ordinary user has each postmaster mount in a user and mount namespace of its own.
The kernel's price: the first open for writing of a file from a lower layer copies all of it (up to 1 GB).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamplighter.files import sync_directory, write_atomic
from lamplighter.storage import layers, linux, plan, tree
from lamplighter.storage.errors import DriverUnavailable, StorageError, VolumeBusy
from lamplighter.storage.plan import Scope, Stack
from lamplighter.storage.ports import Backup, Usage, Volume
from lamplighter.storage.volumes.base import BaseVolumes, Site

_STACK = "layers.json"
_OPTIONS = "options"
#: A postmaster's last child may outlive it by a moment.
_UNMOUNT_SECONDS = 2.0

_MOUNT_AND_EXEC = (
    # The variable keeps newer mount programs from splitting the options, which the kernel then limits to 256 bytes.
    '(cd "$1" && LIBMOUNT_FORCE_MOUNT2=always "$2" -t overlay overlay -o "$(cat "$3")" "$4") || exit 126; '
    'setpriv=$5; shift 5; exec "$setpriv" --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- "$@"'
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs with which an ordinary user mounts. Absolute, since a postmaster's environment may have no PATH."""

    unshare: str
    mount: str
    setpriv: str
    sh: str

    @classmethod
    def find(cls) -> Tools:
        """Raises DriverUnavailable."""
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
        found = {name: shutil.which(name, path=path) for name in ("unshare", "mount", "setpriv", "sh")}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            raise DriverUnavailable("overlay", f"{', '.join(missing)} not found (package util-linux)")
        return cls(**{name: place for name, place in found.items() if place is not None})

    def enter(self, base: Path, options: Path, data: Path) -> tuple[str, ...]:
        """The prefix that mounts at `data` what the file `options` says by then, and becomes the program by exec.

        Every capability is dropped before. The user's id is mapped to itself, since Postgres refuses to be root even
        in a namespace.
        """
        namespace = (self.unshare, "--user", "--map-current-user", "--keep-caps", "--mount", "--")
        arguments = (str(base), self.mount, str(options), str(data), self.setpriv)
        return (*namespace, self.sh, "-c", _MOUNT_AND_EXEC, "lamp-enter", *arguments)


class OverlayVolumes(BaseVolumes):
    driver = "overlay"

    def __init__(self, site: Site) -> None:
        self._tools = None if os.geteuid() == 0 else Tools.find()
        self._layers = site.root / "layers"
        #: Held while `layers.json` files change their place or content, and while unused layers are looked for.
        self._books = threading.Lock()
        #: Layers that unfinished work needs and no volume names yet.
        self._pending: set[str] = set()
        #: Runs of layers that were made one in the background, to be used at the next freeze.
        self._merged: dict[tuple[str, ...], str] = {}
        super().__init__(site)

    def _prepare(self) -> None:
        super()._prepare()
        self._layers.mkdir(exist_ok=True)
        tree.make_directory(self._layers, None)

    # --- opening and closing

    def _open(self, volume_id: str) -> Volume:
        place = self._path(volume_id)
        data = place / "data"
        if self._tools is not None:
            _put_options(place, read_stack(place))
            return Volume(volume_id, data, self._tools.enter(self._layers, place / _OPTIONS, data))
        if not linux.is_mounted(data):
            mount(self._layers, read_stack(place), data)
        return Volume(volume_id, data)

    def _close(self, volume_id: str) -> None:
        unmount(self._path(volume_id) / "data", seconds=_UNMOUNT_SECONDS)

    def _close_all(self) -> None:
        if self._tools is not None or not self.site.volumes.is_dir():
            return
        for volume_id in self._ids():
            with contextlib.suppress(VolumeBusy):
                unmount(self._path(volume_id) / "data", seconds=0)

    # --- making

    def _seed(self, new: Path, seed: Path, job: tree.Job) -> None:
        with self._new_layer() as base, self._new_layer() as upper:
            tree.clone_tree(seed, self._tree(base), job, scope=Scope.ASLEEP)
            tree.settle(self._tree(base))
            self._write_stack(new, Stack(upper, (base,)))

    async def _clone_asleep(self, source_id: str, new: Path) -> None:
        async with self._lock(source_id):
            stack = await self._run(lambda stop: self._share(source_id, new, self._job(stop)))
        # The freeze has left there what overlay worked with.
        self._empty_trash()
        if plan.run_to_merge(stack.lowers, limit=plan.SOFT_LAYERS) not in (None, *self._merged):
            self._later(self._run(lambda stop: self._merge_run(stack, self._job(stop))), name="lamp-merge")

    def _share(self, source_id: str, new: Path, job: tree.Job) -> Stack:
        """Freeze the source if it has something to freeze, and put an empty layer on the same stack."""
        self._close(source_id)
        source = self._freeze(self._path(source_id), job)
        with self._new_layer() as upper:
            stack = Stack(upper, source.lowers)
            self._hide(stack)
            sync_directory(self._layers)
            self._write_stack(new, stack)
        return stack

    async def _clone_running(self, source_id: str, new: Path, backup: Backup) -> None:
        with contextlib.ExitStack() as made:
            async with self._lock(source_id):
                source = await self._call(read_stack, self._path(source_id))
                # Named from now on, so that the layers stay if the source is deleted meanwhile.
                upper = await self._call(made.enter_context, self._new_layer())
                stack = Stack(upper, source.lowers)
                await self._call(self._write_stack, new, stack)
            # What lies on the host as the source's upper layer is what its postmaster writes at this moment. A file
            # that it copies up meanwhile may be in the clone as below, that is as it was when the backup began.
            written, data = self._tree(source.upper), self._tree(upper)
            end = await self._under_backup(
                new, backup, lambda stop: tree.clone_tree(written, data, self._job(stop), scope=Scope.BACKUP)
            )

            def finish(job: tree.Job) -> None:
                self._hide(stack)
                self._empty(stack, Scope.BACKUP)
                self._own_wal_directory(data / plan.WAL_DIR, backup.visible_data_dir / plan.WAL_DIR)
                self._finish_backup(backup.visible_data_dir, data, end, job)
                tree.settle(data)

            await self._run(lambda stop: finish(self._job(stop)))

    def _own_wal_directory(self, wal: Path, source: Path) -> None:
        """Without the segments of lower layers: some of them were recycled by the source since."""
        for directory in (wal, *(wal / path.name for path in source.iterdir() if path.is_dir())):
            tree.make_directory(directory, self.site.owner)
        tree.set_opaque(wal)

    def _commit(self, new: Path, target: Path) -> None:
        with self._books:
            super()._commit(new, target)

    def _drop(self, path: Path) -> None:
        with self._books:
            super()._drop(path)

    # --- layers

    def _freeze(self, place: Path, job: tree.Job) -> Stack:
        """The volume's stack with nothing in its upper layer; what was in it is a lower layer now."""
        stack = read_stack(place)
        if not any(self._tree(stack.upper).iterdir()):
            return stack
        tree.check_links(self._tree(stack.upper))
        with contextlib.ExitStack() as made:
            upper = made.enter_context(self._new_layer())
            after = self._with_merged_runs(plan.frozen(stack, upper), job, made)
            self._keep_slots(after, job)
            sync_directory(self._layers)
            self._write_stack(place, after)
        # Nothing may look as if this layer could be written to again.
        tree.discard(self._layers / stack.upper / "w", self.site.trash)
        return after

    def _keep_slots(self, stack: Stack, job: tree.Job) -> None:
        # Postgres renames a slot's directory when it drops it, and overlay cannot rename a directory of a lower layer.
        trees = self._trees(stack)
        slots = layers.names(trees, plan.SLOTS_DIR)
        if not slots:
            return
        kept = trees[0] / plan.SLOTS_DIR
        tree.make_directory(kept, self.site.owner)
        for slot in slots:
            place = layers.visible(trees, f"{plan.SLOTS_DIR}/{slot}")
            if place is not None and place.is_dir():
                layers.merge([place], kept / slot, job)
        tree.set_opaque(kept)

    def _hide(self, stack: Stack) -> None:
        """Let the upper layer hide what a clone must not see of the layers below it."""
        trees = self._trees(stack)
        for name in plan.PROCESS_FILES:
            if layers.visible(trees, name) is not None:
                tree.make_whiteout(trees[0] / name)
        self._empty(stack, Scope.ASLEEP)

    def _empty(self, stack: Stack, scope: Scope) -> None:
        trees = self._trees(stack)
        for name in plan.emptied_directories(scope):
            if layers.names(trees, name):
                tree.make_directory(trees[0] / name, self.site.owner)
                tree.set_opaque(trees[0] / name)

    def _with_merged_runs(self, stack: Stack, job: tree.Job, made: contextlib.ExitStack) -> Stack:
        for run, merged in list(self._merged.items()):
            stack = plan.with_merged(stack, run, merged) or stack
        run_now = plan.run_to_merge(stack.lowers, limit=plan.HARD_LAYERS)
        if run_now is None:
            return stack
        merged = self._merge_layers(run_now, job, made)
        return plan.with_merged(stack, run_now, merged) or stack

    def _merge_run(self, stack: Stack, job: tree.Job) -> None:
        run = plan.run_to_merge(stack.lowers, limit=plan.SOFT_LAYERS)
        if run is not None and run not in self._merged:
            self._require(sum(tree.allocated_bytes(self._tree(layer)) for layer in run))
            with contextlib.ExitStack() as made:
                self._merge_layers(run, job, made)

    def _merge_layers(self, run: tuple[str, ...], job: tree.Job, made: contextlib.ExitStack) -> str:
        """Make one layer of several. The volumes that have them take it when they are frozen the next time."""
        merged = made.enter_context(self._new_layer())
        layers.merge([self._tree(layer) for layer in run], self._tree(merged), job)
        tree.settle(self._tree(merged))
        sync_directory(self._layers)
        self._merged[run] = merged
        return merged

    def _tree(self, layer: str) -> Path:
        return self._layers / layer / "t"

    def _trees(self, stack: Stack) -> list[Path]:
        return [self._tree(layer) for layer in (stack.upper, *stack.lowers)]

    @contextlib.contextmanager
    def _new_layer(self) -> Iterator[str]:
        """An empty layer, which is kept if a volume names it at the end."""
        layer = secrets.token_hex(4)
        self._pending.add(layer)
        try:
            (self._layers / layer).mkdir(mode=0o700)
            for name in ("t", "w"):
                tree.make_directory(self._layers / layer / name, self.site.owner)
            yield layer
        finally:
            self._pending.discard(layer)

    def _write_stack(self, place: Path, stack: Stack) -> None:
        plan.mount_options(stack)  # refuses a stack that could not be mounted
        with self._books:
            tree.make_directory(place / "data", self.site.owner)
            content = json.dumps({"upper": stack.upper, "lowers": stack.lowers})
            write_atomic(place / _STACK, content.encode())
            _put_options(place, stack)

    # --- what nobody needs any more

    def _sweep(self) -> None:
        super()._sweep()
        if self._discard_unused():
            super()._sweep()

    def _discard_unused(self) -> int:
        """Move layers that no volume names to the trash, and say how many."""
        with self._books:
            # In this order: a layer that is pending no more by now is named by a stack that is read after.
            found = [path.name for path in self._layers.iterdir()]
            pending = set(self._pending)
            stacks = [read_stack(place) for place in self.site.volumes.iterdir() if (place / _STACK).exists()]
            for run, merged in list(self._merged.items()):
                if any(plan.with_merged(stack, run, merged) for stack in stacks):
                    pending.add(merged)
                else:
                    del self._merged[run]
            unused = plan.unused_layers(found, stacks, pending=pending)
            for layer in unused:
                tree.discard(self._layers / layer, self.site.trash)
        return len(unused)

    def _mend(self) -> list[str]:
        mended = []
        if unused := self._discard_unused():
            mended.append(f"Removed {unused} layers that no volume uses.")
        for volume_id in self._ids():
            place = self._path(volume_id)
            # A directory without a stack is no volume of ours, and must not keep the others from being served.
            if (place / _STACK).exists() and _put_options(place, read_stack(place)):
                mended.append(f"Wrote the mount options of volume {volume_id} again.")
        return mended

    # --- measuring

    def _measure(self, volume_id: str) -> Usage:
        with self._books:
            stacks = {name: read_stack(self._path(name)) for name in self._ids()}
        own = plan.only_used_by(volume_id, stacks)
        taken = sum(tree.allocated_bytes(self._tree(layer)) for layer in own)
        return Usage(taken, layers.apparent_bytes(self._trees(stacks[volume_id])))


def read_stack(place: Path) -> Stack:
    """The layers of the volume whose directory is `place`. Raises StorageError when its record cannot be read."""
    try:
        content = json.loads((place / _STACK).read_bytes())
        return Stack(str(content["upper"]), tuple(map(str, content["lowers"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{place / _STACK} cannot be read ({error}); the volume's layers are unknown."
        raise StorageError(message) from error


def _put_options(place: Path, stack: Stack) -> bool:
    """Whether the options were not what the stack asks for: a crash came between the two files of a freeze."""
    path, options = place / _OPTIONS, plan.mount_options(stack).encode()
    if path.exists() and path.read_bytes() == options:
        return False
    write_atomic(path, options)
    return True


def mount(base: Path, stack: Stack, target: Path) -> None:
    """Mount `stack`, whose layers lie in `base`, for every process of the host; root only."""
    linux.mount("overlay", target, "overlay", options=plan.mount_options(stack), cwd=base)


def unmount(target: Path, *, seconds: float) -> None:
    """Unmount what is mounted at `target`, if anything. Raises VolumeBusy when a process still uses it after `seconds`.

    Never lazily: a process that still wrote would change a layer that others take for frozen.
    """
    deadline = time.monotonic() + seconds
    while linux.is_mounted(target):
        try:
            linux.unmount(target)
        except OSError as error:
            if not linux.is_busy(error):
                raise
            if time.monotonic() >= deadline:
                raise VolumeBusy(target) from error
            time.sleep(0.01)
