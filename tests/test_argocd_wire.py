"""What goes over the daemon's socket: frames that are bounded, and faults that come as they were sent."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave import errors, report
from secretweave.argocd.daemon import wire
from secretweave.errors import ConfigError, Denied, Faults, InputError, NotFound, SecretweaveError, Unavailable, Where

WHERE = Where("stdin", 2, 14, "Secret shop/web", "stringData.token", "templates/web.yaml")


@pytest.fixture
def pair() -> Iterator[tuple[wire.Channel, wire.Channel]]:
    ends = time.monotonic() + 10
    one, other = (wire.Channel(each, ends) for each in socket.socketpair(socket.AF_UNIX))
    yield one, other
    one.close()
    other.close()


def both_ways(error: SecretweaveError) -> SecretweaveError:
    return wire.fault_of(wire.fault_as_bytes(error))


def several_places() -> SecretweaveError:
    error = NotFound("shop:db: nothing is stored there", where=WHERE, why="why", fix="fix")
    error.also = (Where("stdin", 3, 20), Where("b.yaml", field="x"))
    return error


@pytest.mark.parametrize(
    "error",
    [
        SecretweaveError("plain"),
        ConfigError("what", where=WHERE, why="a\nb", fix="\x1b[31m \u2028 ünï"),
        several_places(),
        Faults([Unavailable("down", fix="wait"), several_places(), Denied("no")]),
        Faults([InputError("one of one", where=Where("a"))]),
        InputError("a name that is not UTF-8", where=Where(os.fsdecode(b"a\xff.yaml"))),
        Faults([]),
    ],
    ids=lambda error: str(error)[:20],
)
def test_a_fault_is_the_same_on_the_other_side(error: SecretweaveError):
    found = both_ways(error)
    assert type(found) is type(error)
    assert found.exit_code == error.exit_code
    if not isinstance(error, Faults):
        assert vars(found) | {"exit_code": 0} == vars(error) | {"exit_code": 0}
    assert report.faults(found) == report.faults(error)


def test_a_store_s_own_class_becomes_the_one_that_others_know():
    class Odd(Denied):
        exit_code = 6

    assert type(both_ways(Odd("what"))) is Denied


def test_every_class_of_the_tree_comes_back():
    tree = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SecretweaveError)]
    for cls in tree:
        if cls is not Faults:
            assert type(both_ways(cls("what"))) is cls


def test_a_crash_has_the_exit_code_of_one():
    found = both_ways(wire.crashed("KeyError"))
    assert (found.exit_code, found.what) == (70, "internal error of the daemon (KeyError)")


def test_a_report_beyond_all_bounds_is_its_first_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "MESSAGE_MAX", 1000)
    found = both_ways(Faults([several_places() for _ in range(100)]))
    assert isinstance(found, NotFound)
    assert found.also == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["NotFound", "Faults", "SystemExit"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["faults", "several", "name"]), inner),
)


@pytest.mark.once
@given(JSON | st.fixed_dictionaries({"several": JSON, "faults": st.lists(JSON)}))
def test_a_fault_that_is_none_is_told_as_such(said: Any):
    assert isinstance(wire.fault_of(wire.packed(said)), SecretweaveError)


@pytest.mark.parametrize("name", ["Exception", "SystemExit", "Where", "Faults", "NamedTuple", "__name__", ""])
def test_no_other_class_is_made(name: str):
    fields = {"name": name, "what": "x", "why": "", "fix": "", "where": list(Where()), "also": [], "code": 0}
    found = wire.fault_of(wire.packed({"several": False, "faults": [fields]}))
    assert found.what == "what came over the daemon's socket is not what secretweave says there"


@pytest.mark.parametrize("size", [0, 1, wire.FRAME_MAX - 1, wire.FRAME_MAX, wire.FRAME_MAX + 1, 3 * wire.FRAME_MAX])
def test_a_message_of_any_size(size: int, pair: tuple[wire.Channel, wire.Channel]):
    one, other = pair
    payload = os.urandom(size)
    sending = threading.Thread(target=one.send, args=(wire.FAULT, payload))
    sending.start()
    assert other.receive(wire.MESSAGE_MAX) == (wire.FAULT, payload)
    sending.join()


def test_messages_one_after_the_other(pair: tuple[wire.Channel, wire.Channel]):
    one, other = pair
    one.send(wire.SOURCE, b"a")
    one.send(wire.DATA, b"bc")
    one.send(wire.END)
    assert [other.receive() for _ in range(3)] == [(wire.SOURCE, b"a"), (wire.DATA, b"bc"), (wire.END, b"")]


def test_more_than_is_allowed_is_refused_before_it_is_read(pair: tuple[wire.Channel, wire.Channel]):
    one, other = pair
    sending = threading.Thread(target=_fill, args=(one,))
    sending.start()
    with pytest.raises(SecretweaveError, match="is not what secretweave says"):
        other.receive()
    other.close()
    sending.join()


def _fill(channel: wire.Channel) -> None:
    with pytest.raises(wire.Gone):
        channel.send(wire.DATA, b"x" * 2 * wire.FRAME_MAX)


@pytest.mark.parametrize("head", [b"\x00\x00\x00\x00\x00", b"\x0a\x00\x00\x00\x00", b"\x01\x00\x10\x00\x01"], ids=repr)
def test_a_head_that_is_none(head: bytes):
    one, other = socket.socketpair(socket.AF_UNIX)
    with one:
        one.sendall(head)
    channel = wire.Channel(other, time.monotonic() + 10)
    with pytest.raises(SecretweaveError, match="is not what secretweave says"):
        channel.receive()
    channel.close()


def test_half_a_frame_is_an_end():
    one, other = socket.socketpair(socket.AF_UNIX)
    with one:
        one.sendall(b"\x04\x00\x00\x00\x09half")
    channel = wire.Channel(other, time.monotonic() + 10)
    with pytest.raises(wire.Gone):
        channel.receive()
    channel.close()


def test_waiting_has_an_end(pair: tuple[wire.Channel, wire.Channel]):
    one, other = pair
    one.ends = other.ends = time.monotonic() + 0.2
    with pytest.raises(wire.Late):
        other.receive()
    with pytest.raises(wire.Late):
        one.send(wire.DATA, b"x" * 100 * wire.FRAME_MAX)


def test_the_other_side_is_heeded_while_it_takes_nothing(pair: tuple[wire.Channel, wire.Channel]):
    """Both would wait for each other if what is said were read only once all is sent."""
    one, other = pair
    other.send(wire.FAULT, b"{}")

    def heed() -> None:
        assert one.receive() == (wire.FAULT, b"{}")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        one.send(wire.DATA, b"x" * 100 * wire.FRAME_MAX, heed=heed)


def test_a_peer_is_known_by_the_kernel(pair: tuple[wire.Channel, wire.Channel]):
    assert pair[0].peer() == os.geteuid()
