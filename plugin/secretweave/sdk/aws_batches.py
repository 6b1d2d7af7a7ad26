"""What the stores on AWS share: one request for several secrets, where the identity may make it."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import Record
from secretweave.sdk.aws import CONCURRENCY, Aws
from secretweave.sdk.aws_faults import DENIED, Refused
from secretweave.stores.base import PROBE, Outcome, Wanted

T = TypeVar("T")


class Spot(NamedTuple):
    """Where a secret lies, and with which others it can be asked for."""

    region: str
    name: str
    """Once in a request."""
    group: str
    """Only those of one region and one group are asked for together; empty: it is asked for alone."""


class BatchingStore:
    """Reads in batches.

    Where the identity may not (the least that a reader is given is the permission to read one secret), or where such a
    request fails as a whole, each secret is read by itself, as many at a time as the store takes.
    """

    concurrency = CONCURRENCY
    largest_batch = 1
    is_own_permission = False
    """Is a denied batch denied whatever is in it?"""

    def __init__(self, aws: Aws, *, batch: bool) -> None:
        import threading

        self.aws = aws
        self._batching = batch
        self._slots = threading.BoundedSemaphore(CONCURRENCY)

    def spot(self, wanted: Wanted) -> Spot:
        """Raises StoreError: it is malformed."""
        raise NotImplementedError

    def read(self, wanted: Wanted) -> Record:
        """One secret, by one request. Raises StoreError."""
        raise NotImplementedError

    def read_several(self, batch: Sequence[Wanted]) -> Mapping[Wanted, Outcome]:
        """What one request gave; what it left open is then read by itself. Raises Refused or StoreError."""
        raise NotImplementedError

    def fetch(self, ref: str, version: str | None) -> Record:
        self.aws.must_be_open()
        return self.read(Wanted(ref, version))

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        alone: list[list[Wanted]] = []
        batches: list[dict[str, Wanted]] = []
        filling: dict[tuple[str, str], list[dict[str, Wanted]]] = {}
        for each in wanted:
            spot = self._batched_at(each)
            if spot is None:
                alone.append([each])
                continue
            unfilled = filling.setdefault((spot.region, spot.group), [])
            batch = next((batch for batch in unfilled if spot.name not in batch), None)
            if batch is None:
                batch = {}
                unfilled.append(batch)
                batches.append(batch)
            batch[spot.name] = each
            if len(batch) == self.largest_batch:
                unfilled.remove(batch)
        return [list(batch.values()) for batch in batches] + alone

    def _batched_at(self, wanted: Wanted) -> Spot | None:
        """None: it is read alone. What is malformed is, too: reading it tells."""
        try:
            spot = self.spot(wanted)
        except StoreError:
            return None
        return spot if self._batching and spot.group else None

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Outcome]:
        self.aws.must_be_open()
        outcomes = self.asked(batch, self.read_several, self.read)
        return [outcomes[each] for each in batch]

    def asked(
        self,
        batch: Sequence[Wanted],
        several: Callable[[Sequence[Wanted]], Mapping[Wanted, T | StoreError]],
        single: Callable[[Wanted], T],
    ) -> Mapping[Wanted, T | StoreError]:
        """What each of a batch gave, by as few requests as the identity may make; *several* and *single* as above."""
        found: Mapping[Wanted, T | StoreError] = {}
        refusal = None
        if self._batching and len(batch) > 1:
            try:
                found = several(batch)
            except Refused as error:
                refusal = error
                if error.is_unsupported or (error.is_denial and self.is_own_permission):
                    self._batching = False
        rest = self._ask_each([each for each in batch if each not in found], single)
        if refusal and refusal.is_denial and not any(isinstance(outcome, Denied) for outcome in rest.values()):
            # Each may be read, so it is the request for several that may not be made.
            self._batching = False
        return {**found, **rest}

    def probe(self) -> None:
        try:
            self.read(Wanted(PROBE, None))
        except NotFound:
            pass
        except Denied as denied:
            # What AWS itself denies, it denies to somebody whose signature it has accepted.
            refusal = denied.__context__
            if not isinstance(refusal, Refused) or refusal.code not in DENIED:
                raise

    def close(self) -> None:
        self.aws.close()

    def _ask_each(self, wanted: Sequence[Wanted], single: Callable[[Wanted], T]) -> dict[Wanted, T | StoreError]:
        """Each by a request of its own, side by side. Raises Unavailable as soon as one does."""
        outcomes: dict[Wanted, T | StoreError] = {}
        waiting = deque(wanted)
        ends: list[BaseException] = []

        def work() -> None:
            while waiting and not ends:
                try:
                    each = waiting.popleft()
                except IndexError:
                    return
                try:
                    with self._slots:
                        outcomes[each] = single(each)
                except Unavailable as error:
                    ends.append(error)
                except StoreError as error:
                    outcomes[each] = error
                except BaseException as crash:  # noqa: BLE001 - raised below, where somebody waits for it
                    ends.append(crash)

        if len(wanted) > 1:
            import threading

            helpers = [threading.Thread(target=work, daemon=True) for _ in range(min(len(wanted), CONCURRENCY) - 1)]
            for helper in helpers:
                helper.start()
            work()
            for helper in helpers:
                helper.join()
        else:
            work()
        if ends:
            raise ends[0]
        return outcomes


def ends_all_asking(error: StoreError) -> bool:
    """Is it no answer, or a login that is refused? A refusal is else about what was asked, as AWS itself tells."""
    return isinstance(error, Unavailable) or (isinstance(error, Denied) and not isinstance(error.__context__, Refused))
