"""Runs the real command on one store behind the fault proxy, and judges what came of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

from secretweave.errors import StoreError
from tests.faults.table import REFS, STARTING, Promise, Vendor
from tests.servers.certificates import Authority
from tests.servers.proxy import Hang, Proxy, Rule, elsewhere

SDK_WORDS = re.compile(
    r"Traceback|File \"|botocore|boto3|urllib3|hvac|azure\.(core|identity|keyvault)|google\.(api_core|auth|cloud)|msal|"
    r"kubernetes\.client|ConnectionPool|MaxRetry|\[Errno|<html|object at 0x|\w+Error\("
)
"""What only who knows the SDK understands, or what was not told in words of ours at all."""
GOOD = Promise("nothing is wrong")


class Front(NamedTuple):
    """Where a store seems to be."""

    url: str
    ca: Path
    """Of the authority that is to be trusted."""
    folder: Path
    """For what the configuration names."""


class Adapter(NamedTuple):
    """One kind of store with its server, as the cases need it."""

    name: str
    """The type of the store, and how it logs in where that makes a difference."""
    upstream: str
    """The address of the server, in which the secrets ref(0) to ref(REFS - 1) lie, with value(n) each."""
    trust: Path | None
    """The authority of a server that speaks TLS."""
    tls: bool
    """Is the store spoken to with TLS here?"""
    spec: Callable[[Front], str]
    """What stands under `spec` of the SecretStore, in YAML's flow style."""
    environ: Callable[[Front], Mapping[str, str]]
    ref: Callable[[int], str]
    """What stands behind the store's name in a reference."""
    vendor: Vendor
    credentials: tuple[str, ...]
    """Texts that no output may hold."""
    denying: Callable[[int], Sequence[Rule]]
    """What the proxy does where the identity may read all but one of the secrets."""


Started = Callable[[Path, Authority], AbstractContextManager[Adapter]]


class Ran(NamedTuple):
    code: int
    out: bytes
    err: str
    seconds: float


class Met(NamedTuple):
    """How a run met a fault."""

    ran: Ran
    proxy: Proxy
    elsewhere: Proxy


def value(number: int) -> str:
    return f"v4lue-canary-{number}"


def document(store: str, spec: str) -> str:
    return f"apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {{name: {store}}}\nspec: {spec}\n---\n"


def settings(limits: str) -> str:
    return f"apiVersion: secretweave.dev/v1alpha1\nkind: Configuration\nspec: {{limits: {limits}}}\n"


def manifest(references: Mapping[str, str]) -> bytes:
    lines = "".join(f"  {key}: secret://{reference}\n" for key, reference in references.items())
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n{lines}".encode()


def start(folder: Path, config: str, environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """The command, with nothing of the machine's own configuration."""
    (folder / "config.yaml").write_text(config)
    return subprocess.Popen(
        [sys.executable, "-m", "secretweave"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SECRETWEAVE_CONFIG": str(folder / "config.yaml"),
            **environ,
        },
    )


def run(folder: Path, config: str, stdin: bytes, environ: Mapping[str, str]) -> Ran:
    begun = time.monotonic()
    with start(folder, config, environ) as process:
        try:
            out, err = process.communicate(stdin, timeout=60)
        finally:
            process.kill()
    return Ran(process.returncode, out, err.decode(), time.monotonic() - begun)


def references(adapter: Adapter, store: str = "shop") -> dict[str, str]:
    return {f"k{number}": f"{store}/{adapter.ref(number)}" for number in range(REFS)}


@contextmanager
def front(
    adapter: Adapter, promise: Promise, folder: Path, authority: Authority
) -> Iterator[tuple[Front, Proxy, Proxy]]:
    """The store as *promise* has it, and the server to which a redirect leads."""
    folder.mkdir(exist_ok=True)
    good = authority.issue("proxy") if adapter.tls else None
    shown = good
    if adapter.tls and promise.front == "stranger":
        (folder / "stranger").mkdir()
        shown = Authority(folder / "stranger").issue("proxy")
    elif adapter.tls and promise.front == "misnamed":
        shown = authority.issue("misnamed", "127.0.0.9", names=("elsewhere.example.com",))
    closed = promise.front == "closed"
    with (
        elsewhere(good) as other,
        Proxy(adapter.upstream, certificate=shown, trust=adapter.trust, refuse=closed) as proxy,
    ):
        proxy.rules = promise.rules(adapter.vendor._replace(elsewhere=other.url))
        yield Front(proxy.url, authority.certificate, folder), proxy, other


def meet(adapter: Adapter, promise: Promise, folder: Path, authority: Authority) -> Met:
    with front(adapter, promise, folder, authority) as (at, proxy, other):
        config = document("shop", adapter.spec(at)) + settings(promise.limits)
        ran = run(folder, config, manifest(references(adapter)), adapter.environ(at))
    return Met(ran, proxy, other)


def judge(met: Met, promise: Promise, adapter: Adapter) -> None:
    ran = met.ran
    ended = f"exit {ran.code} after {ran.seconds:.1f} s and {len(met.proxy.seen)} requests"
    told = f"{adapter.name}, {promise.fault}: {ended}\n{ran.err}"
    assert ran.code == (0 if adapter.name in promise.recovers else promise.code), told
    no_secret(ran, adapter, told)
    if ran.code:
        assert re.search(promise.says, ran.err, re.IGNORECASE), told
        assert "`shop`" in ran.err or "shop:" in ran.err, told
        assert "fix:" in ran.err, told
        assert ran.err.count("what:") == 1, f"one cause is told once\n{told}"
        asked = [each for each in met.proxy.seen if each.credentials and re.search(adapter.vendor.reads, each.line)]
        assert len(asked) <= promise.requests, told
    else:
        found = YAML(typ="safe", pure=True).load(ran.out)["stringData"]
        assert found == {f"k{number}": value(number) for number in range(REFS)}, told
        assert not ran.err, told
    assert ran.seconds <= promise.seconds + STARTING, told
    for each in met.elsewhere.seen:
        assert not each.credentials, told
        assert not any(each.holds(credential) for credential in adapter.credentials), told


def no_secret(ran: Ran, adapter: Adapter, told: str) -> None:
    """Nothing on stdout unless all is well, and nothing on stderr that nobody may see or nobody understands."""
    assert bool(ran.out) == (ran.code == 0), told
    assert not SDK_WORDS.search(ran.err), told
    assert "canary" not in ran.err, told
    for credential in adapter.credentials:
        assert credential not in ran.err, f"a credential\n{told}"


def together(
    stores: Sequence[tuple[Adapter, Promise]], folder: Path, authority: Authority, more: Mapping[str, str] | None = None
) -> Ran:
    """One run that asks each of several stores, called s0, s1 ..., for all its secrets, and for *more* references."""
    config, environ, asked = settings("{deadline: 60s, request: 30s}"), dict[str, str](), dict[str, str]()
    with ExitStack() as fronts:
        for index, (adapter, promise) in enumerate(stores):
            name = f"s{index}"
            at, _, _ = fronts.enter_context(front(adapter, promise, folder / name, authority))
            config = document(name, adapter.spec(at)) + config
            environ |= adapter.environ(at)
            asked |= {f"{name}-{key}": reference for key, reference in references(adapter, name).items()}
        return run(folder, config, manifest(asked | dict(more or {})), environ)


def deny_one(adapter: Adapter, folder: Path, authority: Authority) -> None:
    """One secret may not be read, one is not there, and the others are good."""
    promise = Promise("one secret is denied", lambda _: adapter.denying(3))
    ran = together([(adapter, promise)], folder, authority, {"absent": f"s0/{adapter.ref(REFS)}"})
    told = f"{adapter.name}\n{ran.err}"
    assert ran.code == StoreError.exit_code, told
    no_secret(ran, adapter, told)
    faults = re.findall(r"what: +(.*)", ran.err)
    assert len(faults) == 2, told
    assert faults[0].startswith(f"s0:{adapter.ref(3)}: "), told
    assert faults[1].startswith(f"s0:{adapter.ref(REFS)}: "), told


def interrupt(adapter: Adapter, folder: Path, authority: Authority, number: signal.Signals) -> tuple[int, float]:
    """The exit code of a run that waits for a store, and the seconds between the signal and its end."""
    promise = Promise("requests are never answered", lambda _: [Rule(Hang())])
    # Where the tests run in the background SIGINT is ignored, which the command would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        front(adapter, promise, folder, authority) as (at, proxy, _),
        start(folder, document("shop", adapter.spec(at)) + settings("{request: 30s}"), adapter.environ(at)) as process,
    ):
        try:
            assert process.stdin is not None
            process.stdin.write(manifest(references(adapter)))
            process.stdin.close()
            until = time.monotonic() + 30
            while not proxy.seen:
                assert time.monotonic() < until, "it asks nothing"
                time.sleep(0.01)
            process.send_signal(number)
            begun = time.monotonic()
            code = process.wait(30)
            seconds = time.monotonic() - begun
            assert process.stdout is not None
            assert process.stderr is not None
            assert (process.stdout.read(), process.stderr.read()) == (b"", b""), adapter.name
        finally:
            process.kill()
    return code, seconds
