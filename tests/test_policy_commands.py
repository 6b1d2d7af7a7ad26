"""The policy through the real command: every sub-command keeps it, and nothing makes it slow."""

from pathlib import Path

import pytest

from tests.conftest import GOLDEN, Command

REFUSED = (GOLDEN / "policy-restricted" / "input.yaml").read_bytes()
WARNED = (GOLDEN / "policy-strict" / "input.yaml").read_bytes().partition(b"---\n")[0]


@pytest.mark.parametrize(
    "arguments",
    [(), ("render",), ("render", "--output", "redacted"), ("check",), ("plan",), ("plan", "--format", "json")],
)
def test_every_command_keeps_the_policy(secretweave: Command, arguments: tuple[str, ...]):
    done = secretweave(*arguments, stdin=REFUSED)
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"logging/sink -> config/first -> config/second uses secret second:other/path" in done.stderr
    warned = secretweave(*arguments, stdin=WARNED)
    assert warned.returncode == 0
    assert b"warning: stdin, document 1, line 11, Definition, entity.driver_inputs.secret_refs.credentials: " in (
        warned.stderr
    )


def test_the_whole_stream_is_one_graph(secretweave: Command, tmp_path: Path):
    documents = REFUSED.split(b"---\n")
    for number, document in enumerate(documents):
        (tmp_path / f"{number}.yaml").write_bytes(document)
    together = secretweave("check", stdin=REFUSED).stderr
    apart = secretweave("check", tmp_path).stderr
    told = [line for line in together.splitlines() if line.startswith(b"  what:")]
    assert told == [line for line in apart.splitlines() if line.startswith(b"  what:")]
    assert len(told) == 5


def layers(first: str, layer: str, count: int = 60) -> str:
    """Each layer holds the one before it nine times."""
    made = [f"- &a0 {first}"]
    for number in range(1, count):
        nine = ", ".join([f"*a{number - 1}"] * 9)
        made.append(f"- &a{number} {layer.replace('NINE', nine)}")
    return "\n".join(made) + "\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "apiVersion: entity.humanitec.io/v1b1\nkind: Definition\nmetadata: {id: x}\nentity: {type: config}\nx:\n"
            + layers("'${resources.agent.outputs.x}'", "[NINE]"),
            4,
        ),
        (
            "apiVersion: v1\nkind: List\nx:\n"
            + layers("{apiVersion: v1, kind: A}", "{apiVersion: v1, kind: List, items: [NINE]}")
            + "items: [*a59]\n",
            3,
        ),
        (
            "apiVersion: humanitec.io/v1alpha1\nkind: Resource\nmetadata: {name: x}\nspec: {type: config}\nx:\n"
            + layers("{a: secret://shop/app/token}", "{x: [NINE]}"),
            3,
        ),
    ],
)
def test_aliases_that_unfold_do_not_stop_it(secretweave: Command, text: str, code: int):
    done = secretweave("check", stdin=text.encode())
    assert (done.returncode, done.stdout) == (code, b"")
