from hypothesis import given as for_all
from hypothesis import strategies as st

from lamplighter.client.fields import given
from lamplighter.client.spec import OMIT

VALUES = st.dictionaries(st.text(), st.none() | st.just(OMIT) | st.integers() | st.booleans() | st.text())


@for_all(fields=VALUES)
def test_none_is_left_out_and_nothing_else(fields):
    assert given(fields) == {name: value for name, value in fields.items() if value is not None}


@for_all(fields=VALUES)
def test_where_null_means_something_omit_is_left_out_and_none_stays(fields):
    assert given({}, nullable=fields) == {name: value for name, value in fields.items() if value is not OMIT}
