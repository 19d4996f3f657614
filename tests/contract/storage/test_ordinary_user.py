"""The same contract for an ordinary user, whose overlays are mounted in user namespaces."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from lamplighter.compute.binaries import default_cache

REPOSITORY = Path(__file__).parents[3]

# The checkout, the packages and Python itself may lie where only root may look: bound to a place open to all, in a
# mount namespace that ends with the run.
SCRIPT = """
for name in base site repo cache; do mkdir "$PLACE/$name"; done
mount --bind "$BASE" "$PLACE/base"
mount --bind "$SITE" "$PLACE/site"
mount --bind "$REPO" "$PLACE/repo"
mount --bind "$CACHE" "$PLACE/cache"
cd "$PLACE/repo"
exec setpriv --reuid="$ID" --regid="$GROUP" --clear-groups --inh-caps=-all -- env -i \
    PATH="$PATH" HOME="$PLACE/home" TMPDIR="$PLACE/tmp" LAMP_CACHE_DIR="$PLACE/cache" \
    PYTHONHOME="$PLACE/base" PYTHONPATH="$PLACE/site:$PLACE/repo/src" PYTHONDONTWRITEBYTECODE=1 \
    LD_LIBRARY_PATH="$PLACE/base/lib" \
    "$PLACE/base/bin/python$VERSION" -m pytest -q -p no:cacheprovider -k overlay tests/contract/storage
"""


@pytest.mark.root
@pytest.mark.timeout(900)
def test_the_overlay_driver_keeps_its_contract_for_an_ordinary_user(build):
    place = Path(tempfile.mkdtemp(prefix="lamp-user-"))
    nobody = pwd.getpwnam("nobody")
    try:
        place.chmod(0o711)
        for name in ("home", "tmp"):
            (place / name).mkdir(mode=0o700)
            os.chown(place / name, nobody.pw_uid, nobody.pw_gid)
        environment = {
            "PATH": os.environ["PATH"],
            "PLACE": str(place),
            "BASE": sys.base_prefix,
            "SITE": str(Path(psycopg.__file__).parents[1]),
            "REPO": str(REPOSITORY),
            "CACHE": str(default_cache()),
            "ID": str(nobody.pw_uid),
            "GROUP": str(nobody.pw_gid),
            "VERSION": f"{sys.version_info.major}.{sys.version_info.minor}",
        }
        command = ["unshare", "--mount", "sh", "-eu", "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=880)
        assert done.returncode == 0, done.stdout[-10000:] + done.stderr
        passed = re.search(r"(\d+) passed", done.stdout)
        # Fewer would mean that the choice of tests has missed them.
        assert passed is not None, done.stdout
        assert int(passed[1]) >= 40, done.stdout
    finally:
        shutil.rmtree(place)
