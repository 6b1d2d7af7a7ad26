import os
from pathlib import Path

import pytest

from secretweave import config
from secretweave.config import Config, files
from secretweave.config.configuration import Settings
from secretweave.errors import BadReference, ConfigError, Faults, SecretweaveError

STORE = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: local}
spec: {file: {path: secrets.yaml}}
"""
CONFIGURATION = """\
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec: {allowEmptyInput: true}
"""


def store(name: str, namespace: str | None = None, *, default: bool = False) -> str:
    metadata = f"name: {name}" + (f", namespace: {namespace}" if namespace else "")
    labels = ', labels: {app.humanitec.io/default-store: "true"}' if default else ""
    return (
        "---\napiVersion: humanitec.io/v1alpha1\nkind: SecretStore\n"
        f"metadata: {{{metadata}{labels}}}\nspec: {{file: {{path: /s.yaml}}}}\n"
    )


def loaded(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text)
    return config.load(str(path), {})


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(SecretweaveError) as caught:
        loaded(folder, text)
    each = caught.value.faults if isinstance(caught.value, Faults) else (caught.value,)
    assert all(type(fault) is ConfigError for fault in each)
    return [f"{str(fault.where).removeprefix(f'{folder}/')}: {fault.what}" for fault in each]


def test_a_configuration_of_both_kinds(tmp_path: Path):
    found = loaded(tmp_path, f"# stores\n---\n{STORE}---\n{CONFIGURATION}---\n")
    (local,) = found.stores
    assert (local.name, local.namespace, local.type, local.default) == ("local", None, "file", False)
    assert local.settings.path == str(tmp_path / "secrets.yaml")
    assert found.settings == Settings(allow_empty_input=True)
    assert found.sources == (str(tmp_path / "config.yaml"),)


def test_what_the_operator_and_the_cluster_add_is_left_alone(tmp_path: Path):
    text = """\
{"apiVersion": "v1", "kind": "List", "items": [{
  "apiVersion": "humanitec.io/v1alpha1", "kind": "SecretStore",
  "metadata": {"name": "local", "namespace": "humanitec-operator-system", "uid": "0", "creationTimestamp": null,
    "labels": {"app.humanitec.io/default-store": "true", "team": "a"}},
  "spec": {"file": {"path": "/s.yaml"}}, "status": {"conditions": []}}]}
"""
    (found,) = loaded(tmp_path, text).stores
    assert (found.id, found.default) == ("humanitec-operator-system/local", True)


@pytest.mark.parametrize(
    ("label", "default"), [('"true"', True), ('"false"', False), ("''", False), ('"True"', False), ("", False)]
)
def test_the_default_label_is_compared_with_the_text_true(tmp_path: Path, label: str, default: bool):
    text = STORE.replace("{name: local}", f"{{name: local, labels: {{app.humanitec.io/default-store: {label}}}}}")
    assert loaded(tmp_path, text).stores[0].default == default


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            STORE.replace("humanitec.io", "external-secrets.io"),
            [
                (
                    "config.yaml, document 1, line 1: "
                    "a SecretStore of the group external-secrets.io, which is another product's"
                )
            ],
        ),
        (
            STORE.replace("v1alpha1", "v1"),
            ["config.yaml, document 1, line 1: a SecretStore in a version that is not known"],
        ),
        ("just text\n", ["config.yaml, document 1, line 1: a configuration holds no document of this kind"]),
        ("kind: ConfigMap\n", ["config.yaml, document 1, line 1: a configuration holds no document of this kind"]),
        (
            STORE.replace("file:", "fiel:"),
            ["config.yaml, document 1, line 4, SecretStore local, spec: unknown store type `fiel`"],
        ),
        (
            STORE.replace("file:", "base:"),
            ["config.yaml, document 1, line 4, SecretStore local, spec: unknown store type `base`"],
        ),
        (
            STORE.replace("{file: {path: secrets.yaml}}", "{}"),
            [
                (
                    "config.yaml, document 1, line 4, SecretStore local, spec: "
                    "a SecretStore has exactly one provider, this one has 0"
                )
            ],
        ),
        (
            STORE.replace("path:", "pat:"),
            [
                "config.yaml, document 1, line 4, SecretStore local, spec.file: unknown key `pat`",
                "config.yaml, document 1, line 4, SecretStore local, spec.file: `path` is missing",
            ],
        ),
        (
            STORE.replace("name: local", "name: '${NAME}'"),
            ["config.yaml, document 1, line 3, metadata.name: the store's name is missing or malformed"],
        ),
        (
            STORE.replace("name: local", "name: x"),
            ["config.yaml, document 1, line 3, metadata.name: the store's name is missing or malformed"],
        ),
        (
            STORE.replace("metadata: {name: local}\n", ""),
            ["config.yaml, document 1, line 1, metadata.name: the store's name is missing or malformed"],
        ),
        (
            STORE.replace("name: local", "name: humanitec"),
            ["config.yaml, document 1, line 3, metadata.name: a store may not be called `humanitec`"],
        ),
        (
            STORE.replace("name: local", "name: local, namespace: A/b"),
            ["config.yaml, document 1, line 3, metadata.namespace: the namespace is malformed"],
        ),
        (
            CONFIGURATION.replace("spec:", "specs:"),
            ["config.yaml, document 1, line 3, Configuration: unknown key `specs`"],
        ),
        (
            CONFIGURATION.replace(
                "{allowEmptyInput: true}", "{limits: {depth: deep}, references: {literalValue: allow}}"
            ),
            [
                (
                    "config.yaml, document 1, line 3, Configuration, spec.limits.depth: "
                    "expected a whole number from 1, found other text"
                ),
                (
                    "config.yaml, document 1, line 3, Configuration, spec.references.literalValue: "
                    "expected one of warn, refuse, found other text"
                ),
            ],
        ),
        (
            f"{CONFIGURATION}---\n{CONFIGURATION}",
            ["config.yaml, document 2, line 5: a second Configuration"],
        ),
        (
            store("local")
            + store("local", "humanitec-operator-system")
            + store("local", "shop")
            + store("local", "shop"),
            [
                "config.yaml, document 2, line 7: a second SecretStore local",
                "config.yaml, document 4, line 17: a second SecretStore shop/local",
            ],
        ),
        ("a: [\n", ["config.yaml, line 2: not YAML: did not find expected node content"]),
        ("kind: a\nkind: b\n", ["config.yaml, line 2, kind: a mapping has the same key twice"]),
    ],
)
def test_every_fault_is_told_with_its_place(tmp_path: Path, text: str, expected: list[str]):
    assert faults(tmp_path, text) == expected


def test_a_credential_never_shows(tmp_path: Path):
    text = STORE.replace("{path: secrets.yaml}", "{path: [hunter2], format: hunter2, token: hunter2, 'hunter2 !': 1}")
    with pytest.raises(Faults) as caught:
        loaded(tmp_path, text)
    assert len(caught.value.faults) == 4
    assert "hunter2" not in "".join(repr(vars(fault)) for fault in caught.value.faults)


class TestLookUp:
    STORES = (
        store("shared")
        + store("shared", "shop")
        + store("system", "humanitec-operator-system", default=True)
        + store("mine", "shop", default=True)
    )

    @pytest.mark.parametrize(
        ("name", "namespace", "found"),
        [
            ("shared", "shop", "shop/shared"),
            ("shared", "other", "shared"),
            ("shared", None, "shared"),
            ("system", "shop", "humanitec-operator-system/system"),
            ("mine", "shop", "shop/mine"),
            ("", "shop", "humanitec-operator-system/system"),
            ("", None, "humanitec-operator-system/system"),
        ],
    )
    def test_order(self, tmp_path: Path, name: str, namespace: str | None, found: str):
        assert loaded(tmp_path, self.STORES).store(name, namespace).id == found

    @pytest.mark.parametrize(
        ("name", "namespace", "text"),
        [
            (
                "mine",
                "other",
                (
                    "no store is called `mine` for the namespace `other` | the stores here are: shared, system | "
                    "correct the name, or ask who owns the configuration to add such a SecretStore"
                ),
            ),
            (
                "mine",
                None,
                (
                    "the store `mine` serves one namespace only, and the namespace of this object is unknown |  | "
                    "pass --namespace (Helm: --post-renderer-args), or write metadata.namespace"
                ),
            ),
            (
                "shard",
                "shop",
                (
                    "no store is called `shard` | the stores here are: mine, shared, system"
                    " | write `shared`, if that is meant"
                ),
            ),
        ],
    )
    def test_an_unknown_store(self, tmp_path: Path, name: str, namespace: str | None, text: str):
        with pytest.raises(BadReference) as caught:
            loaded(tmp_path, self.STORES).store(name, namespace)
        assert f"{caught.value.what} | {caught.value.why} | {caught.value.fix}" == text

    def test_the_operator_namespace_is_a_setting(self, tmp_path: Path):
        text = self.STORES + "---\n" + CONFIGURATION.replace("allowEmptyInput: true", "operatorNamespace: shop")
        with pytest.raises(ConfigError, match="a second SecretStore shared"):
            loaded(tmp_path, text)
        text = text.replace(store("shared"), "")
        assert loaded(tmp_path, text).store("", "other").id == "shop/mine"

    @pytest.mark.parametrize(
        ("stores", "text"),
        [
            (
                store("ab"),
                "the reference means the default store, but no store is the default | the stores here are: ab",
            ),
            (
                store("ab", "shop", default=True),
                "the reference means the default store, but no store is the default | no store is configured",
            ),
            (
                store("ab", default=True) + store("cd", "humanitec-operator-system", default=True),
                (
                    "the reference means the default store, but several are labelled as default | "
                    "labelled are ab, humanitec-operator-system/cd"
                ),
            ),
        ],
    )
    def test_none_or_two_defaults_matter_only_where_one_is_needed(self, tmp_path: Path, stores: str, text: str):
        found = loaded(tmp_path, stores)
        assert found.store("ab", "shop").name == "ab"
        with pytest.raises(BadReference) as caught:
            found.store("", "shop")
        assert f"{caught.value.what} | {caught.value.why}" == text


class TestFiles:
    def test_where_it_is_looked_for(self):
        assert files.folders({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == ("/x/secretweave", "/etc/secretweave")
        assert files.folders({"XDG_CONFIG_HOME": "x", "HOME": "/h"}) == (
            "/h/.config/secretweave",
            "/etc/secretweave",
        )
        assert files.folders({"HOME": "h"}) == ("/etc/secretweave",)
        assert files.folders({}) == ("/etc/secretweave",)

    def test_none_at_all_is_an_empty_configuration(self, tmp_path: Path):
        assert config.load(None, {"HOME": str(tmp_path)}) == Config()

    def test_never_from_the_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        for name in ("config.yaml", "secretweave/config.yaml", ".config/secretweave/config.yaml"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(STORE)
        monkeypatch.chdir(tmp_path)
        assert config.load(None, {"XDG_CONFIG_HOME": ".", "HOME": ""}) == Config()
        assert config.load(None, {"HOME": "."}) == Config()

    def test_the_order(self, tmp_path: Path):
        home = tmp_path / "secretweave"
        (home / "config.d").mkdir(parents=True)
        (home / "config.yaml").write_text(store("home"))
        (home / "config.d" / "more.yaml").write_text(store("more"))
        for name in ("option", "variable"):
            (tmp_path / f"{name}.yaml").write_text(store(name))
        environ = {"XDG_CONFIG_HOME": str(tmp_path), "SECRETWEAVE_CONFIG": str(tmp_path / "variable.yaml")}

        def names(path: str | None, environ: dict[str, str]) -> list[str]:
            return [each.name for each in config.load(path, environ).stores]

        assert names(str(tmp_path / "option.yaml"), environ) == ["option"]
        assert names(None, environ) == ["variable"]
        assert names(None, {**environ, "SECRETWEAVE_CONFIG": ""}) == ["home", "more"]

    @pytest.mark.parametrize("option", [True, False])
    def test_a_path_that_is_named_must_exist(self, tmp_path: Path, option: bool):
        path = str(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            config.load(path if option else None, {} if option else {"SECRETWEAVE_CONFIG": path})
        assert caught.value.why == "No such file or directory"
        assert caught.value.fix == f"correct {'--config' if option else 'SECRETWEAVE_CONFIG'}"

    def test_a_mounted_folder(self, tmp_path: Path):
        """As the kubelet mounts a ConfigMap: links into a folder `..data`, itself a link."""
        folder = tmp_path / "mounted"
        (folder / "..2026_01_01").mkdir(parents=True)
        (folder / "..data").symlink_to("..2026_01_01")
        for name in ("20-b.yaml", "10-a.json", "30-c.yml"):
            (folder / "..data" / name).write_text(store(f"s-{name[:2]}"))
            (folder / name).symlink_to(f"..data/{name}")
        (folder / ".hidden.yaml").write_text("not: ours")
        (folder / "secrets").mkdir()
        found = config.load(str(folder), {})
        assert [each.name for each in found.stores] == ["s-10", "s-20", "s-30"]
        assert [os.path.basename(source) for source in found.sources] == ["10-a.json", "20-b.yaml", "30-c.yml"]

    def test_duplicates_of_two_files_name_both(self, tmp_path: Path):
        (tmp_path / "a.yaml").write_text(CONFIGURATION + store("ab"))
        (tmp_path / "b.yaml").write_text(store("ab") + "---\n" + CONFIGURATION)
        with pytest.raises(Faults) as caught:
            config.load(str(tmp_path), {})
        assert [(fault.what, str(fault.where), fault.why) for fault in caught.value.faults] == [
            (
                "a second Configuration",
                f"{tmp_path}/b.yaml, document 2, line 7",
                f"the first: {tmp_path}/a.yaml, document 1, line 1",
            ),
            (
                "a second SecretStore ab",
                f"{tmp_path}/b.yaml, document 1, line 2",
                f"the first: {tmp_path}/a.yaml, document 2, line 5",
            ),
        ]

    def test_nothing_of_a_folder_is_skipped_in_silence(self, tmp_path: Path):
        (tmp_path / "policy.yaml.bak").write_text(CONFIGURATION)
        with pytest.raises(Faults) as caught:
            config.load(str(tmp_path), {})
        assert [fault.what for fault in caught.value.faults] == [
            "not a YAML file by its name",
            "the folder holds no configuration",
        ]
