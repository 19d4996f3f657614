"""Names and tokens in the forms that Neon gives them.

The generators are pure: they take `choose`, which picks one of a sequence (`secrets.choice`, or
`random.Random(1).choice` where a test wants the same ids twice). Tokens and passwords need `secrets.choice`.
Whoever stores an id sees to it that it is the only one.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import NewType

ProjectId = NewType("ProjectId", str)
BranchId = NewType("BranchId", str)
EndpointId = NewType("EndpointId", str)
OperationId = NewType("OperationId", str)
OrganizationId = NewType("OrganizationId", str)
SnapshotId = NewType("SnapshotId", str)
UserId = NewType("UserId", str)
ApiKeyId = NewType("ApiKeyId", int)
DatabaseId = NewType("DatabaseId", int)

Choose = Callable[[Sequence[str]], str]

#: What every id in a path looks like.
PATTERN = r"^[a-z0-9-]{1,60}$"

KEY_PREFIX = "napi_"
PASSWORD_PREFIX = "npg_"  # noqa: S105 - what passwords start with, not one of them

_LOWER_ALNUM = string.ascii_lowercase + string.digits
_ALNUM = string.ascii_letters + string.digits
_KEY_LENGTH = 64
_PASSWORD_TAIL = 12
_ID_TAIL = 8

ADJECTIVES = tuple(
    """
    amber ample autumn azure bold brave breezy bright broad bronze calm candid clear clever cold cool copper cosy
    crimson crisp curly damp dapper dark dawn deep dewy dusty eager early fair falling fancy fast floral fond
    fragrant fresh frosty gentle gilded glad gold grand gray green happy hazel hidden icy ivory jade jolly keen kind
    late lilac lively long lucky mellow merry mild mint misty modest mossy muted navy neat noble odd olive open
    orange pale pearl plain proud purple quick quiet rapid red restless rosy rough royal rustic sandy scarlet shiny
    shy silent silver small smooth snowy soft solar spring square steady still stout summer sunny sweet swift tall
    teal tidy tiny twilight violet vivid wandering warm weathered white wild winter wise withered yellow young
    """.split()  # noqa: SIM905 - a word on each line would be longer than the rest of the file
)
NOUNS = tuple(
    """
    acorn anchor arch art aurora band bank bar base bay beacon bell bird boat bonus bread breeze bridge brook butter
    cake candle canyon cave cell cherry cliff cloud coast comet cove creek crown darkness dawn dew dream dust eagle
    ember fall fern field fire firefly flame flower fog forest frog frost garden glade glitter grass grove hall
    harbor hat haze heart hill island kettle king lab lagoon lake lamp lantern leaf limit marsh math meadow mode
    moon morning mountain mouse mud night oak ocean orchard owl paper pebble pine pond poetry prairie queen quill
    rain reef resonance rice ridge river road sail salad scene sea shadow shape shore sky smoke snow snowflake sound
    spark spruce star stone storm stream sun sunset surf swan term thunder tide tooth tower tree truth union valley
    violet voice water wave wheat wildflower wind wood
    """.split()  # noqa: SIM905 - a word on each line would be longer than the rest of the file
)


def project_id(choose: Choose) -> ProjectId:
    """Like `old-violet-32930710`."""
    return ProjectId(f"{_words(choose)}-{_tail(choose, string.digits)}")


def branch_id(choose: Choose) -> BranchId:
    """Like `br-noisy-breeze-a5e59rrb`: by its three parts after `br-` Neon's CLI knows an id from a name."""
    return BranchId(f"br-{_words(choose)}-{_tail(choose, _LOWER_ALNUM)}")


def endpoint_id(choose: Choose) -> EndpointId:
    """Like `ep-misty-sea-a5833nbi`."""
    return EndpointId(f"ep-{_words(choose)}-{_tail(choose, _LOWER_ALNUM)}")


def organization_id(choose: Choose) -> OrganizationId:
    """Like `org-calm-lake-12345678`."""
    return OrganizationId(f"org-{_words(choose)}-{_tail(choose, string.digits)}")


def snapshot_id(choose: Choose) -> SnapshotId:
    """Like `snap-tidy-owl-k3v9x0ab`."""
    return SnapshotId(f"snap-{_words(choose)}-{_tail(choose, _LOWER_ALNUM)}")


def operation_id(choose: Choose) -> OperationId:
    """A UUID of version 4."""
    return OperationId(_uuid4(choose))


def user_id(choose: Choose) -> UserId:
    """A UUID of version 4."""
    return UserId(_uuid4(choose))


def key_token(choose: Choose) -> str:
    """A new API key: `napi_` and 59 more of `[a-z0-9]`, 305 bits when `choose` is `secrets.choice`."""
    return KEY_PREFIX + _draw(choose, _LOWER_ALNUM, _KEY_LENGTH - len(KEY_PREFIX))


def role_password(choose: Choose) -> str:
    """A new password of a role: `npg_` and 12 letters or digits, 71 bits when `choose` is `secrets.choice`."""
    return PASSWORD_PREFIX + _draw(choose, _ALNUM, _PASSWORD_TAIL)


def _words(choose: Choose) -> str:
    return f"{choose(ADJECTIVES)}-{choose(NOUNS)}"


def _tail(choose: Choose, alphabet: str) -> str:
    return _draw(choose, alphabet, _ID_TAIL)


def _draw(choose: Choose, alphabet: str, length: int) -> str:
    return "".join(choose(alphabet) for _ in range(length))


def _uuid4(choose: Choose) -> str:
    digits = _draw(choose, "0123456789abcdef", 30)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-{choose('89ab')}{digits[15:18]}-{digits[18:]}"
