"""How `secretweave flux push` is asked, logs in, and speaks to registries of other habits than Debian's."""

import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from secretweave.errors import ConfigError, Denied, StoreError, Unavailable
from secretweave.flux import docker, oci
from secretweave.flux.docker import Login
from tests.conftest import Command
from tests.servers.registry import StandIn, stand_in

# What `requests` makes of a registry's answers.
pytestmark = pytest.mark.sdk

DATA = b"some bytes"
MANIFEST = b'{"schemaVersion": 2}'


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


def registry(server: StandIn, login: Login | None = None, seconds: float = 20) -> "closing[oci.Registry]":
    reference = oci.parse(f"oci://{server.address}/team/app:v1")
    return closing(oci.Registry(reference, login, time.monotonic() + seconds, plain_http=True))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("oci://registry.example.com/app:v1", ("registry.example.com", "app", "v1", False)),
        ("oci://localhost/a:b", ("localhost", "a", "b", True)),
        ("oci://build:5000/team/app-x_y.z:V1.0-rc_1", ("build:5000", "team/app-x_y.z", "V1.0-rc_1", False)),
        ("oci://[::1]:5000/a/b/c:latest", ("[::1]:5000", "a/b/c", "latest", True)),
        ("oci://127.0.0.1:5000/a:1", ("127.0.0.1:5000", "a", "1", True)),
        ("oci://docker.io/team/app:v1", ("index.docker.io", "team/app", "v1", False)),
    ],
)
def test_an_address(text: str, parsed: tuple[str, str, str, bool]):
    assert oci.parse(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "registry.example.com/app:v1",
        "https://registry.example.com/app:v1",
        "oci://registry.example.com/app",
        "oci://registry.example.com/app:",
        "oci://registry.example.com/App:v1",
        "oci://registry.example.com/../app:v1",
        "oci://registry.example.com/app:v1 ",
        "oci://registry.example.com/app:v1/x",
        "oci://user:password@registry.example.com/app:v1",
        "oci://registry.example.com/app@sha256:" + "0" * 64,
        "oci://registry.example.com:port/app:v1",
        "oci://registry.example.com/app:" + "v" * 129,
        "oci://team/app:v1",
    ],
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(ConfigError) as caught:
        oci.parse(text)
    assert "password" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "there is no folder to be rendered"),
        (("--path", "none"), "what --path names is no folder"),
        (("--path", ".", "--helm", "--plain"), "--helm and --plain at once"),
        (("--path", ".", "--helm"), "--helm is passed, and the folder holds no Chart.yaml"),
        (("--path", ".", "--release-name", "x"), "--release-name and --values are for charts"),
        (("--path", ".", "--created", "yesterday"), "--created is no time"),
        (("--path", ".", "--created", "2026-13-01T00:00:00Z"), "--created is no time"),
        (("--path", ".", "--annotation", "no-equals-sign"), "an annotation is malformed"),
        (("--path", ".", "--annotation", "org.opencontainers.image.source=x"), "has an option of its own"),
        (("--path", ".", "--previous", "old"), "the output secret encrypts nothing"),
    ],
)
def test_what_is_asked_wrongly_is_told_and_nothing_is_pushed(
    secretweave: Command,
    server: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
):
    monkeypatch.chdir(tmp_path)
    done = secretweave("flux", "push", f"oci://{server.address}/team/app:v1", "--plaintext", *arguments)
    assert done.returncode in {2, 3}
    assert done.stdout == b""
    assert told.encode() in done.stderr
    assert {"POST", "PUT"} & set(server.methods) == set()


MANIFESTS = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"


def test_a_link_may_lead_about_in_the_repository_and_not_out_of_it(
    secretweave: Command, server: StandIn, tmp_path: Path
):
    app = tmp_path / "repository" / "app"
    app.mkdir(parents=True)
    (app.parent / ".git").touch()
    (app.parent / "shared.yaml").write_text(MANIFESTS)
    (app / "a.yaml").symlink_to("../shared.yaml")
    push = ("flux", "push", f"oci://{server.address}/team/app:v1", "--path", app, "--plaintext")
    assert secretweave(*push).returncode == 0
    (tmp_path / "other.yaml").write_text(MANIFESTS)
    (app / "b.yaml").symlink_to("../../other.yaml")
    refused = secretweave(*push, "--dry-run")
    assert refused.returncode == 4
    assert b"a symbolic link leads out of the repository" in refused.stderr


def test_the_artifact_has_a_limit(secretweave: Command, server: StandIn, tmp_path: Path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "a.yaml").write_text(MANIFESTS)
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: secretweave.dev/v1alpha1\nkind: Configuration\nspec: {flux: {artifacts: {archiveBytes: 100}}}\n"
    )
    address = f"oci://{server.address}/team/app:v1"
    done = secretweave("flux", "push", address, "--path", tmp_path / "app", "--plaintext", "--config", config)
    assert done.returncode == 3
    assert b"and 100 are the most" in done.stderr
    assert server.blobs == {}


def test_an_image_under_the_tag_is_replaced_with_a_word(secretweave: Command, server: StandIn, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(MANIFESTS)
    server.tags["v1"] = b'{"schemaVersion": 2, "layers": [{}, {}]}'
    done = secretweave("flux", "push", f"oci://{server.address}/team/app:v1", "--path", tmp_path, "--plaintext")
    assert done.returncode == 0
    assert b"the tag v1 names what is no artifact of Flux: it is replaced" in done.stderr
    assert done.stdout.decode().strip().endswith(oci.digest_of(server.tags["v1"]))


def test_a_registry_with_tokens(server: StandIn):
    server.tokens()
    basic = f"Basic {base64.b64encode(b'me:pass').decode()}"
    server.grants = lambda asked: asked.authorization == basic
    with registry(server, Login("me", "pass")) as pushed:
        pushed.upload(DATA)
        pushed.tag(MANIFEST)
        assert pushed.manifest() == MANIFEST
    first, token, *others = server.asked
    assert first.authorization == ""
    assert token.path == "/token?x=1&service=tests&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
    assert {each.authorization for each in others} == {"Bearer t0ken"}
    assert list(server.blobs.values()) == [DATA]


def test_an_identity_token_is_exchanged(server: StandIn):
    server.tokens()
    server.grants = lambda asked: asked.method == "POST" and b"refresh_token=1d3nt1ty" in asked.body
    with registry(server, Login(identity_token="1d3nt1ty")) as pushed:
        assert pushed.manifest() is None
    assert server.methods == ["GET", "POST", "GET"]


def test_a_wrong_password_is_told_at_once(server: StandIn):
    server.tokens()
    server.grants = lambda _: False
    with registry(server, Login("me", "wr0ng")) as pushed, pytest.raises(Denied) as caught:
        pushed.upload(DATA)
    assert "refuses the login" in caught.value.what
    assert "wr0ng" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
    assert server.methods == ["HEAD", "GET"]


def test_a_token_that_may_not_push_is_told(server: StandIn):
    server.faults = [("POST", 403)]
    with registry(server, Login("me", "pass")) as pushed, pytest.raises(Denied, match="its right to push to team/app"):
        pushed.upload(DATA)


def test_what_passes_is_waited_for(server: StandIn):
    server.faults = [("HEAD", 503), ("HEAD", 502), ("POST", 500), ("PUT", 429), ("PUT", 404), ("PUT", 503)]
    with registry(server) as pushed:
        pushed.upload(DATA)
    assert list(server.blobs.values()) == [DATA]
    assert server.faults == []


def test_the_deadline_bounds_every_wait(server: StandIn):
    begun = time.monotonic()
    server.faults = [("HEAD", 503)] * 100
    with registry(server, seconds=1.5) as pushed, pytest.raises(Unavailable, match="HTTP status 503"):
        pushed.upload(DATA)
    server.faults, server.seconds = [], 60
    with registry(server, seconds=0.5) as pushed, pytest.raises(Unavailable, match="the run's deadline was over"):
        pushed.upload(DATA)
    assert time.monotonic() - begun < 10


def test_a_registry_that_changes_what_it_gets_is_found_out(server: StandIn):
    server.other_digest = True
    with registry(server) as pushed, pytest.raises(StoreError, match="the tag v1 names another artifact"):
        pushed.tag(MANIFEST)


def test_a_blob_is_what_its_digest_says(server: StandIn):
    with registry(server) as pushed:
        assert pushed.blob(oci.digest_of(DATA), 100) is None
        server.blobs[oci.digest_of(DATA)] = DATA
        assert pushed.blob(oci.digest_of(DATA), 100) == DATA
        with pytest.raises(StoreError, match="more than 9 bytes"):
            pushed.blob(oci.digest_of(DATA), 9)
        server.blobs[oci.digest_of(DATA)] = b"other bytes"
        with pytest.raises(StoreError, match="other bytes than those of the digest"):
            pushed.blob(oci.digest_of(DATA), 100)


def test_a_login_goes_to_no_other_host(server: StandIn):
    server.tokens()
    with stand_in() as other, registry(server, Login("me", "pass")) as pushed:
        server.elsewhere = f"http://{other.address}"
        other.tokens()
        with pytest.raises(Denied):
            pushed.upload(DATA)
        other.challenge = ""
        pushed.upload(DATA)
        assert pushed.blob(oci.digest_of(DATA), 100) == DATA
        assert {each.authorization for each in other.asked} == {""}
        assert not any(each.path.startswith("/token") for each in other.asked)
    assert server.blobs == {}


def test_it_is_sent_to_no_address_of_another_scheme(server: StandIn):
    server.elsewhere = "http://[x"
    with registry(server) as pushed:
        with pytest.raises(StoreError, match="sends on to an address of no known form"):
            pushed.blob(oci.digest_of(DATA), 100)
        server.faults = [("HEAD", 404)]
        with pytest.raises(StoreError, match="sends on to an address of no known form"):
            pushed.upload(DATA)
        server.elsewhere = "ftp://127.0.0.1"
        with pytest.raises(StoreError, match="sends on to an address of ftp"):
            pushed.blob(oci.digest_of(DATA), 100)
        server.faults = [("HEAD", 404)]
        with pytest.raises(StoreError, match="sends on to an address of ftp"):
            pushed.upload(DATA)
    assert server.methods == ["GET", "HEAD", "POST", "GET", "HEAD", "POST"]


def kept(folder: Path, **content: object) -> dict[str, str]:
    (folder / "config.json").write_text(json.dumps(content))
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}


def helper(folder: Path, script: str) -> None:
    path = folder / "docker-credential-tests"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def login(environ: dict[str, str], server: str = "r.example.com", seconds: float = 10) -> Login | None:
    return docker.login(server, "team/app", environ, time.monotonic() + seconds)


def encoded(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("auths", "found"),
    [
        ({}, None),
        ({"r.example.com": {}}, None),
        ({"r.example.com": encoded("me:a:b")}, Login("me", "a:b")),
        ({"https://r.example.com/v2/": encoded("me:p")}, Login("me", "p")),
        ({"other.example.com": encoded("me:p"), "r.example.co": encoded("me:p")}, None),
        ({"r.example.com": encoded("me:p"), "r.example.com/team": encoded("team:p")}, Login("team", "p")),
        ({"r.example.com/tea": encoded("me:p")}, None),
        ({"r.example.com": {"username": "me", "password": "p"}}, Login("me", "p")),
        ({"r.example.com": {"identitytoken": "t"}}, Login(identity_token="t")),
        ({"r.example.com": {"registrytoken": "t"}}, Login(token="t")),
    ],
)
def test_a_login_in_the_docker_config(tmp_path: Path, auths: dict[str, dict[str, str]], found: Login | None):
    assert login(kept(tmp_path, auths=auths)) == found


def test_docker_hub_has_a_name_of_its_own(tmp_path: Path):
    environ = kept(tmp_path, auths={"https://index.docker.io/v1/": encoded("me:p")})
    assert login(environ, "index.docker.io") == Login("me", "p")


def test_podman_keeps_its_logins_elsewhere(tmp_path: Path):
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {"r.example.com": encoded("me:p")}}))
    assert login({"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(file)}) == Login("me", "p")
    assert login({"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("""echo '{"Username": "me", "Secret": "p"}'""", Login("me", "p")),
        ("""echo '{"Username": "<token>", "Secret": "t"}'""", Login(identity_token="t")),
        ("echo 'credentials not found in native keychain'; exit 1", Login("kept", "p")),
    ],
)
@pytest.mark.parametrize("names", [{"credHelpers": {"r.example.com": "tests"}}, {"credsStore": "tests"}])
def test_a_credential_helper(tmp_path: Path, script: str, found: Login, names: dict[str, object]):
    helper(tmp_path, script)
    assert login(kept(tmp_path, auths={"r.example.com": encoded("kept:p")}, **names)) == found


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo s3cr3t; echo s3cr3t >&2; exit 3", "docker-credential-tests ended with the exit code 3"),
        ("echo s3cr3t", "docker-credential-tests gave no login"),
        ("exec sleep 30", "docker-credential-tests did not answer"),
    ],
)
def test_a_credential_helper_that_fails_is_told_without_its_words(tmp_path: Path, script: str, told: str):
    helper(tmp_path, script)
    with pytest.raises((ConfigError, Unavailable)) as caught:
        login(kept(tmp_path, credsStore="tests"), seconds=1)
    assert told in caught.value.what
    assert "s3cr3t" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


@pytest.mark.parametrize("name", ["none", "../sh", "a b"])
def test_a_credential_helper_that_is_not_there(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="credential helper"):
        login(kept(tmp_path, credsStore=name))


@pytest.mark.parametrize("text", ["[]", "{", '{"auths": {"r.example.com": {"auth": "s3cr3t"}}}'])
def test_a_docker_config_that_cannot_be_read(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        login({"DOCKER_CONFIG": str(tmp_path)})
    assert "s3cr3t" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
