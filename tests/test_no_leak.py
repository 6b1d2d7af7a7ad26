"""No value ever leaks: canaries in the store and in the manifests, many failing and succeeding runs, every channel.

A canary of the store may stand in a value of the woven output and nowhere else; one of the manifest where it stood.
"""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from tests.conftest import Command

STORED = "canary-5t0r3d"
LITERAL = "canary-l1t3r4l"
PARTS = (b"5t0r3d", b"l1t3r4l")
ENCODED_LITERAL = base64.b64encode(LITERAL.encode()).decode()

SECRETS = {
    "token": STORED,
    "fields": {"user": f"{STORED}-user", "quote": f'{STORED}"quote', "lines": f"{STORED}\nlines", "nul": f"{STORED}\0"},
    "number": {"text": f"{STORED}-no-number", "nothing": None},
    "json": json.dumps({"list": [{"a": f"{STORED}-json"}]}),
    "broken": '{"a": "' + STORED,
    "key@1": f"{STORED}-one",
    "value": {"value": f"{STORED}-value"},
}

CONFIG = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: shop}
spec: {file: {path: secrets.json}}
---
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: broken}
spec: {file: {path: broken.yaml}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  policy:
    refusedKinds: [{kind: ClusterRole}]
    values:
      - {store: shop, kind: ConfigMap, field: "data.*"}
      - {store: shop, kind: Widget, field: "spec.*"}
"""

SECRET = f"""\
apiVersion: v1
kind: Secret
metadata: {{name: s}}
stringData:
  literal: {LITERAL}
  text: "{LITERAL} secret:!//x"
  block: |
    {LITERAL}
"""
DATA = f"data: {{literal: {ENCODED_LITERAL}, wrapped: ' {ENCODED_LITERAL}'}}\n"
POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: p, annotations: {{helm.sh/hook: pre-install}}}}
spec:
  containers:
  - name: c
    args: [{LITERAL}]
    env:
    - {{name: LITERAL, value: {LITERAL}}}
"""

WOVEN = {
    "token": SECRET + "  a: secret://shop/token\n" + DATA,
    "fields": SECRET + "  a: secret://shop/fields#quote\n  b: $(secret://shop/fields#user)@x\n",
    "encoded": SECRET + "  a: secret://shop/fields?encode=json#lines\n  b: secret://shop/token?encode=base64\n",
    "pointer": SECRET + "  a: secret://shop/json#/list/0/a\n  b: {store: shop, ref: value}\n",
    "data": SECRET + DATA[:-2] + ", a: secret://shop/fields#nul}\n",
    "block": SECRET + "  a: |\n    x\n    $(secret://shop/fields#lines)\n",
    "env": POD
    + "    - {name: A, value: 'secret://shop/token'}\n    - {name: B, value: '$(A)-$(secret://shop/token)'}\n",
    "object": POD + "    - {name: A, valueFrom: {secretStoreRef: {store: shop, ref: fields, key: user}}}\n",
    "mapping": "apiVersion: humanitec.io/v1alpha1\nkind: SecretMapping\nmetadata: {name: m, labels: {a: b}}\nspec:\n"
    "  secretName: m\n  secretData: [{secretKey: a, secretStoreName: shop, remoteRef: {key: token}}]\n",
    "allowed": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    f"data: {{literal: {LITERAL}, a: 'x=$(secret://shop/token)'}}\n",
    "list": "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  spec:\n"
    "    containers: [{name: c, env: [{name: A, value: secret://shop/token}]}]\n",
    "default": SECRET + "  a: secret://shop/none?default=x\n  b: secret://shop/token\n",
}

STORE_FAULTS = {
    "missing": SECRET + "  a: secret://shop/tokem\n  b: secret://shop/token\n",
    "no such field": SECRET + "  a: secret://shop/fields#nope\n",
    "no field named": SECRET + "  a: secret://shop/fields\n",
    "no such version": SECRET + "  a: secret://shop/key?version=2\n",
    "null": SECRET + "  a: secret://shop/number#nothing\n",
    "no structure": SECRET + "  a: secret://shop/token#a\n  b: secret://shop/broken#/a\n",
    "no text": SECRET + "  a: secret://shop/fields#nul\n",
    "breaks JSON": SECRET + '  a: \'{"a": "$(secret://shop/fields#quote)"}\'\n',
    "breaks a URL": SECRET + "  a: http://$(secret://shop/fields#quote)@x\n",
    "breaks YAML": SECRET + "  a: |\n    x: 1\n    y: $(secret://shop/fields#lines)\n",
    "breaks lines": SECRET + "  a: |\n    x=1\n    y=$(secret://shop/fields#lines)\n",
    "breaks shell": SECRET + "  a: |\n    #!/bin/sh\n    x=$(secret://shop/fields#quote)\n",
    "no number": "apiVersion: x/v1\nkind: Widget\nspec: {a: secret://shop/number?as=int#text}\n",
    "no bool": "apiVersion: x/v1\nkind: Widget\nspec: {a: secret://shop/token?as=bool}\n",
    "no JSON": "apiVersion: x/v1\nkind: Widget\nspec: {a: secret://shop/broken?as=json}\n",
    "a store that is broken": SECRET + "  a: secret://broken/x\n",
}

SCAN_FAULTS = {
    "not YAML": SECRET + f"  a: secret://shop/token\n {LITERAL}\n",
    "an unclosed quote": SECRET + f'  a: "secret://shop/token {LITERAL}\n',
    "twice": SECRET + f"  a: secret://shop/token\n  a: {LITERAL}\n",
    "bare": SECRET + f"  a: see secret://shop/token {LITERAL}\n",
    "unclosed": SECRET + f"  a: {LITERAL} $(secret://shop/token {LITERAL}\n",
    "unknown parameter": SECRET + f"  a: secret://shop/token?{LITERAL}=x\n",
    "unknown value": SECRET + f"  a: secret://shop/token?encode={LITERAL}\n",
    "bad percent": SECRET + f"  a: secret://shop/token?default={LITERAL}%zz\n",
    "broken base64": SECRET
    + f"data: {{a: {base64.b64encode(b'secret://shop/token ' + LITERAL.encode()).decode()[:-1]}}}\n",
    "not text in base64": SECRET
    + f"data: {{a: {base64.b64encode(LITERAL.encode() + b' $(secret://shop/token) %c' % 255).decode()}}}\n",
    "an object with a value": SECRET + f"  a: {{store: shop, ref: token, value: {LITERAL}}}\n",
    "an object with an unknown member": SECRET + f"  a: {{store: shop, ref: token, {LITERAL}: {LITERAL}}}\n",
    "a mapping": SECRET + f"  a: {{x: {LITERAL}, y: secret://shop/token}}\n",
    "a tag": SECRET + f"  a: !x '$(secret://shop/token) {LITERAL}'\n",
    "a placeholder": SECRET + f"  a: {{value: '${{resources.x.outputs.{LITERAL}}}'}}\n",
    "refused place": POD + f"  terminationMessage: '{LITERAL} $(secret://shop/token)'\n",
    "NUL": SECRET + f"  a: {LITERAL}\0\n",
    "marker": f"--- {LITERAL}\n" + SECRET,
    "no object": f"- {LITERAL}\n- secret://shop/token\n",
    "refused kind": f"apiVersion: x/v1\nkind: ClusterRole\nx: {LITERAL}\n---\n{SECRET}",
    "mapping with more": "apiVersion: humanitec.io/v1alpha1\nkind: SecretMapping\nspec:\n"
    f"  secretName: x\n  secretData: [{{secretKey: a, secretStoreName: shop, remoteRef: {{key: token}}, "
    f"a: {LITERAL}}}]\n",
}


class Leaks(NamedTuple):
    command: Command
    folder: Path

    def run(self, source: str, *arguments: str) -> tuple[int, bytes]:
        """The exit code and stdout; stderr and the report file hold no canary."""
        report = self.folder / "report.txt"
        report.unlink(missing_ok=True)
        done = self.command(
            *arguments, "--debug", "--report", report, "--config", self.folder / "config.yaml", stdin=source.encode()
        )
        assert canaries(done.stderr) == []
        assert (done.returncode != 0) == report.exists()
        assert canaries(report.read_bytes() if report.exists() else b"") == []
        return done.returncode, done.stdout


@pytest.fixture
def started(secretweave: Command, tmp_path: Path) -> Leaks:
    return _leaks(secretweave, tmp_path)


@pytest.fixture
def leaks(forked: Command, tmp_path: Path) -> Leaks:
    return _leaks(forked, tmp_path)


def _leaks(command: Command, tmp_path: Path) -> Leaks:
    broken = f"{STORED}: [{STORED}\n"
    for name, text in (("config.yaml", CONFIG), ("secrets.json", json.dumps(SECRETS)), ("broken.yaml", broken)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return Leaks(command, tmp_path)


def canaries(text: bytes) -> list[bytes]:
    """Parts of canaries in a text: as they are, in base64 at any alignment, in hexadecimal, or percent-encoded."""
    found = []
    for part in PARTS:
        spellings = {part, part.hex().encode(), b"".join(b"%%%02X" % each for each in part)}
        for shift in range(3):
            encoded = base64.b64encode(bytes(shift) + part)
            spellings.add(encoded[-(-shift * 8 // 6) : (shift + len(part)) * 8 // 6])
        found += [each for each in spellings if each in text]
    return found


def is_stored(text: str) -> bool:
    """Whether a text holds a canary of the store, as it is or in base64."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        decoded = b""
    return STORED in text or STORED.encode() in decoded


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(key path, text) of every key and every scalar."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, str(key)
            yield from texts(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from texts(value, f"{path}[]")
    else:
        yield path, str(node)


PLACES = re.compile(r"(\.items\[\])?(\.data|\.stringData)\.[^ ]+")
"""Where a value of the store may stand: a Secret's own fields, or what the policy allows in a ConfigMap."""


@pytest.mark.parametrize("case", WOVEN)
def test_a_run_that_succeeds(leaks: Leaks, case: str) -> None:
    code, out = leaks.run(WOVEN[case])
    assert code == 0
    held = []
    for document in out.decode().split("\n---\n"):
        for path, text in texts(YAML(typ="safe", pure=True).load(document)):
            if is_stored(text):
                held.append(path)
    assert held
    assert all(PLACES.fullmatch(path) for path in held), held


@pytest.mark.parametrize("case", STORE_FAULTS | SCAN_FAULTS)
def test_a_run_that_fails(leaks: Leaks, case: str) -> None:
    code, out = leaks.run((STORE_FAULTS | SCAN_FAULTS)[case])
    assert (0 < code < 70, out) == (True, b"")


@pytest.mark.parametrize("case", ["breaks JSON", "a store that is broken", "not YAML", "refused place"])
def test_a_command_that_was_started_fails_as_one_that_was_forked(leaks: Leaks, started: Leaks, case: str) -> None:
    """The other runs of this file are forked."""
    source = (STORE_FAULTS | SCAN_FAULTS)[case]
    assert started.run(source) == leaks.run(source)


@pytest.mark.parametrize("arguments", [(), ("check",), ("plan",), ("--output", "redacted")])
def test_a_command_that_was_started_writes_what_a_forked_one_does(
    leaks: Leaks, started: Leaks, arguments: tuple[str, ...]
) -> None:
    assert started.run(WOVEN["fields"], *arguments) == leaks.run(WOVEN["fields"], *arguments)


@pytest.mark.parametrize("case", WOVEN | STORE_FAULTS)
def test_what_contacts_no_store(leaks: Leaks, case: str) -> None:
    source = (WOVEN | STORE_FAULTS)[case]
    for arguments in (["check"], ["plan"], ["plan", "--format", "json"]):
        code, out = leaks.run(source, *arguments)
        assert (code, canaries(out)) == (0, [])
    code, out = leaks.run(source, "--output", "redacted")
    assert code == 0
    assert b"5t0r3d" not in out
    for document in out.decode().split("\n---\n"):
        root = YAML(typ="safe", pure=True).load(document)
        assert root["kind"] != "Secret" or canaries(document.encode()) == []


@pytest.mark.parametrize("case", SCAN_FAULTS)
@pytest.mark.parametrize("command", ["plan", "redacted"])
def test_what_fails_without_a_store(leaks: Leaks, command: str, case: str) -> None:
    arguments = ["--output", "redacted"] if command == "redacted" else [command]
    code, out = leaks.run(SCAN_FAULTS[case], *arguments)
    assert (0 < code < 70, out) == (True, b"")


def test_a_configuration_that_is_wrong(leaks: Leaks) -> None:
    wrong = CONFIG.replace("path: broken.yaml", f"path: broken.yaml, {LITERAL}: {LITERAL}, sizeLimit: {LITERAL}")
    (leaks.folder / "config.yaml").write_text(wrong)
    done = leaks.command("--debug", "--config", leaks.folder / "config.yaml", stdin=SECRET.encode())
    assert (done.returncode, done.stdout) == (2, b"")
