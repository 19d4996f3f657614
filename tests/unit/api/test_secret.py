import copy
import dataclasses
import json
import pickle
import traceback

import pytest

from lamplighter.api.secret import Secret

VALUE = "napi_do_not_show_me"


def test_shows_stars_however_it_is_printed():
    secret = Secret(VALUE)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>30}",
        f"{secret:>30}",
        f"{secret} {secret!r}",
        repr([secret]),
    ]
    assert not any(VALUE in text for text in shown)
    assert all("***" in text for text in shown)


def test_reveals_itself_when_asked():
    assert Secret(VALUE).reveal() == VALUE


def test_does_not_show_in_a_traceback():
    assert VALUE not in "".join(traceback.format_exception(ValueError(Secret(VALUE))))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cannot_be_pickled(protocol):
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(Secret(VALUE), protocol=protocol)


def test_cannot_become_json():
    with pytest.raises(TypeError):
        json.dumps({"key": Secret(VALUE)})


def test_has_no_dict_to_dump_and_cannot_be_changed():
    secret = Secret(VALUE)
    assert not hasattr(secret, "__dict__")
    with pytest.raises(AttributeError):
        secret._value = "other"
    with pytest.raises(AttributeError):
        del secret._value
    assert secret.reveal() == VALUE


def test_survives_copies_as_itself():
    @dataclasses.dataclass
    class Holder:
        secret: Secret

    secret = Secret(VALUE)
    assert copy.copy(secret) is copy.deepcopy(secret) is dataclasses.asdict(Holder(secret))["secret"] is secret


def test_equal_by_value_and_never_equal_to_a_string():
    assert Secret(VALUE) == Secret(VALUE)
    assert len({Secret(VALUE), Secret(VALUE)}) == 1
    assert Secret(VALUE) != Secret(VALUE + "x")
    assert Secret("straße") == Secret("straße")
    assert Secret(VALUE) != VALUE


def test_is_false_only_when_empty():
    assert Secret("x")
    assert not Secret("")
