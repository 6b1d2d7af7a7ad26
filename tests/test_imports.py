"""What a plain render loads: start-up is most of a small run, so every module on its path has to earn its place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.daemon import daemon

STREAM = """apiVersion: v1
kind: Secret
metadata:
  name: web
stringData:
  token: secret://local/token
"""
CONFIG = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata:
  name: local
spec:
  file:
    path: secrets.yaml
"""
# Runs the command as the console script does, and tells what it had loaded when it ended.
PROBE = """
import os
import sys
bare = set(sys.modules)
from secretweave.__main__ import main
os._exit = sys.exit  # by which main ends, past everything that stands behind it
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("\\n".join(sorted(set(sys.modules) - bare)), file=sys.stderr)
"""
# Milliseconds of CPU over a bare interpreter, as `python -X importtime` tells them on a slow machine.
UNNEEDED = {
    "click": "43 ms: only help, completion and the other sub-commands need it",
    "dataclasses": "24 ms: NamedTuple and __slots__ do",
    "inspect": "15 ms: comes with dataclasses and pkgutil",
    "logging": "9 ms: and a log line is a place where a value can leak",
    "asyncio": "30 ms: nothing waits",
    "concurrent.futures": "9 ms: only a remote store is asked in parallel",
    "threading": "comes with concurrent.futures",
    "cryptography": "20 ms: only a stream beyond memory is encrypted",
    "importlib.metadata": "20 ms: the version is a constant",
    "importlib.resources": "the schemas are for editors",
    "tempfile": "8 ms: only a stream beyond memory needs a file",
    "shutil": "comes with tempfile",
    "random": "comes with tempfile",
    "pathlib": "6 ms: os.path does",
    "urllib.request": "35 ms: no store here is remote",
    "urllib.parse": "6 ms: the grammar cuts its own URI",
    "http": "no store here is remote",
    "socket": "no store here is remote",
    "ssl": "no store here is remote",
    "subprocess": "nothing is started",
    "json": "4 ms: nothing of it is in this run",
    "decimal": "numbers stay text",
    "uuid": "names are made of a hash",
    "pkgutil": "comes with inspect",
    "traceback": "only --debug shows one",
    "difflib": "only an error looks for the nearest name",
    "shlex": "only `encode=shell` quotes",
    "argparse": "options are read from a table",
    "secretweave.commands": "imports click",
    "jsonschema": "the readers check",
}
MODULES_MAX = 156
"""Beyond those of a bare interpreter; a third come with ruamel.yaml, whose C parser imports the whole package."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("start")
    (folder / "secrets.yaml").write_text("token: value\n")
    (folder / "secrets.yaml").chmod(0o600)
    (folder / "config.yaml").write_text(CONFIG)
    done = subprocess.run(
        # -I: no user's site-packages or PYTHON... settings among the modules.
        [sys.executable, "-I", "-c", PROBE],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "SECRETWEAVE_CONFIG": str(folder / "config.yaml")},
        input=STREAM,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "token: " in done.stdout
    names = done.stderr.split()
    assert "secretweave.pipeline" in names
    return names


@pytest.mark.parametrize("module", UNNEEDED)
def test_a_plain_render_does_without(module: str, loaded: list[str]):
    assert [name for name in loaded if name == module or name.startswith(f"{module}.")] == [], UNNEEDED[module]


def test_the_number_of_modules_is_bounded(loaded: list[str]):
    assert len(loaded) <= MODULES_MAX, loaded


def test_the_store_was_the_only_one_loaded(loaded: list[str]):
    assert [name for name in loaded if name.startswith("secretweave.stores.")] == [
        "secretweave.stores.base",
        "secretweave.stores.file",
    ]


BESIDE_A_DAEMON = ("ruamel", "secretweave.config", "secretweave.pipeline", "secretweave.stores", "click", "threading")
"""What `secretweave argocd generate` does without where the daemon weaves: Argo CD starts it for each Application."""


def test_generate_beside_a_daemon_loads_no_more_than_a_client_needs(tmp_path: Path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(CONFIG.replace("secrets.yaml", ".secrets.yaml"))
    (tmp_path / "config" / ".secrets.yaml").write_text("token: value\n")
    (tmp_path / "config" / ".secrets.yaml").chmod(0o600)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "secret.yaml").write_text(STREAM)
    with daemon(tmp_path, tmp_path / "config") as running:
        done = subprocess.run(
            [sys.executable, "-I", "-c", PROBE, "argocd", "generate"],
            env={
                "SECRETWEAVE_SOCKET": running.path,
                "ARGOCD_APP_NAME": "web",
                "ARGOCD_APP_PROJECT_NAME": "default",
            },
            cwd=tmp_path / "app",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout == STREAM.replace("secret://local/token", '"value"')
    loaded = done.stderr.split()
    assert "secretweave.argocd.daemon.client" in loaded
    assert [name for name in loaded if any(f"{name}.".startswith(f"{each}.") for each in BESIDE_A_DAEMON)] == []
