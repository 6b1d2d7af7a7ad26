"""What README says of the command is what the command does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from secretweave import cli, errors, options, stores
from secretweave.errors import SecretweaveError
from tests.conftest import Command

# The words of README, and commands that the tests of the command run everywhere.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPTIONS = {option.name: option for option in (*options.RENDER, *options.PLAN)}
FIRST_LINES = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
STORE = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: shop}
spec: {file: {path: secrets.yaml}}
"""


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_exit_codes():
    told = re.findall(r"^\| (\d+) \| (\w*) ?\|", section("Exit codes"), re.MULTILINE)
    classes = {
        kind.exit_code: kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, SecretweaveError)
        and SecretweaveError in kind.__bases__
        and kind is not errors.Faults
    }
    codes = {0: "", SecretweaveError.exit_code: "", cli.INTERNAL_ERROR: "", cli.INTERRUPTED: ""}
    assert {int(code): name for code, name in told} == codes | classes


def test_every_environment_name():
    told = set(re.findall(r"`(SECRETWEAVE_[A-Z_]+)`", section("Configuration")))
    assert told == {option.environ[0] for option in OPTIONS.values()}


@pytest.mark.parametrize("name", ["render", "check", "plan"])
def test_help_tells_every_option_and_its_environment_names(name: str, secretweave: Command):
    table = {"render": options.RENDER, "plan": options.PLAN}.get(name, options.COMMON)
    text = " ".join(secretweave(name, "--help").stdout.decode().split())
    for option in table:
        assert f"--{option.name}" in text
        assert f"[env: {', '.join(option.environ)}]" in text


def test_every_option_that_is_told_is_one():
    ours = set(re.findall(r"secretweave[a-z ]* (--[a-z-]+)", README.replace("post-renderer secretweave", "")))
    ours |= set(re.findall(r"post-renderer-args (--\w+)", README))
    flux = (each.name for each in (*options.PUSH, *options.CONTROLLER))
    assert ours <= {f"--{name}" for name in (*OPTIONS, *flux, "help", "version")}


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_every_make_target_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = (README + (ROOT / "CONTRIBUTING.md").read_text()).replace("\n", " ")
    assert set(re.findall(r"`make ([a-z-]+)[`\s]", told)) <= targets


def test_the_two_columns_of_the_first_example(secretweave: Command, tmp_path: Path):
    block = README.split("```yaml\n")[1].split("```")[0]
    source = "".join(f"{line[:51].replace('=>', '').rstrip()}\n" for line in block.splitlines())
    woven = "".join(f"{line[51:]}\n" for line in block.splitlines())
    (tmp_path / "secrets.yaml").write_text("app/db: {host: db.internal, password: hunter2}\n")
    (tmp_path / "secrets.yaml").chmod(0o600)
    (tmp_path / "config.yaml").write_text(STORE)
    done = secretweave("--config", tmp_path / "config.yaml", stdin=source.encode())
    assert (done.stderr, done.stdout.decode()) == (b"", woven)


def test_the_configuration_of_the_example_is_one(secretweave: Command, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(section("Configuration").split("```yaml\n")[1].split("```")[0])
    (tmp_path / "secrets.yaml").write_text(section("Stores").split("```yaml\n")[-1].split("```")[0])
    (tmp_path / "secrets.yaml").chmod(0o600)
    source = FIRST_LINES.replace("kind: ConfigMap", "kind: Secret") + "stringData: {a: secret:///app/key?version=1}\n"
    done = secretweave("--config", tmp_path / "config.yaml", stdin=source.encode())
    assert done.stdout.decode() == source.replace("secret:///app/key?version=1", '"first"')


def test_the_stores_of_the_example_are_stores_of_every_type(secretweave: Command, tmp_path: Path):
    specs, settings, _ = (each.split("```")[0] for each in section("Stores").split("```yaml\n")[1:])
    head = "apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {name: s%d}\n"
    written = "---\n".join(head % number + spec for number, spec in enumerate(specs.split("---\n")))
    (tmp_path / "config.yaml").write_text(f"{written}---\n{settings}")
    assert secretweave("check", "--config", tmp_path / "config.yaml", stdin=FIRST_LINES.encode()).stderr == b""
    told = re.findall(r"^\| `(\w+)` \|", section("Stores"), re.MULTILINE)
    assert sorted(told) == sorted(stores.types())
    assert re.findall(r"^spec: \{(\w+):", specs, re.MULTILINE) == told


def test_the_rules_of_the_example_are_a_configuration(secretweave: Command, tmp_path: Path):
    rules = section("Policy").split("```yaml\n")[1].split("```")[0]
    (tmp_path / "config.yaml").write_text(
        "apiVersion: secretweave.dev/v1alpha1\nkind: Configuration\nspec:\n  policy:\n"
        + "".join(f"    {line}\n" for line in rules.splitlines())
    )
    assert secretweave("--config", tmp_path / "config.yaml", stdin=FIRST_LINES.encode()).stderr == b""


def test_every_form_of_reference_that_is_told_is_woven(secretweave: Command, tmp_path: Path):
    secret, env, mapping = section("References").split("```yaml\n")[1].split("```")[0].split("---\n")
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n"
    (tmp_path / "secrets.yaml").write_text("app/token: t\napp/db: {password: hunter2}\napp/db@2: {password: second}\n")
    (tmp_path / "secrets.yaml").chmod(0o600)
    (tmp_path / "config.yaml").write_text(STORE)
    source = "---\n".join(
        (
            FIRST_LINES.replace("kind: ConfigMap", "kind: Secret") + secret,
            pod + "".join(f"    {line}\n" for line in env.splitlines()),
            mapping,
        )
    )
    done = secretweave("--config", tmp_path / "config.yaml", stdin=source.encode())
    assert done.stderr == b""
    kinds = [line.removeprefix("kind: ") for line in done.stdout.decode().splitlines() if line.startswith("kind: ")]
    assert kinds == ["Secret", "Secret", "Pod", "Secret"]
    for value in ('password: "second"', '"aHVudGVyMg=="', 'token: "dA=="'):
        assert value in done.stdout.decode()


def test_the_declared_pythons_are_those_of_every_place():
    declared = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert declared == ["3.11", "3.12", "3.13"]
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text()
    for place in (".ci/test", ".ci/python"):
        assert " ".join(declared) in (ROOT / place).read_text()
    assert "Python 3.11, 3.12 or 3.13" in README
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in declared


def test_the_targets_of_make_are_listed():
    listed = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "test-hosts", "bench"):
        assert re.search(rf"^  {target} ", listed, re.MULTILINE)


def test_the_defaults_of_the_restricted_types():
    schema = json.loads((ROOT / "plugin" / "secretweave" / "schemas" / "configuration.json").read_text())
    restricted = schema["properties"]["spec"]["properties"]["policy"]["properties"]["restricted"]["properties"]
    text = section("Policy")
    told = dict(re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)?", text, re.MULTILINE))
    defaults = {name: restricted[name].get("default") for name in told if name != "resourceKeys"}
    assert {name: value for name, value in told.items() if value} == {
        name: value for name, value in defaults.items() if isinstance(value, str)
    }
    assert {*told, "types"} == set(restricted)
    assert all(f"`{name}`" in text for name in restricted["types"]["default"])
    assert [kind["kind"] for kind in restricted["nativeKinds"]["default"]] == ["Namespace", "Cluster"]
    assert "| Namespace, Cluster API Cluster |" in text
