from collections.abc import Mapping
from typing import Literal, NamedTuple

import pytest

from secretweave import settings, yamltree
from secretweave.errors import SecretweaveError
from secretweave.forms import Count, FilePath, Seconds, Size
from secretweave.settings import Place


class Auth(NamedTuple):
    role_arn: str = ""
    token_secret_ref: str | None = None


class Server(NamedTuple):
    project_id: str
    url: str = ""
    mode: Literal["fast", "safe"] = "safe"
    tries: int = 3
    share: float = 0.5
    on: bool = False
    class_: str = ""
    auth: Auth = Auth()
    rules: tuple[Auth, ...] = ()
    labels: Mapping[str, str] = {}
    size: Size = 1
    wait: Seconds = 1.0
    workers: Count = 1
    ca_file: FilePath | None = None


ALL_KEYS = "auth, caFile, class, labels, mode, on, projectID, rules, share, size, tries, url, wait, workers"


def read(text: str) -> tuple[Server | None, list[SecretweaveError]]:
    faults: list[SecretweaveError] = []
    (node,) = yamltree.load(text.encode())
    return settings.read(node, Server, Place("/etc/c.yaml", 2, "Server x", "spec"), faults), faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("projectID: p", Server("p")),
        ('projectID: "12345"', Server("12345")),
        ("projectID: p\nauth: {}", Server("p")),
        ("projectID: p\nauth: {roleARN: r, tokenSecretRef: null}", Server("p", auth=Auth("r"))),
        ("projectID: p\nauth:\nmode:\ntries: ~", Server("p")),
        ("projectID: p\nclass: c\non: true\ntries: 0", Server("p", class_="c", on=True, tries=0)),
        ("projectID: p\nshare: 1", Server("p", share=1.0)),
        ("projectID: p\nrules: [{roleARN: a}, {}]", Server("p", rules=(Auth("a"), Auth()))),
        ("projectID: p\nlabels: {a: b, c: d}", Server("p", labels={"a": "b", "c": "d"})),
        ("projectID: p\nsize: 4MiB", Server("p", size=4194304)),
        ("projectID: p\nsize: 2Ki", Server("p", size=2048)),
        ("projectID: p\nsize: 10", Server("p", size=10)),
        ("projectID: p\nwait: 1m30s", Server("p", wait=90.0)),
        ("projectID: p\nwait: 2h", Server("p", wait=7200.0)),
        ("projectID: p\nwait: 0.5s", Server("p", wait=0.5)),
        ("projectID: p\nwait: 250ms", Server("p", wait=0.25)),
        ("projectID: p\nworkers: 7", Server("p", workers=7)),
        ("projectID: p\ncaFile: ca.pem", Server("p", ca_file="/etc/ca.pem")),
        ("projectID: p\ncaFile: /x/ca.pem", Server("p", ca_file="/x/ca.pem")),
        ('{"projectID": "p", "mode": "fast"}', Server("p", mode="fast")),
        ("base: &b {roleARN: r}\nprojectID: p\nauth: *b", None),
        ("projectID: p\nauth: {<<: {roleARN: r}}", Server("p", auth=Auth("r"))),
    ],
)
def test_what_is_read(text: str, expected: Server | None):
    assert read(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("{}", ["line 1 spec: `projectID` is missing | add `projectID`"]),
        ("just text", ["line 1 spec: expected a mapping, found text | "]),
        (
            "projectID: p\nproject_id: q",
            ["line 2 spec: unknown key `project_id` | write `projectID`, if that is meant"],
        ),
        ("projectID: p\nurI: q", ["line 2 spec: unknown key `urI` | write `url`, if that is meant"]),
        ("projectID: p\nhunter2! s: q", None),
        ("projectID: 12345", ["line 1 spec.projectID: expected text, found a whole number | put it in quotes"]),
        ("projectID: true", ["line 1 spec.projectID: expected text, found true or false | put it in quotes"]),
        ("projectID: [hunter2]", ["line 1 spec.projectID: expected text, found a list | "]),
        ("projectID: p\ntries: hunter2", ["line 2 spec.tries: expected a whole number, found text | "]),
        ("projectID: p\ntries: true", ["line 2 spec.tries: expected a whole number, found true or false | "]),
        ("projectID: p\non: yes", ["line 2 spec.on: expected true or false, found text | "]),
        ("projectID: p\nmode: hunter2", ["line 2 spec.mode: expected one of fast, safe, found other text | "]),
        ("projectID: p\nsize: 4MB", ["line 2 spec.size: expected a size such as `4MiB`, found other text | "]),
        ("projectID: p\nsize: -1", ["line 2 spec.size: expected a size such as `4MiB`, found a whole number | "]),
        ("projectID: p\nwait: 50", None),
        ("projectID: p\nwait: s", None),
        ("projectID: p\nworkers: 0", None),
        (
            "projectID: p\nauth: {roleARN: r, role: s}",
            ["line 2 spec.auth: unknown key `role` | write `roleARN`, if that is meant"],
        ),
        (
            "projectID: p\nrules:\n- {}\n- x: 1",
            ["line 4 spec.rules[1]: unknown key `x` | use one of roleARN, tokenSecretRef"],
        ),
        (
            "projectID: p\nlabels: {a: 1}",
            ["line 2 spec.labels.a: expected text, found a whole number | put it in quotes"],
        ),
        ("projectID: p\ntries: 1\ntries: 2", ["line 3 spec: `tries` stands here twice | keep one of the two"]),
        (
            "tries: x\nmode: y\nz: 1",
            [
                "line 1 spec.tries: expected a whole number, found text | ",
                "line 2 spec.mode: expected one of fast, safe, found other text | ",
                f"line 3 spec: unknown key `z` | use one of {ALL_KEYS}",
                "line 1 spec: `projectID` is missing | add `projectID`",
            ],
        ),
    ],
)
def test_every_fault_is_told_and_no_value(text: str, faults: list[str] | None):
    value, found = read(text)
    assert value is None
    told = [f"line {each.where.line} {each.where.field}: {each.what} | {each.fix}" for each in found]
    assert told == faults if faults else len(told) == 1
    assert "hunter2" not in "".join(told)
    assert {(each.where.source, each.where.document, each.where.resource) for each in found} == {
        ("/etc/c.yaml", 2, "Server x")
    }


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("url", "url"),
        ("project_id", "projectID"),
        ("tenant_id", "tenantID"),
        ("access_key_id_secret_ref", "accessKeyIDSecretRef"),
        ("secret_access_key_secret_ref", "secretAccessKeySecretRef"),
        ("token_secret_ref", "tokenSecretRef"),
        ("client_id_secret_ref", "clientIDSecretRef"),
        ("role_arn", "roleARN"),
        ("class_", "class"),
        ("allow_empty_input", "allowEmptyInput"),
    ],
)
def test_keys_are_spelled_as_the_operator_spells_them(field: str, key: str):
    assert settings.key_of(field) == key
