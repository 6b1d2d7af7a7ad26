"""What a small document unfolds into meets a limit, and a large one costs what its bytes cost.

Each run has six seconds of CPU and a gigabyte of addresses, of which it needs a fraction: the test is that nothing
grows by the square.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
REFERENCE = "secret://shop/app/token"
OPTIONAL = "secret://shop/none?optional=true"
CPU_SECONDS = 6
ADDRESSES = 1 << 30


def run(source: str, home: Path) -> "subprocess.CompletedProcess[bytes]":
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))

    return subprocess.run(
        [sys.executable, "-m", "secretweave", "--config", home / "config.yaml"],
        input=source.encode(),
        capture_output=True,
        check=False,
        preexec_fn=limit,
    )


def laughs(first: str, item: str) -> str:
    levels = (f"  - &a{n} {item.format(','.join(f'*a{n - 1}' for _ in range(9)))}\n" for n in range(1, 12))
    return f"x:\n  - &a0 {first}\n" + "".join(levels)


def many(line: str) -> str:
    return "".join(f"{line % (n, REFERENCE)}\n" for n in range(2000))


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    env:\n"
MAPPED = "      - {secretKey: A%d, secretStoreName: shop, remoteRef: {key: app, version: '%.0s'}}"
SHARED = "kind: List\nitems:\n  - &m\n    "
MAPPING = (
    "apiVersion: humanitec.io/v1alpha1\n    kind: SecretMapping\n    spec:\n      secretName: s\n      secretData:\n"
)
ALIASES = "  - *m\n" * 2000
LONG = "&m {" + ",".join(f"k{n}: v" for n in range(20_000)) + "}"
MERGES = "".join("- {<<: *m}\n" for _ in range(20_000))
LIMITED = {
    "laughs of references": (SECRET + laughs(f"[{REFERENCE}]", "[{}]"), "unfold into too many nodes"),
    "laughs of lists": (
        "kind: List\n"
        + laughs("{kind: List, items: [{kind: Secret}]}", "{{kind: List, items: [{}]}}")
        + "items: [*a11]\n",
        "unfold into too many objects",
    ),
    "one mapping merged many times": (f"{SECRET}x: {LONG}\ny:\n{MERGES}", "too many nodes"),
    "one mapping merged many times under an anchor": (f"{SECRET}x: {LONG}\ny: &y\n{MERGES}", "too many nodes"),
    "each mapping merged into the next": (
        f"{SECRET}x:\n- &m0 {{a: b}}\n" + "".join(f"- &m{n + 1} {{<<: *m{n}, k{n}: v}}\n" for n in range(8000)),
        "too many nodes",
    ),
    "containers that share a long env": (
        f"{POD.replace('- name', '- &m' + chr(10) + '    name')}{many('    - {name: A%d, value: %s}')}{ALIASES}",
        "unfold into too many nodes",
    ),
    "Secrets that share many fields": (
        f"{SHARED}apiVersion: v1\n    kind: Secret\n    stringData:\n{many('      A%d: %s')}{ALIASES}",
        "unfold into too many nodes",
    ),
    "SecretMappings that share many keys": (
        f"{SHARED}{MAPPING}{many(MAPPED)}{ALIASES}",
        "unfold into too many nodes",
    ),
    "deep in flow style": (f"{SECRET}x: {'[' * 100_000}{']' * 100_000}\n", "nested deeper than"),
    "deep in block style": (f"{SECRET}x:\n  {'- ' * 100_000}x\n", "nested deeper than"),
    "deep in explicit keys": (f"{SECRET}x:\n{'? ' * 50_000}x\n", "nested deeper than"),
    "an alias within what it names": (f"{SECRET}x: &x [*x]\n", "an alias is part of what it names"),
    "one huge scalar": (f"{SECRET}stringData:\n  a: {'x' * 5_000_000}\n", "a document of more than 4194304 bytes"),
    "a text full of faults": (f'{SECRET}stringData: {{a: "{"secret:// " * 300_000}"}}\n', "neither the whole value"),
    "keys full of faults": (SECRET + "".join(f"secret://shop/{n}: x\n" for n in range(50_000)), "a mapping key"),
    "fields full of faults": (
        f"{SECRET}stringData:\n" + "".join(f"  k{n}: secret://nowhere/x\n" for n in range(30_000)),
        "no store is called",
    ),
}


@pytest.mark.parametrize("case", LIMITED)
def test_a_bomb_meets_a_limit_and_a_clear_error(case: str, home: Path) -> None:
    source, fault = LIMITED[case]
    done = run(source, home)
    assert (done.returncode in {3, 5}, done.stdout) == (True, b"")
    assert fault in done.stderr.decode()
    assert len(done.stderr) < 1_000_000


def secret_json(text: str) -> str:
    fields = {f"k{n}": text for n in range(30_000)}
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": fields})


ENV = "".join(f"    - name: A{n}\n      value: {REFERENCE}\n" for n in range(15_000))
LINEAR = {
    "references in block style": f"{SECRET}stringData:\n" + "".join(f"  k{n}: {REFERENCE}\n" for n in range(30_000)),
    "references beyond ASCII": f"{SECRET}stringData:\n  u: ü\n"
    + "".join(f"  k{n}: {REFERENCE}\n" for n in range(30_000)),
    "references on one line": secret_json(REFERENCE),
    "fields that go, on one line": secret_json(OPTIONAL),
    "env": POD + ENV,
    "env that is hoisted from": POD + ENV.replace("secret:", "$(H)$(secret:").replace("token", "token)"),
    "white space around what goes": secret_json("x").replace(
        '"k0": "x"', f'{" " * 1_500_000}"k0": "{OPTIONAL}"{" " * 1_500_000}'
    ),
    "a text of references": f'{SECRET}stringData: {{a: "{f"$({REFERENCE}) " * 50_000}"}}\n',
    "a text of what begins like one": f'{SECRET}stringData: {{a: "{"$(" * 1_900_000}{REFERENCE})"}}\n',
}


@pytest.mark.parametrize("case", LINEAR)
def test_the_cost_is_linear_in_the_bytes(case: str, home: Path) -> None:
    done = run(LINEAR[case], home)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"secret:" not in done.stdout
