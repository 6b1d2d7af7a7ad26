"""The reference object of the original system, `{store, ref, version?}`, with our `key`, `optional` and `default`.

https://github.com/humanitec/humanitec-go-autogen, `SecretReference`. A member that is null counts as absent, for
Terraform writes those of optional attributes. `{value: ...}` is a literal, which excludes the other members.
"""

from typing import NamedTuple

from secretweave.errors import BadReference, Faults, SecretweaveError
from secretweave.model import Reference
from secretweave.yamltree import BINARY_TAG, Mapping, Node, Scalar, plain, twice

MEMBERS = ("store", "ref", "version", "key", "optional", "default", "value")
INTERNAL_STORE = "humanitec"


class Literal(NamedTuple):
    """A literal value where a reference could stand."""

    value: str


def read(node: Mapping, *, default_store: bool = False) -> Reference | Literal | None:
    """The reference that *node* is; None: no member of one. *default_store*: may `store` be left out?

    Raises BadReference, or Faults if there are several; InputError where a member stands twice.
    """
    if node.twice:
        raise twice(*node.twice)
    if node.crowded:
        raise _bad("a reference object with too many members", f"use only {', '.join(MEMBERS)}")
    members = {key.value: value for key, value in node.pairs if not _is_null(value)}
    if not members.keys() & set(MEMBERS):
        return None
    faults: list[SecretweaveError] = []
    for name, value in members.items():
        if name not in MEMBERS:
            faults.append(_bad("a reference object with an unknown member", f"use only {', '.join(MEMBERS)}"))
        elif not isinstance(value, Scalar) or value.tag == BINARY_TAG:
            faults.append(_bad(f"a reference object whose {name} is no plain value", "write text"))
    texts = {name: value.value for name, value in members.items() if isinstance(value, Scalar)}
    faults += _judged(texts, default_store=default_store)
    optional = plain(members["optional"]) if "optional" in texts else False
    if not isinstance(optional, bool):
        faults.append(_bad("a reference object whose optional is no bool", "write true or false"))
    if faults:
        raise faults[0] if len(faults) == 1 else Faults(faults)
    if "value" in texts:
        return Literal(texts["value"])
    return Reference(
        texts.get("store", ""),
        texts["ref"],
        texts.get("version") or None,
        texts.get("key"),
        optional=optional is True,
        default=texts.get("default"),
    )


def _judged(texts: dict[str, str], *, default_store: bool) -> list[SecretweaveError]:
    if "value" in texts:
        if len(texts) > 1:
            return [_bad("a reference object with both a value and a reference", "keep one of them")]
        if "${" in texts["value"]:
            return [
                BadReference(
                    "a placeholder for an output of another resource",
                    why="no outputs are in the input; the orchestrator that provisions the resource has them",
                    fix="name the secret with store and ref",
                )
            ]
        return []
    faults: list[SecretweaveError] = []
    if not texts.get("ref"):
        faults.append(_bad("a reference object without ref", "give it the secret's address in the store"))
    if not texts.get("store") and not default_store:
        faults.append(
            _bad(
                "a reference object without store",
                "name the store, or set references.defaultStore to `allow` in the configuration",
            )
        )
    if texts.get("store") == INTERNAL_STORE:
        faults.append(
            BadReference(
                "a reference to the original system's internal store",
                why="nothing outside that system can read it",
                fix="move the secret to a store of your own",
            )
        )
    if any("${" in texts.get(name, "") for name in ("store", "ref", "version")):
        faults.append(_bad("a placeholder in a secret reference", "write store, ref and version out"))
    return faults


def _bad(what: str, fix: str) -> BadReference:
    return BadReference(what, fix=fix)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and plain(node) is None
