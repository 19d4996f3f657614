"""Builds the relay while the package is built, if there is a C compiler; else the package has the one in Python alone.

A wheel with the program is for one platform: any Linux of this processor where the program could be linked statically,
else those with this C library. `CC` names the compiler, `CC=` (empty) means that there is none.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/lamplighter/gateway/relay.c"
PROGRAM = "src/lamplighter/gateway/_relay"
FLAGS = (
    *("-std=c11", "-O2", "-Wall", "-Wextra", "-fPIE", "-s"),
    *("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong"),
    *("-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"),
)
#: The first that works. A static program needs nothing of the host, and half of the memory.
LINKING = ("-static-pie", "-pie")


class RelayBuild(BuildHookInterface[Any]):
    """Called for wheels, editable installs included; a source distribution has the source."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        if self.target_name != "wheel":
            return
        program = Path(self.root, PROGRAM)
        program.unlink(missing_ok=True)
        linking = compile_relay(Path(self.root, SOURCE), program)
        if linking is None:
            self.app.display_warning("No C compiler works here: the gateway relays in Python, at some 0.8 of the rate.")
            return
        build_data["artifacts"].append(PROGRAM)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_of(linking)}"

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002 - hatchling's signature
        Path(self.root, PROGRAM).unlink(missing_ok=True)


def compile_relay(source: Path, program: Path) -> str | None:
    """How it was linked; None if there is no compiler, or it cannot."""
    words = shlex.split(os.environ.get("CC", "cc"))
    if not words or shutil.which(words[0]) is None:
        return None
    for linking in LINKING:
        # Beside, then in its place: a relay that runs keeps its file.
        fresh = program.with_suffix(".new")
        argv = [*words, *FLAGS, linking, "-o", str(fresh), str(source)]
        try:
            if subprocess.run(argv, check=False, stderr=subprocess.DEVNULL).returncode == 0:
                fresh.replace(program)
                return linking
        finally:
            fresh.unlink(missing_ok=True)
    return None


def platform_of(linking: str) -> str:
    """The wheel's platform tag. The relay asks for nothing that kernels of manylinux2014's day did not have."""
    machine = platform.machine()
    if linking == "-static-pie" and machine in {"x86_64", "aarch64"}:
        return f"manylinux_2_17_{machine}.manylinux2014_{machine}.musllinux_1_1_{machine}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
