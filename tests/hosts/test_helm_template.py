"""`helm template` with the post-renderer, in Helm 3 and in Helm 4."""

import re
from pathlib import Path
from typing import Any

from tests.hosts.programs import Helm, documents, named, values

CHART = str(Path(__file__).parent / "charts" / "shop")
PASSWORD = b"p@ss: word/'1'"
TOKEN = b't0k&n "quoted"'


def identity(document: dict[str, Any]) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def test_references_become_secrets(helm: Helm):
    woven = helm.weave("template", "demo", CHART)
    assert (woven.returncode, woven.stderr) == (0, "")
    text = woven.stdout
    assert values(named(text, "Secret", "app")) == {"password": PASSWORD}
    assert values(named(text, "Secret", "files")) == {
        "app.ini": b"[database]\nuser = app\npassword = " + PASSWORD + b"\n",
        "keystore": b"\x00\x01\x02\x03\xff",
    }
    assert values(named(text, "Secret", "mapped")) == {"TOKEN": TOKEN}
    assert values(named(text, "Secret", "half")) == {"token": TOKEN}
    assert values(named(text, "Secret", "cache")) == {"token": TOKEN}
    assert not re.search("kind: *SecretMapping", text)


def test_an_environment_reads_a_generated_secret(helm: Helm):
    text = helm.weave("template", "demo", CHART).stdout
    (container,) = named(text, "Deployment", "web")["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    generated = environment["PASSWORD"]["valueFrom"]["secretKeyRef"]["name"]
    secret = values(named(text, "Secret", generated))
    assert {name: secret[item["valueFrom"]["secretKeyRef"]["key"]] for name, item in environment.items()
            if "secretKeyRef" in item.get("valueFrom", {})} == {
        "PASSWORD": PASSWORD,
        "URL": b"postgres://app:p%40ss%3A%20word%2F%271%27@db/shop",
        "SECRETWEAVE_0": b"t0k%26n%20%22quoted%22",
    }  # fmt: skip
    assert environment["CALLBACK"]["value"] == "http://$(POD_IP)/?token=$(SECRETWEAVE_0)"
    assert environment["PLAIN"]["value"] == "0644"


def test_what_holds_no_reference_stays(helm: Helm):
    before = {identity(each): each for each in documents(helm.run("template", "demo", CHART).stdout)}
    after = {identity(each): each for each in documents(helm.weave("template", "demo", CHART).stdout)}
    assert after["Widget", "wide"] == before["Widget", "wide"]
    assert after["ConfigMap", "app"]["data"] == {
        "mode": "0644",
        "number": "1.10",
        "greeting": "Hello app, secret://shop/x is how a reference is written",
    }
    assert set(before) - set(after) == {("SecretMapping", "mapped")}


def test_custom_resource_definitions_pass(helm: Helm):
    woven = helm.weave("template", "demo", CHART, "--include-crds")
    definition = named(woven.stdout, "CustomResourceDefinition", "widgets.shop.example.com")
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["description"] == "A widget; secret://store/ref in a description is no reference."


def test_redacted_output_shows_no_value(helm: Helm):
    woven = helm.weave("template", "demo", CHART, SECRETWEAVE_OUTPUT="redacted")
    assert woven.returncode == 0
    assert set(documents(woven.stdout)[0]) >= {"apiVersion", "kind"}
    shown = [value for each in documents(woven.stdout) if each["kind"] == "Secret" for value in values(each).values()]
    assert shown
    assert not [value for value in shown if PASSWORD in value or TOKEN in value]


def test_helm_3_keeps_the_order_of_the_stream(helm3: Helm):
    """It does not sort what a post-renderer gives back: the generated Secret must stand before its workload itself."""
    woven = documents(helm3.weave("template", "demo", CHART).stdout)
    position = [identity(each) for each in woven].index(("Deployment", "web"))
    assert woven[position - 1]["metadata"]["name"].startswith("web-")
    assert [each["kind"] for each in woven[position - 2 : position + 1]] == ["ConfigMap", "Secret", "Deployment"]


def test_helm_3_leaves_untouched_documents_as_bytes(helm3: Helm):
    before = helm3.run("template", "demo", CHART).stdout
    after = helm3.weave("template", "demo", CHART).stdout
    widget = before[before.index("# Source: shop/templates/widget.yaml") :]
    assert widget.rstrip("\n") in after


def test_helm_3_passes_no_hook_through_a_post_renderer(helm3: Helm):
    """A reference in a hook stays one: the admission policy refuses it in the cluster."""
    text = helm3.weave("template", "demo", CHART, "--set", "hook=true").stdout
    (container,) = named(text, "Job", "migrate")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "PASSWORD", "value": "secret://shop/database#password"}]


def test_helm_4_files_a_generated_secret_with_its_workload(helm4: Helm):
    text = helm4.weave("template", "demo", CHART).stdout
    sources = {
        identity(document): re.findall("^# Source: (.*)$", part, re.MULTILINE)[-1]
        for part in text.split("\n---\n")
        for document in documents(part)
    }
    (generated,) = (source for (kind, name), source in sources.items() if kind == "Secret" and name.startswith("web-"))
    assert generated == sources["Deployment", "web"] == "shop/templates/deployment.yaml"
    assert sources["Secret", "mapped"] == "shop/templates/mapping.yaml"
    assert sources["Secret", "cache"] == "shop/charts/cache/templates/secret.yaml"
    assert "postrender-filename" not in text


def test_helm_4_sorts_what_comes_back(helm4: Helm):
    kinds = [each["kind"] for each in documents(helm4.weave("template", "demo", CHART).stdout)]
    assert kinds == ["Secret"] * kinds.count("Secret") + ["ConfigMap", "Deployment", "Widget"]


def test_helm_4_gives_a_hook_its_secret_as_a_hook_before_it(helm4: Helm):
    text = helm4.weave("template", "demo", CHART, "--set", "hook=true").stdout
    hook = named(text, "Job", "migrate")
    (container,) = hook["spec"]["template"]["spec"]["containers"]
    reference = container["env"][0]["valueFrom"]["secretKeyRef"]
    secret = named(text, "Secret", reference["name"])
    assert values(secret) == {reference["key"]: PASSWORD}
    assert secret["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install",
        "helm.sh/hook-weight": "4",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    without = helm4.weave("template", "demo", CHART, "--set", "hook=true", "--no-hooks").stdout
    assert reference["name"] not in without
