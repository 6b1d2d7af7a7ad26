"""The controller's parts that know no store: queue, conditions, keys, lease, archives and their server."""

import base64
import errno
import hashlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secretweave.errors import ConfigError, Denied, StoreError
from secretweave.flux.controller import keys, lease, resource
from secretweave.flux.controller.lease import Lease
from secretweave.flux.controller.published import KEPT_SECONDS, Published
from secretweave.flux.controller.queue import Key, Queue
from secretweave.flux.controller.resource import Condition
from secretweave.flux.controller.watch import Metrics, Watch
from secretweave.service import serving
from secretweave.service.serving import Serving
from tests.flux_api import Memory

# Pauses of a Lease and of servers; what it proves is what our own records say.
pytestmark = pytest.mark.once

WEB, API = Key("shop", "web"), Key("shop", "api")


def woven(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A SecretWeave with the least that it needs."""
    ref = {"kind": "GitRepository", "name": "web"}
    return {
        "apiVersion": "flux.secretweave.dev/v1alpha1",
        "kind": "SecretWeave",
        "metadata": {"name": "web", "namespace": "shop", "uid": "1", "generation": 1, **metadata},
        "spec": {"sourceRef": ref, "interval": "10m", **(spec or {})},
    }


def until(what: Callable[[], bool], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.01)


class TestQueue:
    def test_one_object_is_in_one_workers_hands_and_comes_again_for_what_changed_meanwhile(self):
        queue = Queue()
        queue.add(WEB)
        queue.add(WEB)
        assert queue.take() == WEB
        queue.add(WEB)
        queue.add(API)
        assert queue.take() == API
        queue.done(WEB, after=60)
        assert queue.take() == WEB
        queue.done(WEB, after=None)
        assert queue.depth() == 0

    def test_the_earliest_wish_wins(self):
        queue = Queue()
        queue.add(WEB, after=60)
        queue.add(WEB, after=0.05)
        queue.add(WEB, after=60)
        begun = time.monotonic()
        assert queue.take() == WEB
        assert 0.04 < time.monotonic() - begun < 5

    def test_failures_wait_longer_each_time_and_success_forgets_them(self):
        queue, pauses = Queue(), []
        for _ in range(5):
            queue.add(WEB)
            assert queue.take() == WEB
            pauses.append(queue.failed(WEB, most=6))
        expected = [1, 2, 4, 6, 6]
        assert all(0.8 * want <= pause <= 1.2 * want for want, pause in zip(expected, pauses, strict=True))
        queue.add(WEB)
        assert queue.take() == WEB
        queue.done(WEB, None)
        queue.add(WEB)
        assert queue.take() == WEB
        assert queue.failed(WEB) <= 1.2

    def test_one_tenants_many_objects_keep_nobody_else_from_their_turn(self):
        queue = Queue()
        for number in range(200):
            queue.add(Key("shop", f"web-{number}"))
        queue.add(Key("bank", "web"))
        assert queue.take() == Key("shop", "web-0")
        assert queue.take() == Key("bank", "web")
        queue.done(Key("bank", "web"), None)
        queue.add(Key("bank", "web"))
        assert queue.take() == Key("bank", "web")
        # With one worker, too.
        queue = Queue()
        for key in (Key("shop", "a"), Key("shop", "b"), Key("shop", "c"), Key("bank", "web")):
            queue.add(key)
        taken = []
        for _ in range(4):
            found = queue.take()
            assert found is not None
            taken.append(found.namespace)
            queue.done(found, None)
        assert taken == ["shop", "bank", "shop", "shop"]

    def test_one_tenant_never_has_every_worker(self):
        queue, taken = Queue(), []
        queue.reserve(1)
        queue.add(WEB)
        queue.add(API)
        assert queue.take() == WEB
        worker = threading.Thread(target=lambda: taken.append(queue.take()), daemon=True)
        worker.start()
        time.sleep(0.1)
        assert taken == []
        queue.add(Key("bank", "web"))
        until(lambda: taken == [Key("bank", "web")])
        queue.done(WEB, None)
        assert queue.take() == API

    def test_an_interval_without_end_ends_no_worker(self):
        queue, taken = Queue(), []
        queue.add(API, after=float("inf"))
        queue.add(Key("shop", "years"), after=1e12)
        worker = threading.Thread(target=lambda: taken.append(queue.take()), daemon=True)
        worker.start()
        time.sleep(0.1)
        queue.add(WEB)
        worker.join(5)
        assert taken == [WEB]

    def test_many_workers_and_wishes_never_share_an_object(self):
        queue, held, seen, lock = Queue(), set(), [], threading.Lock()
        names = [Key("shop", f"web-{number}") for number in range(5)]

        def work() -> None:
            while (key := queue.take()) is not None:
                with lock:
                    assert key not in held
                    held.add(key)
                    seen.append(key)
                time.sleep(0.001)
                with lock:
                    held.discard(key)
                queue.done(key, None)

        workers = [threading.Thread(target=work) for _ in range(8)]
        for each in workers:
            each.start()
        for _ in range(200):
            for name in names:
                queue.add(name)
        until(lambda: not queue.depth() and not held)
        queue.close()
        for each in workers:
            each.join(5)
            assert not each.is_alive()
        assert set(seen) == set(names)


class TestSpec:
    def test_the_least_and_its_defaults(self):
        spec = resource.read(woven())
        assert spec.source == ("GitRepository", "shop", "web")
        assert (spec.interval, spec.refresh, spec.retry, spec.timeout) == (600, 600, None, 60)
        assert (spec.path, spec.output, spec.stores, spec.recipients) == ("./", "sops", None, ())
        assert spec.rotate_after == 2160 * 3600

    def test_no_object_keeps_a_worker_for_longer_than_one_that_hangs_would(self):
        spec = resource.read(woven({"timeout": "99999999h", "retryInterval": "1ms", "interval": f"{'9' * 400}h"}))
        assert (spec.timeout, spec.retry, spec.interval) == (600, 1, float("inf"))

    @pytest.mark.parametrize(
        ("text", "seconds"), [("1h30m", 5400), ("1.5s", 1.5), ("300ms", 0.3), ("10", None), ("", None), ("-1s", None)]
    )
    def test_durations_are_gos(self, text: str, seconds: float | None):
        assert resource.seconds(text) == seconds

    @pytest.mark.parametrize(
        ("spec", "what"),
        [
            ({"interval": None}, "spec.interval is not usable"),
            ({"interval": "soon"}, "spec.interval is not usable"),
            ({"output": "plain"}, "spec.output is not usable"),
            ({"sourceRef": {"kind": "HelmChart", "name": "web"}}, "spec.sourceRef is not usable"),
            ({"sourceRef": {"kind": "Bucket", "name": "../x"}}, "spec.sourceRef.name is not usable"),
            ({"sourceRef": {"kind": "ExternalArtifact", "name": "web"}}, "spec.sourceRef is not usable"),
            ({"sourceRef": "web"}, "spec.sourceRef is not usable"),
            ({"stores": [1]}, "spec.stores is not usable"),
            ({"sourceRef": {"kind": ["Bucket"], "name": "x"}}, "spec.sourceRef is not usable"),
            ({"sourceRef": {"kind": "Bucket", "name": ["x"]}}, "spec.sourceRef.name is not usable"),
            ({"sourceRef": {"kind": "Bucket", "name": "x", "namespace": []}}, "spec.sourceRef.namespace is not usable"),
            ({"output": ["sops"]}, "spec.output is not usable"),
            ({"policy": {"values": {}}}, "spec.policy.values is not usable"),
            ({"targetNamespace": {"a": 1}}, "spec.targetNamespace is not usable"),
            ({"targetNamespace": "a.b"}, "spec.targetNamespace is not usable"),
            ({"serviceAccountName": "A"}, "spec.serviceAccountName is not usable"),
        ],
    )
    def test_what_is_no_spec(self, spec: dict[str, Any], what: str):
        with pytest.raises(ConfigError) as caught:
            resource.read(woven(spec))
        assert caught.value.what == what

    def test_a_transition_has_its_time_until_the_status_changes(self):
        first = resource.conditions([], [Condition("Ready", "True", "Succeeded", "a")], 1, "2026-01-01T00:00:00Z")
        second = resource.conditions(first, [Condition("Ready", "True", "Succeeded", "b")], 2, "2026-01-02T00:00:00Z")
        third = resource.conditions(
            second, [Condition("Ready", "False", "BuildFailed", "c")], 2, "2026-01-03T00:00:00Z"
        )
        assert [each[0]["lastTransitionTime"][:10] for each in (first, second, third)] == [
            "2026-01-01",
            "2026-01-01",
            "2026-01-03",
        ]
        assert second == [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Succeeded",
                "message": "b",
                "observedGeneration": 2,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ]

    def test_a_message_has_an_end(self):
        assert len(resource.shortened("ä" * 30_000).encode()) <= 20 << 10


class TestKeys:
    def identities(self, memory: Memory, name: str = "web-age") -> list[str]:
        secret = memory.objects["secrets", "shop", name]
        text = base64.b64decode(secret["data"]["age.agekey"]).decode()
        return [line for line in text.splitlines() if not line.startswith("#")]

    def of(self, memory: Memory, **spec: Any) -> keys.Keys:
        obj = woven(spec)
        return keys.of(memory.api, obj, resource.read(obj))

    def test_a_secret_is_made_once_and_is_what_kustomize_controller_reads(self):
        memory = Memory()
        made = self.of(memory)
        assert made.recipients == (made.newest,)
        assert self.of(memory).newest == made.newest
        secret = memory.objects["secrets", "shop", "web-age"]
        assert secret["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "secretweave"}
        assert secret["metadata"]["ownerReferences"] == [
            {"apiVersion": "flux.secretweave.dev/v1alpha1", "kind": "SecretWeave", "name": "web", "uid": "1"}
            | {"controller": True}
        ]
        (identity,) = self.identities(memory)
        assert identity.startswith("AGE-SECRET-KEY-1")

    def test_a_rotation_keeps_the_identity_before_it_for_one_period(self):
        memory = Memory()
        first = self.of(memory).newest
        (old,) = self.identities(memory)
        self.age(memory)
        second = self.of(memory, keys={"rotateAfter": "1h"}).newest
        assert second != first
        assert self.identities(memory)[1:] == [old]
        assert self.of(memory, keys={"rotateAfter": "1h"}).newest == second
        self.age(memory)
        third = self.of(memory, keys={"rotateAfter": "1h"}).newest
        assert third not in {first, second}
        assert len(self.identities(memory)) == 2
        assert old not in self.identities(memory)

    def age(self, memory: Memory) -> None:
        annotations = memory.objects["secrets", "shop", "web-age"]["metadata"]["annotations"]
        annotations["flux.secretweave.dev/rotated-at"] = "2020-01-01T00:00:00Z"

    def test_while_what_is_published_is_sealed_for_the_old_one_nothing_is_rotated_away(self):
        memory = Memory()
        first = self.of(memory).newest
        self.age(memory)
        obj = woven({"keys": {"rotateAfter": "1h"}}) | {"status": {"ageRecipient": first}}
        second = keys.of(memory.api, obj, resource.read(obj)).newest
        assert second != first
        both = self.identities(memory)
        # A store is down for longer than a period.
        self.age(memory)
        found = keys.of(memory.api, obj, resource.read(obj))
        assert (found.newest, found.due, self.identities(memory)) == (second, 0, both)
        # Published at last.
        obj["status"] = {"ageRecipient": second}
        third = keys.of(memory.api, obj, resource.read(obj)).newest
        assert third not in {first, second}
        assert self.identities(memory)[1] == both[0]

    def test_a_secret_of_somebody_else_is_left_alone(self):
        memory = Memory()
        head = {"name": "web-age", "namespace": "shop"}
        memory.create({"apiVersion": "v1", "kind": "Secret", "metadata": head, "data": {"a": "Yg=="}}, "secrets")
        with pytest.raises(Denied) as caught:
            self.of(memory)
        assert caught.value.what == "the Secret web-age is not ours, and is left as it is"
        assert memory.objects["secrets", "shop", "web-age"]["data"] == {"a": "Yg=="}

    def test_after_its_object_was_made_anew_the_secret_belongs_to_that(self):
        memory = Memory()
        first = self.of(memory).newest
        obj = woven(uid="2")
        assert keys.of(memory.api, obj, resource.read(obj)).newest == first
        assert memory.objects["secrets", "shop", "web-age"]["metadata"]["ownerReferences"][0]["uid"] == "2"

    def test_identities_of_yours_with_further_recipients(self):
        memory = Memory()
        self.of(memory)
        (identity,) = self.identities(memory)
        data = base64.b64encode(f"# made by hand\n\n{identity}\n".encode()).decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "shop"}}
        memory.create({**secret, "data": {"team.agekey": data, "other": "eA=="}}, "secrets")
        found = self.of(
            memory,
            keys={
                "secretRef": {"name": "mine"},
                "age": ["age1kc2kwjuqsgv3xtcyxs8q70ltyxvs66f96dln8704rp52wkvfmadq3f3aj2"],
            },
        )
        assert found.recipients == (found.newest, "age1kc2kwjuqsgv3xtcyxs8q70ltyxvs66f96dln8704rp52wkvfmadq3f3aj2")
        assert found.due is None

    def test_a_secret_without_an_identity_is_told_without_its_text(self):
        memory = Memory()
        data = base64.b64encode(b"hunter2").decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "shop"}}
        memory.create({**secret, "data": {"x.agekey": data}}, "secrets")
        with pytest.raises(ConfigError) as caught:
            self.of(memory, keys={"secretRef": {"name": "mine"}})
        assert "hunter2" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"

    def test_a_secret_that_is_not_there_is_told_with_what_names_it(self):
        with pytest.raises(ConfigError, match="there is no Secret mine"):
            self.of(Memory(), keys={"secretRef": {"name": "mine"}})

    def test_a_further_recipient_that_is_mistyped_is_named(self):
        memory = Memory()
        good = "age1kc2kwjuqsgv3xtcyxs8q70ltyxvs66f96dln8704rp52wkvfmadq3f3aj2"
        plugins = "age1yubikey1qwerty"
        assert self.of(memory, keys={"age": [good, plugins]}).recipients[1:] == (good, plugins)
        with pytest.raises(ConfigError) as caught:
            self.of(memory, keys={"age": [good, good.replace("kc2k", "kc2c")]})
        assert caught.value.what == "spec.keys.age[1] is no age recipient"

    def test_the_digest_key_is_made_once(self):
        memory = Memory()
        key = keys.digest_key(memory.api, "flux-system")
        assert len(key) == 32
        assert keys.digest_key(memory.api, "flux-system") == key
        memory.objects["secrets", "flux-system", "secretweave-digest-key"]["data"] = {"key": "eA=="}
        with pytest.raises(ConfigError):
            keys.digest_key(memory.api, "flux-system")


class TestLease:
    def test_one_holds_it_and_the_next_begins_when_it_is_released(self):
        memory, stop = Memory(), threading.Event()
        first, second = (Lease(memory.api, "flux-system", "secretweave", name) for name in ("a", "b"))
        assert first.acquire(stop)
        waiting = threading.Thread(target=second.acquire, args=(stop,))
        waiting.start()
        time.sleep(0.2)
        assert self.spec(memory)["holderIdentity"] == "a"
        first.release()
        until(lambda: self.spec(memory)["holderIdentity"] == "b")
        waiting.join(5)
        assert self.spec(memory)["leaseTransitions"] == 1

    def test_who_died_is_followed_after_the_leases_time(self, monkeypatch: pytest.MonkeyPatch):
        memory, stop = Memory(), threading.Event()
        monkeypatch.setattr(lease, "RETRY_SECONDS", 0.05)
        monkeypatch.setattr(lease, "LEASE_SECONDS", 1)
        assert Lease(memory.api, "flux-system", "secretweave", "a").acquire(stop)
        begun = time.monotonic()
        assert Lease(memory.api, "flux-system", "secretweave", "b").acquire(stop)
        assert 0.9 < time.monotonic() - begun < 5

    def test_a_clock_that_is_wrong_takes_nothing_from_its_holder(self):
        memory, stop = Memory(), threading.Event()
        assert Lease(memory.api, "flux-system", "secretweave", "a").acquire(stop)
        self.spec(memory)["renewTime"] = "2001-01-01T00:00:00.000000Z"
        other = threading.Thread(target=Lease(memory.api, "flux-system", "secretweave", "b").acquire, args=(stop,))
        other.start()
        time.sleep(0.3)
        stop.set()
        other.join(5)
        assert self.spec(memory)["holderIdentity"] == "a"

    def test_who_cannot_renew_it_gives_up_before_others_take_over(self, monkeypatch: pytest.MonkeyPatch):
        memory, stop, lost = Memory(), threading.Event(), threading.Event()
        monkeypatch.setattr(lease, "RETRY_SECONDS", 0.05)
        monkeypatch.setattr(lease, "GIVE_UP_SECONDS", 0.5)
        held = Lease(memory.api, "flux-system", "secretweave", "a")
        assert held.acquire(stop)
        holding = threading.Thread(target=held.hold, args=(stop, lost.set))
        holding.start()
        time.sleep(0.7)
        assert not lost.is_set()
        memory.down = True
        assert lost.wait(5)
        holding.join(5)

    def test_what_nobody_expected_loses_the_lease_and_does_not_end_its_thread(self, monkeypatch: pytest.MonkeyPatch):
        memory, stop, lost = Memory(), threading.Event(), threading.Event()
        monkeypatch.setattr(lease, "RETRY_SECONDS", 0.05)
        monkeypatch.setattr(lease, "GIVE_UP_SECONDS", 0.3)
        held = Lease(memory.api, "flux-system", "secretweave", "a")
        assert held.acquire(stop)
        self.spec(memory)["leaseTransitions"] = "many"
        held.hold(stop, lost.set)
        assert lost.is_set()

    def test_who_finds_another_holder_stops_at_once(self, monkeypatch: pytest.MonkeyPatch):
        memory, stop, lost = Memory(), threading.Event(), threading.Event()
        monkeypatch.setattr(lease, "RETRY_SECONDS", 0.05)
        held = Lease(memory.api, "flux-system", "secretweave", "a")
        assert held.acquire(stop)
        self.spec(memory)["holderIdentity"] = "b"
        held.hold(stop, lost.set)
        assert lost.is_set()

    def test_a_refusal_is_told(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(lease, "RETRY_SECONDS", 0.01)
        monkeypatch.setattr(lease, "DENIED_SECONDS", 0.0)

        class Refusing(Memory):
            def get(self, *_: Any) -> dict[str, Any]:
                raise Denied("no")

        with pytest.raises(StoreError):
            Lease(Refusing().api, "flux-system", "secretweave", "a").acquire(threading.Event())

    def spec(self, memory: Memory) -> dict[str, Any]:
        found: dict[str, Any] = memory.objects["leases", "flux-system", "secretweave"]["spec"]
        return found


class TestPublished:
    @pytest.fixture
    def published(self, tmp_path: Path) -> Published:
        return Published(str(tmp_path / "data"), "http://secretweave.flux-system.svc/")

    @pytest.fixture
    def port(self, published: Published) -> Iterator[int]:
        serving = Serving("127.0.0.1:0", "flux.artifacts.address", published.answer)
        yield serving.port
        serving.end()

    def ask(self, port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def test_an_archive_is_served_by_its_exact_path(self, published: Published, port: int):
        data = b"archive" * 100_000
        digest = hashlib.sha256(data).hexdigest()
        found = published.put(WEB, data)
        assert found == (
            f"sha256:{digest}",
            f"http://secretweave.flux-system.svc/secretweave/shop/web/{digest}.tar.gz",
            f"secretweave/shop/web/{digest}.tar.gz",
            len(data),
        )
        assert found.revision == f"latest@sha256:{digest}"
        status, headers, body = self.ask(port, f"/{found.path}")
        assert (status, body) == (200, data)
        assert headers["Content-Length"] == str(len(data))
        assert headers["ETag"] == f'"{digest}"'
        assert self.ask(port, f"/{found.path}", "HEAD")[::2] == (200, b"")
        assert self.ask(port, f"/{found.path}", If_None_Match=headers["ETag"])[::2] == (304, b"")

    def test_nothing_else_is_served(self, published: Published, port: int, tmp_path: Path):
        found = published.put(WEB, b"x")
        (tmp_path / "data" / "shop" / "web" / ".unfinished-y").write_bytes(b"half")
        link = "f" * 64
        (tmp_path / "data" / "shop" / "web" / f"{link}.tar.gz").symlink_to("/etc/passwd")
        for path in (
            "/",
            "/secretweave/",
            "/secretweave/shop/web/",
            f"/secretweave/shop/api/{found.digest[7:]}.tar.gz",
            f"/secretweave/shop/../shop/web/{found.digest[7:]}.tar.gz",
            f"/secretweave/shop/%2e%2e/{found.digest[7:]}.tar.gz",
            f"/secretweave/shop/web/{link}.tar.gz",
            "/secretweave/shop/web/.unfinished-y",
        ):
            assert self.ask(port, path)[0] == 404, path
        assert self.ask(port, f"/{found.path}", "POST")[0] == 501
        assert self.ask(port, f"/{found.path}", "DELETE")[0] == 501

    def test_the_same_is_served_after_a_restart(self, published: Published, tmp_path: Path):
        found = published.put(WEB, b"x")
        again = Published(str(tmp_path / "data"), "http://secretweave.flux-system.svc")
        assert again.archive(WEB, found.digest) == found
        assert again.archive(API, found.digest) is None

    def test_what_was_replaced_stays_for_a_while(self, published: Published, tmp_path: Path):
        folder = tmp_path / "data" / "shop" / "web"
        first, second, third = (published.put(WEB, data) for data in (b"1", b"2", b"3"))

        def aged(**seconds: float) -> None:
            for name, found in (("first", first), ("second", second), ("third", third)):
                if name in seconds:
                    when = time.time() - seconds[name]
                    os.utime(folder / f"{found.digest[7:]}.tar.gz", (when, when))

        # After a start nobody knows since when.
        aged(first=300, second=300, third=300)
        published.tidy(WEB, third.digest)
        assert len(os.listdir(folder)) == 3
        # Replaced long ago, just now, and not at all.
        aged(first=KEPT_SECONDS + 30, second=KEPT_SECONDS - 30, third=300)
        published.tidy(WEB, third.digest)
        assert sorted(os.listdir(folder)) == sorted(f"{each.digest[7:]}.tar.gz" for each in (second, third))
        # However old it is, it is replaced when another takes its place.
        published.tidy(WEB, second.digest)
        assert published.archive(WEB, third.digest) == third
        aged(second=300, third=300)
        published.tidy(WEB, second.digest)
        assert os.listdir(folder) == [f"{second.digest[7:]}.tar.gz"]

    def test_with_a_full_volume_it_begins_and_serves_what_there_is(
        self, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        found = published.put(WEB, b"x")

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("builtins.open", full)
        again = Published(str(tmp_path / "data"), "http://secretweave.flux-system.svc")
        monkeypatch.undo()
        assert again.archive(WEB, found.digest) == found

    def test_what_is_there_is_not_written_again(self, published: Published, tmp_path: Path):
        found = published.put(WEB, b"1")
        published.tidy(WEB, found.digest)
        file = tmp_path / "data" / "shop" / "web" / f"{found.digest[7:]}.tar.gz"
        before = file.stat().st_ino, file.stat().st_mtime_ns
        assert published.put(WEB, b"1") == found
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
        # One that is damaged is mended.
        file.write_bytes(b"x")
        assert published.put(WEB, b"1") == found
        assert file.read_bytes() == b"1"

    @pytest.mark.parametrize("second", [b"new", b"newer"])
    def test_while_a_new_one_cannot_be_published_the_one_before_stays(
        self, published: Published, tmp_path: Path, second: bytes
    ):
        folder = tmp_path / "data" / "shop" / "web"
        good = published.put(WEB, b"good")
        published.tidy(WEB, good.digest)
        new = published.put(WEB, b"new")
        # Nothing points to it: the API server took no status.
        published.tidy(WEB, good.digest)
        now = time.time()
        for found, age in ((good, 300), (new, KEPT_SECONDS + 30)):
            os.utime(folder / f"{found.digest[7:]}.tar.gz", (now - age, now - age))
        newer = published.put(WEB, second)
        published.expire([WEB])
        assert published.archive(WEB, good.digest) == good
        assert published.archive(WEB, newer.digest) == newer
        # It is at last: who has read of the one before may still come for it.
        published.tidy(WEB, newer.digest)
        published.expire([WEB])
        assert published.archive(WEB, good.digest) == good

    def test_what_is_taken_up_again_is_not_removed_by_who_collects_the_replaced(
        self, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        folder = tmp_path / "data" / "shop" / "web"
        first, second = published.put(WEB, b"1"), published.put(WEB, b"2")
        published.tidy(WEB, second.digest)
        for each in (first, second):
            os.utime(folder / f"{each.digest[7:]}.tar.gz", (0, 0))
        reached, unlink = threading.Event(), os.unlink

        def slow(path: str) -> None:
            reached.set()
            time.sleep(0.3)
            unlink(path)

        monkeypatch.setattr(os, "unlink", slow)
        collecting = threading.Thread(target=published.expire, args=([WEB],))
        collecting.start()
        assert reached.wait(5)
        assert published.put(WEB, b"1") == first
        collecting.join(5)
        assert published.archive(WEB, first.digest) == first

    def test_what_an_object_takes_up_that_was_made_again_is_not_swept_with_what_was_before(
        self, published: Published, tmp_path: Path
    ):
        found = published.put(WEB, b"1")
        os.utime(tmp_path / "data" / "shop" / "web" / f"{found.digest[7:]}.tar.gz", (0, 0))
        again = Published(str(tmp_path / "data"), "http://secretweave.flux-system.svc")
        # Listed before the object was there.
        again.put(WEB, b"1")
        again.expire([])
        again.sweep([])
        assert again.archive(WEB, found.digest) == found

    @pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../api/{}", "../api/{}", "{}\n"])
    def test_a_digest_leads_nowhere_else(self, published: Published, digest: str):
        other = published.put(API, b"y")
        published.put(WEB, b"x")
        assert published.archive(WEB, digest.format(other.digest[7:])) is None

    def test_what_belongs_to_nobody_and_what_a_crash_left_is_swept(self, published: Published, tmp_path: Path):
        found, other = published.put(WEB, b"x"), published.put(API, b"y")
        left = tmp_path / "data" / "shop" / "web" / ".unfinished-z"
        left.write_bytes(b"half")
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file():
                os.utime(path, (0, 0))
        published.sweep([WEB])
        assert published.archive(WEB, found.digest) == found
        assert published.archive(API, other.digest) is None
        assert not left.exists()
        assert not (tmp_path / "data" / "shop" / "api").exists()

    def test_a_volume_without_room_is_told_and_nothing_is_seen(self, published: Published, tmp_path: Path):
        (tmp_path / "data" / "shop").mkdir()
        (tmp_path / "data" / "shop" / "web").write_text("in the way")
        with pytest.raises(Exception, match="cannot be written to the controller's volume"):
            published.put(WEB, b"x")

    def test_who_dawdles_is_cut_off_and_others_are_served(
        self, published: Published, port: int, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(serving, "HEADER_SECONDS", 0.5)
        found = published.put(WEB, b"x")
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"GET /")
        assert self.ask(port, f"/{found.path}")[0] == 200
        slow.settimeout(5)
        begun = time.monotonic()
        assert slow.recv(100) == b""
        assert time.monotonic() - begun < 4
        slow.close()

    def test_who_asks_nothing_makes_room_for_who_does(self, port: int):
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * serving.CONNECTIONS_MAX)]
        for _ in range(20):
            assert self.ask(port, "/")[0] == 404
        # The oldest went first.
        held[0].settimeout(5)
        assert held[0].recv(100) == b""
        held[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        held[-1].settimeout(5)
        assert held[-1].recv(100).startswith(b"HTTP/1.0 404 ")
        for each in held:
            each.close()

    def test_no_more_than_so_many_are_served(self, port: int, published: Published):
        found = published.put(WEB, os.urandom(16 << 20))
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(serving.CONNECTIONS_MAX)]
        for each in held:
            each.sendall(f"GET /{found.path} HTTP/1.0\r\n\r\n".encode())
            each.settimeout(10)
            assert each.recv(100).startswith(b"HTTP/1.0 200 ")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            self.ask(port, "/")
        for each in held:
            each.close()

        def answers() -> bool:
            try:
                return self.ask(port, "/")[0] == 404
            except (ConnectionError, http.client.HTTPException):
                return False

        until(answers)

    @pytest.mark.parametrize("address", ["9790", ":http", "localhost:99999"])
    def test_what_is_no_address(self, address: str):
        with pytest.raises(ConfigError):
            serving.parsed(address, "flux.health")


def test_a_log_line_has_the_identity_and_no_value():
    lines: list[str] = []
    watch = Watch(lines.append, Metrics())
    watch.opened("shop:reader", "vault", "vault", None)
    assert {key: value for key, value in json.loads(lines[0]).items() if key != "time"} == {
        "event": "open",
        "namespace": "shop",
        "account": "reader",
        "store": "vault",
        "outcome": "ok",
    }
    assert b'secretweave_store_opens_total{outcome="ok",store="vault"} 1.0' in watch.metrics.text()
