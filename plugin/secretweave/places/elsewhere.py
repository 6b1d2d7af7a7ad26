"""Any other place: a reference there is woven only where the policy lets the value stand, and never passes unseen."""

from secretweave import references
from secretweave.errors import BadReference
from secretweave.model import Use
from secretweave.scan.objects import Object, step
from secretweave.scan.page import Page
from secretweave.yamltree import Mapping, Node, Scalar


def find(obj: Object, page: Page, handled: set[str]) -> None:
    """Weaves every reference of *obj* whose key path is not in *handled*; policy judges their uses later."""
    definition = obj.kind == "CustomResourceDefinition" and obj.group == "apiextensions.k8s.io"

    def visit(node: Node, path: str) -> None:
        if not node.live or path in handled:
            return
        page.visit()
        if isinstance(node, Scalar):
            if not (definition and path.startswith("spec.") and path.endswith(".description")):
                scalar(node, path)
        elif isinstance(node, Mapping):
            for key, value in node.pairs:
                if key.live:
                    refuse_key(key, path, obj, page)
                if key.value == "secretStoreRef" and path.endswith("valueFrom"):
                    store_ref(value, path)
                visit(value, step(path, key.value))
        else:
            for index, item in enumerate(node.items):
                if not (path == "items" and index in obj.items):
                    visit(item, step(path, index))

    def store_ref(node: Node, path: str) -> None:
        if isinstance(node, Mapping) and node.get("store") and node.get("ref"):
            page.fault(
                BadReference(
                    "a secretStoreRef outside the containers that are known",
                    why=f"where a {obj.kind} has its pods is not known",
                    fix="name the kind and the path of its pod template under podTemplates in the configuration",
                ),
                page.where(obj, node.line, path),
            )

    def scalar(node: Scalar, path: str) -> None:
        where = page.where(obj, node.line, path)
        parts = page.read(node, where)
        if parts is None:
            return
        if any(isinstance(part, references.Nested) for part in parts):
            page.fault(
                BadReference(
                    "a reference in base64 outside a Secret",
                    fix="move the value into a Secret, or write the reference in plain sight",
                ),
                where,
            )
            return
        pieces = page.pieces(parts, obj, where, "elsewhere")
        if pieces is None:
            return
        if any(isinstance(piece, Use) and piece.reference.optional for piece in pieces):
            page.fault(
                BadReference(
                    "?optional outside a Secret and a container's env",
                    why="no field can be left out here",
                    fix="use ?default= instead",
                ),
                where,
            )
            return
        page.edit(page.token(node, pieces, where), where)

    visit(obj.node, "")


def refuse_key(key: Scalar, path: str, obj: Object, page: Page) -> None:
    page.fault(
        BadReference(
            "a reference in a mapping key",
            why="a key names something; its value is what can be secret",
            fix="write the key out, or as secret:!// where the text is meant literally",
        ),
        page.where(obj, key.line, path),
    )
