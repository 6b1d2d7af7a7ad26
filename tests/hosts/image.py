"""Builds the image that the Dockerfile describes, and runs it; `python -m tests.hosts.image` builds it beforehand.

No registry is needed. What the Dockerfile calls python:3.13-slim is made of Debian 13 here: its Python is a 3.13 too,
but Debian's, in /usr instead of /usr/local. What it calls golang:1.26-trixie is that with this machine's Go in it. Each
step is kept as a layer, so that a later build costs the steps that changed. All of it lies in the cache, apart from
what the machine's own buildah and podman keep.

It needs root and the packages of Debian that PACKAGES names; where the hosts are required, as in CI, it installs them.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.hosts.build import CACHE, run, use_go

REPOSITORY = Path(__file__).parent.parent.parent
FOLDER = CACHE / "images"
PACKAGES = ("buildah", "podman", "mmdebstrap", "runc", "netavark", "iptables", "uidmap")
COMMANDS = ("buildah", "podman", "mmdebstrap", "runc")
PYTHON_IMAGE = "docker.io/library/python:3.13-slim"
GO_IMAGE = "docker.io/library/golang:1.26-trixie"
ARGUMENTS = {"EXTRAS": "vault", "VERSION": "1.2.3", "REVISION": "0123abc", "CREATED": "2026-11-25T12:00:00Z"}
MIRRORS = ("GOPROXY", "GOSUMDB", "PIP_INDEX_URL")
"""This machine's, if it has any. Arguments of the stages that stay behind."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Debian's place: this machine's, which may hold a proxy's, are mounted over the image's during the build."""
BASE = """\
FROM scratch
ADD base.tar /
# As in Python's own image.
RUN find / -xdev -name '*.pyc' -delete
"""
GO_BASE = f"""\
FROM {PYTHON_IMAGE}
COPY . /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH GOPATH=/go GOTOOLCHAIN=local
"""


def missing() -> str:
    """Why no image can be built here; empty: one can."""
    if os.geteuid():
        return "images are built by root only"
    if not _are_there() and os.environ.get("SECRETWEAVE_REQUIRE_HOSTS") == "1" and shutil.which("apt-get"):
        with _locked():
            if not _are_there():
                run("apt-get", "update", "-qq")
                install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends")
                run(*install, *PACKAGES, DEBIAN_FRONTEND="noninteractive")
    return "" if _are_there() else f"images need {', '.join(COMMANDS)}: apt install {' '.join(PACKAGES)}"


def _are_there() -> bool:
    return all(map(shutil.which, COMMANDS))


@contextmanager
def _locked() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _storage() -> tuple[str, ...]:
    """The options that both programs take: where the layers lie, and how one lies upon another."""
    places = ("--root", str(FOLDER / "storage"), "--runroot", str(FOLDER / "run"))
    overlay = ("--storage-driver", "overlay", *places)
    # Not everywhere may one file system be laid over another: then each layer is a copy of the whole.
    found = subprocess.run(["buildah", *overlay, "info"], capture_output=True, check=False).returncode == 0
    return overlay if found else ("--storage-driver", "vfs", *places)


def _bud(name: str, context: Path | str, *options: str) -> None:
    work = FOLDER / "work"
    work.mkdir(parents=True, exist_ok=True)
    offline = ("--isolation", "chroot", "--pull-never", "--identity-label=false")
    # TMPDIR: what a step keeps in `--mount=type=cache` lies there.
    run("buildah", *_storage(), "bud", *offline, *options, "--tag", name, str(context), TMPDIR=str(work))


def _has(name: str) -> bool:
    found = subprocess.run(["buildah", *_storage(), "inspect", "--type=image", name], capture_output=True, check=False)
    return found.returncode == 0


def _make_bases() -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        context = Path(name)
        if not _has(PYTHON_IMAGE):
            packages = "--include=python3,python3-venv,ca-certificates"
            run("mmdebstrap", "--quiet", "--variant=minbase", packages, "trixie", str(context / "base.tar"))
            (context / "Dockerfile").write_text(BASE)
            _bud(PYTHON_IMAGE, context)
        if not _has(GO_IMAGE):
            use_go()
            root = subprocess.run(["go", "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip()
            (context / "Dockerfile.go").write_text(GO_BASE)
            _bud(GO_IMAGE, root, "--file", str(context / "Dockerfile.go"))


def _prune() -> None:
    """Ends what a failed build left, and the layers that no image has any more; what a test still runs stays."""
    for command in (("rm", "--all"), ("rmi", "--prune")):
        subprocess.run(["buildah", *_storage(), *command], capture_output=True, check=False)


def build(repository: Path = REPOSITORY, **arguments: str) -> str:
    """The name of the image, with these build arguments besides or instead of ARGUMENTS."""
    given = ARGUMENTS | {name: os.environ[name] for name in MIRRORS if os.environ.get(name)} | arguments
    options = [f"--build-arg={name}={value}" for name, value in given.items()]
    options.append("--layers")
    if Path(CERTIFICATES).exists():
        options.append(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro")
    kind = given["EXTRAS"].replace(" ", "-")
    with _locked():
        _make_bases()
        # The first two only for their names, which keep their layers where those of earlier sources go.
        for stage in ("programs", "package"):
            _bud(f"localhost/secretweave-{stage}:{kind}", repository, f"--target={stage}", *options)
        name = f"localhost/secretweave:{kind}"
        _bud(name, repository, *options)
        _prune()
    return name


def podman(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [
        "podman",
        *_storage(),
        "--tmpdir",
        str(FOLDER / "run" / "libpod"),
        "--cgroup-manager=cgroupfs",
        "--runtime=runc",
    ]
    return subprocess.run([*command, *arguments], input=stdin, capture_output=True, check=False, timeout=120)


def run_image(
    name: str, *arguments: str, options: tuple[str, ...] = (), stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """As strict as Kubernetes runs it: without a network and with nothing that can be written, /tmp included."""
    strict = ("--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all")
    limits = ("--security-opt=no-new-privileges", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
    # A container's log would keep what it writes, secrets included.
    command = ("run", "--rm", "--interactive", "--log-driver=none", *strict, *limits, *options, name, *arguments)
    return podman(*command, stdin=stdin)


def inspected(name: str) -> dict[str, Any]:
    (found,) = json.loads(podman("image", "inspect", name).stdout)
    assert isinstance(found, dict)
    return found


def main() -> None:
    reason = missing()
    if reason:
        print(f"no image is built: {reason}", flush=True)
        return
    start = time.monotonic()
    try:
        name = build()
    except subprocess.CalledProcessError:
        raise SystemExit("the image was not built (the failure is above)") from None
    print(f"{name} built in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
