"""References and their escape come through the hosts' own substitutions: Flux's, the kubelet's, Helm's `tpl`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts.programs import Helm, documents, named, pipe, values

TEXTS = [
    "secret://shop/database#password",
    "secret:///database?version=3&encode=url#/users/0/name",
    "postgres://app:$(secret://shop/database?encode=url#password)@db/shop",
    "secret:!//shop/database",
    "$(secret:!//shop/database)",
    "write $(secret:!!//shop/database#password), then run it",
]


@pytest.mark.parametrize("text", TEXTS)
def test_flux_leaves_them_alone(text: str):
    assert pipe("substitute", "shop=x", "secret=y", text=text + " ${shop}") == text + " x"


@pytest.mark.parametrize("text", TEXTS)
def test_the_kubelet_leaves_them_alone(text: str):
    assert pipe("expand", "shop=x", "secret=y", text=text + " $(shop)") == text + " x"


@pytest.mark.parametrize("text", TEXTS)
def test_tpl_leaves_them_alone(helm: Helm, tmp_path: Path, text: str):
    (tmp_path / "chart" / "templates").mkdir(parents=True)
    (tmp_path / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: a\nversion: 0.1.0\n")
    (tmp_path / "chart" / "templates" / "a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: {{ tpl .Values.text . | quote }}}\n"
    )
    (tmp_path / "values.yaml").write_text(f"text: '{text} {{{{ .Release.Name }}}}'\n")
    rendered = helm.run("template", "demo", str(tmp_path / "chart"), "--values", str(tmp_path / "values.yaml"))
    assert named(rendered.stdout, "ConfigMap", "a")["data"] == {"a": f"{text} demo"}


def container_sees(value: str, config: Path) -> str:
    """What a container finds in its variable, by the kubelet's own expansion of what secretweave made."""
    pod = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: a}}
spec:
  containers:
    - name: a
      env:
        - {{name: NAME, value: web}}
        - name: TEXT
          value: '{value}'
"""
    woven = subprocess.run(
        [sys.executable, "-m", "secretweave"],
        env=os.environ | {"SECRETWEAVE_CONFIG": str(config)},
        input=pod,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    secrets = {each["metadata"]["name"]: values(each) for each in documents(woven) if each["kind"] == "Secret"}
    (container,) = named(woven, "Pod", "a")["spec"]["containers"]
    seen: dict[str, str] = {}
    for item in container["env"]:
        if "value" in item:
            known = [f"{name}={text}" for name, text in seen.items()]
            seen[item["name"]] = pipe("expand", *known, text=item["value"])
        else:
            reference = item["valueFrom"]["secretKeyRef"]
            seen[item["name"]] = secrets[reference["name"]][reference["key"]].decode()
    return seen["TEXT"]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("secret://shop/token", 't0k&n "quoted"'),
        ("a $(secret://shop/token) b", 'a t0k&n "quoted" b'),
        ("$(NAME):$(secret://shop/token)", 'web:t0k&n "quoted"'),
        ("$$(NAME):$(NAME):$(secret://shop/token):$(OTHER)", '$(NAME):web:t0k&n "quoted":$(OTHER)'),
        ("$(secret://shop/dollars)", "$(NAME) $$ $"),
        ("$(NAME) $(secret://shop/dollars)", "web $(NAME) $$ $"),
        ("secret:!//shop/token", "secret://shop/token"),
        ("$(NAME) $(secret:!//shop/token)", "web $(secret://shop/token)"),
    ],
)
def test_a_container_sees_the_value(config: Path, value: str, seen: str):
    secrets = config.parent / "secrets.yaml"
    secrets.write_text(secrets.read_text() + "dollars: '$(NAME) $$ $'\n")
    assert container_sees(value, config) == seen
