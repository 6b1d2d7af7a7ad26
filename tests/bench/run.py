"""`make bench`: every stream through secretweave, `cat`, a bare interpreter and the peers; a table, and bench.json.

What is measured is whole processes, stdin piped in, stdout thrown away. secretweave reads the file store; the peers a
stand-in for Vault on loopback. They are taken from where `make test-hosts` builds them, and skipped where they are not.
secretweave is the installed console script, byte-compiled; the other ways to start it are measured beside it.
"""

import compileall
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.streams import STREAMS, SYNTAX, Stream, write
from tests.hosts.build import path_of

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPT = str(Path(sys.executable).parent / "secretweave")
PEERS = ("argocd-vault-plugin", "vals")
COMMANDS = {
    "cat": ["cat"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "secretweave": [SCRIPT],
    "python -m secretweave": [sys.executable, "-m", "secretweave"],
    "python -I -m secretweave": [sys.executable, "-I", "-m", "secretweave"],
    "argocd-vault-plugin": [str(path_of("argocd-vault-plugin")), "generate", "-"],
    "vals": [str(path_of("vals")), "eval", "-f", "-"],
}
OTHER_STARTS = ("python -m secretweave", "python -I -m secretweave")
PEER_RUNS_MAX = 3
"""The peers need half a minute for the large stream."""
MEGABYTE = 1e6
CONFIG = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata:
  name: bench
spec:
  file:
    path: secrets.yaml
"""


class Figures(NamedTuple):
    wall: float
    """Seconds, the median of the runs; so are the others."""
    cpu: float
    rss: float
    """MiB."""
    runs: int
    requests: int | None = None
    """To the store, in one run."""


class Target(NamedTuple):
    text: str
    reached: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.reached >= self.limit if self.at_least else self.reached <= self.limit


def measure(command: list[str], file: Path, runs: int, environ: Mapping[str, str] | None = None) -> Figures:
    """*environ*: all that the command finds in its environment; None: that of this process."""
    for attempt in (1, runs):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(HERE / "measure.py"), str(attempt), str(file), *command],
            check=True,
            capture_output=True,
            text=True,
            env=environ,
        )
        rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
        if any(row[3] for row in rows):
            raise SystemExit(f"{' '.join(command)} failed on {file.name}: {done.stderr}")
        if rows[0][0] > 5:  # no further runs of what takes so long
            break
    wall, cpu, rss, _ = (statistics.median(column) for column in zip(*rows, strict=True))
    return Figures(wall, cpu, rss / 1024, len(rows))


@contextmanager
def vault() -> Iterator[str]:
    with subprocess.Popen([sys.executable, str(HERE / "vault.py")], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def requests(address: str) -> int:
    with urllib.request.urlopen(f"{address}/requests") as answer:
        count: int = json.load(answer)["requests"]
    return count


def configure(folder: Path, address: str) -> None:
    """What each tool finds in its environment."""
    secrets = folder / "secrets.yaml"
    secrets.write_text("".join(f"path-{path}: {{password: value of path-{path}}}\n" for path in range(200)))
    secrets.chmod(0o600)
    (folder / "config.yaml").write_text(CONFIG)
    os.environ.update(
        SECRETWEAVE_CONFIG=str(folder / "config.yaml"),
        HOME=str(folder),
        VAULT_ADDR=address,
        VAULT_TOKEN="token",
        AVP_TYPE="vault",
        AVP_AUTH_TYPE="token",
        AVP_KV_VERSION="2",
    )


def commands(stream: Stream) -> Iterator[str]:
    for name, command in COMMANDS.items():
        if name in PEERS and not (stream.peers and Path(command[0]).exists()):
            continue
        if name in OTHER_STARTS and stream.name != "tiny":
            continue
        yield name


def run_stream(stream: Stream, folder: Path, address: str) -> tuple[int, dict[str, Figures]]:
    results: dict[str, Figures] = {}
    size = 0
    for name in commands(stream):
        tool = name if name in SYNTAX else "secretweave"
        file = folder / f"{stream.name}.{tool}.yaml"
        if not file.exists():
            with file.open("wb") as out:
                write(stream, tool, out)
        before = requests(address)
        peer = name in PEERS
        figures = measure(
            COMMANDS[name], file, min(stream.runs, PEER_RUNS_MAX) if peer and stream.runs < 10 else stream.runs
        )
        if peer:
            # One run warms up, unless it is the only one.
            rounds = figures.runs + 1 if figures.wall <= 5 else 1
            figures = figures._replace(requests=(requests(address) - before) // rounds)
        results[name] = figures
        size = file.stat().st_size if tool == "secretweave" else size
    for file in folder.glob(f"{stream.name}.*"):
        file.unlink()
    return size, results


def table(stream: Stream, size: int, results: dict[str, Figures]) -> None:
    print(f"\n{stream.name}: {stream.title} ({size / MEGABYTE:.2f} MB)")
    print(f"  {'':26}{'wall':>10}{'CPU':>10}{'RSS':>10}{'MB/s':>8}{'requests':>10}{'wall, to secretweave':>22}")
    ours = results["secretweave"]
    for name, it in results.items():
        rate = f"{size / MEGABYTE / it.wall:.0f}" if size > MEGABYTE else ""
        ratio = f"{it.wall / ours.wall:.2f}"
        count = "" if it.requests is None else it.requests
        times = f"{it.wall * 1000:>7.0f} ms{it.cpu * 1000:>7.0f} ms"
        print(f"  {name:26}{times}{it.rss:>6.0f} MiB{rate:>8}{count:>10}{ratio:>22}")


def targets(sizes: dict[str, int], results: dict[str, dict[str, Figures]]) -> list[Target]:
    ours = {stream: figures["secretweave"] for stream, figures in results.items()}
    found = [
        Target("tiny: wall, ms", ours["tiny"].wall * 1000, 100, at_least=False),
        Target("plain-200: MB/s", sizes["plain-200"] / MEGABYTE / ours["plain-200"].wall, 100, at_least=True),
        Target(
            "linear: CPU a byte, plain-200 to plain-50",
            ours["plain-200"].cpu / sizes["plain-200"] / (ours["plain-50"].cpu / sizes["plain-50"]),
            1.1,
            at_least=False,
        ),
        Target("peak RSS of every stream, MiB", max(it.rss for it in ours.values()), 64, at_least=False),
    ]
    if "argocd-vault-plugin" in results["tiny"]:
        ratio = ours["tiny"].cpu / results["tiny"]["argocd-vault-plugin"].cpu
        found.append(Target("tiny: CPU, to argocd-vault-plugin's", ratio, 1.5, at_least=False))
    peers = [results["large"][name].wall for name in PEERS if name in results["large"]]
    if peers:
        text = "large: times faster than the faster peer (aim: 30)"
        found.append(Target(text, min(peers) / ours["large"].wall, 20, at_least=True))
    return found


def told(reached: list[Target]) -> list[dict[str, Any]]:
    """Prints what was reached, and which peer is missing; gives it for bench.json."""
    print("\nTargets")
    for target in reached:
        sign = ">=" if target.at_least else "<="
        verdict = "reached" if target.met else "MISSED"
        print(f"  {verdict:8}{target.text}: {target.reached:.2f} ({sign} {target.limit:g})")
    missing = [name for name in PEERS if not Path(COMMANDS[name][0]).exists()]
    if missing:
        print(f"  not compared with {' and '.join(missing)}: not built (make test-hosts builds them)")
    return [target._asdict() | {"met": target.met} for target in reached]


def report(sizes: dict[str, int], results: dict[str, dict[str, Figures]]) -> None:
    document: dict[str, Any] = {
        "python": sys.version.split()[0],
        "streams": {
            name: {"bytes": sizes[name], "commands": {command: it._asdict() for command, it in figures.items()}}
            for name, figures in results.items()
        },
        "targets": told(targets(sizes, results)),
    }
    (ROOT / "bench.json").write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    compileall.compile_dir(ROOT / "plugin" / "secretweave", quiet=1)
    sizes: dict[str, int] = {}
    results: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory() as name, vault() as address:
        folder = Path(name)
        configure(folder, address)
        for stream in STREAMS:
            sizes[stream.name], results[stream.name] = run_stream(stream, folder, address)
            table(stream, sizes[stream.name], results[stream.name])
    report(sizes, results)


if __name__ == "__main__":
    main()
