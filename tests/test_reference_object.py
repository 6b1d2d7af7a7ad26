"""The reference object: YAML in, Reference or literal or faults out."""

import pytest

from secretweave.errors import Faults, SecretweaveError
from secretweave.model import Reference
from secretweave.references.reference_object import Literal, read
from secretweave.yamltree import Mapping, load


def of(text: str) -> Mapping:
    (node,) = load(text.encode())
    assert isinstance(node, Mapping)
    return node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{store: shop, ref: app/db}", Reference("shop", "app/db")),
        ("{store: shop, ref: app/db, version: 3}", Reference("shop", "app/db", "3")),
        ("{store: shop, ref: app/db, version: '3'}", Reference("shop", "app/db", "3")),
        ("{store: shop, ref: app/db, version: 0755}", Reference("shop", "app/db", "0755")),
        ('{store: shop, ref: app/db, version: ""}', Reference("shop", "app/db")),
        ('{"ref": "app/db", "store": "shop"}', Reference("shop", "app/db")),
        # Terraform writes null for what is left out.
        ("{store: shop, ref: app/db, version: null, value: null}", Reference("shop", "app/db")),
        ("{store: shop, ref: app/db, version: ~, value: , key: NULL, more: null}", Reference("shop", "app/db")),
        ("{store: null, ref: null, version: null, value: x}", Literal("x")),
        ("{value: ''}", Literal("")),
        ('{value: "null"}', Literal("null")),
        ("value: |\n  two\n  lines\n", Literal("two\nlines\n")),
        (r"{value: '$\{context.app.id}'}", Literal(r"$\{context.app.id}")),
        # Our own members.
        ("{store: shop, ref: app/db, key: user}", Reference("shop", "app/db", key="user")),
        ("{store: shop, ref: app/db, key: ''}", Reference("shop", "app/db", key="")),
        ("{store: shop, ref: app/db, optional: true}", Reference("shop", "app/db", optional=True)),
        ("{store: shop, ref: app/db, optional: false}", Reference("shop", "app/db")),
        ("{store: shop, ref: app/db, default: 1}", Reference("shop", "app/db", default="1")),
        ("{store: shop, ref: app/db, default: ''}", Reference("shop", "app/db", default="")),
        # None of its members.
        ("{}", None),
        ("{name: x, namespace: y}", None),
        ("{store: null, ref: ~}", None),
    ],
)
def test_read(text: str, expected: Reference | Literal | None):
    assert read(of(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{store: shop}", ["a reference object without ref"]),
        ("{store: shop, ref: ''}", ["a reference object without ref"]),
        ("{ref: app/db}", ["a reference object without store"]),
        ("{version: '1'}", ["a reference object without ref", "a reference object without store"]),
        ("{store: shop, version: '1'}", ["a reference object without ref"]),
        ("{value: x, ref: app/db}", ["a reference object with both a value and a reference"]),
        ("{value: x, store: shop, ref: app/db}", ["a reference object with both a value and a reference"]),
        ("{value: x, key: a}", ["a reference object with both a value and a reference"]),
        ("{value: '${resources.db.outputs.password}'}", ["a placeholder for an output of another resource"]),
        ("{store: humanitec, ref: app/db}", ["a reference to the original system's internal store"]),
        ("{store: shop, ref: 'app/${context.env.id}'}", ["a placeholder in a secret reference"]),
        ("{store: '${context.env.id}', ref: app/db}", ["a placeholder in a secret reference"]),
        ("{store: shop, ref: app/db, version: '${context.env.id}'}", ["a placeholder in a secret reference"]),
        ("{store: shop, ref: app/db, verison: 1}", ["a reference object with an unknown member"]),
        (
            "{store: shop, ref: [app]}",
            ["a reference object whose ref is no plain value", "a reference object without ref"],
        ),
        ("{store: shop, ref: app/db, optional: 'true'}", ["a reference object whose optional is no bool"]),
        ("{store: shop, ref: app/db, optional: 1}", ["a reference object whose optional is no bool"]),
        (
            "{store: humanitec, property: x}",
            [
                "a reference object with an unknown member",
                "a reference object without ref",
                "a reference to the original system's internal store",
            ],
        ),
    ],
)
def test_refused(text: str, expected: list[str]):
    with pytest.raises(SecretweaveError) as caught:
        read(of(text))
    fault = caught.value
    assert [each.what for each in (fault.faults if isinstance(fault, Faults) else [fault])] == expected


@pytest.mark.parametrize("member", ["version", "key", "optional", "default"])
def test_a_member_that_stands_twice_is_ambiguous(member: str):
    with pytest.raises(SecretweaveError, match="a mapping has the same key twice"):
        read(of(f"{{store: shop, ref: app/db, {member}: null, {member}: null}}"))


def test_the_default_store_where_the_configuration_lets_it():
    assert read(of("{ref: app/db, store: null}"), default_store=True) == Reference("", "app/db")


def test_no_fault_shows_a_value():
    for text in ("{value: hunter2, ref: hunter2}", "{value: 'hunter2${x}'}", "{hunter2: x, store: s, ref: hunter2}"):
        with pytest.raises(SecretweaveError) as caught:
            read(of(text))
        fault = caught.value
        assert "hunter2" not in fault.what + fault.why + fault.fix
