"""What every store promises, as one suite. A store's test file subclasses it and gives a fixture `opened`:

    opened(secrets) -> Store

where *secrets* is a list of `Secret`; later entries of one path are later versions of it. What a store cannot hold by
its nature it says in `lacks`.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, cast

import pytest

from secretweave import select
from secretweave.errors import NotFound, StoreError
from secretweave.model import Record, SecretValue, StoreConfig
from secretweave.stores.base import Context, Limits, SecretKeyRef, Store, VersionedStore, Wanted


class Secret(NamedTuple):
    path: str
    value: str | bytes | Mapping[str, Any]


Opened = Callable[[list[Secret]], Store]
BINARY = bytes(range(256))


def context(
    config: StoreConfig,
    environ: Mapping[str, str] | None = None,
    *,
    show: bool = True,
    warn: Callable[[str], None] = pytest.fail,
    credentials: Mapping[SecretKeyRef, str] | None = None,
    seconds: float = 30,
) -> Context:
    """What a store is given: an environment of its own, credential Secrets by name and key, *seconds* until the end."""

    def credential(ref: SecretKeyRef) -> str:
        return (credentials or {}).get(ref) or _absent(ref)

    limits = Limits(time.monotonic() + seconds, pause_seconds=0.01, pause_seconds_max=0.05)
    return Context(config, environ or {}, show, warn, credential, limits)


def _absent(ref: SecretKeyRef) -> NoReturn:
    raise StoreError(f"no credential Secret {ref.name} with a key {ref.key}", fix="add it")


def plain(record: Record) -> Any:
    return record.value.reveal() if isinstance(record.value, SecretValue) else dict(record.value)


def told_versions(store: Store, wanted: list[Wanted]) -> dict[Wanted, str | None]:
    """What a store tells of each, in whichever parts it wants to be asked."""
    versioned = cast("VersionedStore", store)
    told: dict[Wanted, str | None] = {}
    for batch in versioned.version_batches(wanted):
        told.update(zip(batch, versioned.versions(batch), strict=True))
    assert set(told) == set(wanted)
    return told


class StoreContract:
    lacks: frozenset[str] = frozenset()
    """Of `bytes`, `fields`, `typed fields`, `versions`, `metadata`: what this store cannot hold, or tell. Without
    fields, it holds JSON.
    """

    def needs(self, feature: str) -> None:
        if feature in self.lacks:
            pytest.skip(f"this store has no {feature}")

    def fields(self, record: Record) -> dict[str, Any]:
        """The fields of a secret, whichever way the store holds them."""
        found: dict[str, Any] = json.loads(plain(record)) if "fields" in self.lacks else plain(record)
        return found

    def versions(self, store: Store, path: str, /) -> list[str]:
        """The versions of a path, oldest first, in the store's own terms."""
        raise NotImplementedError

    def test_a_blob_is_given_verbatim(self, opened: Opened):
        store = opened([Secret("app-token", "  two words\n")])
        assert plain(store.fetch("app-token", None)) == b"  two words\n"

    def test_fields_are_given_by_name(self, opened: Opened):
        store = opened([Secret("db", {"user": "web", "password": "pa:ss"})])
        assert self.fields(store.fetch("db", None)) == {"user": "web", "password": "pa:ss"}

    def test_fields_keep_their_types(self, opened: Opened):
        self.needs("typed fields")
        fields = {"port": 5432, "tls": True, "share": 0.5, "note": None, "hosts": ["a", "b"], "deep": {"a": [1]}}
        assert self.fields(opened([Secret("db", fields)]).fetch("db", None)) == fields

    def test_bytes_survive(self, opened: Opened):
        self.needs("bytes")
        store = opened([Secret("keystore", BINARY)])
        assert plain(store.fetch("keystore", None)) == BINARY

    def test_text_of_any_language_survives(self, opened: Opened):
        store = opened([Secret("greeting", "Grüße, 世界 \N{KEY}\u2028")])
        assert plain(store.fetch("greeting", None)).decode() == "Grüße, 世界 \N{KEY}\u2028"

    def test_an_empty_value_is_a_value(self, opened: Opened):
        assert self.fields(opened([Secret("nothing", {"value": ""})]).fetch("nothing", None)) == {"value": ""}

    def test_a_field_is_picked_alike_from_every_store(self, opened: Opened):
        record = opened([Secret("db", {"user": "web", "password": "x"})]).fetch("db", None)
        assert select.pick(record, "user", show_names=True) == SecretValue(b"web")

    def test_an_absent_path_is_not_found(self, opened: Opened):
        with pytest.raises(NotFound):
            opened([Secret("app-token", "s")]).fetch("app-tokens", None)

    def test_without_a_version_the_latest_is_read(self, opened: Opened):
        self.needs("versions")
        store = opened([Secret("key", "first"), Secret("key", "second")])
        record = store.fetch("key", None)
        assert plain(record) == b"second"
        assert record.version == self.versions(store, "key")[-1]

    def test_an_old_version_can_be_read(self, opened: Opened):
        self.needs("versions")
        store = opened([Secret("key", "first"), Secret("key", "second")])
        oldest = self.versions(store, "key")[0]
        record = store.fetch("key", oldest)
        assert plain(record) == b"first"
        assert record.version == oldest

    def test_a_version_that_is_not_there_is_not_found(self, opened: Opened):
        self.needs("versions")
        with pytest.raises(NotFound):
            opened([Secret("key", "first"), Secret("key", "second")]).fetch("key", "9999")

    def test_the_version_that_is_told_is_the_one_that_a_read_gives(self, opened: Opened):
        self.needs("metadata")
        store = opened([Secret("key", "first"), Secret("key", "second"), Secret("other", "s")])
        wanted = [Wanted("key", None), Wanted("other", None)]
        if "versions" not in self.lacks:
            wanted.append(Wanted("key", self.versions(store, "key")[0]))
        told = told_versions(store, wanted)
        assert told == {each: store.fetch(*each).version for each in wanted}
        assert None not in told.values()

    def test_no_version_is_told_of_what_is_not_there(self, opened: Opened):
        self.needs("metadata")
        wanted = [Wanted("app-tokens", None), *([] if "versions" in self.lacks else [Wanted("app-token", "9999")])]
        assert told_versions(opened([Secret("app-token", "s")]), wanted) == dict.fromkeys(wanted)

    @pytest.mark.parametrize("field", ["tls.key", "a b", "a/b", "ümlaut", "--flag", "@"])
    def test_field_names_are_free(self, opened: Opened, field: str):
        assert self.fields(opened([Secret("db", {field: "x", "other": "y"})]).fetch("db", None))[field] == "x"

    def test_two_fetches_give_the_same(self, opened: Opened):
        store = opened([Secret("app-token", "s")])
        assert store.fetch("app-token", None) == store.fetch("app-token", None)

    def test_no_value_shows_in_an_error(self, opened: Opened):
        store = opened([Secret("app-token", "hunter2"), Secret("db", {"password": "hunter2"})])
        with pytest.raises(NotFound) as caught:
            store.fetch("db/password", None)
        assert "hunter2" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"

    def test_it_says_how_many_fetches_may_run_at_once(self, opened: Opened):
        assert opened([]).concurrency >= 1

    def test_closing_twice_is_allowed(self, opened: Opened):
        store = opened([Secret("app-token", "s")])
        store.close()
        store.close()

    def test_a_closed_store_gives_nothing(self, opened: Opened):
        store = opened([Secret("app-token", "s")])
        store.fetch("app-token", None)
        store.close()
        with pytest.raises(Exception, match=r".") as caught:
            store.fetch("app-token", None)
        assert not isinstance(caught.value, NotFound), "a default would then stand for the value"
