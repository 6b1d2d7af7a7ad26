"""`make bench`, third part: a plain app with one reference, by the real argocd-cmp-server as Argo CD asks it.

secretweave alone, secretweave with its daemon, and argocd-vault-plugin, each as the plugin of a server of its own, read
the same real Vault over TLS, whose answers wait a little; all log in by the same AppRole. One app at a time, then 50
Applications at once, each with a secret of its own. argocd-vault-plugin has no `init`: what is compared with it is the
shipped plugin without that; what it costs, the rows with it tell. The figures join the other parts' in bench.json.
"""

import compileall
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from tests.bench.run import ROOT, Target, told
from tests.hosts.argocd import Caller, Repository, cmp_server, environment
from tests.hosts.build import path_of
from tests.hosts.vault import AppRole, VaultServer, vault
from tests.servers.daemon import daemon

PLUGIN = """apiVersion: argoproj.io/v1alpha1
kind: ConfigManagementPlugin
metadata: {{name: {name}}}
spec: {{generate: {{command: [{command}]}}}}
"""
SET_UPS = ("secretweave", "secretweave, daemon", "secretweave, daemon, init", "argocd-vault-plugin")
SYNTAX = {
    "secretweave": "secret://bench/app-{}#password",
    "argocd-vault-plugin": "<path:secret/data/app-{}#password>",
}
APPS = 50
ALONE_RUNS = 30
LATENCIES = (0, 20)
"""Milliseconds."""
SAMPLE_SECONDS = 0.02
POLICY = 'path "secret/data/*" { capabilities = ["read"] }'
CONFIG = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: bench}}
spec:
  vault:
    url: {url}
    path: secret
    auth: {{appRole: {{roleID: {role}, secretIDSecretRef: {{name: bench, key: secret-id}}}}}}
    tls: {{caFile: {ca}}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec: {{credentials: {{from: environment}}, limits: {{deadline: 5m, request: 5m}}}}
"""
"""Alone, so many at once on a small machine take longer than the usual limits: that is to be seen, not a failure."""
SECRET = """apiVersion: v1
kind: Secret
metadata: {{name: db}}
stringData: {{password: "{}"}}
"""


class Row(NamedTuple):
    """What one set-up needed."""

    latency: int
    set_up: str
    one: float
    """Seconds for one app, the median of the runs."""
    p50: float
    """Of the apps that were asked for at once, like the next one."""
    p99: float
    wall: float
    """Seconds for all of them."""
    rss: float
    """MiB, the most that all processes together had then, the server's own not counted."""
    requests: int
    """For all of them, like the next one; those of one app went before."""
    logins: int


def app(set_up: str, number: int) -> Repository:
    return {"secret.yaml": SECRET.format(SYNTAX[set_up.partition(",")[0]].format(number))}


def generate(caller: Caller, set_up: str, number: int) -> float:
    """Seconds. Exits where the manifest is not the right one."""
    begun = time.perf_counter()
    (found,) = caller.generate(app(set_up, number), environment(app=f"app-{number}"))
    seconds = time.perf_counter() - begun
    if json.loads(found)["stringData"]["password"] != f"value of app-{number}":
        raise SystemExit(f"{set_up} gave another manifest for app-{number}")
    return seconds


class Memory:
    """The most that the descendants of some processes, and those that are named, have had together; in MiB."""

    def __init__(self, roots: set[int], besides: set[int]) -> None:
        self.peak = 0.0
        self._roots = roots
        self._besides = besides
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self._now())

    def _now(self) -> float:
        parents, pages = {}, {}
        for name in filter(str.isdecimal, os.listdir("/proc")):
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)], pages[int(name)] = int(fields[1]), int(fields[21])
        mine = set(self._roots)
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        return sum(pages.get(pid, 0) for pid in mine - self._roots | self._besides) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def running(set_up: str, folder: Path, server: VaultServer, role: AppRole) -> Iterator[tuple[Caller, Memory]]:
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(url=server.address, role=role.role_id, ca=server.ca))
    ours = {"SECRETWEAVE_CONFIG": str(config), "SECRETWEAVE_CREDENTIAL_BENCH_SECRET_ID": role.secret_id}
    peers = {
        "VAULT_ADDR": server.address,
        "VAULT_CACERT": str(server.ca),
        "AVP_TYPE": "vault",
        "AVP_KV_VERSION": "2",
        "AVP_AUTH_TYPE": "approle",
        "AVP_ROLE_ID": role.role_id,
        "AVP_SECRET_ID": role.secret_id,
    }
    with ExitStack() as stack:
        besides = set()
        ours["SECRETWEAVE_SOCKET"] = str(folder / "daemon" / "socket")
        if "daemon" in set_up:
            besides.add(stack.enter_context(daemon(folder, config, ours)).process.pid)
        if set_up == "argocd-vault-plugin":
            text = PLUGIN.format(name="avp", command=f"{path_of('argocd-vault-plugin')}, generate, .")
        elif "init" in set_up:
            text = (ROOT / "argocd" / "plugin.yaml").read_text()
        else:
            text = PLUGIN.format(name="secretweave", command="secretweave, argocd, generate")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        found = stack.enter_context(cmp_server(folder / "cmp", text, **(ours | peers | {"PATH": path})))
        # argocd-vault-plugin would keep its token from app to app in a folder of this name.
        (folder / "cmp" / "home" / ".avp").touch()
        yield stack.enter_context(found.caller()), Memory({found.pid}, besides)


def measure(server: VaultServer, folder: Path, role: AppRole) -> Iterator[Row]:
    for latency in LATENCIES:
        for set_up in SET_UPS:
            if set_up == "argocd-vault-plugin" and not path_of(set_up).exists():
                continue
            server.latency(0)
            with running(set_up, folder / f"{SET_UPS.index(set_up)}-{latency}", server, role) as (caller, memory):
                server.latency(latency)
                generate(caller, set_up, 0)
                one = statistics.median(generate(caller, set_up, 0) for _ in range(ALONE_RUNS))
                server.reset()
                begun = time.perf_counter()
                with memory, ThreadPoolExecutor(APPS) as pool:
                    seconds = sorted(pool.map(partial(generate, caller, set_up), range(APPS)))
                wall = time.perf_counter() - begun
                stats = server.stats()
            p99 = seconds[-(-99 * APPS // 100) - 1]
            yield Row(
                latency, set_up, one, statistics.median(seconds), p99, wall, memory.peak, stats.requests, stats.logins
            )


def table(rows: list[Row]) -> None:
    print(f"\nargocd: a plain app by the real argocd-cmp-server, and {APPS} at once")
    heads = "".join(f"{head:>10}" for head in ("one app", "p50", "p99", "all", "RSS", "requests", "logins"))
    print(f"  {'latency, set-up':30}{heads}")
    for it in rows:
        times = "".join(f"{seconds * 1000:>7.0f} ms" for seconds in (it.one, it.p50, it.p99, it.wall))
        print(f"  {f'{it.latency:>2} ms  {it.set_up}':30}{times}{it.rss:>6.0f} MiB{it.requests:>10}{it.logins:>10}")


def targets(rows: list[Row]) -> Iterator[Target]:
    for latency in LATENCIES:
        found = {it.set_up: it for it in rows if it.latency == latency}
        ours = found["secretweave, daemon"]
        # The first app has logged in, before the count: one login for the role, ever.
        yield Target(f"daemon at {latency} ms: logins for {APPS} apps after the first", ours.logins, 0, at_least=False)
        peer = found.get("argocd-vault-plugin")
        if peer is not None:
            text = f"one app at {latency} ms, daemon: times faster than argocd-vault-plugin"
            yield Target(text, peer.one / ours.one, 1, at_least=True)


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    missing = [name for name in ("vault", "argocd-cmp-server") if not path_of(name).exists()]
    if missing:
        print(f"\nArgo CD is not measured: {' and '.join(missing)} not built (make test-hosts builds them)")
        return
    compileall.compile_dir(ROOT / "plugin" / "secretweave", quiet=1)
    with tempfile.TemporaryDirectory() as name, vault(Path(name)) as server:
        server.mount("secret", version="2")
        server.enable_auth("approle")
        server.policy("bench", POLICY)
        for number in range(APPS):
            server.put("secret", f"app-{number}", {"password": f"value of app-{number}"})
        rows = list(measure(server, Path(name), server.create_approle("bench", ["bench"])))
    table(rows)
    figures = ROOT / "bench.json"
    document = json.loads(figures.read_text()) if figures.exists() else {}
    document["argocd"] = {"rows": [row._asdict() for row in rows], "targets": told(list(targets(rows)))}
    figures.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
