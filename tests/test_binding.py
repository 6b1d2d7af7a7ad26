"""`{project}` and `{namespace}`: what one configuration gives to each project and destination, and to no other."""

import io
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave import config, pipeline, stores
from secretweave.config import Config, binding
from secretweave.errors import ConfigError, Faults, PolicyError, SecretweaveError
from secretweave.model import StoreConfig
from secretweave.outputs import Outside
from secretweave.pipeline import Run
from secretweave.policy.settings import StoreRule
from secretweave.sdk.vault_login import Tokens, Way
from secretweave.settings import key_of
from secretweave.stores.base import SecretKeyRef, Wanted
from secretweave.stores.vault import Settings, VaultStore

Load = Callable[..., Config]
A = {"project": "team-a", "namespace": "web"}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(*specs: str, rules: str = "[]", more: str = "", namespace: str = "") -> Config:
        """Stores called s0, s1, ... of those specs, in a namespace if one is told."""
        where = f", namespace: {namespace}" if namespace else ""
        documents = [
            f"apiVersion: humanitec.io/v1alpha1\nkind: SecretStore\nmetadata: {{name: s{index}{where}}}\nspec: {spec}\n"
            for index, spec in enumerate(specs)
        ]
        documents.append(
            "apiVersion: secretweave.dev/v1alpha1\nkind: Configuration\n"
            f"spec: {{policy: {{stores: {rules}}}{', ' if more else ''}{more}}}\n"
        )
        (tmp_path / "config.yaml").write_text("---\n".join(documents))
        return config.load(str(tmp_path / "config.yaml"), {})

    return load


def rules(bound: Config) -> list[StoreRule]:
    return list(bound.settings.policy.stores)


def unusable(bound: Config, name: str = "s0", namespace: str | None = None) -> SecretweaveError:
    with pytest.raises(SecretweaveError) as caught:
        bound.store(name, namespace)
    return caught.value


# Stores.


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{vault: {auth: {kubernetes: {role: 'argocd-{project}'}}}}", "argocd-team-a"),
        ("{vault: {path: 'kv-{project}', namespace: '{project}/{namespace}', auth: {}}}", "kv-team-a team-a/web"),
        ("{awssm: {auth: {roleARN: 'arn:aws:iam::1:role/argocd-{project}'}}}", "arn:aws:iam::1:role/argocd-team-a"),
        ("{env: {prefix: A_}}", "A_"),
        ("{vault: {path: '{Project}{names}{{project}}{}$', auth: {}}}", "{Project}{names}{team-a}{}$"),
        ("{vault: {path: '{project}{x}{namespace}', auth: {}}}", "team-a{x}web"),
        ("{vault: {auth: {tokenSecretRef: {name: 'v-{project}', key: '{namespace}.token'}}}}", "v-team-a web.token"),
        ("{file: {path: '/s/{project}/{namespace}.yaml'}}", "/s/team-a/web.yaml"),
        ("{vault: {url: 'https://vault.{namespace}:8200/{project}', auth: {}}}", "https://vault.web:8200/team-a"),
    ],
)  # fmt: skip
def test_each_text_of_a_store_is_filled(load: Load, spec: str, expected: str):
    bound = binding.bound(load(spec), A)
    found = repr(bound.store("s0", None).settings)
    assert all(repr(each) in found for each in expected.split(" "))


def test_what_holds_no_placeholder_is_the_same(load: Load):
    plain = load("{vault: {path: kv, auth: {kubernetes: {role: a}}}}", rules="[{store: s0, prefixes: [a]}]")
    bound = binding.bound(plain, A)
    assert bound == plain
    assert bound.stores[0] is plain.stores[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, "a run has a project under Argo CD only"),
        ({"namespace": "web"}, "a run has a project under Argo CD only"),
        ({"project": None, "namespace": "web"}, "a run has a project under Argo CD only"),
        ({"project": "", "namespace": "web"}, "a run has a project under Argo CD only"),
    ],
)
def test_a_store_is_refused_when_it_is_used_without_a_name(load: Load, names: Mapping[str, str | None], expected: str):
    bound = binding.bound(
        load("{env: {prefix: A_}}", "{vault: {auth: {jwt: {role: 'x-{project}', tokenFile: t}}}}"), names
    )
    assert bound.store("s0", None).type == "env"
    fault = unusable(bound, "s1")
    assert type(fault) is ConfigError
    assert fault.what == "the store `s1` cannot be used here: spec.vault.auth.jwt.role holds {project}"
    assert (fault.why, bool(fault.fix)) == (expected, True)


def test_a_store_without_a_namespace_to_fill_says_how_to_tell_one(load: Load):
    bound = binding.bound(load("{vault: {path: 'kv/{namespace}', auth: {}}}"), {"project": "a", "namespace": None})
    assert unusable(bound).fix == "pass --namespace; for Argo CD set spec.destination.namespace"


def test_a_default_store_is_refused_like_another(load: Load):
    found = load("{vault: {path: '{project}', auth: {}}}")
    found = found._replace(stores=(found.stores[0]._replace(default=True),))
    assert type(unusable(binding.bound(found, {}), "")) is ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project", ".."), ("project", "a/b"), ("project", "A"), ("project", "a..b"), ("project", "-a"),
        ("project", "a\n"), ("project", "a_b"), ("project", "a" * 254), ("project", "*"), ("project", "{namespace}"),
        ("namespace", "a.b"), ("namespace", "../x"), ("namespace", "a" * 64),
    ],
)  # fmt: skip
def test_a_name_that_is_none_of_dns_is_refused(load: Load, name: str, value: str):
    with pytest.raises(ConfigError, match=f"the {name} of this run is malformed"):
        binding.bound(load(f"{{vault: {{path: '{{{name}}}', auth: {{}}}}}}"), {**A, name: value})
    with pytest.raises(ConfigError, match=f"the {name} of this run is malformed"):
        binding.bound(load(rules=f"[{{store: s0, prefixes: ['{{{name}}}']}}]"), {**A, name: value})
    unneeded = load("{vault: {path: kv, auth: {}}}")
    assert binding.bound(unneeded, {"namespace": value}) == unneeded


@pytest.mark.parametrize("text", ["{project}-{namespace}", "{project}{namespace}", "x/{namespace}.aB1-{project}/y"])
def test_two_names_are_held_apart(load: Load, text: str):
    """Else a-b with c would be taken for a with b-c."""
    with pytest.raises(ConfigError) as caught:
        binding.bound(load(f"{{vault: {{path: '{text}', auth: {{}}}}}}"), {})
    assert str(caught.value.where) == "SecretStore s0, spec.vault.path"
    for field in ("prefixes", "namespaces", "destinations"):
        with pytest.raises(ConfigError, match="nothing holds two placeholders apart"):
            binding.bound(load(rules=f"[{{store: s0, {field}: ['{text}']}}]"), A)


NAME = st.from_regex("[ab]([ab.-]{0,3}[ab])?", fullmatch=True).filter(
    lambda text: re.fullmatch(binding.NAMES["project"], text) is not None
)
SPACE = NAME.filter(lambda text: "." not in text)
TEMPLATE = st.lists(st.sampled_from(["{project}", "{namespace}", "a", "-", ".", "/", "_", "b-"]), max_size=5).map(
    "".join
)


@given(TEMPLATE, st.tuples(NAME, SPACE), st.tuples(NAME, SPACE))
def test_no_two_tenants_get_the_same_text(template: str, one: tuple[str, str], other: tuple[str, str]):
    found = Config()
    rule = StoreRule("shop", prefixes=(template,))
    found = found._replace(settings=found.settings._replace(policy=found.settings.policy._replace(stores=(rule,))))
    try:
        (first,), (second,) = (
            binding.bound(found, {"project": project, "namespace": space}).settings.policy.stores
            for project, space in (one, other)
        )
    except ConfigError:
        return
    used = [name for name in ("project", "namespace") if f"{{{name}}}" in template]
    differ = [a != b for name, a, b in zip(("project", "namespace"), one, other, strict=True) if name in used]
    assert (first.prefixes != second.prefixes) == any(differ)


def test_a_dotted_project_is_no_part_of_a_host(load: Load):
    spec = "{vault: {url: 'https://vault-{project}:8200/x', auth: {}}}"
    assert unusable(binding.bound(load(spec), {"project": "x.evil.example", "namespace": "web"})).why == (
        "the project x.evil.example has a dot, and would be another domain in a URL's host"
    )
    assert "https://vault-a:8200/x" in repr(binding.bound(load(spec), {"project": "a"}).store("s0", None))
    beside = "{vault: {url: 'https://vault:8200/{project}', auth: {}}}"
    assert "https://vault:8200/a.b" in repr(binding.bound(load(beside), {"project": "a.b"}).store("s0", None))


def test_credentials_of_variables_are_of_no_one_tenant(load: Load):
    spec = "{vault: {auth: {tokenSecretRef: {name: 'v-{project}', key: token}}}}"
    fault = unusable(binding.bound(load(spec, more="credentials: {from: environment}"), A))
    assert fault.what.endswith("spec.vault.auth.tokenSecretRef.name holds {project}")
    assert fault.fix == "set credentials.from to `cluster` or `folder`"
    kept = binding.bound(load(spec, more="credentials: {from: folder, folder: f}"), A)
    assert "v-team-a" in repr(kept.store("s0", None))


def test_every_setting_of_a_credential_is_known_by_its_name():
    def credentials(cls: object, path: str) -> list[str]:
        found = []
        for field, kind in getattr(cls, "__annotations__", {}).items():
            for each in (kind, *getattr(kind, "__args__", ())):
                if each is SecretKeyRef:
                    found.append(f"{path}.{key_of(field)}")
                elif hasattr(each, "_fields"):
                    found += credentials(each, f"{path}.{key_of(field)}")
        return found

    names = [name for kind in stores.types() for name in credentials(stores.settings_class(kind), kind)]
    assert len(names) > 5
    assert [name for name in names if not name.endswith("SecretRef")] == []


# Stores of a namespace.


def test_a_store_of_a_namespace_serves_its_destination_alone(load: Load):
    found = load("{env: {prefix: A_}}", namespace="web")
    assert binding.bound(found, A).store("s0", "web").namespace == "web"
    for names in ({"project": "team-a", "namespace": "other"}, {"project": "team-a", "namespace": None}):
        fault = unusable(binding.bound(found, names), "s0", "web")
        assert type(fault) is PolicyError
        assert fault.what == "the store `s0` may not be used here"
        assert fault.why == (
            "it is the store of the namespace web, and the Application's destination is "
            f"{names['namespace'] or 'no namespace'}; what a manifest says of its namespace does not count"
        )


def test_a_store_of_the_operator_serves_everybody(load: Load):
    found = load("{env: {prefix: A_}}", namespace="humanitec-operator-system")
    assert binding.bound(found, A).store("s0", "x") == found.stores[0]


@pytest.mark.parametrize("names", [{}, {"namespace": None}, {"namespace": "other"}])
def test_without_a_host_a_store_serves_the_manifests_of_its_namespace(load: Load, names: Mapping[str, str | None]):
    found = load("{env: {prefix: A_}}", namespace="web")
    assert binding.bound(found, names) == found


def test_no_shared_store_stands_in_for_one_that_may_not_be_used(load: Load):
    found = load("{env: {prefix: A_}}", namespace="web")
    shared = found.stores[0]._replace(namespace=None)
    bound = binding.bound(found._replace(stores=(shared, found.stores[0])), {"project": "a", "namespace": "other"})
    assert type(unusable(bound, "s0", "web")) is PolicyError
    assert bound.store("s0", "other") == shared


# Rules.


def test_entries_of_a_rule_are_filled(load: Load):
    found = load(
        rules="[{store: s0, identities: [a], namespaces: ['{namespace}', x], destinations: ['{project}-1'],"
        " prefixes: ['{project}/{namespace}', 'p-{project}', s]}]"
    )
    assert rules(binding.bound(found, A)) == [
        StoreRule("s0", ("a",), ("web", "x"), ("team-a/web", "p-team-a", "s"), ("team-a-1",))
    ]


@pytest.mark.parametrize("names", [{}, {"project": None, "namespace": None}])
def test_an_entry_without_a_name_fits_nothing(load: Load, names: Mapping[str, str | None]):
    found = load(
        rules="[{store: s0, namespaces: ['{namespace}'], destinations: ['{project}'], prefixes: ['{project}/x']}]"
    )
    assert rules(binding.bound(found, names)) == [StoreRule("s0", None, (), (), ())]
    beside = load(rules="[{store: s0, prefixes: ['{project}', shared]}]")
    assert rules(binding.bound(beside, names)) == [StoreRule("s0", prefixes=("shared",))]


@pytest.mark.parametrize("rule", ["{store: s0, identities: ['{project}']}", "{store: '{project}'}"])
def test_a_rule_has_no_placeholder_for_whom_it_is(load: Load, rule: str):
    with pytest.raises(ConfigError, match="has a placeholder among its identities"):
        binding.bound(load(rules=f"[{rule}]"), A)


# The several spellings of one secret.

VAULT = "{vault: {url: 'https://127.0.0.1:1', path: %s, kvVersion: 2, auth: {}}}"


@pytest.mark.parametrize(
    ("spec", "prefix", "names", "kept"),
    [
        (VAULT % "secret", "{project}", "a web", ["a"]),
        (VAULT % "secret", "{project}", "data web", []),
        (VAULT % "secret", "{project}", "secret web", []),
        (VAULT % "secret", "{project}/{namespace}", "data team-b", []),
        (VAULT % "secret", "{project}/{namespace}", "secret data", []),
        (VAULT % "secret", "data/{project}", "a web", ["data/a"]),
        (VAULT % "secret", "secret/{project}", "data web", []),
        (VAULT % "secret", "da{project}", "ta web", []),
        (VAULT % "secret", "t-{project}", "data web", ["t-data"]),
        (VAULT % "secret", "data/t", "data web", ["data/t"]),
        (VAULT % "team/kv", "team/{project}", "kv web", []),
        (VAULT % "team/kv", "{project}", "team web", []),
        (VAULT % "'kv-{project}'", "{namespace}", "a kv-a", []),
        ("{vault: {auth: {}}}", "secret/{project}", "data web", []),
        ("{vault: {auth: {}}}", "kv-{project}", "data web", ["kv-data"]),
        ("{gcpsm: {auth: {}}}", "{project}", "projects web", []),
        ("{kubernetes: {namespace: x}}", "{project}", "configmap web", []),
        ("{file: {path: x}}", "{project}", "data web", ["data"]),
    ],
)  # fmt: skip
def test_no_tenant_may_be_called_like_a_word_of_a_spelling(
    load: Load, spec: str, prefix: str, names: str, kept: list[str]
):
    project, namespace = names.split()
    found = load(spec, rules=f"[{{store: s0, prefixes: ['{prefix}']}}]")
    bound = binding.bound(found, {"project": project, "namespace": namespace})
    assert [each.prefixes for each in rules(bound)] == [tuple(kept)]


def one_secret(settings: Settings, ref: str, other: str) -> bool:
    """Do two refs mean the same to a Vault store? Nothing is asked."""
    store = VaultStore(None, Tokens(None, Way("nobody", None)), settings, "")  # type: ignore[arg-type]  # it is not asked
    return len(store.batches([Wanted(ref, None), Wanted(other, None)])) == 1


WORDS = st.sampled_from(["data", "secret", "team", "kv", "a", "b", "victim"])
SPELLINGS = st.lists(WORDS, min_size=1, max_size=5).map("/".join)


@given(
    st.sampled_from(["secret", "team/kv", "a", "data"]),
    st.sampled_from(["{project}", "{project}/{namespace}", "team/{project}", "{namespace}/x"]),
    WORDS,
    WORDS,
    SPELLINGS,
)
def test_no_spelling_leads_out_of_a_filled_prefix(path: str, prefix: str, project: str, namespace: str, ref: str):
    store = StoreConfig("s0", None, "vault", Settings(path=path, kv_version=2), default=False)
    found = Config((store,))
    rule = StoreRule("s0", prefixes=(prefix,))
    found = found._replace(settings=found.settings._replace(policy=found.settings.policy._replace(stores=(rule,))))
    bound = binding.bound(found, {"project": project, "namespace": namespace})
    filled = prefix.replace("{project}", project).replace("{namespace}", namespace)
    for own in rules(bound)[0].prefixes or ():
        if f"{ref}/".startswith(f"{own}/"):
            # As it is written is what it means: behind its own `data/` it is still the same secret.
            assert own == filled
            assert one_secret(store.settings, ref, f"data/{ref}")


# A whole run, of a project under Argo CD.

SECRET = """\
apiVersion: v1
kind: Secret
metadata: {{name: x, namespace: {namespace}}}
stringData:
  a: secret://s0/{ref}
"""
BY_IDENTITY = (
    "[{store: s0, identities: [team-a], prefixes: [team-a]}, {store: s0, identities: [team-b], prefixes: [team-b]}]"
)
BY_TEMPLATE = "[{store: s0, prefixes: ['{project}']}]"
BY_DESTINATION = (
    "[{store: s0, identities: [team-a, team-b], destinations: ['{project}-prod'], prefixes: ['{project}']}]"
)


def woven(found: Config, project: str, destination: str | None, manifest: str) -> str:
    bound = binding.bound(found, {"project": project, "namespace": destination})
    run = Run(namespace=destination, identity=project, destination=destination)
    out = io.BytesIO()
    outside = Outside({}, time.monotonic() + 60, lambda _: None)
    pipeline.weave([("stdin", io.BytesIO(manifest.encode()))], out, bound, run, outside)
    return out.getvalue().decode()


@pytest.mark.parametrize("policy", [BY_IDENTITY, BY_TEMPLATE, BY_DESTINATION])
def test_a_project_never_reads_what_is_anothers(tmp_path: Path, load: Load, policy: str):
    values = {"team-a/db": "of-a", "team-b/db": "of-b", "team-a.b/db": "of-ab"}
    (tmp_path / "secrets.json").write_text(json.dumps(values))
    (tmp_path / "secrets.json").chmod(0o600)
    found = load("{file: {path: secrets.json}}", rules=policy)
    own = SECRET.format(namespace="anything", ref="team-a/db")
    assert '"of-a"' in woven(found, "team-a", "team-a-prod", own)
    spellings = [
        "team-b/db", "team-a/../team-b/db", "/team-b/db", "team-a//../team-b/db", "./team-b/db", "team%2Db/db",
        "team-b%2Fdb", "team-a/%2E%2E/team-b/db", "%2Fteam-b/db", "team-a.b/db", "{project}/db", "%7Bproject%7D/db",
    ]  # fmt: skip
    for namespace in ("team-b", "team-b-prod", "team-a", "web"):
        for ref in spellings:
            with pytest.raises(Faults) as caught:
                woven(found, "team-a", "team-a-prod", SECRET.format(namespace=namespace, ref=ref))
            assert caught.value.exit_code in {4, 5}, ref
    if policy == BY_DESTINATION:
        for destination in ("team-b-prod", "team-a", None):
            with pytest.raises(Faults):
                woven(found, "team-a", destination, own)


def test_a_manifest_does_not_choose_the_store_of_another_namespace(tmp_path: Path, load: Load):
    (tmp_path / "secrets.json").write_text('{"db": "of-b"}')
    (tmp_path / "secrets.json").chmod(0o600)
    found = load("{file: {path: secrets.json}}", namespace="team-b")
    manifest = SECRET.format(namespace="team-b", ref="db")
    assert '"of-b"' in woven(found, "team-b", "team-b", manifest)
    for destination in ("team-a", None):
        with pytest.raises(Faults) as caught:
            woven(found, "team-a", destination, manifest)
        (fault,) = caught.value.faults
        assert fault.what == "the store `s0` may not be used here"
        assert str(fault.where).startswith("stdin, document 1, line 5, Secret team-b/x")


def test_a_laptop_judges_what_needs_no_project(load: Load):
    found = load("{env: {prefix: A_}}", "{vault: {auth: {kubernetes: {role: 'x-{project}'}}}}")
    bound = binding.bound(found, {"namespace": None})
    manifest = SECRET.format(namespace="web", ref="db")
    sources = [("stdin", io.BytesIO(manifest.encode()))]
    assert len(pipeline.check(sources, bound, Run(), lambda _: None).uses) == 1
    with pytest.raises(Faults) as caught:
        pipeline.check([("stdin", io.BytesIO(manifest.replace("s0", "s1").encode()))], bound, Run(), lambda _: None)
    assert [fault.exit_code for fault in caught.value.faults] == [2]
