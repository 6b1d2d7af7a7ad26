"""Uses -> records -> values: each distinct address fetched once, every failure collected and told by its cause."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from secretweave import fetching, select
from secretweave.errors import Denied, NotFound, SecretweaveError, StoreError, Unavailable, Where
from secretweave.fetching import Errand, Times
from secretweave.model import Address, Record, SecretValue, StoreConfig, Use
from secretweave.stores import is_local, open_store
from secretweave.stores.base import Context, Store, Wanted

Records = Mapping[Address, Record | NotFound]
Values = Mapping[tuple[Address, str | None], SecretValue | None]
K = TypeVar("K")
V = TypeVar("V")

CAUSES = (Unavailable, Denied, NotFound)
"""The order in which causes are told; any other stands behind them."""
MOST_SUBJECTS = 10
"""How many secrets of one cause are named."""


def fetch(
    uses: Iterable[Use],
    context: Callable[[StoreConfig], Context],
    times: Times,
    opener: Callable[[StoreConfig, Context], Store] = open_store,
) -> tuple[Records, list[SecretweaveError]]:
    """The record of every address; NotFound where nothing is there and every use of it says what then stands for it.

    And one fault for each cause in each store, the stores that are down first; a fault's `where` is the first place
    that needs what could not be had, `also` holds the others.
    """
    by_address = _grouped((use.address, use) for use in uses)
    by_store = _grouped((group[0].store.id, address) for address, group in by_address.items())
    stores = {use.store.id: use.store for group in by_address.values() for use in group}
    errands = [
        Errand(
            partial(opener, store, context(store)),
            tuple(Wanted(each.ref, each.version) for each in by_store[store.id]),
            is_local(store.type),
        )
        for store in stores.values()
    ]
    records: dict[Address, Record | NotFound] = {}
    faults: list[SecretweaveError] = []
    for store, found in zip(stores.values(), fetching.ask(errands, times), strict=True):
        failed: list[tuple[StoreError, list[Use]]] = []
        for address in by_store[store.id]:
            outcome = found if isinstance(found, StoreError) else found[Wanted(address.ref, address.version)]
            # That a store cannot be opened is no missing secret, whatever its error is called.
            needing = by_address[address] if outcome is found else _needing(by_address[address], outcome)
            if isinstance(outcome, StoreError) and needing:
                failed.append((outcome, needing))
            elif isinstance(outcome, (Record, NotFound)):
                records[address] = outcome
        faults += _by_cause(store, failed, opened=not isinstance(found, StoreError))
    return records, sorted(faults, key=_rank)


def values(uses: Iterable[Use], records: Records, *, show_key_names: bool) -> tuple[Values, list[SecretweaveError]]:
    """The value of every address that has a record, by key; None where it is missing and every use can do without.

    And the faults, as `fetch` has them.
    """
    chosen: dict[tuple[Address, str | None], SecretValue | None] = {}
    faults: list[SecretweaveError] = []
    for (address, key), group in _grouped(((use.address, use.reference.key), use) for use in uses).items():
        record = records.get(address)
        if record is None:
            continue
        if isinstance(record, NotFound):
            chosen[address, key] = None
            continue
        try:
            chosen[address, key] = select.pick(record, key, show_names=show_key_names)
        except SecretweaveError as error:
            needing = _needing(group, error)
            if needing:
                faults.append(_told(error, str(needing[0].reference), needing))
            else:
                chosen[address, key] = None
    return chosen, faults


def _by_cause(
    store: StoreConfig, failed: Sequence[tuple[StoreError, list[Use]]], *, opened: bool
) -> list[SecretweaveError]:
    """One fault for all that failed alike."""
    faults = []
    alike = _grouped((_cause(error), (error, uses)) for error, uses in failed)
    for group in alike.values():
        error = group[0][0]
        uses = [use for _, needing in group for use in needing]
        if not opened:
            subject = f"the store `{store.id}` cannot be opened"
        elif isinstance(error, Unavailable):
            subject = f"the store `{store.id}`"
        else:
            names = list(dict.fromkeys(str(needing[0].reference._replace(key=None)) for _, needing in group))
            more = len(names) - MOST_SUBJECTS
            subject = ", ".join(names[:MOST_SUBJECTS]) + (f" and {more} more" if more > 0 else "")
        faults.append(_told(error, subject, uses))
    return faults


def _cause(error: StoreError) -> tuple[type[StoreError], str, Where, str, str]:
    return type(error), error.what, error.where, error.why, error.fix


def _rank(fault: SecretweaveError) -> int:
    return next((rank for rank, cause in enumerate(CAUSES) if isinstance(fault, cause)), len(CAUSES))


def _needing(uses: list[Use], outcome: object) -> list[Use]:
    """The uses that an outcome leaves without a value: a missing secret may be `optional` or have a `default`."""
    if not isinstance(outcome, NotFound):
        return uses
    return [use for use in uses if not use.reference.optional and use.reference.default is None]


def _told(error: SecretweaveError, subject: str, uses: list[Use]) -> SecretweaveError:
    """The error as a fault of the run: what it is about, and every place that needs it."""
    spot = f" ({error.where})" if str(error.where) else ""
    fault = type(error)(f"{subject}: {error.what}{spot}", where=uses[0].where, why=error.why, fix=error.fix)
    fault.also = tuple(use.where for use in uses[1:])
    return fault


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
