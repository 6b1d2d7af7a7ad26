"""How stores are asked. The stores here are real ones by their interface, which do what a test needs, and count."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from secretweave import fetching
from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.fetching import Answers, Errand, Times
from secretweave.model import Record, SecretValue
from secretweave.stores.base import Outcome, Store, Wanted

SOON = 0.2
Step = Callable[[], object]


def nothing() -> None:
    pass


class Memory:
    """A remote store that gives back the ref; `steps` are done first, by ref."""

    concurrency = 4

    def __init__(self, steps: Mapping[str, Step] | None = None, closing: Step = nothing) -> None:
        self.steps = steps or {}
        self.closing = closing
        self.asked: list[str] = []
        self.closed = 0

    def fetch(self, ref: str, version: str | None) -> Record:
        self.asked.append(ref)
        self.steps.get(ref, nothing)()
        return Record(SecretValue(ref.encode()), version or "7")

    def close(self) -> None:
        self.closing()
        self.closed += 1


class Pairs(Memory):
    """Answers two with one request."""

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        self.steps.get("batches", nothing)()
        return [wanted[start : start + 2] for start in range(0, len(wanted), 2)]

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        self.asked.append("+".join(each.ref for each in batch))
        self.steps.get(self.asked[-1], nothing)()
        return [
            StoreError("bad") if each.ref == "bad" else Record(SecretValue(each.ref.encode()), "1") for each in batch
        ]


def fails(error: BaseException) -> Step:
    def step() -> None:
        raise error

    return step


def errand(store: Store, refs: str, *, local: bool = False) -> Errand:
    return Errand(lambda: store, tuple(Wanted(ref, None) for ref in refs.split()), local)


def ask(*errands: Errand, seconds: float = 10, request: float = 10) -> list[Answers]:
    return fetching.ask(errands, Times(time.monotonic() + seconds, seconds, request))


def told(answers: Answers) -> dict[str, str]:
    """What each ref gave, a record's value or an error's class and `what`."""
    assert not isinstance(answers, StoreError)
    return {
        wanted.ref: outcome.value.reveal().decode()
        if isinstance(outcome, Record) and isinstance(outcome.value, SecretValue)
        else f"{type(outcome).__name__}: {outcome}"
        for wanted, outcome in answers.items()
    }


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize("local", [True, False])
def test_each_is_asked_once_and_the_store_closed(local: bool):
    store = Memory({"broken": fails(StoreError("broken")), "gone": fails(NotFound("gone"))})
    (answers,) = ask(errand(store, "a b broken gone c", local=local))
    assert told(answers) == {"a": "a", "b": "b", "broken": "StoreError: broken", "gone": "NotFound: gone", "c": "c"}
    assert (sorted(store.asked), store.closed) == (["a", "b", "broken", "c", "gone"], 1)


def test_as_many_at_a_time_as_the_store_likes():
    barrier = threading.Barrier(4)
    store = Memory(dict.fromkeys("abcdefgh", lambda: barrier.wait(5)))
    (answers,) = ask(errand(store, "a b c d e f g h"))
    assert told(answers) == {each: each for each in "abcdefgh"}


def test_several_stores_are_asked_at_once_and_answer_in_order():
    barrier = threading.Barrier(2)
    stores = [Memory({ref: lambda: barrier.wait(5)}) for ref in ("a", "b")]
    here = Memory()
    answers = ask(errand(stores[0], "a"), errand(here, "x", local=True), errand(stores[1], "b"))
    assert list(map(told, answers)) == [{"a": "a"}, {"x": "x"}, {"b": "b"}]


@pytest.mark.parametrize("local", [True, False])
def test_a_store_that_batches_is_asked_in_batches(local: bool):
    store = Pairs({"c+d": fails(Denied("no"))})
    (answers,) = ask(errand(store, "a bad c d e", local=local))
    assert told(answers) == {"a": "a", "bad": "StoreError: bad", "c": "Denied: no", "d": "Denied: no", "e": "e"}
    assert sorted(store.asked) == ["a+bad", "c+d", "e"]


def test_a_store_that_cannot_be_opened_is_one_error():
    refused = Denied("no login")

    def opened() -> Store:
        raise refused

    answers = ask(Errand(opened, (Wanted("a", None), Wanted("b", None)), False), errand(Memory(), "x"))
    assert answers[0] is refused
    assert told(answers[1]) == {"x": "x"}


def test_a_store_whose_batches_fail_is_closed():
    store = Pairs({"batches": fails(Denied("no preflight"))})
    (answers,) = ask(errand(store, "a b"))
    assert told(answers) == {"a": "Denied: no preflight", "b": "Denied: no preflight"}
    assert (store.asked, store.closed) == ([], 1)


def test_a_store_that_is_down_is_found_once():
    refs = [f"r{number}" for number in range(100)]
    store = Memory({ref: fails(Unavailable("down")) for ref in refs})
    (answers,) = ask(errand(store, " ".join(refs)))
    assert set(told(answers).values()) == {"Unavailable: down"}
    assert len(answers) == 100  # type: ignore[arg-type]  # told() has seen that it is a mapping
    assert len(store.asked) <= store.concurrency


def test_a_store_that_is_down_is_not_waited_for():
    """Another request to it may hang for long."""
    asked, end = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        end.wait(20)

    def down() -> None:
        asked.wait(5)
        raise Unavailable("down")

    begin = time.monotonic()
    (answers,) = ask(errand(Memory({"a": hang, "b": down}), "a b"))
    assert time.monotonic() - begin < 10
    assert set(told(answers).values()) == {"Unavailable: down"}
    end.set()


def test_what_was_read_before_a_store_went_down_counts():
    reading = threading.Event()

    def down() -> None:
        reading.wait(5)
        raise Unavailable("down")

    store = Memory({"a": nothing, "b": reading.set, "c": down})
    (answers,) = ask(errand(store, "a b c"))
    assert told(answers)["c"] == "Unavailable: down"
    assert len(store.asked) == 3


def test_a_read_that_hangs_ends_with_its_time_and_leaves_the_other_stores():
    end = threading.Event()
    hanging, well = Memory({"b": lambda: end.wait(20)}), Memory()
    begin = time.monotonic()
    answers = ask(errand(hanging, "a b"), errand(well, "x"), request=SOON)
    assert time.monotonic() - begin < 10
    assert told(answers[0])["b"] == f"Unavailable: it did not answer within {SOON} s"
    assert told(answers[1]) == {"x": "x"}
    end.set()


def test_a_slow_store_may_take_its_time_request_by_request():
    store = Memory({ref: lambda: time.sleep(SOON / 2) for ref in "abcdefghijkl"})
    (answers,) = ask(errand(store, "a b c d e f g h i j k l"), request=SOON)
    assert told(answers) == {each: each for each in "abcdefghijkl"}


def test_an_opening_that_hangs_ends_with_its_time():
    end = threading.Event()
    store = Memory()

    def opened() -> Store:
        end.wait(20)
        return store

    (answers,) = ask(Errand(opened, (Wanted("a", None),), False), request=SOON)
    assert str(answers) == f"it did not answer within {SOON} s"
    end.set()
    while not store.closed:
        time.sleep(0.01)
    assert store.asked == []


def test_the_run_ends_with_its_deadline():
    end = threading.Event()
    store = Memory({"b": lambda: end.wait(20)})
    begin = time.monotonic()
    (answers,) = ask(errand(store, "a b"), seconds=SOON)
    assert time.monotonic() - begin < 10
    assert told(answers)["b"] == f"Unavailable: it had not answered when the run's deadline of {SOON} s was over"
    end.set()


def test_a_slow_log_out_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "CLOSING_SECONDS_MAX", SOON)
    end = threading.Event()
    begin = time.monotonic()
    (answers,) = ask(errand(Memory(closing=lambda: end.wait(20)), "a"))
    assert time.monotonic() - begin < 10
    assert told(answers) == {"a": "a"}
    end.set()


@pytest.mark.parametrize("step", ["a", "batches"])
def test_a_defect_in_a_store_is_raised_and_not_waited_for(step: str):
    with pytest.raises(ZeroDivisionError):
        ask(errand(Pairs({step: fails(ZeroDivisionError())}), "a"))


def test_nothing_wanted_of_nobody():
    assert ask() == []
