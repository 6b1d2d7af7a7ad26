"""The JSON Schemas of the configuration, made from the classes that read it and from the docstrings of their fields.

`python -m tests.schemas` writes them anew; tests/test_schemas.py fails where they are not as the classes say.
"""

import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from secretweave import config, stores
from secretweave.config import configuration
from secretweave.forms import NAMESPACE, Form, Seconds, Size
from secretweave.settings import key_of

FOLDER = Path(configuration.__file__).parent.parent / "schemas"
DIALECT = "http://json-schema.org/draft-07/schema#"
Schema = dict[str, Any]


def all_schemas() -> dict[str, str]:
    """The text of each schema by its file's name."""
    made = {"configuration.json": configuration_schema(), "secretstore.json": secret_store_schema()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def configuration_schema() -> Schema:
    return document(
        config.CONFIGURATION,
        "The settings of secretweave; a configuration holds at most one such document.",
        {"metadata": {"type": "object"}, "spec": of(configuration.Settings)},
        closed=True,
    )


def secret_store_schema() -> Schema:
    providers = {}
    for name in stores.types():
        provider = of(stores.settings_class(name))
        provider["description"] = paragraphs(sys.modules[f"secretweave.stores.{name}"].__doc__ or "")
        providers[name] = provider
    metadata = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {
                "description": "What references call the store.",
                "type": "string",
                "pattern": anchored(config.STORE_NAME.pattern),
                "not": {"const": config.INTERNAL_STORE},
            },
            "namespace": {
                "description": "The namespace that the store serves; without it, or with the operator's, every one.",
                "type": "string",
                "pattern": anchored(NAMESPACE.pattern),
            },
            "labels": {
                "type": "object",
                "properties": {
                    config.DEFAULT_LABEL: {
                        "description": 'The text "true" makes a cluster-wide store the default one.',
                        "type": "string",
                    }
                },
            },
        },
    }
    spec = {
        "description": "Exactly one provider.",
        "type": "object",
        "properties": providers,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    properties = {"metadata": metadata, "spec": spec}
    return document(config.STORE, "A store of secrets.", properties, required=["metadata", "spec"])


def document(
    head: tuple[str, str],
    description: str,
    properties: Schema,
    *,
    closed: bool = False,
    required: list[str] | None = None,
) -> Schema:
    return {
        "$schema": DIALECT,
        "title": head[1],
        "description": description,
        "type": "object",
        "required": ["apiVersion", "kind", *(required or [])],
        "properties": {"apiVersion": {"const": head[0]}, "kind": {"const": head[1]}, **properties},
        **({"additionalProperties": False} if closed else {}),
    }


def of(kind: Any) -> Schema:
    """The schema of an annotation that secretweave.settings reads."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return of(next(each for each in arguments if each is not type(None)))
    if origin is Annotated:
        form: Form = arguments[1]
        types = ["string", "integer"] if arguments[0] is int else "string"
        return {"type": types, "pattern": anchored(form.pattern)}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": of(arguments[0])}
    if hasattr(kind, "_fields"):
        return of_class(kind)
    if origin is not None:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    return {"type": {str: "string", int: "integer", bool: "boolean", float: "number"}[kind]}


def of_class(cls: Any) -> Schema:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body  # type: ignore[attr-defined]  # the one class definition
    properties: Schema = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        assert isinstance(statement.target, ast.Name)
        field = statement.target.id
        kind = cls.__annotations__[field]
        schema = of(kind)
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            schema = {**schema, "description": paragraphs(str(following.value.value))}
        default = cls._field_defaults.get(field)
        if default is not None and not (hasattr(default, "_fields") and default == type(default)()):
            schema["default"] = spelled(default, kind)
        properties[key_of(field)] = schema
    required = [key_of(field) for field in cls._fields if field not in cls._field_defaults]
    description = ast.get_docstring(tree.body[0]) or ""  # type: ignore[arg-type]  # the same
    return {
        **({"description": paragraphs(description)} if description else {}),
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def spelled(value: Any, kind: Any = None) -> Any:
    """A default as one would write it."""
    if kind == Size and value % (1 << 20) == 0:
        return f"{value >> 20}MiB"
    if kind == Seconds:
        return f"{value:g}s"
    if hasattr(value, "_fields"):
        return {key_of(field): spelled(member) for field, member in zip(value._fields, value, strict=True)}
    return list(map(spelled, value)) if isinstance(value, tuple) else value


def paragraphs(text: str) -> str:
    return inspect.cleandoc(text)


def anchored(pattern: str) -> str:
    return f"^(?:{pattern})$"


if __name__ == "__main__":
    for file, schema in all_schemas().items():
        (FOLDER / file).write_text(schema)
