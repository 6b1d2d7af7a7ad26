"""What a container sees of a woven `env`: what it would see of the original with the secrets' values put in opaque."""

import base64
import io
import json
import time
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from secretweave import config, pipeline
from secretweave.outputs import Outside
from secretweave.pipeline import Run
from secretweave.text.kubelet import expand
from tests.sizes import examples

pytestmark = pytest.mark.once

VALUES = {"a": "one", "b": "$(A) $$ $(SECRETWEAVE_0)", "c": "", "d": "two\nlines: 'x' \"y\" $"}
"""None expands, whatever it looks like, and none breaks a text of one line."""
NAMES = ["A", "B", "C", "SECRETWEAVE_0", "SECRETWEAVE_2"]


class Variable(NamedTuple):
    name: str
    parts: list[str]
    """Literal text, and references as `$(secret://shop/NAME)`."""

    @property
    def text(self) -> str:
        return "".join(self.parts)


PART = (
    st.sampled_from([f"$(secret://shop/{name})" for name in VALUES])
    | st.sampled_from([f"$({name})" for name in NAMES])
    | st.text("$()aA ", max_size=4)
)
VARIABLE = st.builds(Variable, st.sampled_from(NAMES), st.lists(PART, max_size=5))
LISTS = st.lists(st.lists(VARIABLE, min_size=1, max_size=5), min_size=1, max_size=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> config.Config:
    folder = tmp_path_factory.mktemp("store")
    (folder / "secrets.json").write_text(json.dumps(VALUES))
    (folder / "secrets.json").chmod(0o600)
    (folder / "config.yaml").write_text(
        "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: shop}\n"
        "spec: {file: {path: secrets.json}}\n"
    )
    return config.load(str(folder / "config.yaml"), {})


def pod(lists: list[list[Variable]], *, flow: bool) -> str:
    lines = ["apiVersion: v1", "kind: Pod", "metadata: {name: p}", "spec:", "  containers:"]
    for number, variables in enumerate(lists):
        lines += [f"  - name: c{number}", "    env:"]
        for each in variables:
            value = json.dumps(each.text)
            lines += (
                [f"    - {{name: {each.name}, value: {value}}}"]
                if flow
                else [f"    - name: {each.name}", f"      value: {value}"]
            )
    return "\n".join(lines) + "\n"


def opaque(variables: list[Variable]) -> list[tuple[str, str]]:
    """(name, what a container sees) of the original, its references replaced behind the kubelet's back."""
    marks = {f"$(secret://shop/{name})": chr(0xE000 + index) for index, name in enumerate(VALUES)}
    seen: dict[str, str] = {}
    told = []
    for each in variables:
        text = "".join(marks.get(part, part) for part in each.parts)
        value = expand(text, seen)
        for mark, name in zip(marks.values(), VALUES, strict=True):
            value = value.replace(mark, VALUES[name])
        seen[each.name] = value
        told.append((each.name, value))
    return told


def seen_by_container(env: list[Any], secret: dict[str, str]) -> list[tuple[str, str]]:
    """(name, what a container sees) of the woven list, without the variables that were put in."""
    seen: dict[str, str] = {}
    told = []
    for item in env:
        value = expand(item["value"], seen) if "value" in item else secret[item["valueFrom"]["secretKeyRef"]["key"]]
        seen[item["name"]] = value
        told.append((item["name"], value))
    return told


def is_subsequence(wanted: list[tuple[str, str]], found: list[tuple[str, str]]) -> bool:
    remaining = iter(found)
    return all(each in remaining for each in wanted)


@given(LISTS, st.booleans())
@examples(250)
def test_a_container_sees_the_same(store: config.Config, lists: list[list[Variable]], flow: bool) -> None:
    out = io.BytesIO()
    source = pod(lists, flow=flow)
    assume("$$(secret:" not in source)  # refused, because Kubernetes reads `$$(` as an escape
    outside = Outside({}, time.monotonic() + 60, lambda _: None)
    pipeline.weave([("stdin", io.BytesIO(source.encode()))], out, store, Run(), outside)
    woven = [YAML(typ="safe").load(each) for each in out.getvalue().decode().split("\n---\n")]
    secret = {key: base64.b64decode(each).decode() for key, each in woven[0].get("data", {}).items()}
    for variables, container in zip(lists, woven[-1]["spec"]["containers"], strict=True):
        found = seen_by_container(container["env"], secret)
        assert is_subsequence(opaque(variables), found)
        added = sum(part.startswith("$(secret:") for each in variables for part in each.parts)
        assert len(found) - len(variables) <= added
        assert dict(found) | dict(opaque(variables)) == dict(found)
