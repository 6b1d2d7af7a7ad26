"""`secretweave doctor`: each fault that it knows of, made on purpose, and the words that it finds for it."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from secretweave import __version__, doctor, stores
from secretweave.doctor import deadlines, programs
from secretweave.doctor.base import Finding, Options
from tests.servers.azure import TENANT, Azure
from tests.servers.certificates import Authority, Pair
from tests.servers.daemon import daemon
from tests.servers.forking import Forking
from tests.servers.gcp import Failure, Google
from tests.servers.moto import ANY_KEYS, REGION, Moto, running
from tests.servers.proxy import Proxy, Rule, Status

pytestmark = pytest.mark.once

Doctor = Callable[..., str]

ARGOCD = Path(__file__).parent.parent / "argocd"
VALUE = "hunter2"
STORE = """apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {name: local}
spec: {file: {path: ../secrets.yaml}}
"""
SETTINGS = """---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
"""
CLOSED = """
  policy: {unruledStores: refuse, stores: [{store: local, prefixes: ["{project}"]}]}
  report: {showKeyNames: false}
"""
"""As it should be for tenants."""


class Place:
    """A configuration with a store of secrets, in folders as the plugin's container has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "etc" / "config.yaml"
        self.plugins = folder / "cmp" / "plugins"
        self.plugin = folder / "cmp" / "config" / "plugin.yaml"
        for path in (self.config.parent, self.plugins, self.plugin.parent):
            path.mkdir(parents=True, mode=0o700)
        self.write("secrets.yaml", f"team-a/db: {{user: web, password: {VALUE}}}\napp/token: {VALUE}\n")
        self.configure("")
        self.plugin.write_text((ARGOCD / "plugin.yaml").read_text())

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def configure(self, settings: str, stores: str = STORE) -> None:
        self.write("etc/config.yaml", stores + (SETTINGS + settings if settings else ""))

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def run(place: Place, forking: Forking) -> Doctor:
    """What it says, without what depends on who runs the tests; *subject*: of this alone, one space between words.

    The process is forked, or with *starts* started.
    """

    def run(*arguments: str, subject: str = "", starts: bool = False, **environ: str) -> str:
        given = {"PATH": str(place.folder / "bin"), "SECRETWEAVE_CONFIG": str(place.config)} | environ
        if starts:
            command = [sys.executable, "-m", "secretweave", "doctor", *arguments]
            done = subprocess.run(command, capture_output=True, check=False, env=given, timeout=60)
        else:
            done = forking.run(["doctor", *arguments], given)
        assert not done.stderr
        out = done.stdout.decode()
        assert VALUE not in out
        lines = out.replace(str(place.folder), "/ROOT").splitlines(keepends=True)
        assert done.returncode == (1 if any(line.startswith("fault") for line in lines) else 0)
        if not subject:
            return "".join(line for line in lines if not re.match(r"\w+ +(program|user|temporary) ", line))
        found, of_it = [], False
        for line in lines[:-1]:
            if not line.startswith(" "):
                _, told, _ = re.split(r"  +", line, maxsplit=2)
                of_it = told == subject
            if of_it:
                found.append(" ".join(line.split()))
        return "\n".join(found)

    return run


@pytest.fixture
def sidecar(run: Doctor, place: Place) -> Doctor:
    """As in the plugin's container."""

    def sidecar(*arguments: str, **environ: str) -> str:
        return run(*arguments, **({"ARGOCD_PLUGINSOCKFILEPATH": str(place.plugins)} | environ))

    return sidecar


@pytest.fixture
def in_daemon(run: Doctor, place: Place) -> Doctor:
    """As in the daemon's container, though no daemon runs."""

    def in_daemon(*arguments: str, **environ: str) -> str:
        return run(*arguments, **({"SECRETWEAVE_SOCKET": str(place.folder / "absent")} | environ))

    return in_daemon


# --- on a laptop


def test_all_is_well(run: Doctor):
    assert run(starts=True) == (
        "ok       memory         no core dump, and no other process of this user may read it\n"
        "ok       configuration  1 file at /ROOT/etc/config.yaml (SECRETWEAVE_CONFIG), 1 store\n"
        "ok       policy         no rule: every store may be read\n"
        "ok       deadlines      a run 50 s, one request 15 s\n"
        "skipped  helm           it is not here; only `secretweave argocd` starts it\n"
        "skipped  kustomize      it is not here; only `secretweave argocd` starts it\n"
        "ok       store local    file: it can be opened\n"
        "all is well\n"
    )


def test_it_tells_what_runs(run: Doctor):
    version = ".".join(map(str, sys.version_info[:3]))
    told = f"ok program secretweave {__version__}, Python {version}, user {os.geteuid()}"
    assert run(subject="program", starts=True) == told


def test_as_json(run: Doctor):
    found = json.loads("".join(run("--format", "json", starts=True)).replace("all is well", ""))
    assert [each["status"] for each in found].count("fault") == 0
    assert {
        "status": "ok",
        "subject": "store local",
        "what": "file: it can be opened",
        "fix": "",
    } in found


def test_without_a_configuration(run: Doctor, place: Place):
    home = str(place.folder)
    told = run(subject="configuration", SECRETWEAVE_CONFIG="", HOME=home)
    assert told == (
        "warning configuration none was found: neither config.yaml nor config.d in /ROOT/.config/secretweave or"
        " /etc/secretweave\nfix: write one, or name it in SECRETWEAVE_CONFIG"
    )


def test_every_fault_of_the_configuration(run: Doctor, place: Place):
    place.configure("  alow: true\n  limits: {deadline: soon}\n")
    told = run()
    assert told[told.index("fault") :] == (
        "fault    configuration  /ROOT/etc/config.yaml, document 2, line 9, Configuration, spec: unknown key `alow`\n"
        "                        fix: use one of allowEmptyInput, argocd, credentials, flux, limits, operatorNamespace,"
        " podTemplates, policy, references, report, secretStores, sops\n"
        "fault    configuration  /ROOT/etc/config.yaml, document 2, line 10, Configuration, spec.limits.deadline:"
        " expected a duration such as `50s` or `1m30s`, found other text\n"
        "skipped  helm           it is not here; only `secretweave argocd` starts it\n"
        "skipped  kustomize      it is not here; only `secretweave argocd` starts it\n"
        "2 faults\n"
    )


def test_who_else_can_write_the_configuration(run: Doctor, place: Place):
    place.config.chmod(0o666)
    place.config.parent.chmod(0o770)
    assert run(subject="configuration") == (
        "ok configuration 1 file at /ROOT/etc/config.yaml (SECRETWEAVE_CONFIG), 1 store\n"
        "fault configuration /ROOT/etc/config.yaml may be written by everybody; it says who may read what\n"
        "fix: chmod go-w /ROOT/etc/config.yaml\n"
        "warning configuration /ROOT/etc may be written by its group; it says who may read what\n"
        "fix: chmod go-w /ROOT/etc"
    )


def test_a_file_in_a_folder_where_nobody_replaces_another_s(run: Doctor, place: Place):
    place.config.parent.chmod(0o1777)
    assert not run(subject="configuration").startswith("fault")
    assert "/ROOT/etc may be written by everybody" in run("--config", str(place.config.parent))


def test_a_request_that_may_take_longer_than_the_run(run: Doctor, place: Place):
    place.configure("  limits: {deadline: 10s}\n")
    assert run(subject="deadlines") == (
        "warning deadlines limits.request (15 s) is longer than limits.deadline (10 s)\n"
        "fix: let it be shorter: a store that hangs is then told as such"
    )


def test_a_folder_of_credentials_that_is_not_there(run: Doctor, place: Place):
    place.configure("  credentials: {from: folder, folder: secrets.d}\n")
    assert run(subject="credentials").startswith("fault credentials the folder /ROOT/etc/secrets.d is not there")
    (place.config.parent / "secrets.d").mkdir()
    assert run(subject="credentials") == "ok credentials from the folder /ROOT/etc/secrets.d"


def test_a_temporary_folder_that_is_not_there(run: Doctor):
    assert run(subject="temporary", TMPDIR="/nonexistent") == (
        "warning temporary nothing can be written in /nonexistent; a long stream is then kept in memory\n"
        "fix: let TMPDIR name a folder that this user can write in, such as an emptyDir that is mounted there"
    )


# --- stores and a ref


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("local:app/token", "ok ref local:app/token can be read"),
        ("secret://local/team-a/db#password", "ok ref local:team-a/db#password can be read"),
        ("local:team-a/db#pass", "fault ref local:team-a/db#pass: the secret has no field `pass`"),
        ("local:nothing", "fault ref local:nothing: nothing is stored at `nothing`"),
        ("other:app", "fault ref no store is called `other` (the stores here are: local)"),
        ("app/token", "fault ref --ref names no store and secret"),
        ("secret://local/a $(secret://local/b)", "fault ref "),
        ("$(secret://local/a)/$(secret://local/b)", "fault ref --ref is not one reference"),
    ],
)
def test_a_secret_that_should_be_readable(run: Doctor, ref: str, told: str):
    assert run("--ref", ref, subject="ref").startswith(told)


def test_the_policy_stands_before_the_store(run: Doctor, place: Place):
    place.configure("  policy: {stores: [{store: local, identities: [ci], prefixes: [app]}]}\n")
    assert run("--ref", "local:app/token", subject="ref") == (
        "fault ref a run without an identity may not read local:app/token"
        " (policy.stores of the configuration does not allow it)\n"
        "fix: pass --identity; the rules of this store are bound to it"
    )
    assert run("--ref", "local:app/token", "--identity", "ci", subject="ref") == (
        "ok ref local:app/token can be read by ci"
    )
    assert run("--ref", "local:team-a/db", "--identity", "ci", subject="ref").startswith(
        "fault ref local:team-a/db is under no prefix that may be read"
    )


def test_the_configuration_of_tenants_is_tried_as_one_of_them(run: Doctor, place: Place):
    place.configure(CLOSED)
    assert run("--ref", "local:team-a/db", "--identity", "team-a", subject="ref") == (
        "ok ref local:team-a/db can be read by team-a"
    )
    assert run("--ref", "local:team-a/db", "--identity", "team-b", subject="ref").startswith(
        "fault ref local:team-a/db"
    )


def test_a_store_with_a_placeholder(run: Doctor, place: Place):
    place.configure(CLOSED, STORE.replace("../secrets.yaml", '"../{project}/secrets.yaml"'))
    what = "the store `local` cannot be used here: spec.file.path holds {project}"
    assert run(subject="store local") == f"skipped store local {what}, which is not given\nfix: pass --identity PROJECT"
    assert run("--ref", "local:team-a/db", subject="ref").endswith("fix: pass --identity PROJECT")
    (place.folder / "team-a").mkdir()
    place.write("team-a/secrets.yaml", "team-a/db: 1\n")
    assert run("--identity", "team-a", subject="store local") == "ok store local file: it can be opened"


def test_a_store_of_another_namespace(run: Doctor, place: Place):
    place.configure(CLOSED, STORE.replace("name: local", "name: local, namespace: shop"))
    arguments = ("--identity", "team-a", "--namespace")
    assert run(*arguments, "shop", subject="store shop/local") == "ok store shop/local file: it can be opened"
    assert run(*arguments, "mail", subject="store shop/local") == (
        "skipped store shop/local the store `local` may not be used here\n"
        "fix: pass --namespace with the store's own namespace"
    )


def test_what_a_store_warns_of(run: Doctor, place: Place):
    (place.folder / "secrets.yaml").chmod(0o644)
    assert run(subject="store local") == (
        "warning store local /ROOT/etc/../secrets.yaml: every user of this machine may read this file of secrets;"
        " chmod o-r\nok store local file: it can be opened"
    )


def test_a_store_that_cannot_be_opened_is_told_once(run: Doctor, place: Place):
    (place.folder / "secrets.yaml").unlink()
    told = run("--ref", "local:app/token")
    assert told.endswith("\n1 fault\n")
    assert "skipped  ref            local:app/token: its store has the fault that is told above" in told


WITHOUT = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"hvac", "boto3", "botocore", "azure", "google"}:
            raise ModuleNotFoundError(name=name.partition(".")[0])
sys.meta_path.insert(0, Nowhere())
from secretweave.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("spec", "extra"),
    [
        ("awssm: {region: eu-west-1}", "aws"),
        ("azurekv: {url: 'https://demo.vault.azure.net'}", "azure"),
        ("gcpsm: {projectID: my-project}", "gcp"),
        ("vault: {url: 'https://127.0.0.1:1'}", "vault"),
    ],
)
def test_an_sdk_that_is_not_installed(place: Place, spec: str, extra: str):
    place.configure("", STORE.replace("file: {path: ../secrets.yaml}", spec))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "doctor"],
        capture_output=True,
        check=False,
        env={"PATH": "/nonexistent", "SECRETWEAVE_CONFIG": str(place.config), "HOME": str(place.folder)},
        text=True,
    )
    assert "fault    store local" in done.stdout, done.stderr
    assert f"fix: pip install 'secretweave[{extra}]'" in done.stdout


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with running() as server:
        yield server


@pytest.mark.parametrize("kind", ["awssm", "awsssm"])
def test_aws_by_what_it_denies(run: Doctor, place: Place, moto: Moto, kind: str):
    with Proxy(moto.url) as proxy:
        spec = f"{kind}: {{region: {REGION}, endpoint: '{proxy.url}'}}"
        place.configure("", STORE.replace("file: {path: ../secrets.yaml}", spec))

        def told(code: str = "") -> str:
            body = json.dumps({"__type": code, "Message": f"User may not; {VALUE}"}).encode()
            answer = Status(403 if code == "a proxy's" else 400, body, {"Content-Type": "application/x-amz-json-1.1"})
            proxy.rules = [Rule(answer)] if code else []
            keys = {"AWS_ACCESS_KEY_ID": ANY_KEYS.id, "AWS_SECRET_ACCESS_KEY": ANY_KEYS.secret}
            return run(subject="store local", HOME=str(place.folder), AWS_EC2_METADATA_DISABLED="true", **keys)

        known = f"ok store local {kind}: it answers, and knows who asks"
        assert told() == known
        assert told("AccessDeniedException") == known, "who may read nothing is known all the same"
        assert told("InvalidSignatureException").startswith("fault store local AWS does not accept the signature of")
        assert told("UnrecognizedClientException").startswith("fault store local AWS does not know the keys of")
        assert told("a proxy's").startswith("fault store local the AWS identity that was found here (env) may not")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost", names=("localhost",))


def test_azure_by_what_it_denies(run: Doctor, place: Place, authority: Authority, pair: Pair):
    with Azure(pair) as azure:
        azure.principals["0c6e3f4a"] = VALUE
        auth = "{clientIDSecretRef: {name: azure, key: id}, clientSecretSecretRef: {name: azure, key: secret}}"
        spec = (
            f"azurekv: {{url: '{azure.url}', tenantID: {TENANT}, caFile: {authority.certificate}, auth: {auth},"
            f" authorityHost: '{azure.authority}', verifyChallengeResource: false}}"
        )
        place.configure("  credentials: {from: environment}\n", STORE.replace("file: {path: ../secrets.yaml}", spec))

        def told(secret: str = VALUE) -> str:
            variables = {"SECRETWEAVE_CREDENTIAL_AZURE_ID": "0c6e3f4a", "SECRETWEAVE_CREDENTIAL_AZURE_SECRET": secret}
            return run(subject="store local", HOME=str(place.folder), **variables)

        known = "ok store local azurekv: it answers, and knows who asks"
        assert told() == known
        azure.forbidden = "ForbiddenByRbac"
        assert told() == known, "who may read nothing is known all the same"
        azure.forbidden = "ForbiddenByFirewall"
        assert "(the vault's firewall does not let this network in)" in told()
        assert told("wrong").startswith("fault store local the login was refused (AADSTS7000215)")


def test_gcp_by_what_it_denies(run: Doctor, place: Place, authority: Authority, pair: Pair):
    key = rsa.generate_private_key(65537, 2048)
    with Google(pair, {"my-project": "424242424242"}) as google:
        account = google.account("reader@my-project.iam.gserviceaccount.com", key)
        place.write("etc/key.json", json.dumps(account.key_file(f"{google.login.url}/token")))
        spec = (
            f"gcpsm: {{projectID: my-project, endpoint: '{google.api.host}', caFile: {authority.certificate},"
            " auth: {credentialsFile: key.json}}"
        )
        place.configure("", STORE.replace("file: {path: ../secrets.yaml}", spec))

        def told() -> str:
            return run(subject="store local", HOME=str(place.folder))

        known = "ok store local gcpsm: it answers, and knows who asks"
        assert told() == known
        google.failures = [Failure(403, "PERMISSION_DENIED", "no", "IAM_PERMISSION_DENIED")]
        assert told() == known, "who may read nothing is known all the same"
        google.disabled = "SERVICE_DISABLED"
        assert told().startswith("fault store local the Secret Manager API is not enabled in project `my-project`")


# --- in Argo CD's Pod


def test_the_sidecar_as_it_should_be(sidecar: Doctor, place: Place):
    place.configure(CLOSED)
    place.program("helm", "echo v3.22.0")
    place.program("kustomize", "echo v5.8.2")
    place.program("secretweave", "exit 1")
    with socket.socket(socket.AF_UNIX) as server, daemon(place.folder, place.config) as ours:
        server.bind(str(place.plugins / "secretweave.sock"))
        server.listen()
        told = sidecar(SECRETWEAVE_SOCKET=ours.path)
    told = re.sub(r"in \d+ ms", "in 1 ms", told)
    lines = [line for line in told.splitlines() if re.match("ok|fault|skipped", line)]
    assert [line for line in lines if not re.search("filesystem|helm|kustomize|confinement", line)] == [
        "ok       memory         no core dump, and no other process of this user may read it",
        "ok       configuration  1 file at /ROOT/etc/config.yaml (SECRETWEAVE_CONFIG), 1 store",
        "ok       policy         1 rule of who may read which store",
        "ok       deadlines      a run 50 s, one request 15 s",
        "ok       cmp-server     it serves the plugin secretweave",
        "ok       plugin.yaml    /ROOT/cmp/config/plugin.yaml: secretweave",
        "ok       daemon         it answers at /ROOT/daemon/socket, in 1 ms",
        "skipped  stores         the daemon asks them, and what they log in with is in its container alone",
    ]


def test_the_sidecar_without_helm(sidecar: Doctor):
    assert sidecar(subject="helm") == (
        "fault helm the program helm is not installed (it is not there, or is no file that this user may execute)\n"
        "fix: use an image that has helm, or correct spec.argocd.helm.program in the configuration"
    )
    assert sidecar(subject="confinement") == "skipped confinement no program was there to be confined"


@pytest.mark.parametrize(
    ("said", "status", "what"),
    [
        ("v3.7.2+g663a896", "fault", "v3.7.2+g663a896 at /bin/helm is older than 3.8"),
        ("v3.8.0", "ok", "v3.8.0 at /bin/helm"),
        ("v3.22", "ok", "v3.22 at /bin/helm"),
        ("v4.3.1+gabc", "ok", "v4.3.1+gabc at /bin/helm"),
        ("v2.17", "fault", "v2.17 at /bin/helm is older than 3.8"),
        ("(devel)", "warning", "/bin/helm does not tell its version"),
    ],
)
def test_versions(said: str, status: str, what: str):
    found = programs.judged_version("helm", "/bin/helm", said, (3, 8))
    assert (found.status, found.what) == (status, what)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            "  report: {showKeyNames: false}\n",
            (
                "fault policy no rule binds who may read: every Application reads all of local\n"
                "fix: set policy.unruledStores to refuse, and write a rule for each store (argocd/example/config)"
            ),
        ),
        (
            "  policy: {unruledStores: refuse}\n  report: {showKeyNames: false}\n",
            "ok policy no rule: no store may be read",
        ),
        (
            "  policy: {unruledStores: refuse}\n",
            (
                "warning policy errors list the paths and fields that stores hold, and Argo CD shows them to other"
                " tenants\nfix: set report.showKeyNames to false"
            ),
        ),
        (
            "  policy: {stores: [{store: local, namespaces: [shop]}]}\n  report: {showKeyNames: false}\n",
            (
                "warning policy a rule of the store local names no project: each may read all that it allows\n"
                "fix: give it identities, destinations, or prefixes with {project};"
                " namespaces are the manifest's to choose"
            ),
        ),
        (
            CLOSED + "  secretStores: {inStream: use}\n",
            (
                "fault policy SecretStores in manifests are used: whoever writes one chooses where this identity is"
                " shown\nfix: set secretStores.inStream to ignore"
            ),
        ),
        (
            CLOSED.replace("store: local", "store: loacl"),
            "warning policy rules name stores that are not there: loacl\nfix: correct the names",
        ),
    ],
)
def test_what_tenants_could_do(sidecar: Doctor, place: Place, settings: str, told: str):
    place.configure(settings)
    assert sidecar(subject="policy") == told


@pytest.mark.parametrize(
    ("settings", "environ", "told"),
    [
        ("  limits: {deadline: 55s}\n", {"ARGOCD_EXEC_TIMEOUT": "90s"}, "ok deadlines a run 55 s, one request 15 s"),
        (
            "  limits: {deadline: 50s}\n",
            {"ARGOCD_EXEC_TIMEOUT": "45s"},
            "fault deadlines limits.deadline (50 s) is not below ARGOCD_EXEC_TIMEOUT (45 s)",
        ),
        ("", {"ARGOCD_EXEC_TIMEOUT": "soon"}, "fault deadlines ARGOCD_EXEC_TIMEOUT is no duration"),
        (
            "  limits: {deadline: 60s}\n",
            {},
            "fault deadlines limits.deadline is 60 s, and Argo CD waits 60 s unless it is told otherwise",
        ),
        (
            "  limits: {deadline: 2m}\n",
            {"ARGOCD_EXEC_TIMEOUT": "3m"},
            "warning deadlines limits.deadline is 120 s, and Argo CD waits 60 s unless it is told otherwise",
        ),
    ],
)
def test_who_gives_up_first(sidecar: Doctor, place: Place, settings: str, environ: dict[str, str], told: str):
    place.configure(settings)
    assert sidecar(subject="deadlines", **environ).splitlines()[0] == told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("250ms", 0.25), ("90", None), ("1 m", None), ("", None)],
)
def test_durations_as_go_writes_them(text: str, seconds: float | None):
    assert deadlines.seconds(text) == seconds


SPEC = "\nspec:\n  generate: {command: [secretweave, argocd, generate]}\n"
HEAD = "apiVersion: argoproj.io/v1alpha1\nkind: ConfigManagementPlugin\nmetadata: {name: secretweave}"


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        ("a: [b", "fault plugin.yaml /ROOT/cmp/config/plugin.yaml, line 2: not YAML: did not find expected"),
        ("kind: ConfigMap", "fault plugin.yaml /ROOT/cmp/config/plugin.yaml is no ConfigManagementPlugin"),
        (
            f"{HEAD}\nspec: {{generate: {{command: [sh, -c], args: [secretweave]}}}}",
            "fault plugin.yaml spec.generate does not run `secretweave argocd generate` and nothing else",
        ),
        (
            f"{HEAD}\nspec: {{generate: {{command: [secretweave], args: [argocd, generate]}}}}",
            "ok plugin.yaml /ROOT/cmp/config/plugin.yaml: secretweave",
        ),
        (f"{HEAD}{SPEC}  discover: {{fileName: .secretweave}}", "ok plugin.yaml"),
        (
            f"{HEAD}{SPEC}  discover: {{fileName: '*'}}",
            "fault plugin.yaml spec.discover.fileName fits every source: the plugin takes over Applications that never",
        ),
        (f"{HEAD}{SPEC}  discover: {{find: {{glob: '**/*'}}}}", "fault plugin.yaml spec.discover.find.glob fits every"),
        (
            f"{HEAD}{SPEC}  discover: {{find: {{glob: '**/Chart.yaml'}}}}",
            "warning plugin.yaml spec.discover.find.glob fits each source with a Chart.yaml: the plugin takes over",
        ),
        (
            f"{HEAD}{SPEC}  discover: {{find: {{command: [sh, -c, 'true']}}}}",
            "warning plugin.yaml spec.discover runs a command, which decides which Applications are this plugin's",
        ),
        (f"{HEAD}{SPEC}  provideGitCreds: true", "warning plugin.yaml spec.provideGitCreds hands the repository's"),
    ],
)
def test_the_plugin_s_file(sidecar: Doctor, place: Place, plugin: str, told: str):
    place.plugin.write_text(plugin)
    place.program("secretweave", "exit 1")
    assert sidecar(subject="plugin.yaml").startswith(told)


def test_a_plugin_whose_command_is_not_there(sidecar: Doctor, place: Place):
    assert sidecar(subject="plugin.yaml").startswith("fault plugin.yaml secretweave is not on the PATH")
    place.plugin.unlink()
    assert sidecar(subject="plugin.yaml") == (
        "fault plugin.yaml /ROOT/cmp/config/plugin.yaml cannot be read (No such file or directory)\n"
        "fix: mount the ConfigMap with argocd/plugin.yaml there"
    )


def test_a_server_that_logs_every_manifest(sidecar: Doctor):
    assert sidecar(subject="cmp-server", ARGOCD_CMP_SERVER_LOGLEVEL="debug").startswith(
        "fault cmp-server it logs at the level debug, which is every manifest as a whole, with the values in it"
    )


def test_no_folder_for_the_plugin_s_socket(sidecar: Doctor, place: Place):
    place.plugins.rmdir()
    assert sidecar(subject="cmp-server").startswith("fault cmp-server the folder /ROOT/cmp/plugins for the plugins'")


def test_no_daemon(sidecar: Doctor, in_daemon: Doctor, place: Place):
    told = "there is no socket at /ROOT/absent (No such file or directory): each Application logs in to its stores by"
    assert in_daemon(subject="daemon").startswith(f"fault daemon {told}")
    path = str(place.folder / "absent")
    assert sidecar(subject="daemon", SECRETWEAVE_SOCKET=path).startswith(f"fault daemon {told}")
    assert sidecar(subject="daemon").startswith(
        "warning daemon there is no socket at /var/run/secretweave/daemon/socket"
    )


def test_a_daemon_that_others_can_reach(sidecar: Doctor, place: Place):
    with daemon(place.folder, place.config) as ours:
        os.chmod(os.path.dirname(ours.path), 0o755)
        os.chmod(ours.path, 0o666)
        assert sidecar(subject="daemon", SECRETWEAVE_SOCKET=ours.path).startswith(
            "fault daemon the socket and its folder can be reached by other users: who connects asks in any project's"
        )


def test_a_daemon_that_was_killed(sidecar: Doctor, place: Place):
    with daemon(place.folder, place.config) as ours:
        ours.process.kill()
        ours.process.wait()
        assert sidecar(subject="daemon", SECRETWEAVE_SOCKET=ours.path) == (
            "fault daemon no daemon listens at the socket\nfix: start `secretweave argocd serve`"
        )


def test_something_else_in_the_daemon_s_place(sidecar: Doctor, place: Place):
    place.write("absent", "")
    assert sidecar(subject="daemon", SECRETWEAVE_SOCKET=str(place.folder / "absent")) == (
        "fault daemon /ROOT/absent is no socket\nfix: correct SECRETWEAVE_SOCKET"
    )


def test_the_stores_are_asked_in_the_daemon_s_container(in_daemon: Doctor, place: Place):
    place.configure(CLOSED)
    assert in_daemon(subject="store local") == "ok store local file: it can be opened"
    arguments = ("--identity", "team-a", "--namespace", "shop", "--ref", "local:team-a/db#user")
    assert in_daemon(*arguments, subject="ref") == "ok ref local:team-a/db#user can be read by team-a"
    assert in_daemon(subject="helm") == ""


# --- whatever happens


def test_a_check_that_crashes_is_a_finding_and_the_others_go_on(place: Place, monkeypatch: pytest.MonkeyPatch):
    def crash(_case: object) -> Iterator[Finding]:
        yield Finding("ok", "first", "this was found before")
        raise KeyError(VALUE)

    monkeypatch.setattr(doctor, "CHECKS", (("stars", crash), doctor.CHECKS[1]))
    environ = {"SECRETWEAVE_CONFIG": str(place.config)}
    found = doctor.examine(environ, Options())
    assert found[:2] == [
        Finding("ok", "first", "this was found before"),
        Finding("fault", "stars", "this check crashed (KeyError)", "report it: this is a defect of secretweave"),
    ]
    assert found[2].subject == "configuration"
    assert not doctor.is_well(found)


def test_a_store_that_crashes_leaves_the_others(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.configure("", f"{STORE}---\n{STORE.replace('name: local', 'name: second')}")
    opened = stores.open_store

    def broken(store: object, context: object) -> object:
        if store.name == "local":  # type: ignore[attr-defined]  # a StoreConfig
            raise RuntimeError(VALUE)
        return opened(store, context)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr("secretweave.doctor.stores.open_store", broken)
    found = doctor.examine({"SECRETWEAVE_CONFIG": str(place.config)}, Options())
    assert [each for each in found if each.subject.startswith("store ")] == [
        Finding(
            "fault", "store local", "this check crashed (RuntimeError)", "report it: this is a defect of secretweave"
        ),
        Finding("ok", "store second", "file: it can be opened"),
    ]


def test_control_characters_do_not_reach_the_terminal():
    assert doctor.text([Finding("ok", "a", "\x1b[31mred")]) == "ok  a  \N{REPLACEMENT CHARACTER}[31mred\nall is well\n"
