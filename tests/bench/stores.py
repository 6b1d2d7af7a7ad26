"""`make bench`, second part: a store behind a network. secretweave and the peers on the same real Vault, over TLS.

All read the same secrets with the same token, or log in by the same AppRole. The Vault's answers wait for a while, as
those of a Vault elsewhere do, and it counts what it is asked. The figures join those of the first part in bench.json.
vals leaves the certificate of 127.0.0.1 unverified. It connects, and logs in, anew for every document: one that holds
all the references would cost it about as much as argocd-vault-plugin.
"""

import compileall
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.run import COMMANDS, PEER_RUNS_MAX, PEERS, ROOT, Target, measure, told
from tests.bench.streams import STREAMS, Stream, write
from tests.hosts.build import path_of
from tests.hosts.vault import VaultServer, vault


def each_its_own(paths: int, runs: int) -> Stream:
    title = f"{paths:,} Secret{'s, each with' if paths > 1 else ','} a reference to a path of its own"
    return Stream(f"paths-{paths}", title, 0, 0, paths, paths, runs, peers=True)


TYPICAL = next(stream for stream in STREAMS if stream.name == "typical")
MANY = each_its_own(200, 7)
JOBS = (each_its_own(1, 11), MANY, each_its_own(1000, 5), TYPICAL)
LATENCIES = (0, 20)
"""Milliseconds."""
TOOLS = ("secretweave", *PEERS)
BESIDE_READS = {"token": 1, "approle": 3}
"""The least that secretweave asks beside the reads: of which version the engine is; the login, and the token's end."""
SLOW_SECONDS = 1
"""Peers that wait so long in one run have fewer runs."""
POLICY = 'path "secret/data/*" { capabilities = ["read"] }'
CONFIG = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata:
  name: bench
spec:
  vault:
    url: {url}
    path: secret
    auth: {{}}
"""


class Row(NamedTuple):
    """What one tool needed for one job."""

    job: str
    latency: int
    auth: str
    tool: str
    wall: float
    """Seconds, the median of the runs; so are the two others."""
    cpu: float
    rss: float
    """MiB."""
    requests: float
    """In one run; so are the two others."""
    logins: float
    connections: float


def prepare(server: VaultServer, home: Path) -> dict[str, dict[str, str]]:
    """Fills the Vault. Gives what every tool finds in its environment, by the way to log in."""
    server.mount("secret", version="2")
    server.enable_auth("approle")
    server.policy("bench", POLICY)
    for path in range(max(job.paths for job in JOBS)):
        server.put("secret", f"path-{path}", {"password": f"value of path-{path}"})
    role = server.create_approle("bench", ["bench"])
    (home / "config.yaml").write_text(CONFIG.format(url=server.address))
    # argocd-vault-plugin would keep its token from run to run in a folder of this name.
    (home / ".avp").touch()
    common = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SECRETWEAVE_CONFIG": str(home / "config.yaml"),
        "VAULT_ADDR": server.address,
        "VAULT_CACERT": str(server.ca),
        "AVP_TYPE": "vault",
        "AVP_KV_VERSION": "2",
    }
    token = {"VAULT_TOKEN": server.create_token(["bench"], ttl="24h"), "AVP_AUTH_TYPE": "token"}
    approle = {
        "VAULT_AUTH_METHOD": "approle",
        "VAULT_ROLE_ID": role.role_id,
        "VAULT_SECRET_ID": role.secret_id,
        "AVP_AUTH_TYPE": "approle",
        "AVP_ROLE_ID": role.role_id,
        "AVP_SECRET_ID": role.secret_id,
    }
    return {"token": common | token, "approle": common | approle}


def run_job(job: Stream, server: VaultServer, home: Path, environments: dict[str, dict[str, str]]) -> Iterator[Row]:
    for latency in LATENCIES:
        server.latency(latency)
        for auth, environment in environments.items():
            for tool in TOOLS:
                command = COMMANDS[tool]
                if not Path(command[0]).exists():
                    continue
                file = home / f"{job.name}.{tool}.yaml"
                with file.open("wb") as out:
                    write(job, tool, out)
                slow = tool in PEERS and job.paths * latency / 1000 > SLOW_SECONDS
                server.reset()
                it = measure(command, file, min(job.runs, PEER_RUNS_MAX) if slow else job.runs, environment)
                stats = server.stats()
                # One run warms up, unless it is the only one.
                runs = it.runs + 1 if it.runs > 1 else 1
                counts = (stats.requests / runs, stats.logins / runs, stats.connections / runs)
                yield Row(job.name, latency, auth, tool, it.wall, it.cpu, it.rss, *counts)


def table(job: Stream, rows: Iterable[Row]) -> None:
    print(f"\n{job.name}: {job.title}")
    heads = f"{'wall':>10}{'CPU':>10}{'RSS':>10}{'requests':>10}{'logins':>8}{'connections':>13}"
    print(f"  {'latency, login, tool':38}{heads}{'wall, to secretweave':>22}")
    ours = 0.0
    for it in rows:
        if it.tool == "secretweave":
            ours = it.wall
        case = f"{it.latency:>2} ms  {it.auth:8}{it.tool:22}"
        costs = f"{it.wall * 1000:>7.0f} ms{it.cpu * 1000:>7.0f} ms{it.rss:>6.0f} MiB"
        print(f"  {case:38}{costs}{it.requests:>10g}{it.logins:>8g}{it.connections:>13.1f}{it.wall / ours:>22.2f}")


def targets(rows: Iterable[Row]) -> Iterator[Target]:
    walls = {(it.job, it.latency, it.auth, it.tool): it.wall for it in rows}
    paths = {job.name: job.paths for job in JOBS}
    excess = [it.requests - paths[it.job] - BESIDE_READS[it.auth] for it in rows if it.tool == "secretweave"]
    yield Target("every job: requests above the least there can be", max(excess), 0, at_least=False)
    for job, latency, times in ((MANY, 20, 6), (TYPICAL, 20, 1), (TYPICAL, 0, 1 / 2.5)):
        for auth in BESIDE_READS:
            peers = [walls[job.name, latency, auth, tool] for tool in PEERS if (job.name, latency, auth, tool) in walls]
            if peers:
                text = f"{job.name} at {latency} ms, {auth}: times faster than the faster peer"
                ratio = min(peers) / walls[job.name, latency, auth, "secretweave"]
                yield Target(text, ratio, times, at_least=True)


def report(rows: list[Row]) -> None:
    figures = ROOT / "bench.json"
    document = json.loads(figures.read_text()) if figures.exists() else {}
    document["stores"] = {
        "rows": [row._asdict() for row in rows],
        "targets": told(list(targets(rows))),
    }
    figures.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if not path_of("vault").exists():
        print("\nno store behind a network is measured: Vault is not built (make test-hosts builds it)")
        return
    compileall.compile_dir(ROOT / "plugin" / "secretweave", quiet=1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, vault(Path(name)) as server:
        home = Path(name)
        environments = prepare(server, home)
        for job in JOBS:
            done = list(run_job(job, server, home, environments))
            table(job, done)
            rows += done
    report(rows)


if __name__ == "__main__":
    main()
