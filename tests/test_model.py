"""What came from a store shows itself to nobody who did not ask for it."""

import copy
import json
import pickle
import traceback
from collections.abc import Callable

import pytest

from secretweave.model import Record, SecretFields, SecretValue

HELD = [
    SecretValue(b"hunter2"),
    SecretFields({"password": "hunter2", "deep": {"key": b"hunter2"}}),
    Record(SecretValue(b"hunter2"), "1"),
    Record(SecretFields({"password": "hunter2"}), "1"),
]
SHOWN: list[Callable[[object], str]] = [
    repr,
    str,
    "{}".format,
    lambda it: f"{it!r:>40}",
    lambda it: f"{(it,)}",
    ascii,
]
KEPT: list[Callable[[object], object]] = [pickle.dumps, copy.copy, copy.deepcopy, json.dumps]


@pytest.mark.parametrize("held", HELD, ids=repr)
@pytest.mark.parametrize("shown", SHOWN)
def test_it_is_masked(held: object, shown: Callable[[object], str]):
    assert "hunter2" not in shown(held)
    assert "***" in shown(held)


@pytest.mark.parametrize("held", HELD[:2], ids=repr)
@pytest.mark.parametrize("kept", KEPT)
def test_no_copy_is_made_of_it(held: object, kept: Callable[[object], object]):
    with pytest.raises(TypeError) as caught:
        kept(held)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value, chain=True))


def test_a_record_of_one_is_neither_pickled_nor_written_as_json():
    for held in HELD[2:]:
        for kept in (pickle.dumps, json.dumps):
            with pytest.raises(TypeError):
                kept(held)


def test_a_traceback_that_shows_locals_shows_no_value():
    held = HELD[3]
    with pytest.raises(TypeError) as caught:
        json.dumps({held: 1})
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "held = Record(" in told
    assert "hunter2" not in told


def test_equal_values_are_equal():
    assert SecretValue(b"a") == SecretValue(b"a") != SecretValue(b"b")
    assert SecretFields({"a": 1}) == SecretFields({"a": 1}) != SecretFields({"a": 2})
