"""One SecretWeave reconciled: an artifact served over HTTP, a store that is a file, the cluster's API in memory."""

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyrage  # type: ignore[import-untyped]  # a C extension without stubs
import pytest
from ruamel.yaml import YAML

from secretweave.config import Config
from secretweave.errors import Denied
from secretweave.flux import unpack
from secretweave.flux.controller.reconcile import Done
from secretweave.flux.controller.sharing import Shared
from secretweave.model import Record, SecretValue, StoreConfig
from secretweave.outputs import Keeping
from secretweave.outputs.secret import context
from secretweave.service.watch import Asker
from secretweave.stores.base import Context, Store, Wanted
from tests.hosts.flux_world import KEY, OBJECTS, PLAIN, SECRET, Upstream, World


@pytest.fixture
def world(tmp_path: Path, upstream: Upstream) -> World:
    return World(tmp_path, upstream)


def test_a_source_becomes_an_external_artifact_with_sealed_secrets(world: World):
    done = world.run()
    assert (done.ok, done.outcome, done.after, done.state) == (True, "ok", 60, "ready"), world.message()
    files = world.files()
    assert set(files) == {"manifests.yaml", "secret_db.yaml"}
    assert b"color: blue" in files["manifests.yaml"]
    assert b"ENC[AES256_GCM" in files["secret_db.yaml"]
    assert b"hunter2" not in b"".join(files.values())
    external, artifact = world.external, world.external["status"]["artifact"]
    assert external["spec"]["sourceRef"] == {
        "apiVersion": "flux.secretweave.dev/v1alpha1",
        "kind": "SecretWeave",
        "name": "web",
        "namespace": "shop",
    }
    assert [each["name"] for each in external["metadata"]["ownerReferences"]] == ["web"]
    assert artifact["revision"] == f"latest@{artifact['digest']}"
    sha256 = artifact["digest"].removeprefix("sha256:")
    assert artifact["url"] == f"http://secretweave.flux-system.svc/secretweave/shop/web/{sha256}.tar.gz"
    assert [(each["type"], each["status"]) for each in external["status"]["conditions"]] == [("Ready", "True")]
    assert world.conditions() == {"Ready": ("True", "Succeeded")}
    status = world.status
    assert status["observedGeneration"] == 1
    assert status["lastSourceRevision"] == "main@sha1:1"
    assert status["artifactRef"] == {"name": "web"}
    assert status["artifact"] == artifact
    assert status["ageRecipient"] == str(world.identities()[0].to_public())
    assert [each[1:3] for each in world.memory.events] == [("Normal", "ArtifactPublished"), ("Normal", "Succeeded")]


def test_what_is_unchanged_publishes_and_writes_nothing(world: World):
    world.run()
    before = (world.files(), world.external, world.status, len(world.memory.events))
    calls = len(world.memory.calls)
    world.run()
    assert (world.files(), world.external, world.status, len(world.memory.events)) == before
    assert not [verb for verb, _ in world.memory.calls[calls:] if verb not in {"get", "list"}]


def test_between_two_intervals_only_the_stores_are_asked(world: World):
    world.run()
    asked = world.upstream.asked
    world.values({"db": {"password": "another-value"}})
    first = world.external["status"]["artifact"]["revision"]
    files = world.files()
    world.run()
    assert world.upstream.asked == asked
    assert world.external["status"]["artifact"]["revision"] != first
    assert world.files()["secret_db.yaml"] != files["secret_db.yaml"]
    assert world.files()["manifests.yaml"] == files["manifests.yaml"]
    assert world.status["artifact"]["revision"] == world.external["status"]["artifact"]["revision"]


def test_ciphertext_of_what_is_unchanged_stays_after_a_restart(world: World):
    world.source({**OBJECTS, "deploy/other.yaml": SECRET.replace("name: db", "name: other")}, "main@sha1:2")
    world.run()
    files = world.files()
    world.restart()
    world.source(
        {**OBJECTS, "deploy/other.yaml": SECRET.replace("name: db", "name: other").replace("password:", "pass:")},
        "main@sha1:3",
    )
    world.run()
    after = world.files()
    assert after["secret_db.yaml"] == files["secret_db.yaml"]
    assert after["secret_other.yaml"] != files["secret_other.yaml"]


def test_a_volume_that_was_lost_is_filled_again(world: World):
    world.run()
    digest = world.external["status"]["artifact"]["digest"]
    Path(world.published.file(KEY, digest)).unlink()
    world.restart()
    assert world.run().outcome == "ok"
    assert world.files()["manifests.yaml"]


def test_a_store_that_fails_leaves_the_last_good_artifact_and_says_why(world: World):
    world.run()
    before = world.external["status"]
    world.values({})
    done = world.run()
    assert (done.ok, done.outcome, done.state) == (False, "StoreFailed", "not ready")
    assert world.external["status"] == before
    assert world.files()
    assert world.conditions() == {
        "Ready": ("False", "StoreFailed"),
        "Reconciling": ("True", "ProgressingWithRetry"),
    }
    assert "Secret shop/db, stringData.password" in world.message()
    events = len(world.memory.events)
    assert world.memory.events[-1][1:3] == ("Warning", "StoreFailed")
    world.run()
    assert len(world.memory.events) == events
    world.values({"db": {"password": "hunter2-hunter2"}})
    assert world.run().ok
    assert world.conditions() == {"Ready": ("True", "Succeeded")}
    assert world.external["status"] == before


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"deploy/a.yaml": SECRET.replace("secret://main", "secret://nowhere")}, "ReferenceInvalid"),
        ({"deploy/a.yaml": PLAIN.replace("blue", '"secret://main/db#password"')}, "PolicyRefused"),
        ({"deploy/a.yaml": "{"}, "BuildFailed"),
        ({"other/a.yaml": SECRET}, "BuildFailed"),
    ],
)
def test_what_is_wrong_has_its_reason_and_nothing_is_published(world: World, files: dict[str, str], reason: str):
    world.source(files, "main@sha1:2")
    assert world.run().outcome.startswith(reason)
    assert world.conditions()["Ready"] == ("False", reason)
    assert ("externalartifacts", "shop", "web") not in world.memory.objects
    assert "hunter2" not in json.dumps([world.status, world.memory.events, world.lines])
    assert str(world.folder) not in world.message()


def test_a_source_that_is_not_there_or_has_no_artifact_yet(world: World):
    world.weave(sourceRef={"kind": "Bucket", "name": "web"})
    assert world.run().outcome == "ArtifactFailed"
    world.weave()
    world.memory.objects["gitrepositories", "shop", "web"]["status"] = {}
    assert world.run().outcome == "ArtifactFailed"
    assert "the GitRepository shop/web has no artifact yet" in world.message()


def test_an_artifact_with_another_digest_is_not_used(world: World):
    artifact = world.memory.objects["gitrepositories", "shop", "web"]["status"]["artifact"]
    artifact["digest"] = "sha256:" + "0" * 64
    assert world.run().outcome == "ArtifactFailed"


def test_a_source_of_another_namespace_needs_leave(world: World):
    world.source(OBJECTS, "main@sha1:9", namespace="platform")
    world.weave(sourceRef={"kind": "GitRepository", "name": "web", "namespace": "platform"})
    done = world.run()
    assert (done.ok, done.outcome, done.after) == (True, "AccessDenied", None)
    assert world.conditions() == {"Ready": ("False", "AccessDenied"), "Stalled": ("True", "AccessDenied")}
    world.settings = {"flux": {"allowCrossNamespace": True}}
    assert world.run().outcome == "ok"
    assert world.status["lastSourceRevision"] == "main@sha1:9"


def test_plaintext_needs_leave(world: World):
    world.weave(output="secret")
    assert world.run().outcome == "AccessDenied"
    assert world.conditions()["Stalled"] == ("True", "AccessDenied")
    world.settings = {"flux": {"allowPlaintext": True}}
    assert world.run().outcome == "ok"
    assert b"hunter2-hunter2" in world.files()["secret_db.yaml"]
    assert "ageRecipient" not in world.status


def test_plaintext_of_an_archive_is_in_no_other_file(world: World, monkeypatch: pytest.MonkeyPatch):
    world.settings = {"flux": {"allowPlaintext": True}}
    world.weave(output="secret")
    assert world.run().outcome == "ok"
    unpacked: list[str] = []
    real = unpack.unpack

    def told(data: Any, folder: str, limits: Any) -> None:
        unpacked.append(folder)
        real(data, folder, limits)

    monkeypatch.setattr("secretweave.flux.controller.reconcile.unpack.unpack", told)
    for output in ("secret", "sops"):
        world.weave(output=output, interval="9m")
        assert world.run().outcome == "ok"
    assert unpacked == []
    assert world.run().outcome == "ok"
    assert [os.path.basename(each) for each in unpacked] == ["previous"]


def test_a_spec_that_is_none_stalls_until_it_changes(world: World):
    world.weave(interval="soon")
    done = world.run()
    assert (done.ok, done.after, done.state) == (True, None, "not ready")
    assert world.conditions() == {"Ready": ("False", "InvalidSpec"), "Stalled": ("True", "InvalidSpec")}
    world.weave()
    world.run()
    assert world.conditions() == {"Ready": ("True", "Succeeded")}
    assert world.status["observedGeneration"] == 3


def test_suspended_stays_as_it_is(world: World):
    world.run()
    before = world.external
    world.weave(suspend=True)
    world.values({"db": {"password": "another-value"}})
    assert world.run().state == "suspended"
    assert world.conditions() == {"Ready": ("True", "Suspended")}
    assert world.external == before


def test_suspended_with_another_spec_it_is_not_ready_for_that(world: World):
    world.run()
    world.weave(path="./elsewhere", suspend=True)
    world.run()
    (ready,) = world.status["conditions"]
    assert (ready["status"], ready["reason"], ready["observedGeneration"]) == ("True", "Suspended", 1)
    assert world.status["observedGeneration"] == 2
    world.weave(path="./elsewhere")
    world.run()
    assert world.conditions()["Ready"][0] == "False"
    assert {each["observedGeneration"] for each in world.status["conditions"]} == {3}


def test_stores_are_narrowed(world: World):
    world.weave(stores=["another"])
    assert world.run().outcome == "PolicyRefused"
    assert "spec.stores does not name it" in world.message()
    world.weave(stores=["main"])
    assert world.run().ok


def test_values_outside_of_secrets_can_be_refused_by_the_object(world: World):
    world.settings = {
        "flux": {"allowPlaintext": True},
        "policy": {"values": [{"store": "main", "kind": "ConfigMap", "field": "data.*"}]},
    }
    world.source({"deploy/a.yaml": PLAIN.replace("blue", '"secret://main/db#password"')}, "main@sha1:2")
    world.weave(output="secret")
    assert world.run().outcome == "ok"
    world.weave(output="secret", policy={"values": "refuse"})
    assert world.run().outcome == "PolicyRefused"


def test_an_external_artifact_of_somebody_else_is_left_alone(world: World):
    head = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "ExternalArtifact"}
    other = world.memory.create({**head, "metadata": {"name": "web", "namespace": "shop"}}, "externalartifacts")
    assert world.run().outcome == "AccessDenied"
    assert world.external == other


def test_a_request_is_told_when_it_was_handled_and_reads_the_source_again(world: World):
    world.run()
    asked = world.upstream.asked
    obj = world.memory.objects["secretweaves", "shop", "web"]
    obj["metadata"]["annotations"] = {"reconcile.fluxcd.io/requestedAt": "2026-01-01T00:00:00Z"}
    world.run()
    assert world.status["lastHandledReconcileAt"] == "2026-01-01T00:00:00Z"
    assert world.upstream.asked == asked + 1


def test_a_rotated_key_seals_for_the_new_one_and_both_open(world: World):
    world.run()
    first = world.status["ageRecipient"]
    annotations = world.memory.objects["secrets", "shop", "web-age"]["metadata"]["annotations"]
    annotations["flux.secretweave.dev/rotated-at"] = "2020-01-01T00:00:00Z"
    old = world.files()["secret_db.yaml"]
    world.run()
    new = world.files()["secret_db.yaml"]
    assert world.status["ageRecipient"] != first
    for sealed, identity in ((new, world.identities()[0]), (old, world.identities()[1])):
        (recipient,) = YAML(typ="safe", pure=True).load(sealed.decode())["sops"]["age"]
        assert len(pyrage.decrypt(recipient["enc"].encode(), [identity])) == 32


def test_what_cannot_be_published_leaves_no_heap_of_archives(world: World, monkeypatch: pytest.MonkeyPatch):
    world.run()
    before = world.files()
    patch = world.memory.patch_status

    def refused(version: str, plural: str, *rest: Any, **more: Any) -> dict[str, Any]:
        if plural == "externalartifacts":
            raise Denied("no rule of RBAC allows it")
        return patch(version, plural, *rest, **more)

    monkeypatch.setattr(world.memory, "patch_status", refused)
    for number in range(14):
        world.values({"db": {"password": f"hunter2-{number:08}"}})
        assert world.run().outcome.startswith("BuildFailed")
    folder = Path(world.published.file(KEY, "")).parent
    assert len(os.listdir(folder)) <= 11
    assert world.files() == before


def test_an_external_artifact_that_somebody_edited_is_put_right(world: World):
    world.run()
    artifact = dict(world.external["status"]["artifact"])
    for name, value in (("revision", "main@sha1:evil"), ("size", 1), ("path", "x"), ("digest", "sha256:../../x")):
        world.external["status"]["artifact"] = {**artifact, name: value}
        assert world.run().ok, name
        found = dict(world.external["status"]["artifact"])
        assert found | {"lastUpdateTime": ""} == artifact | {"lastUpdateTime": ""}
    # What only others write there is no reason to write again.
    world.external["status"]["artifact"] = {**artifact, "metadata": {"a": "b"}}
    calls = world.memory.calls.count(("patch_status", "externalartifacts"))
    assert world.run().ok
    assert world.memory.calls.count(("patch_status", "externalartifacts")) == calls


def test_a_volume_that_became_read_only_hinders_nothing_that_is_unchanged(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    world.run()
    before = world.files()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("secretweave.flux.controller.published.os.fsync", full)
    assert world.run().ok
    world.values({"db": {"password": "another-one"}})
    assert world.run().outcome.startswith("BuildFailed")
    assert "No space left on device" in world.message()
    assert world.files() == before
    monkeypatch.undo()
    assert world.run().ok
    assert world.files() != before


def test_without_room_for_temporary_files_the_object_says_so(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(world.folder / "nowhere"))
    assert world.run().outcome.startswith("BuildFailed")
    assert "temporary files" in world.message()
    assert str(world.folder) not in world.message()


def test_a_status_is_not_told_of_its_namesake_that_was_made_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch):
    put = world.published.put

    def slow(*arguments: Any) -> Any:
        del world.memory.objects["secretweaves", "shop", "web"]
        world.weave(path="./nowhere")
        return put(*arguments)

    monkeypatch.setattr(world.published, "put", slow)
    world.run()
    assert "status" not in world.memory.objects["secretweaves", "shop", "web"]
    monkeypatch.undo()
    assert world.run().outcome.startswith("BuildFailed")
    assert world.conditions()["Ready"] == ("False", "BuildFailed")


def test_a_condition_without_a_message_is_no_trouble(world: World):
    world.memory.objects["gitrepositories", "shop", "web"]["status"] = {}
    world.run()
    for each in world.status["conditions"]:
        del each["message"]
    assert world.run().outcome == "ArtifactFailed"


def test_a_deleted_object_is_gone(world: World):
    world.run()
    del world.memory.objects["secretweaves", "shop", "web"]
    assert world.run() == Done(True, "gone")


def test_a_broken_configuration_stops_everything_and_leaves_what_there_is(world: World):
    world.run()
    before = world.external
    world.settings = {"nonsense": 1}
    assert world.run().outcome.startswith("BuildFailed")
    assert world.external == before


class Counting:
    """A remote store that counts its requests."""

    concurrency = 4

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def fetch(self, ref: str, version: str | None) -> Record:
        self._log.append(ref)
        return Record(SecretValue(b"x"), version or "1")

    def close(self) -> None:
        """Nothing is held."""


class CountingBatches(Counting):
    def batches(self, wanted: list[Wanted]) -> list[list[Wanted]]:
        return [wanted]

    def fetch_batch(self, batch: list[Wanted]) -> list[Record]:
        return [self.fetch(*each) for each in batch]


class Lent(NamedTuple):
    keeping: Keeping
    log: list[str]


class TestSharing:
    def lent(
        self, shared: Shared, identity: tuple[str, str], store: type[Counting] = Counting, config: Config | None = None
    ) -> Lent:
        log: list[str] = []
        inner = Keeping(lambda _config, _context: store(log), lambda _text: None)
        asker = Asker(":".join(identity), "web")
        return Lent(shared.over(inner, asker, config or Config(), 5), log)

    def opened(self, keeping: Keeping, settings: str = "a") -> Store:
        config = StoreConfig("vault", None, "vault", settings, False)
        return keeping.open(config, Context(config, {}, True, print, str, None))  # type: ignore[arg-type]

    def test_what_was_read_serves_others_of_the_same_identity_and_nobody_else(self, world: World):
        shared = Shared(world.watch)
        first, second = (self.lent(shared, ("shop", "reader")) for _ in range(2))
        others = [self.lent(shared, each) for each in (("shop", ""), ("shop", "other"), ("bank", "reader"))]
        for each in (first, second, *others):
            self.opened(each.keeping).fetch("db", None)
        assert (first.log, second.log) == (["db"], [])
        assert [each.log for each in others] == [["db"]] * 3
        self.opened(second.keeping, "bound otherwise").fetch("db", None)
        self.opened(second.keeping).fetch("db", "2")
        assert second.log == ["db", "db"]
        reads = [(each["namespace"], each.get("account")) for each in world.lines if each["event"] == "read"]
        assert reads == [("shop", "reader")], "what is not asked of the store is in the log, too"
        assert b'secretweave_reads_shared_total{store="(of a namespace)"} 1.0' in world.watch.metrics.text()

    def test_with_credentials_from_elsewhere_it_is_another_store(self, world: World):
        shared = Shared(world.watch)
        settings = Config().settings
        credentials = settings.credentials._replace(folder="/elsewhere")
        changed = (settings._replace(credentials=credentials), settings._replace(operator_namespace="other"))
        configs = [None, None, *(Config(settings=each) for each in changed)]
        lent = [self.lent(shared, ("shop", ""), config=config) for config in configs]
        for each in lent:
            self.opened(each.keeping).fetch("db", None)
        assert [each.log for each in lent] == [["db"], [], ["db"], ["db"]]

    def test_what_was_asked_for_later_stands_whichever_answer_comes_first(self, world: World):
        shared, now = Shared(world.watch), time.monotonic()
        key = ("shop:", "a store", Wanted("db", None))
        old, new = (Record(SecretValue(value), version) for value, version in ((b"a", "1"), (b"b", "2")))
        shared.keep(key, new, 60, now)
        shared.keep(key, old, 60, now - 1)
        assert shared.find(key, 60) is new
        # A read that was under way when another version was told, though it began after that was asked for.
        shared.keep_version(key, "3", 60, now)
        shared.drop(key, but="3")
        shared.keep(key, new, 60, now + 1e-9)
        assert shared.find(key, 60) is None
        third = Record(SecretValue(b"c"), "3")
        shared.keep(key, third, 60, now + 1e-9)
        assert shared.find(key, 60) is third

    def test_who_asks_by_hand_reads_anew_and_others_have_the_use_of_it(self, world: World):
        shared = Shared(world.watch)
        first, second, third = (self.lent(shared, ("shop", "")) for _ in range(3))
        other, another = (self.lent(shared, ("bank", "")) for _ in range(2))
        for each in (first, other):
            self.opened(each.keeping).fetch("db", None)
        shared.renew("shop")
        for each in (second, third, another):
            self.opened(each.keeping).fetch("db", None)
        assert (first.log, second.log, third.log) == (["db"], ["db"], [])
        assert (other.log, another.log) == (["db"], [])

    def test_a_batch_asks_for_the_rest(self, world: World):
        shared = Shared(world.watch)
        lent = self.lent(shared, ("shop", ""), CountingBatches)
        store: Any = self.opened(lent.keeping)
        store.fetch("a", None)
        wanted = [Wanted("a", None), Wanted("b", None)]
        assert [each.version for each in store.fetch_batch(wanted)] == ["1", "1"]
        assert lent.log == ["a", "b"]

    def test_no_value_stays_longer_than_it_may_be_used(self, world: World, monkeypatch: pytest.MonkeyPatch):
        shared = Shared(world.watch)
        lent = self.lent(shared, ("shop", ""))
        self.opened(lent.keeping).fetch("db", None)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 6)
        shared.tidy()
        assert not shared._records  # noqa: SLF001 - memory is what it is about
        self.opened(lent.keeping).fetch("db", None)
        assert lent.log == ["db", "db"]


def test_a_tenants_vault_is_logged_in_to_by_the_objects_service_account_alone(world: World):
    head = {"apiVersion": "humanitec.io/v1alpha1", "kind": "SecretStore"}
    spec = {"vault": {"url": "http://127.0.0.1:1", "auth": {"kubernetes": {"role": "web"}}}}
    world.memory.create({**head, "metadata": {"name": "mine", "namespace": "shop"}, "spec": spec}, "secretstores")
    world.source({"deploy/a.yaml": SECRET.replace("main", "mine")}, "main@sha1:2")
    assert world.run().outcome == "PolicyRefused"
    assert "serviceAccountName" in world.message()
    world.weave(serviceAccountName="reader")
    # There is no Vault at that address; that it is asked is what counts here.
    assert world.run().outcome == "StoreFailed"
    opened = [each for each in world.lines if each["event"] in {"open", "store down"}]
    assert opened


def test_a_service_accounts_token_reaches_a_store_that_logs_in_by_one(world: World):
    from secretweave.outputs import Outside

    config = world.config()
    for account, expected in (("reader", "shop/reader/vault/600"), ("", None)):
        keeping = world.reconciler.keeping(KEY, account, config)
        outside = Outside({}, time.monotonic() + 5, lambda _text: None, keeping)
        token = context(config.stores[0], config, outside).token
        assert (token(["vault"]) if token else None) == expected
