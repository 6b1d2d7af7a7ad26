"""The known defects of the tools before this one, each as what is right instead; the quoted line says what they do."""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from tests.conftest import Command

SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: prod}\n"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"

CONFIG = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: shop}
spec: {file: {path: shop.yaml}}
---
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: mail}
spec: {file: {path: mail.json}}
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  policy:
    values:
      - {store: shop, kind: ConfigMap, field: "data.*"}
      - {store: shop, kind: Widget, field: "spec.**"}
      - {store: shop, kind: Widget, field: "spec.*"}
      - {store: shop, kind: Widget, field: "spec.list[*][*]"}
"""

SHOP = """\
db: {name: orders, port: 8080, password: s3cr3t, rate: 0.25, nothing: null, hosts: [{a/b: first}, {a|b: second}]}
plain: a plain secret
document: '{"user": "web", "list": [1, 2]}'
key: |
  -----BEGIN KEY-----

    indented
  -----END KEY-----
"""


class Shop(NamedTuple):
    command: Command
    folder: Path

    def render(self, source: str, *arguments: str) -> tuple[int, str, str]:
        done = self.command("--config", self.folder / "config.yaml", *arguments, stdin=source.encode())
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def woven(self, source: str) -> Any:
        code, out, err = self.render(source)
        assert code == 0, err
        return YAML(typ="safe", pure=True).load(out)

    def refused(self, source: str) -> list[str]:
        """What each fault says, and that nothing was written."""
        code, out, err = self.render(source)
        assert (code > 0, out) == (True, "")
        return [line.strip()[7:] for line in err.splitlines() if line.startswith("  what:")]


@pytest.fixture
def shop(forked: Command, tmp_path: Path) -> Shop:
    for name, text in (("config.yaml", CONFIG), ("shop.yaml", SHOP), ("mail.json", '{"smtp": {"port": 25}}')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return Shop(forked, tmp_path)


def test_a_number_in_a_url_leaves_the_rest_of_the_field(shop: Shop) -> None:
    # argocd-vault-plugin: "http://h:<port>/x", port numeric -> the whole field becomes 8080
    woven = shop.woven(f"{SECRET}stringData: {{a: 'http://h:$(secret://shop/db#port)/x'}}\n")
    assert woven["stringData"] == {"a": "http://h:8080/x"}


def test_a_number_among_other_values_is_one_of_them(shop: Shop) -> None:
    # argocd-vault-plugin: "<name>-<port>-<pw>", port numeric -> 8080
    text = "$(secret://shop/db#name)-$(secret://shop/db#port)-$(secret://shop/db#password)"
    assert shop.woven(f"{SECRET}stringData: {{a: {text}}}\n")["stringData"] == {"a": "orders-8080-s3cr3t"}


def test_text_that_looks_like_a_bracket_is_not_eaten(shop: Shop) -> None:
    # argocd-vault-plugin: "if x < 3 then <path:kv/..#pw> end" in an annotated document -> text eaten
    woven = shop.woven(f"{SECRET}stringData: {{a: 'if x < 3 ( then $(secret://shop/db#password) end)'}}\n")
    assert woven["stringData"] == {"a": "if x < 3 ( then s3cr3t end)"}


def test_a_float_or_an_object_in_a_config_map_is_text(shop: Shop) -> None:
    # argocd-vault-plugin: float or object result in a ConfigMap -> panic with stack trace, exit 2
    woven = shop.woven(f"{CONFIG_MAP}data: {{a: secret://shop/db#rate, b: 'secret://shop/db#/hosts/0'}}\n")
    assert woven["data"] == {"a": "0.25", "b": '{"a/b":"first"}'}


def test_a_list_within_a_list_is_woven(shop: Shop) -> None:
    # argocd-vault-plugin: [["<pw>"]] -> left unresolved silently, exit 0
    source = "apiVersion: x/v1\nkind: Widget\nspec: {list: [[secret://shop/db#password]]}\n"
    assert shop.woven(source)["spec"] == {"list": [["s3cr3t"]]}


def test_a_mapping_key_is_refused(shop: Shop) -> None:
    # argocd-vault-plugin: a placeholder in a map key -> left unresolved silently, exit 0
    source = "apiVersion: x/v1\nkind: Widget\nspec: {secret://shop/db#password: x}\n"
    assert shop.refused(source) == ["a reference in a mapping key"]


def test_a_secret_in_a_list_is_a_secret(shop: Shop) -> None:
    # argocd-vault-plugin: kind: List with a Secret item -> base64 untouched, PLAINTEXT under data
    encoded = base64.b64encode(b"x=$(secret://shop/db#password)").decode()
    source = (
        "apiVersion: v1\nkind: List\nitems:\n"
        f"- {{apiVersion: v1, kind: Secret, data: {{a: secret://shop/db#password, b: {encoded}}}}}\n"
    )
    assert shop.woven(source)["items"][0]["data"] == {"a": "czNjcjN0", "b": "eD1zM2NyM3Q="}


def test_a_number_under_data_is_base64_of_its_text(shop: Shop) -> None:
    # argocd-vault-plugin: Secret with a number under data -> port: 8080, which the API rejects with a leak
    assert shop.woven(f"{SECRET}data: {{port: secret://shop/db#port}}\n")["data"] == {"port": "ODA4MA=="}
    assert shop.woven(f"{SECRET}stringData: {{port: secret://shop/db#port}}\n")["stringData"] == {"port": "8080"}


def test_what_needs_no_value_reads_no_store(shop: Shop) -> None:
    # argocd-vault-plugin: ignore: "true" + path on a missing secret -> reads the store and fails
    (shop.folder / "shop.yaml").unlink()
    source = f"{SECRET}stringData: {{a: secret://shop/none}}\n"
    assert shop.render(source, "--output", "redacted")[0] == 0
    done = shop.command("check", "--config", shop.folder / "config.yaml", stdin=source.encode())
    assert (done.returncode, done.stdout) == (0, b"1 reference, no fault\n")


def test_a_failure_in_the_second_document_leaves_stdout_empty(shop: Shop) -> None:
    # argocd-vault-plugin: failure in document 2 -> document 1 already on stdout, error order random, usage text,
    # no resource name
    source = f"{SECRET}stringData: {{a: secret://shop/plain}}\n---\n{SECRET}stringData:\n"
    source += "".join(f"  k{number}: secret://shop/none{number}\n" for number in range(4))
    code, out, err = shop.render(source)
    assert (code, out) == (6, "")
    assert [line[9:] for line in err.splitlines() if line.startswith("  where:")] == [
        f"stdin, document 2, line {10 + number}, Secret prod/s, stringData.k{number}" for number in range(4)
    ]
    assert "Usage" not in err


def test_null_is_told_from_absent(shop: Shop) -> None:
    # argocd-vault-plugin: key present with JSON null -> "missing Vault value"
    # vals: null in a longer string -> <nil>
    null = "shop:db#nothing: the value is null"
    assert shop.refused(f"{SECRET}stringData: {{a: secret://shop/db#nothing}}\n") == [null]
    assert shop.refused(f"{SECRET}stringData: {{a: 'x $(secret://shop/db?default=y#nothing)'}}\n") == [null]
    assert shop.refused(f"{SECRET}stringData: {{a: secret://shop/db#absent}}\n") == [
        "shop:db#absent: the secret has no field `absent`"
    ]


def test_half_json_is_yaml(shop: Shop) -> None:
    # argocd-vault-plugin: half-JSON documents of Helm 4 -> json: offset 62: invalid character 'a'
    source = '{ "apiVersion": "v1", kind: \'Secret\', metadata: {annotations: {k: \'v\'}}, "stringData": {"a": "%s"}}'
    woven = shop.woven(source % "secret://shop/plain")
    assert woven == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"annotations": {"k": "v"}},
        "stringData": {"a": "a plain secret"},
    }


def test_what_is_no_reference_keeps_its_bytes(shop: Shop) -> None:
    # argocd-vault-plugin and vals: commit: 81111e1, 0755, comments, empty documents -> 811110, 493, gone, dropped
    source = (
        "---\n---\n# first\napiVersion: v1\nkind: Secret\nstringData:\n  commit: 81111e1  # why\n  mode: 0755\n"
        "  version: 1.10\n  on: off\n\n  a: %s   # its comment\n---\n# only a comment\n---\n"
    )
    code, out, _ = shop.render(source % "secret://shop/plain")
    assert (code, out) == (0, source % '"a plain secret"')


def test_every_line_of_a_value_stays(shop: Shop) -> None:
    # argocd-vault-plugin: indent on multi-line values -> blank lines and inner indentation lost
    woven = shop.woven(f"{SECRET}stringData:\n  a: |\n    first\n    $(secret://shop/key)\n    last\n")
    key = "-----BEGIN KEY-----\n\n  indented\n-----END KEY-----\n"
    assert woven["stringData"] == {"a": f"first\n{key}\nlast\n"}


def test_broken_base64_is_an_error(shop: Shop) -> None:
    # argocd-vault-plugin: base64decode of bad input -> error swallowed
    broken = base64.b64encode(b"secret://shop/db#password").decode()[:-2]
    assert shop.refused(f"{SECRET}data: {{a: {broken}}}\n") == ["a reference in base64 of something that is no text"]


def test_any_character_of_a_key_can_be_written(shop: Shop) -> None:
    # argocd-vault-plugin: jsonPath with | or > inside -> broken
    # vals: / in a key, index of a list -> not addressable
    source = f"{SECRET}stringData: {{a: 'secret://shop/db#/hosts/0/a~1b', b: 'secret://shop/db#/hosts/1/a%7Cb'}}\n"
    assert shop.woven(source)["stringData"] == {"a": "first", "b": "second"}


def test_a_secret_is_taken_whole_or_by_a_key_of_its_json(shop: Shop) -> None:
    # argocd-vault-plugin: plain (non-JSON) AWS secret -> fails; JSON key in GCP -> not possible
    source = (
        f"{SECRET}stringData: {{a: secret://shop/plain, b: secret://shop/document, c: secret://shop/document#user}}\n"
    )
    assert shop.woven(source)["stringData"] == {
        "a": "a plain secret",
        "b": '{"user": "web", "list": [1, 2]}',
        "c": "web",
    }


def test_several_stores_serve_one_string(shop: Shop) -> None:
    # argocd-vault-plugin: two store types in one run -> impossible
    woven = shop.woven(f"{SECRET}stringData: {{a: '$(secret://shop/db#name):$(secret://mail/smtp#port)'}}\n")
    assert woven["stringData"] == {"a": "orders:25"}


def test_no_mode_shows_values(shop: Shop) -> None:
    # argocd-vault-plugin: --verbose-sensitive-output -> logs every value
    source = f"{SECRET}stringData: {{a: secret://shop/db#password}}\n"
    assert shop.render(source, "--verbose-sensitive-output")[:2] == (2, "")
    assert shop.render(source, "--debug")[2] == ""


def test_a_reference_in_compact_json_ends_where_it_ends(shop: Shop) -> None:
    # vals: compact JSON with a reference -> over-match, error
    text = '{"p":"$(secret://shop/db#password)","q":1,"r":["$(secret://shop/plain)"]}'
    woven = shop.woven(f"{SECRET}stringData: {{a: '{text}'}}\n")
    assert json.loads(woven["stringData"]["a"]) == {"p": "s3cr3t", "q": 1, "r": ["a plain secret"]}


def test_a_number_stays_one_where_it_is_asked_for(shop: Shop) -> None:
    # vals: Vault 8080 -> "8080"
    source = "apiVersion: x/v1\nkind: Widget\nspec: {port: secret://shop/db?as=int#port, text: secret://shop/db#port}\n"
    assert shop.woven(source)["spec"] == {"port": 8080, "text": "8080"}


def test_a_mapping_in_a_longer_string_is_json(shop: Shop) -> None:
    # vals: map in a longer string -> Go syntax
    woven = shop.woven(f"{SECRET}stringData: {{a: 'x $(secret://shop/db#/hosts/0)'}}\n")
    assert woven["stringData"] == {"a": 'x {"a/b":"first"}'}


def test_base64_and_plain_values_stand_side_by_side(shop: Shop) -> None:
    # vals: Secret with one base64 and one plain value -> illegal base64 data
    encoded = base64.b64encode(b"secret://shop/db#name").decode()
    woven = shop.woven(f"{SECRET}data: {{a: {encoded}, b: secret://shop/db#password, c: eA==}}\n")
    assert woven["data"] == {"a": "b3JkZXJz", "b": "czNjcjN0", "c": "eA=="}


def test_every_error_of_a_run_is_told_with_its_place(shop: Shop) -> None:
    # vals: error -> reference only, first error only
    source = (
        f"{SECRET}stringData: {{a: secret://shop/none, b: secret://nowhere/x, c: 'secret://shop/db?verson=1'}}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
        "spec: {containers: [{name: c, args: [secret://mail/smtp#port]}]}\n"
    )
    code, out, err = shop.render(source)
    assert (code, out) == (4, "")
    assert [line[9:] for line in err.splitlines() if line.startswith("  where:")] == [
        "stdin, document 1, line 4, Secret prod/s, stringData.b",
        "stdin, document 1, line 4, Secret prod/s, stringData.c",
        "stdin, document 2, line 9, Pod p, spec.containers[0].args[0]",
    ]


def test_a_fallback_has_one_name(shop: Shop) -> None:
    # vals: fallback / fallback_value -> README and code differ
    woven = shop.woven(f"{SECRET}stringData: {{a: secret://shop/none?default=fallback}}\n")
    assert woven["stringData"] == {"a": "fallback"}
    for name in ("fallback", "fallback_value"):
        told = shop.refused(f"{SECRET}stringData: {{a: secret://shop/none?{name}=x}}\n")
        assert told == ["the reference shop:none at character 1 of the value has an unknown parameter"]
