import random
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamplighter.api import ids

FORMS = {
    ids.project_id: r"[a-z]+-[a-z]+-\d{8}",
    ids.branch_id: r"br-[a-z]+-[a-z]+-[a-z0-9]{8}",
    ids.endpoint_id: r"ep-[a-z]+-[a-z]+-[a-z0-9]{8}",
    ids.organization_id: r"org-[a-z]+-[a-z]+-\d{8}",
    ids.snapshot_id: r"snap-[a-z]+-[a-z]+-[a-z0-9]{8}",
    ids.operation_id: r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    ids.user_id: r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}


@pytest.mark.parametrize(("generate", "form"), FORMS.items(), ids=lambda value: getattr(value, "__name__", ""))
@given(seed=st.integers())
def test_ids_have_neons_form_and_fit_into_a_path(generate, form, seed):
    made = generate(random.Random(seed).choice)
    assert re.fullmatch(form, made)
    assert re.fullmatch(ids.PATTERN, made)


@given(seed=st.integers())
def test_operation_ids_are_uuids_of_version_4(seed):
    made = uuid.UUID(ids.operation_id(random.Random(seed).choice))
    assert made.version == 4
    assert made.variant == uuid.RFC_4122


@given(seed=st.integers())
def test_neons_cli_takes_branch_ids_for_ids(seed):
    assert re.fullmatch(r"br-[a-z0-9]+-[a-z0-9]+-[a-z0-9]+", ids.branch_id(random.Random(seed).choice))


@given(seed=st.integers())
def test_keys_and_passwords_have_neons_form(seed):
    choose = random.Random(seed).choice
    key, password = ids.key_token(choose), ids.role_password(choose)
    assert re.fullmatch(r"napi_[a-z0-9]{59}", key)
    assert len(key) == 64
    assert re.fullmatch(r"npg_[A-Za-z0-9]{12}", password)


@pytest.mark.parametrize("generate", [*FORMS, ids.key_token, ids.role_password])
def test_the_same_choices_give_the_same_and_others_give_others(generate):
    assert generate(random.Random(1).choice) == generate(random.Random(1).choice)
    assert len({generate(random.Random(seed).choice) for seed in range(200)}) == 200


@pytest.mark.parametrize("words", [ids.ADJECTIVES, ids.NOUNS])
def test_words_are_many_plain_and_all_different(words):
    assert len(words) >= 100
    assert len(set(words)) == len(words)
    assert all(re.fullmatch(r"[a-z]{2,12}", word) for word in words)
