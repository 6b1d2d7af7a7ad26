from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from secretweave import yamltree
from secretweave.errors import InputError
from secretweave.yamltree import Mapping, Node, Reading, Scalar, Sequence, parse, plain
from tests.sizes import examples


def holds_secret(text: str) -> bool:
    return "secret:" in text


PRUNED = Reading(holds_secret)
WHOLE = Reading(holds_secret, whole=True)


def scalars(node: Node) -> list[Scalar]:
    if isinstance(node, Scalar):
        return [] if node is yamltree.DULL else [node]
    if isinstance(node, Sequence):
        return [scalar for item in node.items for scalar in scalars(item)]
    return [scalar for key, value in node.pairs for scalar in (key, *scalars(value))]


def test_a_span_is_the_source_of_its_scalar_counted_in_code_points() -> None:
    source = "größe: 'x'\nlist:\n  - \"secret:1\"\n  - |\n    secret:2\n"
    tree = parse(source.encode(), WHOLE)
    assert tree.root is not None
    found = {scalar.value: source[scalar.start : scalar.end] for scalar in scalars(tree.root)}
    assert found == {
        "größe": "größe",
        "x": "'x'",
        "list": "list",
        "secret:1": '"secret:1"',
        "secret:2\n": "|\n    secret:2\n",
    }
    assert tree.offset(5) == 7


def test_a_dull_container_is_forgotten_and_indices_stay_right() -> None:
    root = parse(b"a: {b: {c: d}}\nspec:\n- one: {two: 2}\n- x\n- v: secret:1\n", PRUNED).root
    assert isinstance(root, Mapping)
    assert root.get("a") is None
    items = root.get("spec")
    assert isinstance(items, Sequence)
    assert items.items[0] is items.items[1] is yamltree.DULL
    assert [scalar.value for scalar in scalars(items)] == ["v", "secret:1"]


def test_what_names_an_object_stays() -> None:
    pod = b"- kind: Pod\n  metadata:\n    name: p\n    labels: {a: b}\n  spec: {x: y}\n"
    source = b"apiVersion: v1\nkind: List\nitems:\n" + pod
    root = parse(source, PRUNED).root
    assert isinstance(root, Mapping)
    items = root.get("items")
    assert isinstance(items, Sequence)
    assert plain(items.items[0]) == {"kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}}


def test_a_reference_object_keeps_all_its_members() -> None:
    root = parse(b"data:\n  a: {store: s, ref: r, version: 3, verson: 4}\n  b: c\n", PRUNED).root
    assert root is not None
    assert plain(root) == {"data": {"a": {"store": "s", "ref": "r", "version": 3, "verson": 4}}}


def test_merge_keys_are_followed_and_an_own_key_wins() -> None:
    root = parse(b"base: &b {x: 1, y: 'secret:1'}\nuse:\n  <<: *b\n  x: 2\n", WHOLE).root
    assert root is not None
    assert plain(root)["use"] == {"x": 2, "y": "secret:1"}


def test_a_plain_scalar_with_a_colon_is_read_in_flow_style_as_kubernetes_reads_it() -> None:
    root = parse(b"args: [--url=http://x:80, {a: secret:1}]\nb: |\n  x\n", PRUNED).root
    assert root is not None
    assert [(scalar.value, scalar.start, scalar.end) for scalar in scalars(root) if scalar.live] == [
        ("secret:1", 30, 38)
    ]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (b"kind: A\nkind: B\n", "a mapping has the same key twice"),
        (b'kind: A\n"ki\\x6ed": B\n', "a mapping has the same key twice"),
        (b"a: x\na: secret:1\n", "a mapping has the same key twice"),
        (b"a: secret:1\na: x\n", "a mapping has the same key twice"),
        (b"a: *nowhere\n", "an alias names no anchor"),
        (b"a: &a [*a]\n", "an alias is part of what it names"),
        (b"? [a]\n: b\n", "a mapping key is not a scalar"),
        (b"a: [\n", "not YAML: did not find expected node content"),
        (b"a: b\r---\rc: d\n", "a document marker where Kubernetes sees none"),
        (b"a: !!binary '*'\n", "a !!binary value is not base64"),
        (b"[" * 200 + b"]" * 200, "nested deeper than 100 levels"),
        (b"[" + b"a," * 2000 + b"]", "the document has too many nodes"),
    ],
)
def test_what_is_refused(source: bytes, what: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(source, PRUNED._replace(nodes=1000))
    assert caught.value.what == what


def test_a_line_is_told_for_what_is_no_yaml() -> None:
    with pytest.raises(InputError) as caught:
        parse(b"a: b\n\tc: d\n", WHOLE)
    assert caught.value.where.line == 2


VALUES = st.recursive(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=8) | st.just("secret:x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdk"), inner, max_size=3),
    max_leaves=12,
)


def dump(value: Any) -> bytes:
    import io

    stream = io.BytesIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(value, stream)
    return stream.getvalue()


@given(VALUES)
@examples(200)
def test_unpruned_it_reads_what_ruamel_reads(value: Any) -> None:
    root = parse(dump({"v": value}), WHOLE).root
    assert root is not None

    def texts(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: texts(each) for key, each in node.items()}
        return [texts(each) for each in node] if isinstance(node, list) else str(node)

    def effective(node: Node) -> Any:
        if isinstance(node, Mapping):
            return {key.value: effective(each) for key, each in node.pairs}
        return [effective(each) for each in node.items] if isinstance(node, Sequence) else node.value

    assert effective(root) == texts({"v": value})


@given(VALUES)
@examples(200)
def test_pruning_loses_no_live_scalar(value: Any) -> None:
    source = dump({"v": value})
    whole, pruned = parse(source, WHOLE).root, parse(source, PRUNED).root
    assert whole is not None
    assert pruned is not None
    expected = [(scalar.start, scalar.end) for scalar in scalars(whole) if holds_secret(scalar.value)]
    assert [(scalar.start, scalar.end) for scalar in scalars(pruned) if scalar.live] == expected
