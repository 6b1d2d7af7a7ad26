import time
from pathlib import Path

import pytest

from secretweave import resolve
from secretweave.errors import Faults, SecretweaveError, Where
from secretweave.fetching import Times
from secretweave.model import Address, Record, Reference, StoreConfig, Use
from secretweave.stores import file
from tests.stores.contract import context

SECRETS = "db: {user: web, password: hunter2}\ntoken: abc\nkey@1: old\nkey@2: new\n"


@pytest.fixture
def local(tmp_path: Path) -> StoreConfig:
    path = tmp_path / "secrets.yaml"
    path.write_text(SECRETS)
    path.chmod(0o600)
    return StoreConfig("local", None, "file", file.Settings(str(path)), default=False)


def use(store: StoreConfig, ref: str, key: str | None = None, line: int = 1, **rest: object) -> Use:
    reference = Reference(store.name, ref, key=key)._replace(**rest)  # type: ignore[arg-type]  # a shorthand
    address = Address(store.id, ref, reference.version)
    where = Where("stdin", 1, line, "Secret default/app", "data.x")
    return Use(reference, store, address, where, "v1", "Secret", "default", "app", "data.x", "secret")


def fetched(*uses: Use) -> tuple[resolve.Records, list[SecretweaveError]]:
    times = Times(time.monotonic() + 30, 30, 30)
    return resolve.fetch(uses, lambda config: context(config, warn=lambda _text: None), times)


def resolved(*uses: Use) -> list[bytes | None]:
    records, unfetched = fetched(*uses)
    values, absent = resolve.values(uses, records, show_key_names=True)
    if unfetched or absent:
        raise Faults([*unfetched, *absent])
    found = (values[each.address, each.reference.key] for each in uses)
    return [value.reveal() if value else None for value in found]


def faults(*uses: Use) -> list[tuple[str, int, list[int]]]:
    with pytest.raises(Faults) as caught:
        resolved(*uses)
    return [(each.what, each.where.line, [where.line for where in each.also]) for each in caught.value.faults]


def test_uses_become_values(local: StoreConfig):
    assert resolved(
        use(local, "db", "user"), use(local, "token"), use(local, "key"), use(local, "key", version="1")
    ) == [
        b"web",
        b"abc",
        b"new",
        b"old",
    ]


def test_the_version_read_is_known(local: StoreConfig):
    uses = [use(local, "key"), use(local, "key", version="1")]
    records, _ = fetched(*uses)
    assert [record.version for record in records.values() if isinstance(record, Record)] == ["2", "1"]


def test_every_failure_is_told_once_with_every_place(local: StoreConfig):
    assert faults(
        use(local, "tokens", line=1),
        use(local, "token", line=2),
        use(local, "db/user", line=3),
        use(local, "tokens", line=4),
        use(local, "tokens", "x", line=5),
    ) == [
        ("local:tokens: nothing is stored at `tokens`", 1, [4, 5]),
        ("local:db/user: nothing is stored at `db/user`", 3, []),
    ]


def test_every_absent_key_is_told_once_with_every_place(local: StoreConfig):
    assert faults(
        use(local, "db", "x", line=1),
        use(local, "db", line=2),
        use(local, "db", "x", line=3),
        use(local, "token", line=4),
    ) == [
        ("local:db#x: the secret has no field `x`", 1, [3]),
        ("local:db: the secret has fields, and the reference names none", 2, []),
    ]


def test_a_missing_secret_or_key_may_have_a_stand_in(local: StoreConfig):
    assert resolved(
        use(local, "nothing", optional=True),
        use(local, "nothing", default="d"),
        use(local, "db", "nothing", optional=True),
        use(local, "db", "nothing", default=""),
        use(local, "key", version="3", optional=True),
    ) == [None, None, None, None, None]


def test_a_stand_in_helps_only_the_use_that_has_it(local: StoreConfig):
    assert faults(
        use(local, "nothing", line=1, optional=True),
        use(local, "nothing", line=2),
        use(local, "nothing", line=3, default="d"),
    ) == [("local:nothing: nothing is stored at `nothing`", 2, [])]
    assert faults(use(local, "db", "x", line=1, optional=True), use(local, "db", "x", line=2)) == [
        ("local:db#x: the secret has no field `x`", 2, [])
    ]


def test_a_stand_in_is_for_nothing_but_a_missing_secret(local: StoreConfig):
    assert faults(use(local, "db", optional=True, default="d")) == [
        ("local:db: the secret has fields, and the reference names none", 1, [])
    ]


def test_a_store_that_cannot_be_opened_is_one_fault(local: StoreConfig, tmp_path: Path):
    gone = local._replace(name="gone", settings=file.Settings(str(tmp_path / "gone.yaml")))
    assert faults(
        use(gone, "a", line=1, optional=True),
        use(local, "nothing", line=2),
        use(gone, "b", line=3),
        use(gone, "a", line=4, default="d"),
    ) == [
        (f"the store `gone` cannot be opened: the file cannot be opened ({tmp_path}/gone.yaml)", 1, [4, 3]),
        ("local:nothing: nothing is stored at `nothing`", 2, []),
    ]


def test_no_value_shows_in_a_fault(local: StoreConfig):
    with pytest.raises(Faults) as caught:
        resolved(use(local, "db"), use(local, "db", "/password/x"))
    assert "hunter2" not in "".join(repr(vars(each)) for each in caught.value.faults)
