"""Whatever the bytes: a stream is woven whole or refused by faults of our own, which show nothing of it.

The pipeline runs in process: there an exception of another kind shows, which the command's last resort would hide.
"""

import io
import time
import tracemalloc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secretweave import config, pipeline, report, yamltree
from secretweave.config import Config
from secretweave.errors import SecretweaveError
from secretweave.outputs import Outside
from tests.conftest import GOLDEN
from tests.sizes import sized

pytestmark = pytest.mark.once

VALUE = "v4lue-of-the-store"
CANARY = "c4nary-in-the-manifest"

METADATA = "metadata: {name: web, labels: {a: b}}\n"
POD = f"apiVersion: v1\nkind: Pod\n{METADATA}spec:\n  containers:\n"
SEEDS = (
    (
        f"apiVersion: v1\nkind: Secret\n{METADATA}stringData:\n  before: {CANARY},\n  a: secret://local/app/token\n"
        "  b: secret://local/gone?optional=true\n  c: |\n    user = $(secret://local/app/db#user)\n    end\n"
        "  after: last # comment\n"
    ),
    (
        f"apiVersion: v1\nkind: Secret\n{METADATA}data:\n  a: c2VjcmV0Oi8vbG9jYWwvYXBwL3Rva2Vu\n"
        "  b: {store: local, ref: app/db, key: user}\n  c:\n    store: local\n    ref: app/token\n  after: bGFzdA==\n"
    ),
    (
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "web"}}, "stringData": {{"before": "{CANARY}", '
        '"a": "secret://local/gone?optional=true", "b": "secret://local/app/token", "after": "last"}}\n'
    ),
    (
        f"{POD}  - name: c\n    env:\n    - {{name: FIRST, value: {CANARY}}}\n    - name: A\n"
        "      value: secret://local/app/token\n    - name: B\n      value: $(FIRST)-$(secret://local/app/db#user)\n"
        "    - name: C\n      valueFrom: {secretStoreRef: {store: local, ref: app/token}}\n    args: [last]\n"
    ),
    (
        f"{POD}  - name: c\n    env: [{{name: A, value: '$(X)$(secret://local/app/token)'}}, {{name: B, value: "
        "'secret://local/gone?optional=true'}]\n    args: [last]\n"
    ),
    (
        f"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  {METADATA}  stringData:\n"
        "    a: &a secret://local/app/token\n    b: *a\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  spec:\n"
        "    containers:\n    - name: c\n      env:\n      - name: A\n        value: secret://local/app/token\n"
    ),
    f"apiVersion: v1\nkind: ConfigMap\n{METADATA}data: {{a: '{CANARY} $(secret://local/app/db#user)', b: last}}\n",
)
TOKENS = (
    *("\n", "\r\n", "\r", " ", "  ", "\t", ",", ",\n", ": ", ":", "- ", "-\n", "? ", "# x\n", " #", "'", '"', "\\"),
    *(
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!binary ",
        "!!binary /w==",
        "!!str ",
        "! ",
        "|\n",
        ">-\n",
        "|2+\n",
    ),
    *("---\n", "\n---\n", "...\n", "%YAML 1.2\n", "\0", "\ufeff", "\x85", "\u2028", "é", "\U0001f600", '"\\ud800"'),
    *("[http://x]", "$(", "$$", ")", "${x}", "secret:", "secret://", "secret://local/app/token", "?optional=true"),
    *("&default=a%00", "?encode=shell", "?as=int", "#/0", "null", "~", "value: ", "store: local\n", "ref: app/db\n"),
    *("kind: Secret\n", "kind: List\n", "items:\n", "data:\n", "stringData: {", "env:\n", "name: ", "valueFrom: "),
)


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secrets.yaml").write_text(f"app/token: {VALUE}\napp/db: {{user: {VALUE}}}\n")
    (folder / "secrets.yaml").chmod(0o600)
    (folder / "config.yaml").write_text(
        "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: local}\n"
        "spec: {file: {path: secrets.yaml}}\n---\napiVersion: secretweave.dev/v1alpha1\nkind: Configuration\n"
        'spec: {policy: {values: [{store: local, kind: ConfigMap, field: "data.*"}]}}\n'
    )
    return config.load(str(folder / "config.yaml"), {})


def woven(source: bytes, configured: Config, output: str = "secret") -> bytes | None:
    """What the stream becomes; None: it is refused, with nothing written and nothing shown."""
    out = io.BytesIO()
    said: list[str] = []
    run = pipeline.Run(output=output, namespace="shop", allow_empty=True)
    outside = Outside({}, time.monotonic() + 60, said.append)
    try:
        pipeline.weave([("stdin", io.BytesIO(source))], out, configured, run, outside)
    except SecretweaveError as error:
        said.append(report.faults(error) + report.frames(error))
        assert out.getvalue() == b""
    for text in said:
        assert VALUE not in text
        assert CANARY not in text
    return out.getvalue() or None


def scalars(node: yamltree.Node, *, kept: bool = False) -> Iterator[str]:
    """Every text of a tree, keys among them; *kept*: only those that no reference takes along."""
    if isinstance(node, yamltree.Scalar):
        if not (kept and "secret:" in node.value):
            yield node.value
    elif isinstance(node, yamltree.Sequence):
        for item in node.items:
            yield from scalars(item, kept=kept)
    else:
        for key, value in node.pairs:
            if not (
                kept and any("secret:" in text or text in {"store", "ref"} for text in (*scalars(value), key.value))
            ):
                yield key.value
            if not (kept and isinstance(value, yamltree.Mapping) and {"store", "ref"} & set(scalars(value))):
                yield from scalars(value, kept=kept)


@cache
def texts(source: bytes, *, kept: bool = False) -> frozenset[str] | None:
    """None: not YAML."""
    try:
        return frozenset(text for root in yamltree.load(source) for text in scalars(root, kept=kept))
    except SecretweaveError:
        return None


def mutated(seed: str, changes: list[tuple[float, int, str]]) -> str:
    for place, removed, inserted in changes:
        at = int(place * len(seed))
        seed = seed[:at] + inserted + seed[at + removed :]
    return seed


CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from((0, 0, 0, 1, 1, 7)), st.sampled_from((*TOKENS, ""))),
    min_size=1,
    max_size=3,
)
QUICK = settings(
    max_examples=sized(600),
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(seed=st.sampled_from(SEEDS), changes=CHANGES)
def test_a_mutated_manifest_is_woven_whole_or_refused(
    seed: str, changes: list[tuple[float, int, str]], configured: Config
) -> None:
    source = mutated(seed, changes).encode(errors="surrogatepass")
    out = woven(source, configured)
    before = texts(source)
    if out is None or before is None:
        return
    after = texts(out)
    assert after is not None, "the output is YAML as the input was"
    assert not [text for text in after if "secret://" in text]
    kept = texts(source, kept=True)
    assert kept is not None
    assert kept <= after


@QUICK
@given(seed=st.sampled_from(SEEDS), changes=CHANGES)
def test_a_mutated_manifest_is_masked_or_refused(
    seed: str, changes: list[tuple[float, int, str]], configured: Config
) -> None:
    source = mutated(seed, changes).encode(errors="surrogatepass")
    out = woven(source, configured, "redacted")
    assert out is None or VALUE.encode() not in out


@settings(QUICK, max_examples=sized(200))
@given(source=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_pass_or_are_refused(source: bytes, configured: Config) -> None:
    woven(b"kind: Secret\n" + source, configured)
    out = woven(source, configured)
    assert out in (None, source) or b"secret:" in source


@settings(QUICK, max_examples=sized(300))
@given(
    seed=st.sampled_from([path.read_text() for path in (GOLDEN / "config.yaml", GOLDEN / "secrets.yaml")]),
    changes=CHANGES,
)
def test_a_mutated_configuration_is_read_or_refused(
    seed: str, changes: list[tuple[float, int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(mutated(seed, changes).encode(errors="surrogatepass"))
    try:
        config.load(str(path), {})
    except SecretweaveError as error:
        report.faults(error)


HALVES = {
    "name of bytes": f"{POD.replace('name: web', 'name: !!binary /w==')}  - name: c\n    env:\n    - name: A\n"
    "      value: secret://local/app/token\n",
    "escape that ruamel.yaml alone reads": f"apiVersion: v1\nkind: Secret\n{METADATA}stringData:\n"
    '  a: "\\ud800$(secret://local/app/token)"\nother: [http://x]\n',
    "default of bytes": f"apiVersion: v1\nkind: Secret\n{METADATA}stringData:\n"
    "  a: {store: local, ref: app/gone, default: !!binary /w==}\n",
}


@pytest.mark.parametrize("case", HALVES)
def test_half_a_character_is_refused_before_it_must_be_written(case: str, configured: Config) -> None:
    assert woven(HALVES[case].encode(), configured) is None


REFERENCES = "".join(f"  k{number}: secret://local/app/token\n" for number in range(2000))
HEADS = {
    "key": f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n? {'k' * 100_000}\n:\n",
    "name": f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {'n' * 100_000}}}\nstringData:\n",
    "kind": f"apiVersion: v1\nkind: {'K' * 100_000}\nmetadata: {{name: a}}\nstringData:\n",
}


@pytest.mark.parametrize("head", HEADS)
def test_no_long_name_is_told_with_each_of_thousands_of_references(head: str, configured: Config) -> None:
    """Not 2000 times 100 kB of it."""
    tracemalloc.start()
    assert woven((HEADS[head] + REFERENCES).encode(), configured) is None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30_000_000


MANY = 4000
ROWS = {
    "optional": "  k{}: secret://local/gone?optional=true\n",
    "object": "  k{}: {{store: local, ref: app/token}}\n",
    "not ASCII": "  ké{}: secret://local/app/token\n",
    "block": "  k{}: |\n    user = $(secret://local/app/db#user)\n",
    "escape": "  k{}: secret:!//local/app/token\n",
    "missing": "  k{}: secret://local/app/gone-{}\n",
    "malformed": "  k{}: a secret://local/app/token\n",
}


@pytest.mark.parametrize("row", ROWS)
def test_thousands_of_references_cost_what_each_of_them_costs(row: str, configured: Config) -> None:
    """Four times as many: four times as long, not sixteen times."""

    def seconds(count: int) -> float:
        rows = "".join(ROWS[row].format(number, number) for number in range(count))
        source = f"apiVersion: v1\nkind: Secret\n{METADATA}stringData:\n{rows}".encode()
        start = time.process_time()
        woven(source, configured)
        return time.process_time() - start

    few = min(seconds(MANY // 4) for _ in range(3))
    assert min(seconds(MANY) for _ in range(2)) < 9 * few + 0.1
