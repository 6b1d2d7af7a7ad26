"""Flux sources, built by the real kustomize in a process that has threads, as in the controller.

Where a test says what Flux makes of a folder, that was seen with github.com/fluxcd/pkg/kustomize v1.35.7.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secretweave.errors import ConfigError, Faults, InputError, PolicyError, SecretweaveError
from secretweave.flux import build
from secretweave.flux.settings import Flux, Kustomize
from secretweave.sources import sandbox
from secretweave.sources.kinds import _kustomization
from tests.argocd_source import config_map, names_below, unvisited
from tests.hosts.programs import documents, need

pytestmark = pytest.mark.hosts

SECONDS = 60.0


class Place(NamedTuple):
    folder: Path
    """Holds `root`, the unpacked source, and what is beside it."""

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def write(self, files: Mapping[str, str]) -> "Place":
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def built(self, path: str = "./", namespace: str | None = None, seconds: float = SECONDS) -> str:
        settings = Flux(kustomize=Kustomize(program=str(need("kustomize"))))
        environ = {"TMPDIR": str(self.folder / "tmp"), "PATH": "/nowhere"}
        streams = build.built(
            str(self.root),
            path,
            settings,
            environ,
            time.monotonic() + seconds,
            seconds,
            pytest.fail,
            target_namespace=namespace,
        )
        found = b""
        with closing(streams):
            for name, stream in streams:
                assert name == "kustomize build"
                while piece := stream.read(1 << 16):
                    found += piece
        assert names_below(self.folder / "tmp") == []
        return found.decode()

    def refused(self, path: str = "./", **options: Any) -> SecretweaveError:
        with pytest.raises(SecretweaveError) as caught:
            self.built(path, **options)
        found = caught.value
        if isinstance(found, Faults):
            (found,) = found.faults
        assert str(self.folder) not in f"{found.what}{found.why}{found.fix}{found.where}"
        return found

    def by_kustomize(self, path: str) -> str:
        return subprocess.run(
            [need("kustomize"), "build", "--load-restrictor=LoadRestrictionsNone", self.root / path],
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if not sandbox.landlock_abi():
        pytest.skip("the kernel has no Landlock")
    (tmp_path / "root").mkdir()
    (tmp_path / "tmp").mkdir()
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    yield Place(tmp_path)
    over.set()
    other.join()


def resources(place: Place, path: str = ".") -> list[str]:
    found: list[str] = json.loads((place.root / path / "kustomization.yaml").read_text())["resources"]
    return found


# A kustomization.


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_kustomization(place: Place, name: str):
    place.write({f"deploy/{name}": "resources: [a.yaml]\nnamePrefix: x-\n", "deploy/a.yaml": config_map("a")})
    assert place.built("./deploy") == config_map("x-a")
    assert names_below(place.root / "deploy") == sorted([name, "a.yaml"])


@pytest.mark.parametrize("path", ["apps/shop", "./apps/shop", "/apps/shop", "apps/shop/", "apps/../apps/shop"])
def test_files_anywhere_in_the_source(place: Place, path: str):
    """kustomize-controller builds with LoadRestrictionsNone, in a file system that ends at the source's root."""
    place.write(
        {
            "base/kustomization.yaml": "resources: [b.yaml]\n",
            "base/b.yaml": config_map("b"),
            "shared/app.properties": "a=1\n",
            "shared/patch.yaml": config_map("b", {"patched": "yes-it-is"}),
            "apps/shop/kustomization.yaml": json.dumps(
                {
                    "resources": ["../../base", "../../shared/c.yaml"],
                    "patches": [{"path": "../../shared/patch.yaml"}],
                    "configMapGenerator": [{"name": "made", "files": ["../../shared/app.properties"]}],
                    "generatorOptions": {"disableNameSuffixHash": True},
                }
            ),
            "shared/c.yaml": config_map("c"),
        }
    )
    found = place.built(path)
    assert found == place.by_kustomize("apps/shop")
    assert {each["metadata"]["name"]: each.get("data") for each in documents(found)} == {
        "b": {"patched": "yes-it-is"},
        "c": None,
        "made": {"app.properties": "a=1\n"},
    }


ENCRYPTED = """\
apiVersion: v1
kind: Secret
metadata:
  name: db
stringData:
  password: ENC[AES256_GCM,data:7Hk=,iv:8/3Yg0XTt4Y8lBAAAAAAAAAAAAAAAAAAAA=,tag:q6AAAAAAAAAAAAAAAAAAAA==,type:str]
sops:
  age:
  - enc: |
      -----BEGIN AGE ENCRYPTED FILE-----
      YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+
      -----END AGE ENCRYPTED FILE-----
    recipient: age1yt3tfqlfrwdwx0z0ynwplcr6qxcxfaqycuprpmy89nr83ltx74tqdpszlw
  encrypted_regex: ^(data|stringData)$
  lastmodified: "2026-01-02T03:04:05Z"
  mac: ENC[AES256_GCM,data:cEhU,iv:8/3Yg0XTt4Y8lBAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,tag:q6AAAAAAAAAAAAAAAAAAAA==,type:str]
  version: 3.11.0
"""


def test_what_is_encrypted_stays_encrypted(place: Place):
    place.write({"secret.yaml": ENCRYPTED})
    assert documents(place.built()) == documents(ENCRYPTED)


def test_the_namespace_of_a_kustomization_is_replaced(place: Place):
    place.write(
        {
            "Kustomization": "# ours\nNamespace: theirs\nresources:\n- a.yaml\npatches:\n- patch: |\n"
            "    - {op: add, path: /data/v, value: '1.10'}\n  target: {kind: ConfigMap, name: 'a'}\n",
            "a.yaml": config_map("a", {"x": "y"}),
        }
    )
    (found,) = documents(place.built(namespace="shop"))
    assert found["metadata"] == {"name": "a", "namespace": "shop"}
    assert found["data"] == {"x": "y", "v": "1.10"}


def test_a_kustomization_that_is_no_yaml(place: Place):
    place.write({"app/kustomization.yaml": "resources:\n- a\n b: [\n"})
    for namespace in (None, "shop"):
        assert str(place.refused("app", namespace=namespace).where).startswith("app/kustomization.yaml, line ")


@pytest.mark.parametrize("first", ["[x, x, x, x, x, x, x, x, x]", "{" + "k" * 1000 + ": " + "v" * 1000 + "}"])
def test_aliases_that_would_fill_the_memory(place: Place, first: str):
    lines = [f"a0: &a0 {first}\n", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))]
    place.write({"kustomization.yaml": "".join(lines)})
    fault = place.refused(namespace="shop")
    assert fault.what == "the kustomization's aliases unfold into too much"
    assert str(fault.where) == "kustomization.yaml"


def test_memory_that_a_source_may_not_take_from_others(place: Place):
    generators = [{"name": f"c{number}", "files": ["big.txt"]} for number in range(60)]
    place.write({"kustomization.yaml": json.dumps({"configMapGenerator": generators}), "big.txt": "x" * 20_000_000})
    fault = place.refused()
    assert (type(fault), fault.what) == (InputError, f"{need('kustomize').name} needs more memory than it may have")


def test_a_kustomization_that_fails(place: Place):
    fault = place.write({"kustomization.yaml": "{}\n"}).refused()
    assert (type(fault), fault.what) == (InputError, f"{need('kustomize').name} failed (exit code 1)")
    assert fault.why == "Error: kustomization.yaml is empty"


def test_a_program_that_is_not_there(place: Place, tmp_path: Path):
    place.write({"a.yaml": config_map("a")})
    settings = Flux(kustomize=Kustomize(program=str(tmp_path / "absent")))
    streams = build.built(str(place.root), ".", settings, {}, time.monotonic() + 9, 9, print)
    with closing(streams), pytest.raises(ConfigError) as caught:
        next(streams)
    assert caught.value.what == "the program kustomize that spec.flux.kustomize.program names cannot be run"


def test_a_program_that_is_none(place: Place, tmp_path: Path):
    place.write({"a.yaml": config_map("a")})
    (tmp_path / "kustomize").write_text("no program")
    (tmp_path / "kustomize").chmod(0o755)
    settings = Flux(kustomize=Kustomize(program=str(tmp_path / "kustomize")))
    environ = {"TMPDIR": str(tmp_path)}
    streams = build.built(str(place.root), ".", settings, environ, time.monotonic() + 9, 9, print)
    with closing(streams), pytest.raises(ConfigError) as caught:
        next(streams)
    assert (caught.value.what, caught.value.why) == ("the program kustomize cannot be started", "Exec format error")


def test_a_kernel_that_refuses_to_confine(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox.Confinement, "filter", bytes(8))
    fault = place.write({"a.yaml": config_map("a")}).refused()
    assert fault.what == f"{need('kustomize').name} was not started: it cannot be confined"


def test_a_time_that_is_over(place: Place):
    fault = place.write({"a.yaml": config_map("a")}).refused(seconds=0.001)
    assert fault.fix == "make the source smaller, or raise spec.timeout"


def test_several_at_a_time(place: Place):
    place.write({f"{number}/a.yaml": config_map(f"n{number}") for number in range(6)})
    environ = {"TMPDIR": str(place.folder / "tmp")}
    settings = Flux(kustomize=Kustomize(program=str(need("kustomize"))))
    found: dict[int, bytes] = {}

    def run(number: int) -> None:
        streams = build.built(str(place.root), f"{number}", settings, environ, time.monotonic() + 60, 60, print)
        with closing(streams):
            for _, stream in streams:
                found[number] = b"".join(iter(partial(stream.read, 999), b""))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: config_map(f"n{number}").encode() for number in range(6)}


# A folder without one.


def test_what_is_generated(place: Place):
    """The names and their order are those of Flux."""
    place.write(
        {
            "b.yaml": config_map("b"),
            "a.yml": config_map("a"),
            "B.yaml": config_map("upper"),
            "b/c.yaml": config_map("c"),
            "b/d/e.yaml": config_map("e"),
            "b-1.yaml": config_map("b1"),
            "overlay/kustomization.yml": "resources: [x.yaml]\nnamePrefix: p-\n",
            "overlay/x.yaml": config_map("x"),
            "overlay/not-listed.yaml": config_map("no"),
            "overlay/deeper/neither.yaml": config_map("no"),
            ".hidden/h.yaml": config_map("h"),
            ".dot.yaml": config_map("dot"),
            "empty.yaml": "",
            "comments.yaml": "# nothing\n---\n",
            "two.yaml": config_map("t1") + "---\n" + config_map("t2"),
            "list.yaml": json.dumps(
                {"apiVersion": "v1", "kind": "List", "items": documents(config_map("l1") + "---\n" + config_map("l2"))}
            ),
            "README.md": "no",
            "values.json": "{}",
            "upper.YAML": "no",
        }
    )
    found = place.built()
    assert resources(place) == GENERATED
    names = {"dot", "h", "upper", "a", "c", "e", "b1", "b", "l1", "l2", "p-x", "t1", "t2"}
    assert {each["metadata"]["name"] for each in documents(found)} == names


GENERATED = [
    "./.dot.yaml",
    "./.hidden/h.yaml",
    "./B.yaml",
    "./a.yml",
    "./b/c.yaml",
    "./b/d/e.yaml",
    "./b-1.yaml",
    "./b.yaml",
    "./comments.yaml",
    "./empty.yaml",
    "./list.yaml",
    "./overlay",
    "./two.yaml",
]


def test_the_namespace_of_what_is_generated(place: Place):
    place.write({"a.yaml": config_map("a"), "ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"})
    assert {each["kind"]: each["metadata"] for each in documents(place.built(namespace="shop"))} == {
        "ConfigMap": {"name": "a", "namespace": "shop"},
        "Namespace": {"name": "shop"},
    }


def test_a_file_that_is_no_manifest(place: Place):
    """Flux: failed to decode Kubernetes YAML from ...: missing Resource metadata."""
    fault = place.write({"a.yaml": config_map("a"), "values.yaml": "replicas: 2\n"}).refused()
    assert "values.yaml" in fault.why
    assert "every .yaml and .yml below it must be manifests" in fault.fix


@pytest.mark.parametrize("name", ["\udcff.yaml", "a\nb.yml"])
def test_a_name_that_cannot_be_written(place: Place, name: str):
    fault = place.write({name: config_map("a")}).refused()
    assert fault.what == "the name of a manifest's file is not UTF-8, or holds a control character"


def test_other_names(place: Place):
    names = ["é.yaml", "a b.yaml", "#.yaml", "'\".yaml", "github.com/x.yaml", "https:/x.yaml", "a=b.yaml", "*.yaml"]
    place.write({name: config_map(f"n{number}") for number, name in enumerate(names)})
    assert len(documents(place.built())) == len(names)


@pytest.mark.parametrize("name", ["kustomization.yaml/a.txt", "README.md", "deeper/values.json"])
def test_a_folder_without_manifests(place: Place, name: str):
    fault = place.write({name: ""}).refused()
    assert (type(fault), fault.what) == (InputError, "the folder of the source holds no manifest")


def test_a_folder_in_the_place_of_the_kustomization(place: Place):
    fault = place.write({"kustomization.yaml/x.yaml": config_map("a")}).refused()
    assert (type(fault), fault.what) == (InputError, "the kustomization cannot be completed")


@pytest.mark.parametrize("path", ["apps", "a.yaml"])
def test_a_path_that_is_no_folder(place: Place, path: str):
    fault = place.write({"a.yaml": config_map("a")}).refused(path)
    assert (type(fault), fault.what, str(fault.where)) == (InputError, "the source has no such folder", "spec.path")


# What a source may not do.


@pytest.mark.parametrize("path", ["..", "../beside", "deploy/../../beside", "/../beside", "link", "link/..", "a\0b"])
def test_a_path_out_of_the_source(place: Place, path: str):
    (place.folder / "beside").mkdir()
    (place.folder / "beside" / "a.yaml").write_text(config_map("hunter2"))
    place.write({"deploy/a.yaml": config_map("a")})
    (place.root / "link").symlink_to("../beside")
    fault = place.refused(path)
    assert isinstance(fault, PolicyError)
    assert str(fault.where) == "spec.path"
    assert fault.fix == ("take it out" if "\0" in path else "name a folder of the source")


def test_a_link_out_of_the_source(place: Place):
    (place.folder / "secret.yaml").write_text(config_map("hunter2"))
    (place.root / "b.yaml").symlink_to("../secret.yaml")
    fault = place.refused()
    assert (type(fault), str(fault.where)) == (PolicyError, "b.yaml")


@pytest.mark.parametrize(
    "base",
    [
        "https://127.0.0.1:{port}/base",
        "git::http://127.0.0.1:{port}/x.git",
        "ssh://git@127.0.0.1:{port}/x.git",
        "github.com/kubernetes-sigs/kustomize//examples/helloWorld?ref=v1.0.6",
    ],
)
def test_remote_bases(place: Place, base: str):
    with unvisited() as port:
        fault = place.write({"kustomization.yaml": json.dumps({"resources": [base.format(port=port)]})}).refused()
    assert (type(fault), fault.what) == (PolicyError, "a kustomization names something remote")


def test_a_chart(place: Place):
    fault = place.write({"kustomization.yaml": json.dumps({"helmCharts": [{"name": "lib"}]})}).refused()
    assert (type(fault), fault.why) == (PolicyError, "kustomize-controller inflates none either")
    assert fault.fix == "commit what `helm template` makes of the chart"


EXEC = (
    "apiVersion: v1\nkind: Evil\nmetadata:\n  name: x\n  annotations:\n"
    "    config.kubernetes.io/function: 'exec: {path: ./run.sh}'\n"
)


def test_a_function(place: Place):
    place.write({"kustomization.yaml": json.dumps({"generators": ["f.yaml"]}), "f.yaml": EXEC})
    assert place.refused().what == "a function would be run"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"resources": ["http://127.0.0.1:{port}/a.yaml"]}, "operation not permitted"),
        ({"configMapGenerator": [{"name": "x", "files": ["../beside/hunter2"]}]}, "permission denied"),
        ({"configMapGenerator": [{"name": "x", "files": ["/etc/passwd"]}]}, "permission denied"),
        ({"generators": ["generator.yaml"]}, "permission denied"),
        ({"generators": ["f.yaml"]}, "external plugins disabled"),
    ],
)
def test_the_sandbox_alone(place: Place, fields: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch):
    """Without the look through kustomizations, by the interpreter that confines itself."""
    monkeypatch.setattr(_kustomization, "check", lambda *_arguments, **_named: None)
    (place.folder / "beside").mkdir()
    (place.folder / "beside" / "hunter2").write_text("a: hunter2")
    ran = place.folder / "tmp" / "ran"
    generator = "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: x}\nfiles: [../beside/hunter2]\n"
    place.write({"generator.yaml": generator, "f.yaml": EXEC, "run.sh": f"#!/bin/sh\ntouch {ran}\n"})
    (place.root / "run.sh").chmod(0o755)
    with unvisited() as port:
        fault = place.write({"kustomization.yaml": json.dumps(fields).replace("{port}", str(port))}).refused()
    assert fault.what == f"{need('kustomize').name} failed (exit code 1)"
    assert why in fault.why
    assert "a: hunter2" not in fault.why
    assert not ran.exists()


def test_a_generator_of_its_own_configuration(place: Place):
    """Nothing but Landlock is in its way: the look through kustomizations does not read it."""
    (place.folder / "beside").mkdir()
    (place.folder / "beside" / "hunter2").write_text("a: hunter2")
    generator = "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: x}\nfiles: [../beside/hunter2]\n"
    place.write({"kustomization.yaml": "generators: [g.yaml]\n", "g.yaml": generator})
    assert "permission denied" in place.refused().why


def test_without_landlock_the_restrictor_stays(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "landlock_abi", lambda: 0)
    place.write(
        {
            "shared/x": "1",
            "deploy/kustomization.yaml": json.dumps({"configMapGenerator": [{"name": "x", "files": ["../shared/x"]}]}),
        }
    )
    told: list[str] = []
    settings = Flux(kustomize=Kustomize(program=str(need("kustomize"))))
    environ = {"TMPDIR": str(place.folder / "tmp")}
    streams = build.built(str(place.root), "deploy", settings, environ, time.monotonic() + 60, 60, told.append)
    with closing(streams):
        _, stream = next(streams)
        with pytest.raises(InputError) as caught:
            stream.read(1)
    assert "is not in or below" in caught.value.why
    assert told == ["the kernel has no Landlock: a kustomization reads files of its own folder alone"]


def test_nothing_is_left_of_what_was_given_up(place: Place):
    place.write({"a.yaml": config_map("a")})
    settings = Flux(kustomize=Kustomize(program=str(need("kustomize"))))
    environ = {"TMPDIR": str(place.folder / "tmp")}
    with closing(build.built(str(place.root), ".", settings, environ, time.monotonic() + 60, 60, print)) as streams:
        _, stream = next(streams)
        pid = stream.pid  # type: ignore[attr-defined]  # of an Output
    assert not os.path.exists(f"/proc/{pid}")
    assert names_below(place.folder / "tmp") == []
