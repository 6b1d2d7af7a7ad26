"""Between two intervals a SecretWeave's stores are asked for versions: against a server that speaks Vault's API."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretweave.errors import Denied
from secretweave.flux.controller import reconcile
from secretweave.flux.controller.queue import Key
from tests.hosts.flux_world import KEY, SECRET, Upstream, World
from tests.hosts.vault_store import Asked, Said, say, scripted

OTHER = Key("shop", "other")
CREATED = "2026-01-31T12:00:00.123456789Z"


class Vault:
    """A KV 2 engine: reads, metadata, and who may have them."""

    def __init__(self) -> None:
        self.values = {"db": ["hunter2-hunter2"]}
        """By path, the oldest version first."""
        self.asked: list[str] = []
        self.shows_metadata = True
        self.is_down = False
        self.held: threading.Event | None = None
        """Until when the next read of a value has its answer on the way."""
        self.holds = threading.Event()

    def __call__(self, asked: Asked) -> Said | None:
        if self.is_down:
            return say(503, errors=["Vault is sealed"])
        kind, _, path = asked.path.removeprefix("/v1/secret/").partition("/")
        self.asked.append(f"{kind} {path}")
        path, _, version = path.partition("?version=")
        values = self.values.get(path, [])
        if not values:
            return say(404, errors=[])
        if kind == "metadata":
            if not self.shows_metadata:
                return say(403, errors=["1 error occurred:\n\t* permission denied\n\n"])
            one = {"created_time": CREATED, "deletion_time": "", "destroyed": False}
            versions = {str(number + 1): one for number in range(len(values))}
            return say(data={"current_version": len(values), "versions": versions})
        number = int(version or len(values))
        metadata = {"version": number, "created_time": CREATED, "deletion_time": "", "destroyed": False}
        answer = say(data={"data": {"password": values[number - 1]}, "metadata": metadata})
        if (held := self.held) is not None:
            self.held = None
            self.holds.set()
            held.wait(5)
        return answer

    def taken(self) -> list[str]:
        found, self.asked = self.asked, []
        return found


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def world(tmp_path: Path, upstream: Upstream, vault: Vault) -> Iterator[World]:
    world = World(tmp_path, upstream)
    with scripted(vault) as server:
        world.store = {"vault": {"url": server.address, "path": "secret", "kvVersion": 2}}
        world.environ["VAULT_TOKEN"] = "hvs.hunter3"
        yield world


def woven(world: World, vault: Vault) -> None:
    assert world.run().ok, world.message()
    assert vault.taken() == ["data db"]


def outcomes(world: World) -> list[str]:
    return [line["outcome"] for line in world.lines if line["event"] == "polled"]


def test_what_has_the_same_version_is_not_read(world: World, vault: Vault):
    woven(world, vault)
    before = (world.files(), world.external, len(world.memory.events))
    asked = world.upstream.asked
    done = world.run()
    assert (done.ok, done.outcome, done.after, done.revision) == (True, "ok", 60, "main@sha1:1")
    assert vault.taken() == ["metadata db"]
    assert (world.files(), world.external, len(world.memory.events)) == before
    assert world.upstream.asked == asked
    (line,) = (line for line in world.lines if line["event"] == "polled")
    assert {**line, "time": ""} == {
        "time": "",
        "event": "polled",
        "namespace": "shop",
        "object": "web",
        "secrets": 1,
        "outcome": "unchanged",
    }
    assert b'secretweave_polls_total{outcome="unchanged"} 1.0' in world.watch.metrics.text()


def test_another_version_is_read_and_published(world: World, vault: Vault):
    woven(world, vault)
    first = world.files()
    vault.values["db"].append("another-value")
    assert world.run().ok
    assert vault.taken() == ["metadata db", "data db"]
    assert outcomes(world) == ["changed"]
    assert world.files()["secret_db.yaml"] != first["secret_db.yaml"]
    assert world.run().ok
    # It was told within shareSeconds.
    assert vault.taken() == []
    assert outcomes(world) == ["changed", "unchanged"]


def test_a_pinned_version_and_another_path_are_asked_for_each(world: World, vault: Vault):
    vault.values |= {"db": ["one", "two"], "api": ["key"]}
    both = '{password: "secret://main/db?version=1#password", api: "secret://main/api#password"}'
    source = SECRET.replace('{password: "secret://main/db#password"}', both)
    world.source({"deploy/secret.yaml": source}, "main@sha1:2")
    assert world.run().ok, world.message()
    assert sorted(vault.taken()) == ["data api", "data db?version=1"]
    assert world.run().ok
    assert sorted(vault.taken()) == ["metadata api", "metadata db"]
    assert outcomes(world) == ["unchanged"]


def test_without_the_right_to_see_metadata_values_are_read_and_it_is_not_asked_for_each_time(
    world: World, vault: Vault
):
    vault.shows_metadata = False
    woven(world, vault)
    world.weave(refreshInterval="1s")
    assert world.run().ok
    vault.taken()
    for _ in range(2):
        world.shared.clear()
        assert world.run().ok
    assert vault.taken() == ["metadata db", "data db", "data db"]
    assert world.conditions() == {"Ready": ("True", "Succeeded")}


def test_a_store_that_is_down_is_told_and_what_is_published_stays(world: World, vault: Vault):
    woven(world, vault)
    before = world.external["status"]
    vault.is_down = True
    done = world.run()
    assert (done.ok, done.outcome) == (False, "StoreFailed")
    assert world.external["status"] == before
    vault.is_down = False
    time.sleep(1.1)  # kept.PAUSE_SECONDS
    assert world.run().ok
    assert world.conditions() == {"Ready": ("True", "Succeeded")}
    assert world.external["status"] == before


def test_a_secret_that_is_gone_is_told(world: World, vault: Vault):
    woven(world, vault)
    vault.values["db"] = []
    world.shared.clear()
    assert world.run().outcome == "StoreFailed"
    assert "nothing is stored at" in world.message()


def test_a_login_that_is_refused_once_is_no_reason_not_to_ask_again(
    world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch
):
    woven(world, vault)
    with monkeypatch.context() as patch:

        def refused(*_: object) -> object:
            raise Denied("the login is refused")

        patch.setattr("secretweave.service.kept.Kept.telling_versions", lambda *_: refused)
        world.shared.clear()
        assert world.run().ok
    world.shared.clear()
    assert world.run().ok
    assert vault.taken() == ["data db", "metadata db"]
    assert outcomes(world) == ["untold", "unchanged"]


@pytest.mark.parametrize("what", ["asked by hand", "the spec", "the source", "the configuration", "a lost archive"])
def test_whatever_else_is_new_has_values_read(world: World, vault: Vault, what: str):
    woven(world, vault)
    if what == "asked by hand":
        obj = world.memory.objects["secretweaves", "shop", "web"]
        obj["metadata"].setdefault("annotations", {})["reconcile.fluxcd.io/requestedAt"] = "now"
        world.shared.renew("shop")
    elif what == "the spec":
        world.weave(policy={"values": "refuse"})
    elif what == "the source":
        world.source({"deploy/secret.yaml": SECRET}, "main@sha1:2")
    elif what == "the configuration":
        world.settings["report"] = {"showKeyNames": False}
    else:
        Path(world.published.file(KEY, world.external["status"]["artifact"]["digest"])).unlink()
    world.shared.clear()
    assert world.run().ok, world.message()
    assert vault.taken() == ["data db"]
    assert outcomes(world) == []


def test_at_the_interval_values_are_read(world: World, vault: Vault):
    world.weave(interval="1s", refreshInterval="1s")
    woven(world, vault)
    time.sleep(1.1)
    assert world.run().ok
    assert vault.taken() == ["data db"]


def test_between_two_turns_no_interval_is_passed_over(world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch):
    world.weave(interval="10m", refreshInterval="9m")
    assert world.run().after == 540
    vault.taken()
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 540)
    after = world.run().after
    assert after is not None
    assert 50 < after <= 60
    assert vault.taken() == ["metadata db"]
    monkeypatch.setattr(time, "monotonic", lambda: real() + 540 + after)
    assert world.run().after == 540
    assert vault.taken() == ["data db"]


@pytest.mark.parametrize("hindrance", ["no source", "suspended"])
def test_what_is_asked_for_by_hand_stays_owed_where_the_turn_comes_to_nothing(
    world: World, vault: Vault, hindrance: str
):
    woven(world, vault)
    repository = world.memory.objects["gitrepositories", "shop", "web"]
    obj = world.memory.objects["secretweaves", "shop", "web"]
    obj["metadata"].setdefault("annotations", {})["reconcile.fluxcd.io/requestedAt"] = "now"
    world.shared.renew("shop")
    status = repository["status"]
    if hindrance == "suspended":
        obj["spec"]["suspend"] = True
        assert world.run().outcome == "suspended"
    else:
        repository["status"] = {}
        assert not world.run().ok
    assert world.status["lastHandledReconcileAt"] == "now"
    repository["status"] = status
    obj["spec"]["suspend"] = False
    assert world.run().ok, world.message()
    assert vault.taken() == ["data db"]
    assert outcomes(world) == []


def test_asking_and_weaving_have_one_deadline_together(world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch):
    woven(world, vault)
    deadlines = []
    real = reconcile._archived  # noqa: SLF001 - what it is given

    def changed(*given: object) -> None:
        deadlines.append(given[3].deadline)  # type: ignore[attr-defined]
        time.sleep(0.1)

    def archived(*given: object) -> object:
        deadlines.append(given[4].deadline)  # type: ignore[attr-defined]
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("secretweave.flux.controller.polling.Polling.changed", lambda _, *given: changed(*given))
    monkeypatch.setattr(reconcile, "_archived", archived)
    assert world.run().ok, world.message()
    # As much is left for reading.
    first, second = deadlines
    assert 20 < second - first <= 30
    assert second - time.monotonic() < 60


def test_of_an_object_that_is_being_deleted_nothing_is_kept(world: World, vault: Vault):
    woven(world, vault)
    obj = world.memory.objects["secretweaves", "shop", "web"]
    obj["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    assert world.run().outcome == "gone"
    del obj["metadata"]["deletionTimestamp"]
    world.shared.clear()
    assert world.run().ok
    assert vault.taken() == ["data db"]


def test_what_is_not_there_and_optional_is_looked_for_each_time(world: World, vault: Vault):
    world.source({"deploy/secret.yaml": SECRET.replace("#password", "?optional=true#password")}, "main@sha1:2")
    vault.values["db"] = []
    assert world.run().ok, world.message()
    assert world.run().ok
    assert vault.taken() == ["data db", "data db"]
    vault.values["db"] = ["there now"]
    assert world.run().ok
    assert "secret_db.yaml" in world.files()


def test_objects_of_one_identity_share_the_answer_and_none_has_an_old_value(world: World, vault: Vault):
    world.weave("other")
    woven(world, vault)
    assert world.reconciler.reconcile(OTHER).ok
    assert vault.taken() == []
    vault.values["db"].append("another-value")
    assert world.run().ok
    assert world.reconciler.reconcile(OTHER).ok
    assert vault.taken() == ["metadata db", "data db"]
    files = [world.published.file(key, _digest(world, key)) for key in (KEY, OTHER)]
    assert all(Path(file).exists() for file in files)
    assert outcomes(world) == ["changed", "changed"]


@pytest.mark.parametrize("asked_by_hand", [False, True])
def test_a_read_that_began_before_the_rotation_serves_nobody_after_it(
    world: World, vault: Vault, *, asked_by_hand: bool
):
    world.weave("other")
    woven(world, vault)
    world.shared.clear()
    vault.held = end = threading.Event()
    reading = threading.Thread(target=world.reconciler.reconcile, args=(OTHER,))
    reading.start()
    assert vault.holds.wait(5)
    vault.values["db"].append("another-value")
    if asked_by_hand:
        obj = world.memory.objects["secretweaves", "shop", "web"]
        obj["metadata"].setdefault("annotations", {})["reconcile.fluxcd.io/requestedAt"] = "now"
        world.kept.part(lambda identity: identity == "shop:")
        world.shared.renew("shop")
    before = world.external["status"]["artifact"]["digest"]
    assert world.run().ok, world.message()
    assert reading.is_alive()
    assert world.external["status"]["artifact"]["digest"] != before
    end.set()
    reading.join(5)
    vault.taken()
    # Neither has who began before the old one for longer, nor has anybody else.
    assert world.reconciler.reconcile(OTHER).ok
    assert vault.taken() == (["metadata db"] if asked_by_hand else [])
    assert outcomes(world)[-1] == "changed"
    world.weave(policy={"values": "refuse"})
    assert world.run().ok
    assert vault.taken() == []
    assert world.external["status"]["artifact"]["digest"] != before


def _digest(world: World, key: Key) -> str:
    digest: str = world.memory.objects["externalartifacts", key.namespace, key.name]["status"]["artifact"]["digest"]
    return digest
