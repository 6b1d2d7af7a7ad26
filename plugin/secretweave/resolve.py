"""Uses -> records -> values: each store opened once, each distinct address fetched once, every failure collected."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from secretweave import select
from secretweave.errors import NotFound, SecretweaveError, StoreError
from secretweave.model import Address, Record, SecretValue, StoreConfig, Use
from secretweave.stores import open_store
from secretweave.stores.base import Context, Store

Records = Mapping[Address, Record | NotFound]
Values = Mapping[tuple[Address, str | None], SecretValue | None]
K = TypeVar("K")
V = TypeVar("V")


def fetch(
    uses: Iterable[Use], environ: Mapping[str, str], *, show_key_names: bool, warn: Callable[[str], None]
) -> tuple[Records, list[SecretweaveError]]:
    """The record of every address; NotFound where nothing is there and every use of it says what then stands for it.

    And one fault for each address that could not be had, or for each store that could not be opened, in the order of
    the uses; a fault's `where` is the first place that needs it, `also` holds the others.
    """
    by_address = _grouped((use.address, use) for use in uses)
    by_store = _grouped((group[0].store.id, address) for address, group in by_address.items())
    records: dict[Address, Record | NotFound] = {}
    faults: dict[Address, SecretweaveError] = {}
    for addresses in by_store.values():
        config = by_address[addresses[0]][0].store
        found = _read(config, addresses, Context(config, environ, show_key_names, warn))
        if isinstance(found, StoreError):
            needing = [use for address in addresses for use in by_address[address]]
            faults[addresses[0]] = _told(found, f"the store `{config.id}` cannot be opened", needing)
            continue
        for address, outcome in found.items():
            needing = _needing(by_address[address], outcome)
            if isinstance(outcome, StoreError) and needing:
                faults[address] = _told(outcome, str(needing[0].reference), needing)
            elif isinstance(outcome, (Record, NotFound)):
                records[address] = outcome
    return records, [faults[address] for address in by_address if address in faults]


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


def _read(
    config: StoreConfig, addresses: Sequence[Address], context: Context
) -> Mapping[Address, Record | StoreError] | StoreError:
    """What each address gave; one error if the store cannot be opened."""
    try:
        store = open_store(config, context)
    except StoreError as error:
        return error
    try:
        return fetch_all(store, addresses)
    finally:
        store.close()


def fetch_all(store: Store, addresses: Sequence[Address]) -> Mapping[Address, Record | StoreError]:
    """What each of the distinct *addresses* gave, asked as many at a time as the store likes."""

    def outcome(address: Address) -> Record | StoreError:
        try:
            return store.fetch(address.ref, address.version)
        except StoreError as error:
            return error

    workers = min(store.concurrency, len(addresses))
    if workers == 1:
        return {address: outcome(address) for address in addresses}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(addresses, pool.map(outcome, addresses), strict=True))


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
