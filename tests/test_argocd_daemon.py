"""The daemon through its socket, in a process of its own: the same bytes as without it, and what it survives."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from secretweave import __version__
from secretweave.argocd.app import App
from secretweave.argocd.daemon import client, wire
from secretweave.argocd.daemon.serve import _Room
from secretweave.errors import ConfigError, InputError, SecretweaveError
from tests.conftest import GOLDEN, Command
from tests.servers.daemon import Daemon, daemon

APP = App("web", "shop", "default", "", "1.31", ("v1", "apps/v1"))
STREAM = b"apiVersion: v1\nkind: Secret\nmetadata:\n  name: web\nstringData:\n  token: secret://shop/app/token\n"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SETTINGS = "---\napiVersion: secretweave.dev/v1alpha1\nkind: Configuration\nspec:\n"


def configure(folder: Path) -> Path:
    """A configuration with the golden cases' secrets."""
    for name, mode in (("config.yaml", 0o644), ("secrets.yaml", 0o600), ("second.json", 0o600)):
        (folder / name).write_bytes((GOLDEN / name).read_bytes())
        (folder / name).chmod(mode)
    return folder / "config.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The test's own."""
    return configure(tmp_path)


@pytest.fixture
def running(tmp_path: Path, config: Path) -> Iterator[Daemon]:
    with daemon(tmp_path, config) as found:
        yield found


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all that it refuses, so that each refusal is survived too."""
    folder = tmp_path_factory.mktemp("lasting")
    with daemon(folder, configure(folder)) as found:
        yield found


def large(megabytes: int) -> bytes:
    line = b"# " + b"x" * 1000 + b"\n"
    document = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\n" + line * 1000
    return STREAM + (b"---\n" + document) * megabytes


def woven(daemon: Daemon, stream: bytes, app: App = APP) -> bytes:
    out, found = BytesIO(), daemon.client()
    found.begin(app)
    found.weave([("stdin", BytesIO(stream))], out, pytest.fail)
    return out.getvalue()


def settled(daemon: Daemon, event: str, count: int = 1) -> list[dict[str, object]]:
    """The log's lines of one event, once there are so many."""
    ends = time.monotonic() + 20
    while len(found := daemon.events(event)) < count:
        assert time.monotonic() < ends, daemon.log.read_text()
        time.sleep(0.02)
    return found


@pytest.mark.once
def test_every_golden_case_is_the_same_as_without_it(tmp_path: Path, config: Path, running: Daemon, forked: Command):
    """One daemon, whose configuration is another one for each case."""
    plain = config.read_bytes()
    differing = []
    for case in CASES:
        own = GOLDEN / case / "config.yaml"
        text = plain + (b"---\n" + own.read_bytes() if own.exists() else b"")
        (tmp_path / "next.yaml").write_bytes(text)
        (tmp_path / "next.yaml").replace(config)
        stream = (GOLDEN / case / "input.yaml").read_bytes()
        alone = forked("--config", config, "--namespace", "default", "--identity", "shop", stdin=stream)
        with_it = running.ask(stream)
        same = (alone.returncode, alone.stdout, alone.stderr) == (with_it.returncode, with_it.stdout, with_it.stderr)
        differing += [] if same else [(case, alone.stderr, with_it.stderr)]
    assert differing == []


def test_terms_are_what_the_configuration_says(tmp_path: Path, config: Path):
    with config.open("a") as file:
        file.write(f"{SETTINGS}  limits: {{deadline: 7s}}\n  argocd: {{helm: {{repositoryHosts: [charts.example]}}}}\n")
    with daemon(tmp_path, config) as running:
        terms = running.client().begin(APP)
    assert terms.seconds == 7.0
    assert terms.settings.helm.repository_hosts == ("charts.example",)
    assert terms.settings.daemon.concurrency == 16


def test_several_sources_are_one_stream(running: Daemon):
    out, found = BytesIO(), running.client()
    found.begin(APP)
    second = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"
    references = found.weave(
        [("a.yaml", BytesIO(STREAM)), ("empty.yaml", BytesIO()), ("b.yaml", BytesIO(second))], out, pytest.fail
    )
    assert references == 1
    assert out.getvalue().endswith(b"\n---\n" + second)
    assert b"secret://" not in out.getvalue()


def test_a_stream_of_many_megabytes(running: Daemon):
    stream = large(40)
    got = woven(running, stream)
    assert len(stream) > 40_000_000
    assert got.endswith(stream[len(STREAM) :])


def test_what_a_source_raises_is_raised_and_ends_the_request(running: Daemon):
    class Failing:
        def read(self, _size: int) -> bytes:
            raise InputError("helm failed")

    out, found = BytesIO(), running.client()
    found.begin(APP)
    with pytest.raises(InputError, match="helm failed"):
        found.weave([("helm", BytesIO(STREAM)), ("more", Failing())], out, pytest.fail)
    assert out.getvalue() == b""
    assert settled(running, "request") == [
        {"event": "request", "project": "shop", "app": "web", "outcome": "gone", "references": 0}
    ]


def test_an_early_fault_is_told_while_the_client_still_sends(running: Daemon):
    """The daemon closes at the first fault; the client, in the midst of its stream, neither hangs nor misses it."""
    channel = begun(running)

    def heed() -> None:
        said = channel.receive()
        assert said.kind == wire.FAULT
        raise wire.fault_of(said.payload)

    with pytest.raises(SecretweaveError, match="is not what secretweave says there"):
        send_for_ever(channel, heed)


def send_for_ever(channel: wire.Channel, heed: Callable[[], None]) -> None:
    """Data without a source, which the daemon does not take."""
    for _ in range(10_000):
        channel.send(wire.DATA, b"x" * wire.PIECE, heed=heed)


def test_reads_are_told_in_the_log(running: Daemon):
    missing = b"  none: secret://shop/nowhere\n"
    assert running.ask(STREAM + missing).returncode == 6
    told = {"event": "read", "project": "shop", "app": "web", "store": "shop", "version": ""}
    assert running.events("read") == [
        told | {"ref": "app/token", "outcome": "ok"},
        told | {"ref": "nowhere", "outcome": "not found"},
    ]
    assert [line["outcome"] for line in settled(running, "request")] == ["store"]


def test_many_at_once(running: Daemon):
    alone = woven(running, STREAM)
    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(lambda _: woven(running, STREAM), range(200))) == {alone}


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100_000,
        b"\x01\x7f\xff\xff\xff",
        b"\x01\x00\x00\x00\x03",
        b"\x01\x00\x00\x00\x04nope",
        b"\x01\x00\x00\x00\x02[]",
        b"\x04\x00\x00\x00\x01x",
        bytes(range(256)) * 16,
    ],
    ids=lambda said: f"{said[:8]!r}",
)
def test_garbage_is_refused_and_survived(said: bytes, lasting: Daemon):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(lasting.path)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        answer = connection.recv(1 << 16)
    if answer:
        kind, length = wire.HEAD.unpack_from(answer)
        assert (kind, length) == (wire.FAULT, len(answer) - wire.HEAD.size)
        wire.fault_of(answer[wire.HEAD.size :])
    client.ping(lasting.path)
    assert lasting.events("crash") == []


@pytest.mark.parametrize(
    "app",
    [
        None,
        [],
        {},
        {"name": "web"},
        dict(zip(APP._fields, APP._replace(project="../other"), strict=True)),
        dict(zip(APP._fields, APP._replace(project=""), strict=True)),
        dict(zip(APP._fields, APP._replace(namespace="UP"), strict=True)),
        dict(zip(APP._fields, APP._replace(kube_version=1), strict=True)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_an_application_that_is_none_is_refused(app: object, lasting: Daemon):
    answer = raw(lasting, {"version": __version__, "do": "weave", "app": app, "spent": 0.0})
    assert answer.kind == wire.FAULT
    assert "is not what secretweave says there" in wire.fault_of(answer.payload).what


def raw(running: Daemon, hello: object) -> wire.Message:
    channel = said(running, hello)
    answer = channel.receive()
    channel.close()
    return answer


def said(running: Daemon, hello: object) -> wire.Channel:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(running.path)
    channel = wire.Channel(connection, time.monotonic() + 10)
    channel.send(wire.HELLO, wire.packed(hello))
    return channel


def begun(running: Daemon, spent: float = 0.0) -> wire.Channel:
    """A request whose stream the test sends by itself."""
    app = dict(zip(APP._fields, APP, strict=True))
    channel = said(running, {"version": __version__, "do": "weave", "app": app, "spent": spent})
    assert channel.receive().kind == wire.TERMS
    return channel


def test_another_version_is_refused(running: Daemon):
    answer = raw(running, {"version": "0.0.1", "something": "new"})
    fault = wire.fault_of(answer.payload)
    assert isinstance(fault, ConfigError)
    assert fault.what == (
        f"this is secretweave {__version__}, but what is at the other end of the daemon's socket is 0.0.1"
    )


CRASHING = """
import sys
from secretweave.argocd import weaving
whole = weaving.weave
def weave(app, *rest):
    if app.project == "crash":
        raise KeyError("hunter2")
    if app.project == "end":
        sys.exit("hunter2")
    return whole(app, *rest)
weaving.weave = weave
sys.argv = ["secretweave", "argocd", "serve"]
from secretweave.__main__ import main
main()
"""


@pytest.mark.parametrize(("project", "name"), [("crash", "KeyError"), ("end", "SystemExit")])
def test_a_defect_ends_its_own_request_alone(project: str, name: str, tmp_path: Path, config: Path):
    with daemon(tmp_path, config, command=(sys.executable, "-c", CRASHING)) as running:
        done = running.ask(STREAM, project)
        assert (done.returncode, done.stdout) == (70, b"")
        assert f"internal error of the daemon ({name})".encode() in done.stderr
        assert woven(running, STREAM)
        (crash,) = settled(running, "crash")
        assert str(crash["frames"]).startswith(f"['builtins.{name}', ")
        assert "hunter2" not in running.log.read_text()


def test_a_slow_sender_ends_with_the_deadline(tmp_path: Path, config: Path):
    with config.open("a") as file:
        file.write(SETTINGS + "  limits: {deadline: 1s}\n  argocd: {daemon: {concurrency: 1}}\n")
    with daemon(tmp_path, config) as running:
        channel = begun(running, spent=0.5)
        channel.send(wire.SOURCE, wire.packed({"name": "stdin"}))
        since = time.monotonic()
        answer = channel.receive()
        assert time.monotonic() - since < 2
        fault = wire.fault_of(answer.payload)
        assert isinstance(fault, InputError)
        assert fault.what == "the input had not ended when the run's deadline of 1 s was over"
        # Its room is free again.
        assert woven(running, STREAM)


def test_who_waits_for_its_source_takes_no_room(tmp_path: Path, config: Path):
    with config.open("a") as file:
        file.write(SETTINGS + "  argocd: {daemon: {concurrency: 1}}\n")
    with daemon(tmp_path, config) as running:
        waiting = [running.client() for _ in range(20)]
        for each in waiting:
            each.begin(APP)
        assert woven(running, STREAM)


def test_a_source_that_is_slow_takes_no_room(tmp_path: Path, config: Path):
    ended = threading.Event()

    class Slow(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            ended.wait(30)
            return super().read(size)

    with config.open("a") as file:
        file.write(SETTINGS + "  argocd: {daemon: {concurrency: 1}}\n")
    with daemon(tmp_path, config) as running, ThreadPoolExecutor(1) as pool:
        slow = running.client()
        slow.begin(APP)
        out = BytesIO()
        waiting = pool.submit(slow.weave, [("stdin", Slow(STREAM))], out, pytest.fail)
        begun = time.monotonic()
        assert woven(running, STREAM)
        assert time.monotonic() - begun < 10
        ended.set()
        waiting.result()
        assert out.getvalue() == woven(running, STREAM)


def test_one_project_never_has_all_places():
    room = _Room(4)
    assert [room.enter("a", 0) for _ in range(4)] == [True, True, True, False]
    assert [room.enter("b", 0) for _ in range(2)] == [True, False]
    room.leave("a")
    assert room.enter("b", 0)


def test_a_client_that_dies_frees_its_room(tmp_path: Path, config: Path):
    with config.open("a") as file:
        file.write(SETTINGS + "  argocd: {daemon: {concurrency: 1}}\n")
    with daemon(tmp_path, config) as running:
        for _ in range(3):
            channel = begun(running)
            channel.send(wire.SOURCE, wire.packed({"name": "stdin"}))
            channel.send(wire.DATA, STREAM)
            channel.close()
        assert woven(running, STREAM)
        assert [line["outcome"] for line in settled(running, "request", 4)].count("gone") == 3


def test_a_changed_configuration_holds_for_the_next_request(config: Path, running: Daemon):
    whole = config.read_text()
    assert woven(running, STREAM)
    config.write_text(whole.replace("secrets.yaml", "second.json", 1))
    assert running.ask(STREAM).returncode == 6
    config.write_text(whole + "---\nkind: Nonsense\n")
    broken = running.ask(STREAM)
    assert (broken.returncode, broken.stdout) == (2, b"")
    assert b"a configuration holds no document of this kind" in broken.stderr
    with pytest.raises(ConfigError):
        client.ping(running.path)
    config.write_text(whole)
    assert woven(running, STREAM)
    client.ping(running.path)


def test_a_configuration_that_is_broken_from_the_start_is_told_to_each_until_it_is_mended(tmp_path: Path, config: Path):
    whole = config.read_text()
    config.write_text("kind: Nonsense\n")
    with daemon(tmp_path, config) as running:
        done = running.ask(STREAM)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"a configuration holds no document of this kind" in done.stderr
        assert [line["event"] for line in running.events()][:2] == ["configuration broken", "start"]
        config.write_text(whole)
        assert running.ask(STREAM).returncode == 0


def test_the_socket_is_for_its_own_user(running: Daemon):
    assert os.stat(running.path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(running.path)).st_mode & 0o777 == 0o700


STRANGER = """
import os, socket, sys
folder = os.path.dirname(sys.argv[1])
here = os.open(folder, os.O_PATH)
os.setresuid(65534, 65534, 65534)
with socket.socket(socket.AF_UNIX) as connection:
    try:
        connection.connect(f"/proc/self/fd/{here}/socket")
    except PermissionError:
        sys.exit("no access")
    print(connection.recv(9000)[5:].decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_refused(mode: int, running: Daemon):
    """By the socket's mode; and where somebody has loosened that, by what the kernel says of who asks."""
    os.chmod(running.path, mode)
    os.chmod(os.path.dirname(running.path), 0o755 if mode == 0o666 else 0o700)
    for folder in Path(running.path).parents[1:]:
        if mode == 0o666 and folder.stat().st_uid == 0 and folder.name.startswith(("test_", "pytest-")):
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, running.path], capture_output=True, text=True, check=False, timeout=30
    )
    if mode == 0o600:
        assert "no access" in done.stderr
    else:
        assert "the daemon serves its own user alone" in done.stdout
        assert running.events("refused") == [{"event": "refused", "uid": 65534}]


def test_nobody_listens(tmp_path: Path):
    assert client.connect(str(tmp_path / "none"), time.monotonic()) is None
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    assert client.connect(str(tmp_path / "stale"), time.monotonic()) is None
    with pytest.raises(SecretweaveError, match="no daemon listens at the socket"):
        client.ping(str(tmp_path / "stale"))


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path, config: Path):
    with daemon(tmp_path, config) as first:
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        assert os.path.exists(first.path)
        with daemon(tmp_path, config) as second:
            assert woven(second, STREAM)
            done = subprocess.run(
                second.process.args,
                env={"SECRETWEAVE_CONFIG": str(config), "SECRETWEAVE_SOCKET": second.path},
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
            )
            assert done.returncode == 2
            assert "another daemon listens at the socket" in done.stderr
            assert woven(second, STREAM)


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, config: Path):
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon").chmod(0o777)
    with (
        pytest.raises(AssertionError, match="the folder of the daemon's socket is not this user's alone"),
        daemon(tmp_path, config),
    ):
        pass


def test_kill_in_the_midst_is_a_failure(running: Daemon):
    """Not one byte, and no success: whether the daemon dies before the stream has ended, or within the output."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT_OF_A_SLOW_SOURCE, running.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"begun\n"
    running.end(signal.SIGKILL)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, b"")
    assert b"the daemon ended in the midst of it" in errors


CLIENT_OF_A_SLOW_SOURCE = """
import sys, time
from secretweave import cli, options
from secretweave.argocd.daemon import client
from secretweave.argocd.app import App
class Slow:
    left = 1000
    def read(self, size):
        time.sleep(0.01)
        self.left -= 1
        return b"# more\\n" * 1000 if self.left else b""
def work(request, load):
    daemon = client.connect(sys.argv[1], time.monotonic())
    daemon.begin(App("web", "shop", "default", "", "", ()))
    print("begun", file=sys.stderr, flush=True)
    daemon.weave([("stdin", Slow())], sys.stdout.buffer, cli.warn)
sys.exit(cli.run(options.Request("generate", ()), work))
"""


def test_kill_within_the_output_is_a_failure(running: Daemon):
    class Blocked:
        """Takes nothing more once the daemon is to die."""

        size = 0

        def write(self, data: bytes) -> int:
            if not self.size:
                running.end(signal.SIGKILL)
            self.size += len(data)
            return len(data)

    stream, out, found = large(40), Blocked(), running.client()
    found.begin(APP)
    with pytest.raises(SecretweaveError, match="the daemon ended in the midst of it"):
        found.weave([("stdin", BytesIO(stream))], out, pytest.fail)  # type: ignore[arg-type]  # enough of a file
    assert 0 < out.size < len(stream)


def test_sigterm_serves_what_it_has_begun_and_exits_well(running: Daemon):
    found, out = running.client(), BytesIO()
    found.begin(APP)
    running.process.send_signal(signal.SIGTERM)
    ends = time.monotonic() + 10
    while os.path.exists(running.path):
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert client.connect(running.path, time.monotonic()) is None
    assert running.process.poll() is None
    found.weave([("stdin", BytesIO(STREAM))], out, pytest.fail)
    assert out.getvalue()
    assert running.process.wait(10) == 0
    events = [line["event"] for line in running.events()]
    assert events == ["start", "stop", "read", "request", "end"]


def test_sigterm_waits_no_longer_than_it_may(tmp_path: Path, config: Path):
    with config.open("a") as file:
        file.write(SETTINGS + "  argocd: {daemon: {drain: 1s}}\n")
    with daemon(tmp_path, config) as running:
        found = running.client()
        found.begin(APP)
        begun = time.monotonic()
        assert running.end() == 0
        assert 0.9 < time.monotonic() - begun < 5


def test_metrics_and_health(tmp_path: Path, config: Path):
    pytest.importorskip("prometheus_client")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with config.open("a") as file:
        file.write(f'{SETTINGS}  argocd: {{daemon: {{metrics: "127.0.0.1:{port}"}}}}\n')
    whole = config.read_text()
    with daemon(tmp_path, config) as running:
        woven(running, STREAM)
        running.ask(STREAM + b"  none: secret://shop/nowhere\n")
        settled(running, "request", 2)
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/nowhere")[0] == 404
        status, text = get(port, "/metrics")
        lines = text.splitlines()
        assert status == 200
        for line in (
            'secretweave_requests_total{outcome="ok"} 1.0',
            'secretweave_requests_total{outcome="store"} 1.0',
            "secretweave_request_seconds_count 2.0",
            "secretweave_requests_in_flight 0.0",
            'secretweave_reads_total{outcome="ok",store="shop"} 2.0',
            'secretweave_reads_total{outcome="not found",store="shop"} 1.0',
        ):
            assert line in lines
        assert "web" not in text
        config.write_text("kind: Nonsense\n")
        assert get(port, "/healthz") == (503, "the configuration is broken: see the log, or `secretweave check`\n")
        config.write_text(whole)
        assert get(port, "/healthz")[0] == 200


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.once
def test_memory_stays_bounded_while_huge_streams_pass(tmp_path: Path, config: Path):
    """What goes beyond the spool's memory lies encrypted on disk; 8 x 40 MB at once are not 320 MB."""
    with config.open("a") as file:
        file.write(SETTINGS + "  limits: {spoolMemory: 1MiB}\n")
    with daemon(tmp_path, config) as running:
        stream = large(40)
        threads = [threading.Thread(target=woven, args=(running, stream)) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        assert peak < 200_000, f"{peak} kB"


def test_the_size_of_what_the_kernel_tells_of_a_peer():
    assert struct.calcsize("3i") == wire.CREDENTIALS.size == 12
