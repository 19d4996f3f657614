"""The few decisions of the machine below: names of slots."""

from __future__ import annotations

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lamplighter.api.ids import PATTERN, endpoint_id
from lamplighter.platform.plane import slot_of

#: What Postgres takes as the name of a replication slot; NAMEDATALEN is 64.
SLOT = re.compile(r"[a-z0-9_]{1,63}")


@given(st.integers(0))
@settings(deadline=None)
def test_every_endpoint_has_a_slot_name_that_postgres_takes(seed):
    assert SLOT.fullmatch(slot_of(endpoint_id(random.Random(seed).choice)))


@given(*[st.from_regex(PATTERN, fullmatch=True) | st.text("a-", min_size=1, max_size=4)] * 2)
@settings(deadline=None)
def test_two_endpoints_never_share_a_slot(one, other):
    assert (slot_of(one) == slot_of(other)) is (one == other)
