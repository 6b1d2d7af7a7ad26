"""Every way to hide a reference from the check ends in a refusal or in a correct weave, never in a silent pass.

Each case is a stream and what becomes of it: the parsed output, or the fault that refuses it. Each run is a process of
its own, forked: how the command starts is the golden cases' to test.
"""

import base64
import json
import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import Command

REFERENCE = "secret://shop/app/token"
ENCODED = base64.b64encode(REFERENCE.encode()).decode()
HOISTED = f"$(HOST)/$({REFERENCE})"
URL_SAFE = base64.urlsafe_b64encode(REFERENCE.encode()).decode()
VALUE = "s3cr3t-t0ken"
VALUE_ENCODED = base64.b64encode(VALUE.encode()).decode()
METADATA = "metadata: {name: s}\n"
SECRET = f"apiVersion: v1\nkind: Secret\n{METADATA}"
CONFIG_MAP = f"apiVersion: v1\nkind: ConfigMap\n{METADATA}"
CRD = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
MAPPING_FLOW = "apiVersion: humanitec.io/v1alpha1, kind: SecretMapping"
MAPPING = "apiVersion: humanitec.io/v1alpha1\nkind: SecretMapping\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
DATA = f"data: {{a: {ENCODED}}}\n"
ITEM = f"{{apiVersion: v1, kind: Secret, data: {{a: {ENCODED}}}}}"
STRING_DATA = f"stringData: {{a: {REFERENCE}}}\n"

NOT_HERE = "a secret value may not stand in this field of a "
BASE64 = "a reference in base64 outside a Secret"
KEY = "a reference in a mapping key"
TAG = "a reference under a YAML tag"
TWICE = "a mapping has the same key twice"
MARKER = "a line that begins with --- and goes on"
ALIAS = "a reference behind a YAML alias that is used in two different ways"


def parsed(source: bytes) -> list[Any]:
    """Each document, cut as Kubernetes cuts: the whole stream, a byte order mark in its midst, is not YAML."""
    parts = re.split(r"\n---[^\n]*", "\n" + source.decode().replace("\r\n", "\n"))
    return [YAML(typ="safe").load(part.replace("\ufeff", "")) for part in parts if part.strip()]


def pod(env: str) -> str:
    return f"{POD}spec: {{containers: [{{name: c, env: {env}}}]}}\n"


WOVEN = {
    "flow style": f"{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, stringData: {{a: '{REFERENCE}'}}}}\n",
    "JSON": f'{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"s"}},"stringData":{{"a":"{REFERENCE}"}}}}',
    "quoted keys": f"'apiVersion': 'v1'\n'kind': 'Secret'\n{METADATA}\"data\": {{'a': '{ENCODED}'}}\n",
    "escaped kind": f'apiVersion: v1\n"ki\\x6ed": Secret\n{METADATA}{DATA}',
    "escaped value of kind": f'apiVersion: v1\nkind: "\\x53ecret"\n{METADATA}{DATA}',
    "escaped apiVersion": f'"\\x61piVersion": v1\nkind: Secret\n{METADATA}{DATA}',
    "escaped stringData": f'{SECRET}"string\\x44ata": {{a: {REFERENCE}}}\n',
    "escaped data": f'{SECRET}"d\\x61ta": {{a: {ENCODED}}}\n',
    "escaped scheme": f'{SECRET}stringData: {{a: "\\x73ecret://shop/app/token"}}\n',
    "escaped slashes": f'{SECRET}stringData: {{a: "secret:\\/\\/shop/app/token"}}\n',
    "escaped by u": f'{SECRET}stringData: {{a: "\\u0073ecret://shop/app/token"}}\n',
    "escaped by U": f'{SECRET}stringData: {{a: "\\U00000073ecret://shop/app/token"}}\n',
    "folded by a backslash": f'{SECRET}stringData:\n  a: "secr\\\n    et://shop/app/token"\n',
    "kind folded by a backslash": f'apiVersion: v1\nkind: "Sec\\\n  ret"\n{METADATA}{DATA}',
    "kind on the next line": f"apiVersion: v1\nkind:\n  Secret\n{METADATA}{DATA}",
    "kind in a block scalar": f"apiVersion: v1\nkind: |-\n  Secret\n{METADATA}{DATA}",
    "white space before the colon": f"apiVersion : v1\nkind : Secret\n{METADATA}{DATA}",
    "tabs after the colon": f"apiVersion:\tv1\nkind:\tSecret\n{METADATA}{DATA}",
    "explicit keys": f"? apiVersion\n: v1\n? kind\n: Secret\n? metadata\n: {{name: s}}\n? data\n: {{a: {ENCODED}}}\n",
    "everything indented": "".join(f"  {line}\n" for line in (SECRET + DATA).splitlines()),
    "str tag on a key": f"{SECRET}!!str stringData: {{a: {REFERENCE}}}\n",
    "str tag on kind": f"apiVersion: v1\n!!str kind: !!str Secret\n{METADATA}{DATA}",
    "str tag on the value": f"{SECRET}stringData: {{a: !!str {REFERENCE}}}\n",
    "non-specific tag": f"{SECRET}stringData: {{a: ! {REFERENCE}}}\n",
    "anchor on kind": f"apiVersion: v1\nkind: &k Secret\n{METADATA}{DATA}",
    "alias for kind": f"apiVersion: v1\nx: &k Secret\nkind: *k\n{METADATA}{DATA}",
    "alias within data": f"{SECRET}data: {{a: &r {REFERENCE}, b: *r}}\n",
    "merge key for kind": f"x: &x {{apiVersion: v1, kind: Secret}}\n<<: *x\n{METADATA}{DATA}",
    "merge key with a list": f"<<: [{{kind: Secret}}, {{apiVersion: v1}}]\n{METADATA}{DATA}",
    "merge key with a list of aliases": f"x: [&x {{kind: Secret}}, &y {{apiVersion: v1}}]\n"
    f"<<: [*x, *y]\n{METADATA}{DATA}",
    "merge key within stringData": f"{SECRET}stringData:\n  <<: {{a: {REFERENCE}}}\n",
    "list": f"apiVersion: v1\nkind: List\nitems:\n- {ITEM}\n",
    "items in a kind of one's own": f"apiVersion: x/v1\nkind: Foo\nitems:\n- {ITEM}\n",
    "escaped items": f'apiVersion: x/v1\nkind: Foo\n"it\\x65ms":\n- {ITEM}\n',
    "items and no kind": f"items:\n- {ITEM}\n",
    "nested lists": f"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - {ITEM}\n",
    "items without kind": f"apiVersion: v1\nkind: SecretList\nitems:\n- {{metadata: {{name: s}}, {DATA[:-1]}}}\n",
    "byte order mark": f"\ufeff{SECRET}{DATA}",
    "byte order mark in mid-stream": f"{CONFIG_MAP}---\n\ufeff{SECRET}{DATA}",
    "CRLF": (SECRET + DATA).replace("\n", "\r\n"),
    "comment on a marker line": f"--- # comment\n{SECRET}{DATA}",
    "tab on a marker line": f"---\t\n{SECRET}{DATA}",
    "end of document before a marker": f"{CONFIG_MAP}...\n---\n{SECRET}{DATA}",
    "base64 with the alphabet of URLs' letters only": f"{SECRET}data: {{a: {URL_SAFE}}}\n",
    "base64 in stringData": f"{SECRET}stringData: {{a: {ENCODED}}}\n",
    "escaped value of an env item": pod(f'[{{name: A, "va\\u006cue": {REFERENCE}}}]'),
    "escaped secretStoreRef": pod('[{name: A, valueFrom: {"secret\\x53toreRef": {store: shop, ref: app/token}}}]'),
    "merged secretStoreRef": pod("[{name: A, valueFrom: {secretStoreRef: {<<: {store: shop}, ref: app/token}}}]"),
    "comment between the dash and its item": (
        f"{POD}spec:\n  containers:\n  - name: c\n    env:\n    - # {'a long comment ' * 50}- x\n      # more\n"
        f"      name: A\n      value: {HOISTED}\n"
    ),
    "indented SecretMapping": (
        "  apiVersion: humanitec.io/v1alpha1\n  kind: SecretMapping\n  spec:\n    secretName: q\n    secretData:\n"
        "    - {secretKey: k, secretStoreName: shop, remoteRef: {key: app/token}}\n"
    ),
    "merged reference object": f"{SECRET}stringData: {{a: {{<<: {{store: shop}}, ref: app/token}}}}\n",
}


def holds_the_value(node: Any) -> bool:
    if isinstance(node, dict):
        return any(holds_the_value(each) for each in node.values())
    if isinstance(node, list):
        return any(holds_the_value(each) for each in node)
    return node in {VALUE, VALUE_ENCODED}


@pytest.mark.parametrize("case", WOVEN)
def test_seen_and_woven(case: str, forked: Command) -> None:
    done = forked(stdin=WOVEN[case].encode())
    assert done.stderr == b""
    assert any(map(holds_the_value, parsed(done.stdout)))
    assert "secret:" not in done.stdout.decode()
    assert ENCODED not in done.stdout.decode()


@pytest.mark.parametrize("line_break", ["\r", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("before", ["x: y", "# a comment"])
def test_a_line_break_of_another_kind_hides_no_kind(before: str, line_break: str, forked: Command) -> None:
    done = forked(stdin=f"apiVersion: v1\n{before}{line_break}kind: Secret\n{METADATA}{DATA}".encode())
    assert (done.returncode, VALUE_ENCODED in done.stdout.decode()) == (0, True)


REFUSED = {
    "escaped in a ConfigMap": (f'{CONFIG_MAP}data: {{a: "\\x73ecret://shop/app/token"}}\n', f"{NOT_HERE}ConfigMap"),
    "escaped slashes in a ConfigMap": (f'{CONFIG_MAP}data: {{a: "secret:\\/\\/shop/x"}}\n', f"{NOT_HERE}ConfigMap"),
    "folded in a ConfigMap": (f'{CONFIG_MAP}data:\n  a: "secret:\\\n    //shop/x"\n', f"{NOT_HERE}ConfigMap"),
    "folded between the slashes": (f'{CONFIG_MAP}data:\n  a: "secret:/\\\n    /shop/x"\n', f"{NOT_HERE}ConfigMap"),
    "binary tag": (f"{CONFIG_MAP}data: {{a: !!binary {ENCODED}}}\n", TAG),
    "verbatim binary tag": (f"{CONFIG_MAP}data: {{a: !<tag:yaml.org,2002:binary> {ENCODED}}}\n", TAG),
    "percent-escaped binary tag": (f"{CONFIG_MAP}data: {{a: !!bin%61ry {ENCODED}}}\n", TAG),
    "binary tag over several lines": (
        f"{CONFIG_MAP}data:\n  a: !!binary |\n    {ENCODED[:9]}\n    {ENCODED[9:]}\n",
        TAG,
    ),
    "local tag": (f"{SECRET}stringData: {{a: !x {REFERENCE}}}\n", TAG),
    "binary tag on a key": (f"{SECRET}stringData: {{!!binary {ENCODED}: x}}\n", KEY),
    "binary tag on kind": (f"apiVersion: v1\nkind: !!binary U2VjcmV0\n{METADATA}{DATA}", "not a plain string"),
    "directive for a tag": (f"%TAG !x! tag:yaml.org,2002:\n---\n{CONFIG_MAP}", "a %YAML or %TAG directive"),
    "directive for the version": (f"%YAML 1.2\n---\n{SECRET}{DATA}", "a %YAML or %TAG directive"),
    "kind twice": (f"apiVersion: v1\nkind: ConfigMap\nkind: Secret\n{METADATA}{DATA}", TWICE),
    "data twice": (f"{SECRET}{DATA}data: {{b: eA==}}\n", TWICE),
    "data twice, the second escaped": (f'{SECRET}data: {{b: eA==}}\n"d\\x61ta": {{a: {ENCODED}}}\n', TWICE),
    "one key of data twice": (f"{SECRET}stringData: {{a: x, a: {REFERENCE}}}\n", TWICE),
    "one key of data twice, the reference first": (f"{SECRET}stringData: {{a: {REFERENCE}, a: x}}\n", TWICE),
    "kind in another case": (f"apiVersion: v1\nKind: Secret\n{METADATA}{DATA}", BASE64),
    "data in another case": (f"{SECRET}Data: {{a: {ENCODED}}}\n", BASE64),
    "stringData in another case": (f"{SECRET}stringdata: {{a: {REFERENCE}}}\n", f"{NOT_HERE}Secret"),
    "kind with a line break": (f"apiVersion: v1\nkind: |\n  Secret\n{METADATA}{DATA}", BASE64),
    "quoted merge key": (f"'<<': {{apiVersion: v1, kind: Secret}}\n{METADATA}{DATA}", BASE64),
    "tagged merge key": (f"!!merge <<: {{kind: Secret}}\n{METADATA}{DATA}", "a merge key (<<) with a tag"),
    "merge tag on another key": (f"!!merge x: {{apiVersion: v1, kind: Secret}}\n{METADATA}{DATA}", BASE64),
    "items in another case": (f"kind: List\nItems:\n- {ITEM}\n", BASE64),
    "objects that are no items": (
        f"kind: Template\nobjects:\n- {ITEM}\n",
        BASE64,
    ),
    "items that are a mapping": (f"kind: List\nitems: {{x: {{kind: Secret, {DATA[:-1]}}}}}\n", BASE64),
    "a sequence as the document": (f"- {{kind: Secret, {DATA[:-1]}}}\n", "a document that is no Kubernetes object"),
    "a scalar as the document": (f"{REFERENCE}\n", "a document that is no Kubernetes object"),
    "byte order mark before a marker": (f"{SECRET}\ufeff---\n{SECRET}{DATA}", "not YAML: "),
    "byte order mark before a key": (f"apiVersion: v1\n\ufeffkind: Secret\n{METADATA}{DATA}", "not YAML: "),
    "marker after a lone CR": (f"a: b\r---\r{SECRET}{DATA}", "a document marker where Kubernetes sees none"),
    "marker after NEL": (f"a: b\x85---\x85{SECRET}{DATA}", "a document marker where Kubernetes sees none"),
    "marker in a block scalar": (f"{CONFIG_MAP}data:\n  a: |\n    x\n---\n    y: {REFERENCE}\n", NOT_HERE),
    "content on a marker line": (f"--- {ITEM}\n", MARKER),
    "content glued to a marker": (f"---{{apiVersion: v1, kind: Secret, {DATA[:-1]}}}\n", MARKER),
    "block scalar on a marker line": (f"--- |\n{SECRET}{DATA}", MARKER),
    "tag on a marker line": (f"--- !!map\n{SECRET}{DATA}", MARKER),
    "end of document and no marker": (f"{CONFIG_MAP}...\n{SECRET}{DATA}", "not YAML: "),
    "NUL": (f"{SECRET}{DATA}\0", "a NUL byte"),
    "mapping key": (f"{SECRET}{REFERENCE}: x\n", KEY),
    "key of data": (f"{SECRET}stringData: {{'{REFERENCE}': x}}\n", KEY),
    "block scalar in a ConfigMap": (
        f"{CONFIG_MAP}data:\n  a: |\n    # {REFERENCE}\n",
        "a secret:// that is neither the whole value nor in $(...), at character 3 of the value",
    ),
    "binaryData": (f"{CONFIG_MAP}binaryData: {{a: {ENCODED}}}\n", BASE64),
    "default in a CRD": (f"{CRD}spec: {{default: '{REFERENCE}'}}\n", f"{NOT_HERE}CustomResourceDefinition"),
    "description in what only calls itself a CRD": (
        f"apiVersion: x/v1\nkind: CustomResourceDefinition\nspec: {{description: '{REFERENCE}'}}\n",
        f"{NOT_HERE}CustomResourceDefinition",
    ),
    "annotation of a CRD that is called description": (
        f"{CRD}metadata: {{annotations: {{description: '{REFERENCE}'}}}}\n",
        f"{NOT_HERE}CustomResourceDefinition",
    ),
    "env of a kind that is no workload": (
        f"apiVersion: x/v1\nkind: Foo\nspec: {{env: [{{name: A, value: {REFERENCE}}}]}}\n",
        f"{NOT_HERE}Foo",
    ),
    "secretStoreRef in env of a kind that is no workload": (
        "apiVersion: x/v1\nkind: Foo\nspec:\n  env: [{name: A, valueFrom: {secretStoreRef: {store: shop, ref: x}}}]\n",
        "a secretStoreRef outside the containers that are known",
    ),
    "secretStoreRef beside another source": (
        pod("[{name: A, valueFrom: {secretStoreRef: {store: shop, ref: x}, fieldRef: {fieldPath: y}}}]"),
        "a secretStoreRef beside another source",
    ),
    "value beside valueFrom": (
        pod(f"[{{name: A, value: {REFERENCE}, valueFrom: {{fieldRef: {{fieldPath: y}}}}}}]"),
        "an environment variable with both value and valueFrom",
    ),
    "secretStoreRef without ref": (pod("[{name: A, valueFrom: {secretStoreRef: shop}}]"), "a secretStoreRef without"),
    "name of an env item": (pod(f"[{{name: {REFERENCE}, value: x}}]"), f"{NOT_HERE}Pod"),
    "env that is a mapping": (pod(f"{{A: {REFERENCE}}}"), f"{NOT_HERE}Pod"),
    "containers that are a mapping": (f"{POD}spec: {{containers: {{c: {{x: {REFERENCE}}}}}}}\n", f"{NOT_HERE}Pod"),
    "one anchor in an annotation and in data": (
        f"apiVersion: v1\nkind: Secret\nmetadata: {{annotations: {{x: &a {REFERENCE}}}}}\nstringData: {{a: *a}}\n",
        f"{NOT_HERE}Secret",
    ),
    "stringData under annotations by an alias": (
        f"apiVersion: v1\nkind: Secret\nstringData: &a {{a: {REFERENCE}}}\nmetadata: {{annotations: *a}}\n",
        f"{NOT_HERE}Secret",
    ),
    "stringData as data by an alias": (f"{SECRET}stringData: &a {{a: {REFERENCE}}}\ndata: *a\n", ALIAS),
    "alias for what is rewritten": (
        pod("[{name: A, valueFrom: &v {secretStoreRef: {store: shop, ref: app/token}}}]") + "x: *v\n",
        "a YAML alias for a place that is rewritten",
    ),
    "alias for a reference object": (
        f"{SECRET}stringData: {{a: &v {{store: shop, ref: app/token}}}}\nx: *v\n",
        "a YAML alias for a place that is rewritten",
    ),
    "annotation of a SecretMapping": (
        f"{MAPPING}metadata: {{annotations: {{x: {REFERENCE}}}}}\nspec: {{secretName: q, secretData: []}}\n",
        "a secret:// in a SecretMapping",
    ),
    "name in a SecretMapping": (
        f"{MAPPING}spec: {{secretName: '{REFERENCE}', secretData: []}}\n",
        "a secret:// in a SecretMapping",
    ),
    "anchor within a SecretMapping": (
        (
            f"items:\n- {{{MAPPING_FLOW}, metadata: &m {{name: m}}, spec: {{secretName: q, secretData: []}}}}\n"
            "- {kind: ConfigMap, metadata: *m}\n"
        ),
        "a YAML alias for a place that is rewritten",
    ),
    "hoisting behind an alias for the item": (
        (
            f"{POD}spec:\n  initContainers: [{{name: i, env: [&a {{name: A, value: '{HOISTED}'}}]}}]\n"
            "  containers: [{name: c, env: [*a]}]\n"
        ),
        "a list item behind a YAML alias",
    ),
    "hoisting behind a merge key": (
        (
            f"{POD}spec:\n  initContainers: [{{name: i, env: [&a {{name: A, value: '{HOISTED}'}}]}}]\n"
            "  containers: [{name: c, env: [{<<: *a}]}]\n"
        ),
        "a reference behind a YAML merge key",
    ),
    "value that moves behind a merge key": (
        pod(f"[&a {{name: A, value: '{REFERENCE}'}}, {{<<: *a, name: B, value: x}}]"),
        "a reference behind a YAML merge key",
    ),
    "value that moves before a merged one": (
        f"{POD}x: &a {{value: x}}\nspec: {{containers: [{{env: [{{<<: *a, name: B, value: '{REFERENCE}'}}]}}]}}\n",
        "a reference behind a YAML merge key",
    ),
    "optional field before a merged one": (
        f"{SECRET}x: &a {{a: merged}}\nstringData: {{<<: *a, a: 'secret://shop/none?optional=true'}}\n",
        "an optional reference in a mapping with a merge key",
    ),
    "alias for a value that moves": (
        pod(f"[{{name: A, value: &v '{REFERENCE}'}}]") + "x: *v\n",
        "a YAML alias for a place that is rewritten",
    ),
    "alias for a listed workload": (
        (
            f"kind: List\nx: &p {{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, "
            f"env: [{{name: A, value: '{REFERENCE}'}}]}}]}}}}\nitems: [*p]\n"
        ),
        "a list item behind a YAML alias",
    ),
    "workload without a name": (
        f"apiVersion: v1\nkind: Pod\nspec: {{containers: [{{env: [{{name: A, value: '{REFERENCE}'}}]}}]}}\n",
        "a workload without a name",
    ),
    "optional reference under an explicit key": (
        f"{SECRET}stringData:\n  ? a\n  : secret://shop/none?optional=true\n",
        "a reference under an explicit key",
    ),
    "stringData that is a list": (f"{SECRET}stringData: [{REFERENCE}]\n", f"{NOT_HERE}Secret"),
    "stringData that is a text": (f"{SECRET}stringData: {REFERENCE}\n", f"{NOT_HERE}Secret"),
    "a mapping within stringData": (f"{SECRET}stringData: {{a: {{b: {REFERENCE}}}}}\n", "a mapping where a Secret"),
    "broken base64 in data": (f"{SECRET}data: {{a: {ENCODED[:-1]}}}\n", "a reference in base64 of something that is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_seen_and_refused(case: str, forked: Command) -> None:
    source, fault = REFUSED[case]
    done = forked(stdin=source.encode())
    whats = [line.strip() for line in done.stderr.decode().splitlines() if line.strip().startswith("what: ")]
    assert (done.returncode > 0, done.stdout) == (True, b"")
    assert any(what.removeprefix("what:  ").startswith(fault) for what in whats), whats


@pytest.mark.parametrize(
    "source",
    [f"{SECRET}".encode() + b"data: {a: \xff}\n", (SECRET + DATA).encode("utf-16"), SECRET.encode("utf-16-le")],
)
def test_what_is_not_utf_8_is_refused(source: bytes, forked: Command) -> None:
    done = forked(stdin=source)
    assert (done.returncode, done.stdout) == (3, b"")


UNTOUCHED = {
    "comment": f"{CONFIG_MAP}# {REFERENCE}\n",
    "comment in a Secret": f"{SECRET}# {REFERENCE}\nstringData: {{a: b}}\n",
    "description in a CRD": f"{CRD}spec: {{versions: [{{schema: {{description: '{REFERENCE}'}}}}]}}\n",
    "External Secrets": "apiVersion: external-secrets.io/v1\nkind: ExternalSecret\nmetadata: {name: e}\n"
    "spec:\n  secretStoreRef: {name: shop, kind: SecretStore}\n  data: [{secretKey: a, remoteRef: {key: b}}]\n",
    "indented marker in a block scalar": f"{CONFIG_MAP}data:\n  a: |\n    ---\n    kind: Secret\n",
    "a mapping whose key ends at the line": f"{CONFIG_MAP}data:\n  a: secret:\n    //shop/app/token\n",
    "scheme in capitals": f"{SECRET}stringData: {{a: SECRET://shop/app/token}}\n",
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_is_no_reference_passes_as_it_is(case: str, forked: Command) -> None:
    done = forked(stdin=UNTOUCHED[case].encode())
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, UNTOUCHED[case], b"")


def test_base64_within_base64_is_woven_within(forked: Command) -> None:
    auth = base64.b64encode(b"web:$(secret://shop/app/token)").decode()
    source = base64.b64encode(f'{{"auth": "{auth}"}}'.encode()).decode()
    done = forked(stdin=f"{SECRET}data: {{a: {source}}}\n".encode())
    assert done.stderr == b""
    woven = json.loads(base64.b64decode(parsed(done.stdout)[0]["data"]["a"]))
    assert base64.b64decode(woven["auth"]) == b"web:s3cr3t-t0ken"
