"""The JSON Schemas for editors say what the readers say."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from secretweave import config, yamltree
from secretweave.errors import SecretweaveError
from tests import schemas

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
KINDS = {"Configuration": "configuration.json", "SecretStore": "secretstore.json"}
CONFIGURATIONS = sorted(
    path
    for path in EXAMPLES.rglob("*.yaml")
    if path.name == "config.yaml" or path.parent.name in {"config.d", "stores"}
)


def validator(kind: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads((schemas.FOLDER / KINDS[kind]).read_text()))


@pytest.mark.parametrize("name", sorted(KINDS.values()))
def test_a_schema_is_as_the_readers_say(name: str):
    assert (schemas.FOLDER / name).read_text() == schemas.all_schemas()[name], "run: python -m tests.schemas"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_schema_is_one(kind: str):
    jsonschema.Draft7Validator.check_schema(validator(kind).schema)


def test_the_examples_were_found():
    assert CONFIGURATIONS


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_is_valid_and_names_its_schema(path: Path):
    config.load(str(path), {})
    documents = [yamltree.plain(node) for node in yamltree.load(path.read_bytes())]
    for document in documents:
        validator(document["kind"]).validate(document)
    named = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(), re.MULTILINE)
    assert [(path.parent / name).resolve() for name in named] == [
        schemas.FOLDER / KINDS[document["kind"]] for document in documents
    ]


VAULT = {
    "vault": {
        "url": "https://vault.example.com:8200",
        "path": "secret",
        "auth": {"tokenSecretRef": {"name": "vault-token", "key": "token"}},
    }
}
AWS_KEYS = {
    "accessKeyIDSecretRef": {"name": "aws", "key": "access_key_id"},
    "secretAccessKeySecretRef": {"name": "aws", "key": "secret_access_key"},
}
AZURE = {"url": "https://shop.vault.azure.net", "tenantID": "00000000-0000-0000-0000-000000000000"}
DEFAULT = {
    "name": "ab",
    "namespace": "humanitec-operator-system",
    "labels": {"app.humanitec.io/default-store": "true"},
}
SPEC = {"apiVersion": "secretweave.dev/v1alpha1", "kind": "Configuration"}
STORE = {"apiVersion": "humanitec.io/v1alpha1", "kind": "SecretStore"}
FILE = {"file": {"path": "/s.yaml"}}


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        (SPEC, True),
        (SPEC | {"spec": {}}, True),
        (SPEC | {"spec": {"limits": {"documentBytes": "8MiB", "depth": 7}}}, True),
        (SPEC | {"spec": {"limits": {"documentBytes": 100}}}, True),
        (SPEC | {"spec": {"limits": {"documentBytes": "8MB"}}}, False),
        (SPEC | {"spec": {"limits": {"depth": "deep"}}}, False),
        (SPEC | {"spec": {"limit": {}}}, False),
        (SPEC | {"spec": {"references": {"literalValue": "refuse"}}}, True),
        (SPEC | {"spec": {"references": {"literalValue": "allow"}}}, False),
        (SPEC | {"spec": {"podTemplates": [{"apiVersion": "a/v1", "kind": "Rollout"}]}}, True),
        (SPEC | {"spec": {"podTemplates": [{"kind": "Rollout"}]}}, False),
        (SPEC | {"spec": {"allowEmptyInput": "yes"}}, False),
        (SPEC | {"specs": {}}, False),
        (SPEC | {"spec": {"limits": {"deadline": "1m30s", "request": "500ms"}}}, True),
        (SPEC | {"spec": {"limits": {"deadline": "50"}}}, False),
        (SPEC | {"spec": {"credentials": {"from": "folder", "folder": "credentials"}}}, True),
        (SPEC | {"spec": {"credentials": {"from": "vault"}}}, False),
        (SPEC | {"spec": {"secretStores": {"inStream": "use", "output": "drop"}}}, True),
        (SPEC | {"spec": {"secretStores": {"inStream": "allow"}}}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": FILE}, True),
        (STORE | {"metadata": {"name": "ab", "uid": "x"}, "spec": FILE, "status": {}}, True),
        (STORE | {"metadata": {"name": "a"}, "spec": FILE}, False),
        (STORE | {"metadata": {"name": "humanitec"}, "spec": FILE}, False),
        (STORE | {"metadata": {"name": "ab", "namespace": "A"}, "spec": FILE}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": {}}, False),
        (STORE | {"metadata": {"name": "ab"}}, False),
        (STORE | {"spec": FILE}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"flie": {}}}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"file": {}}}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"file": {"path": "x", "format": "toml"}}}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"file": {"path": "x", "mode": 1}}}, False),
        (STORE | {"metadata": {"name": "ab"}, "spec": VAULT | {"awssm": {}}}, False),
        # As the Humanitec Operator's documentation and its users write them.
        (STORE | {"metadata": DEFAULT, "spec": {"awssm": {"region": "eu-west-1", "auth": {}}}}, True),
        (STORE | {"metadata": DEFAULT, "spec": {"awssm": {"region": "eu-west-1", "auth": AWS_KEYS}}}, True),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"gcpsm": {"projectID": "shop-1234", "auth": {}}}}, True),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"azurekv": AZURE | {"auth": {}}}}, True),
        (STORE | {"metadata": {"name": "ab"}, "spec": VAULT}, True),
        (STORE | {"metadata": {"name": "ab"}, "spec": {"kubernetes": {"namespace": "quickstart-secrets"}}}, True),
    ],
)
def test_schema_and_reader_agree(tmp_path: Path, document: dict[str, Any], valid: bool):
    assert validator(document["kind"]).is_valid(document) == valid
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    if valid:
        config.load(str(path), {})
    else:
        with pytest.raises(SecretweaveError):
            config.load(str(path), {})
