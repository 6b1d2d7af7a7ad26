"""Each store meets each fault of the table, through the real command.

Those whose servers are programs that must be built first: tests/hosts/test_faults_hosts.py.
"""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from secretweave.errors import StoreError
from tests.faults import adapters
from tests.faults.running import GOOD, Adapter, deny_one, interrupt, judge, meet, no_secret, together
from tests.faults.table import PROMISES, REFS, REQUEST, STARTING, STOPPING, Promise
from tests.servers.certificates import Authority
from tests.servers.proxy import Rule

Start = Callable[[str], Adapter]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Start]:
    """Gives a store with its server, which stays up for the others that want it."""
    started: dict[str, Adapter] = {}
    with ExitStack() as servers:

        def adapter(name: str) -> Adapter:
            if name not in started:
                one = adapters.STANDING[name](tmp_path_factory.mktemp(name), authority)
                started[name] = servers.enter_context(one)
            return started[name]

        yield adapter


@pytest.fixture(params=adapters.STANDING)
def adapter(request: pytest.FixtureRequest, start: Start) -> Adapter:
    return start(request.param)


@pytest.mark.parametrize("promise", PROMISES, ids=[promise.id for promise in PROMISES])
def test_a_fault_ends_as_promised(adapter: Adapter, promise: Promise, tmp_path: Path, authority: Authority):
    judge(meet(adapter, promise, tmp_path, authority), promise, adapter)


def test_one_denied_and_one_absent_secret_are_told_together(adapter: Adapter, tmp_path: Path, authority: Authority):
    deny_one(adapter, tmp_path, authority)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_a_run_that_waits_for_a_store_at_once(
    adapter: Adapter, tmp_path: Path, authority: Authority, number: signal.Signals, code: int
):
    ended, seconds = interrupt(adapter, tmp_path, authority, number)
    assert ended == code
    assert seconds < STOPPING


def test_all_that_fails_in_several_stores_is_told_in_one_report(start: Start, tmp_path: Path, authority: Authority):
    stores = [
        (start("awssm"), Promise("nothing listens", front="closed")),
        (start("gcpsm"), Promise("503 always", lambda store: [Rule(store.says("away"))])),
        (start("azurekv"), Promise("one is denied", lambda _: start("azurekv").denying(3))),
        (start("awsssm"), GOOD),
    ]
    ran = together(stores, tmp_path, authority, {"absent": f"s3/{start('awsssm').ref(REFS)}"})
    assert ran.code == StoreError.exit_code
    for adapter, _ in stores:
        no_secret(ran, adapter, ran.err)
    assert ran.seconds <= REQUEST + STARTING
    assert [what.split(": ")[0] for what in re.findall(r"what: +(.*)", ran.err)] == [
        "the store `s0`",
        "the store `s1`",
        f"s2:{start('azurekv').ref(3)}",
        f"s3:{start('awsssm').ref(REFS)}",
    ], ran.err


@pytest.mark.parametrize("_time", range(3))
def test_the_stores_of_one_run_do_not_disturb_one_another(
    start: Start, tmp_path: Path, authority: Authority, _time: int
):
    """Their SDKs share packages, and are imported by threads: how these meet is another each time."""
    ran = together([(start(name), GOOD) for name in adapters.STANDING], tmp_path, authority)
    assert (ran.code, ran.err) == (0, ""), ran.err
