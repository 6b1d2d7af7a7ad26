"""Who may import what: the architecture as a failing check. Each rule stands beside its reason.

A module is called by its path in the package: `stores/file`, and `stores` for the folder's own `__init__`.
"""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

# It reads our source; no interpreter changes that.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent / "plugin" / "secretweave"
FILES = {
    path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__"): path for path in ROOT.rglob("*.py")
}
TEXT = "text text/*"
PURE = f"{TEXT} errors model references* policy* places* scan scan/* find edits generated render select"


class Rule(NamedTuple):
    """Those modules that *who* matches may import what *may* matches; all of ours where it is `any`."""

    who: str
    may: str
    reason: str


OURS = (
    Rule("errors modules", "", "everything stands on it"),
    Rule("model", "errors", "records hold no behaviour of a step"),
    Rule("yamltree*", "errors yamltree*", "one library behind one face"),
    Rule("forms", "", "what a text in settings may look like"),
    Rule("settings", "errors forms yamltree", "reads any settings, knows none"),
    Rule(f"references* {TEXT}", f"errors model modules yamltree references* {TEXT}", "a grammar knows text alone"),
    Rule("policy*", "errors model yamltree scan/objects settings references* policy*", "judges what it is handed"),
    Rule("stores stores/*",
         "errors forms model modules settings yamltree select stores stores/base stores/_* sdk sdk/*",
         "knows no manifest and no other store"),
    Rule("stores/base", "errors model", "the face of every store"),
    Rule("sdk sdk/*", "errors forms model settings stores/base sdk sdk/*", "what stores share about their SDKs"),
    Rule("credentials", "errors stores/base sdk sdk/*", "what a store logs in with, wherever it lies"),
    Rule("fetching", "errors model stores/base", "when stores are asked, not for what"),
    Rule("memory", "", "the process, not what is in it"),
    Rule("config*",
         "errors forms model settings yamltree policy/settings argocd/settings flux/settings sealing/settings config* "
         "stores",
         "read first"),
    Rule("reloading", "errors config config/files", "the configuration again, whoever lasts"),
    Rule("reading*", "errors model reading*", "bytes in, bytes kept"),
    Rule("places/*", f"errors model yamltree references* {TEXT} edits generated scan/* places*",
         "what changes is decided before any value is known, so no place reads a store or the configuration"),
    Rule("select", "errors model yamltree", "which part of a record, not where it came from"),
    Rule("resolve", "errors model select fetching stores stores/base", "fetches addresses, whoever asked"),
    Rule("outputs*", "errors model modules config render resolve outputs", "no output knows another"),
    Rule("outputs/sops", "errors model config outputs outputs/secret sealing sealing/encryption sealing/documents",
         "the values of that output, and then what seals them"),
    Rule("sealing", "", "a page of the manual"),
    Rule("sealing/settings", "forms", "read with the configuration"),
    Rule("sealing/manifest", "errors scan/objects scan/page sdk sdk/sops text/scalars yamltree",
         "what a Secret is, not its keys"),
    Rule("sealing/reuse", "errors", "bytes and tags"),
    Rule("sealing/encryption", "errors config outputs sdk sdk/sops sealing sealing/manifest sealing/reuse",
         "with which keys"),
    Rule("sealing/documents", "errors config outputs reading reading/* sealing sealing/*",
         "the stream, Secret by Secret"),
    Rule("outputs/secret", "errors model config credentials fetching resolve outputs stores stores/base",
         "the one output that contacts stores"),
    Rule("hosts*", "errors hosts*", "a host's habits, not the job"),
    Rule("argocd flux sources", "", "a page of the manual"),
    Rule("argocd/settings flux/settings", "forms", "read with the configuration"),
    Rule("service", "", "a page of the manual"),
    Rule("service/serving", "errors", "who asks, not what for"),
    Rule("service/watch", "errors model report stores/base", "what is told, of whichever service"),
    Rule("service/kept",
         "errors config fetching model outputs stores stores/base service/watch",
         "stores that last, whoever asks"),
    Rule("argocd/app sources/sandbox argocd/daemon/wire", "errors forms", "light: loaded for each Application"),
    Rule("argocd/daemon/client", "errors memory reading argocd/app argocd/settings argocd/daemon/wire",
         "light, like those"),
    Rule("sources/scrubbing", "", "text alone"),
    Rule("sources/programs", "errors sources/sandbox sources/scrubbing sources/confined",
         "how a program is started, not for what"),
    Rule("sources/confined", "sources/sandbox", "becomes a program: nothing else is loaded"),
    Rule("argocd/parameters", "errors argocd/app", "what an Application may choose"),
    Rule("sources/kinds sources/kinds/*",
         "errors modules yamltree reading sources/tree sources/programs sources/kinds "
         "sources/kinds/_*",
         "a kind renders a source; it knows no secret and no other kind"),
    Rule("argocd/* flux/*", "any", "a host of its own: it brings the parts together"),
    Rule("options", "errors", "loaded before anything is decided"),
    Rule("pipeline", "any", "the program on one screen"),
    Rule("doctor doctor/*", "any", "looks at everything, and decides nothing"),
)  # fmt: skip


class Foreign(NamedTuple):
    """A module of others', or several: who may import it, and whether only inside a function."""

    names: str
    only: str
    lazily: bool
    reason: str


FOREIGN = (
    Foreign("_ruamel_yaml", "yamltree", False, "a private class: one place to mend when it changes"),
    Foreign(
        "ruamel ruamel.*", "yamltree yamltree/builder text/structure", False, "structure asks it how a whole text reads"
    ),
    Foreign("click click.*", "commands", False, "a plain render does without it"),
    Foreign("cryptography cryptography.*", "reading/spool", True, "only a long stream needs it"),
    Foreign(
        "concurrent.* threading",
        "fetching stores stores/* sdk/* credentials sealing/documents service/* argocd/daemon/* flux/controller/* "
        "reloading",
        True,
        "only a remote store needs it, what encrypts, and what serves",
    ),
    Foreign(
        "requests requests.* urllib3 urllib3.*", "sdk/* flux/oci", True, "below the SDKs, and what talks to a registry"
    ),
    Foreign("hvac hvac.*", "stores/vault sdk/vault*", True, "an SDK belongs to its store"),
    Foreign(
        "boto3 boto3.* botocore botocore.*", "stores/awssm stores/awsssm sdk/aws", True, "an SDK belongs to its stores"
    ),
    Foreign("azure.*", "stores/azurekv sdk/azure*", True, "an SDK belongs to its store"),
    Foreign("google.*", "stores/gcpsm sdk/gcp*", True, "an SDK belongs to its store"),
    Foreign("kubernetes kubernetes.*", "sdk/cluster", True, "an SDK belongs to one module"),
    Foreign(
        "sys",
        "__main__ cli commands hosts* sdk sdk/* sources/programs sources/confined",
        False,
        "nobody else prints, exits or reads the streams; sdk knows what is loaded, and a program is started by Python",
    ),
    Foreign(
        "logging logging.* warnings traceback",
        "cli sdk flux/controller/events",
        True,
        "a log line is a place where a value can leak; sdk turns them off",
    ),
    Foreign("kopf kopf.*", "flux/controller/events", True, "one module watches the cluster"),
    Foreign("pyrage pyrage.*", "flux/controller/keys", True, "one module makes age keys"),
    Foreign("pickle marshal shelve copyreg", "", True, "no value is ever kept"),
)


class Import(NamedTuple):
    name: str
    lazily: bool


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What *module* imports; a member is told as `package.member`, since it may be a module."""

    def walk(node: ast.AST, *, lazily: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazily) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide who imports whom"
            yield from (Import(f"{node.module}.{alias.name}", lazily) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazily=lazily or isinstance(node, ast.FunctionDef | ast.Lambda))

    return tuple(walk(parsed(module), lazily=False))


def ours(name: str) -> str | None:
    """`stores/base` for `secretweave.stores.base.Store`; None for what is not ours, or only the package's version."""
    parts = name.split(".")
    if parts.pop(0) != "secretweave":
        return None
    while parts and "/".join(parts) not in FILES:
        parts.pop()
    return "/".join(parts) or None


def matches(module: str, patterns: str) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns.split())


def rule_of(module: str) -> Rule | None:
    """The first rule that fits, the exact one before a pattern."""
    fitting = [rule for rule in OURS if matches(module, rule.who)]
    return min(fitting, key=lambda rule: "*" in rule.who, default=None)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_only_what_its_layer_may(module: str):
    rule = rule_of(module)
    if rule is None or rule.may == "any":
        return
    found = {name for each in imports(module) if (name := ours(each.name))} - {module}
    assert sorted(name for name in found if not matches(name, rule.may)) == [], rule.reason


@pytest.mark.parametrize("rule", FOREIGN, ids=lambda rule: rule.names)
def test_what_is_foreign_stays_where_it_belongs(rule: Foreign):
    for module in FILES:
        for each in imports(module):
            if matches(each.name, rule.names) or matches(each.name.rpartition(".")[0], rule.names):
                assert matches(module, rule.only), f"{module} imports {each.name}: {rule.reason}"
                assert each.lazily or not rule.lazily, f"{module} imports {each.name} at its top: {rule.reason}"


def test_only_the_entry_points_import_the_command():
    importers = {module for module in FILES for each in imports(module) if ours(each.name) in {"cli", "commands"}}
    assert importers <= {"__main__", "cli", "commands"}


TOUCHING_THE_WORLD = (
    "os os.* io sys time datetime random secrets socket subprocess shutil tempfile pathlib urllib* glob http*"
)


@pytest.mark.parametrize("module", sorted(module for module in FILES if matches(module, PURE)))
def test_pure_modules_touch_nothing_outside(module: str):
    """They take values and give values: the same input gives the same manifests on every machine."""
    assert [each.name for each in imports(module) if matches(each.name, TOUCHING_THE_WORLD)] == []


def calls(module: str) -> Iterator[str]:
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2]


class Call(NamedTuple):
    name: str
    only: str
    reason: str


CALLS = (
    Call("print", "", "stdout is the manifests', and stderr has one writer"),
    Call("reveal", "select render outputs*", "where a value leaves its wrapping, and nowhere else"),
    Call("exit", "__main__ cli commands", "a fault is raised, not decided"),
    Call(
        "_exit",
        "__main__ cli flux/controller/run",
        "a fault is raised, not decided; but who has lost its Lease must not do anything more",
    ),
    Call("eval", "", "text from a manifest is never code"),
    Call("exec", "", "text from a manifest is never code"),
    Call("system", "", "text from a manifest is never a command"),
)


@pytest.mark.parametrize("rule", CALLS, ids=lambda rule: rule.name)
def test_calls_that_few_may_make(rule: Call):
    assert [module for module in FILES if rule.name in calls(module) and not matches(module, rule.only)] == [], (
        rule.reason
    )


def test_every_rule_is_about_a_module_that_there_is():
    for rule in OURS:
        for pattern in rule.who.split():
            assert any(fnmatchcase(module, pattern) for module in FILES), pattern


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_pattern_has_a_possessive_group(module: str):
    """Python before 3.11.5, Debian 12's among them, matches one wrongly: what stood behind it went unseen."""
    constants = (
        node.value for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Constant)
    )
    texts = [
        each if isinstance(each, str) else each.decode("latin-1") for each in constants if isinstance(each, str | bytes)
    ]
    bare = [re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text) for text in texts]
    assert [text for text in bare if re.search(r"[)](?:[*+?]|\{[0-9,]+\})\+", text)] == []
