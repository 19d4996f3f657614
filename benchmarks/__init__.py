"""What branching, starting and creating cost, beside what a user would do instead, in one run on one machine."""

import sys
from pathlib import Path

# The platform under measurement is started as the tests start theirs.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
