"""The output `sops` with keys of key services, by the real command and the real `sops`.

Vault and its transit engine are real; AWS KMS is moto's; Google's and Azure's are stand-ins that encrypt as well.
Whoever encrypts may not decrypt, and the other way round.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hosts.programs import documents
from tests.hosts.test_output_sops import Result, Sealer, cut, secret
from tests.hosts.test_output_sops import sealer as sealer  # noqa: PLC0414 - a fixture is found by its name
from tests.hosts.vault import VaultServer
from tests.servers.azure import IDENTITY_HEADER, TENANT, Tunnel
from tests.servers.azure_keys import LOGIN, VAULT, AzureKeys
from tests.servers.certificates import Authority, Pair
from tests.servers.gcp_kms import HOST, GoogleKms
from tests.servers.gcp_kms import LOGIN as GOOGLE_LOGIN
from tests.servers.moto import Keys, Moto, running
from tests.servers.proxy import Proxy, Rule, Status

SOURCE = secret("a", x="hunter2hunter2")
GOOGLE_KEY = "projects/shop/locations/global/keyRings/flux/cryptoKeys/rendered"
SECONDS = 2
"""The run's deadline, where a service is silent: some clients try for a minute."""


class Fault(NamedTuple):
    """What can be wrong, and how it is told."""

    why: str
    fix: str
    """A part of it."""
    spec: Mapping[str, list[str]] = {}
    """Of `spec.sops`, in the place of what is right."""
    environ: Mapping[str, str | None] = {}
    """In the place of what is right; None: it is not there."""
    prepare: Callable[[], None] = lambda: None
    code: int = 6


class Backend(NamedTuple):
    """A key service on loopback."""

    spec: Mapping[str, list[str]]
    """Of `spec.sops`."""
    metadata: str
    """Where SOPS keeps what it encrypted the data key to."""
    environ: Mapping[str, str]
    """Of who may encrypt."""
    reader: Mapping[str, str]
    """Of who may decrypt."""
    calls: Callable[[], int]
    """How often it was asked for something so far."""
    faults: Mapping[str, Fault]


class Kms(NamedTuple):
    """Moto's, with a key and users that its policies hold."""

    moto: Moto
    arn: str
    writer: Keys
    reader: Keys


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    with running() as moto:
        arn = moto.client("kms").create_key()["KeyMetadata"]["Arn"]
        found = Kms(moto, arn, moto.user("kms:Encrypt"), moto.user("kms:Decrypt"))
        moto.enforce()
        yield found


def keys_of_aws(keys: Keys) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": keys.id, "AWS_SECRET_ACCESS_KEY": keys.secret}


def refused_by_aws(kind: str, message: str) -> list[Rule]:
    """As KMS refuses; moto's identity checks answer in XML, whatever the service."""
    return [Rule(Status(400, json.dumps({"__type": kind, "message": message}).encode()))]


@contextmanager
def aws(request: pytest.FixtureRequest, _folder: Path) -> Iterator[Backend]:
    moto, arn, writer, reader = request.getfixturevalue("kms")
    with Proxy(moto.url) as proxy:
        address = {"AWS_ENDPOINT_URL": proxy.url, "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        user = "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: kms:Encrypt on this resource"

        def answer(kind: str, message: str) -> Callable[[], None]:
            return lambda: setattr(proxy, "rules", refused_by_aws(kind, message))

        yield Backend(
            {"awsKms": [arn]},
            "kms",
            address | keys_of_aws(writer),
            address | keys_of_aws(reader),
            lambda: len(proxy.seen),
            {
                "denied": Fault(
                    "AWS KMS does not let the identity encrypt with the key, or there is no such key",
                    "allow the identity kms:Encrypt",
                    prepare=answer("AccessDeniedException", user),
                ),
                "another's": Fault(
                    "AWS KMS does not let the identity encrypt with the key, or there is no such key",
                    "allow the identity kms:Encrypt",
                    environ=keys_of_aws(reader),
                ),
                "absent": Fault(
                    "the key is not there in AWS KMS",
                    "correct its name",
                    spec={"awsKms": [f"{arn.rpartition('/')[0]}/00000000-0000-0000-0000-000000000000"]},
                ),
                "disabled": Fault(
                    "the key in AWS KMS is disabled, or is not one to encrypt with",
                    "enable it",
                    prepare=answer("DisabledException", f"{arn} is disabled."),
                ),
                "silent": Fault(
                    "AWS KMS does not answer", "look after", environ={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
                ),
                "throttled": Fault(
                    "AWS KMS does not answer", "look after", prepare=answer("ThrottlingException", "Rate exceeded")
                ),
                "anonymous": Fault(
                    "there are no credentials for AWS KMS",
                    "AWS_ACCESS_KEY_ID",
                    environ=dict.fromkeys(keys_of_aws(writer)),
                ),
                "no profile": Fault(
                    "there are no credentials for AWS KMS", "AWS_PROFILE", environ={"AWS_PROFILE": "of-nobody"}
                ),
                "stranger": Fault(
                    "AWS KMS does not accept the credentials",
                    "AWS_PROFILE",
                    prepare=answer("UnrecognizedClientException", "The security token in the request is invalid."),
                ),
                "malformed": Fault(
                    "the name of a key of AWS KMS is malformed",
                    "correct spec.sops",
                    spec={"awsKms": ["arn:aws:kms:rendered"]},
                    code=2,
                ),
            },
        )


def google(kind: str) -> Callable[[pytest.FixtureRequest, Path], AbstractContextManager[Backend]]:
    @contextmanager
    def backend(_request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
        authority, pair = certified(folder)
        with GoogleKms(pair) as kms, Tunnel(kms.grpc_port if kind == "grpc" else kms.rest_port) as tunnel:
            kms.key(GOOGLE_KEY, encrypters=["ci@shop"], decrypters=["flux@shop"])
            kms.tokens |= {"ya29.ci-token": "ci@shop", "ya29.flux-token": "flux@shop"}
            address = {"SSL_CERT_FILE": str(authority.certificate), "HTTPS_PROXY": tunnel.url}
            if kind == "rest":
                address["SOPS_GCP_KMS_CLIENT_TYPE"] = "rest"
            yield Backend(
                {"gcpKms": [GOOGLE_KEY]},
                "gcp_kms",
                address | {"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.ci-token"},
                address | {"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.flux-token"},
                lambda: len(kms.calls),
                {
                    "denied": Fault(
                        "Google Cloud KMS does not let the identity encrypt with the key, or there is no such key",
                        "roles/cloudkms.cryptoKeyEncrypter",
                        environ={"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.flux-token"},
                    ),
                    "absent": Fault(
                        "the key is not there in Google Cloud KMS", "correct its name", {"gcpKms": [f"{GOOGLE_KEY}2"]}
                    ),
                    "silent": Fault(
                        "Google Cloud KMS does not answer", "look after", environ={"HTTPS_PROXY": "http://127.0.0.1:1"}
                    ),
                    "anonymous": Fault(
                        "there are no credentials for Google Cloud KMS",
                        "GOOGLE_APPLICATION_CREDENTIALS",
                        environ={"GOOGLE_OAUTH_ACCESS_TOKEN": None},
                    ),
                    "stranger": Fault(
                        "Google Cloud KMS does not accept the credentials",
                        "GOOGLE_APPLICATION_CREDENTIALS",
                        environ={"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.stranger"},
                    ),
                    "untrusted": Fault(
                        "the certificate of Google Cloud KMS, or of a proxy before it, is not trusted",
                        "SSL_CERT_FILE",
                        environ={"SSL_CERT_FILE": None},
                    ),
                    "malformed": Fault(
                        "the name of a key of Google Cloud KMS is malformed",
                        "correct spec.sops",
                        {"gcpKms": ["projects/shop"]},
                        code=2,
                    ),
                },
            )

    return backend


@contextmanager
def azure(_request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
    authority, pair = certified(folder)
    with AzureKeys(pair) as azure, Tunnel(azure.port) as tunnel:
        azure.principals |= {"ci": "ci-client-secret", "flux": "flux-client-secret"}
        azure.permissions = {"ci": {"get", "encrypt"}, "flux": {"decrypt"}}
        url = azure.key("rendered")
        address = {
            "SSL_CERT_FILE": str(authority.certificate),
            "HTTPS_PROXY": tunnel.url,
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "AZURE_TENANT_ID": TENANT,
        }

        def forbid() -> None:
            azure.permissions["ci"] = set()

        def disable() -> None:
            azure.disabled.add("rendered")

        yield Backend(
            {"azureKeyVault": [url]},
            "azure_kv",
            address | {"AZURE_CLIENT_ID": "ci", "AZURE_CLIENT_SECRET": "ci-client-secret"},
            address | {"AZURE_CLIENT_ID": "flux", "AZURE_CLIENT_SECRET": "flux-client-secret"},
            lambda: sum(azure.requests.values()),
            {
                "denied": Fault(
                    "Azure Key Vault does not let the identity encrypt with the key, or there is no such key",
                    "the permission encrypt",
                    prepare=forbid,
                ),
                "denied its version": Fault(
                    "Azure Key Vault does not let the identity encrypt with the key, or there is no such key",
                    "get for a key named without its version",
                    {"azureKeyVault": [url.rpartition("/")[0]]},
                    prepare=forbid,
                ),
                "absent": Fault(
                    "the key is not there in Azure Key Vault",
                    "correct its name",
                    {"azureKeyVault": [url.replace("rendered", "none")]},
                ),
                "absent, without a version": Fault(
                    "the key is not there in Azure Key Vault",
                    "correct its name",
                    {"azureKeyVault": [f"https://{VAULT}/keys/none"]},
                ),
                "disabled": Fault(
                    "the key in Azure Key Vault is disabled, or is not one to encrypt with",
                    "enable it",
                    prepare=disable,
                ),
                "silent": Fault(
                    "Azure Key Vault does not answer", "look after", environ={"HTTPS_PROXY": "http://127.0.0.1:1"}
                ),
                "anonymous": Fault(
                    "there are no credentials for Azure Key Vault", "AZURE_CLIENT_ID", environ={"AZURE_TENANT_ID": None}
                ),
                "stranger": Fault(
                    "Azure Key Vault does not accept the credentials",
                    "AZURE_CLIENT_SECRET",
                    environ={"AZURE_CLIENT_SECRET": "expired-client-secret"},
                ),
                "malformed": Fault(
                    "the name of a key is malformed",
                    "correct spec.sops",
                    {"azureKeyVault": [f"https://{VAULT}/rendered"]},
                    code=2,
                ),
            },
        )


@contextmanager
def transit(request: pytest.FixtureRequest, _folder: Path) -> Iterator[Backend]:
    server: VaultServer = request.getfixturevalue("vault")
    engine = f"transit-{os.urandom(4).hex()}"
    server.mount(engine, "transit")
    server.write(f"{engine}/keys/flux", {})
    # A misspelled key would be made at the first use, for who may `create`.
    server.write(f"{engine}/config/keys", {"disable_upsert": True})
    for name, path in {"ci": f"{engine}/encrypt/*", "flux": f"{engine}/decrypt/flux", "none": "none/*"}.items():
        server.policy(f"{engine}-{name}", f'path "{path}" {{ capabilities = ["update"] }}')
    server.policy(f"{engine}-maker", f'path "{engine}/encrypt/*" {{ capabilities = ["create", "update"] }}')
    writer, reader, other, maker = (
        server.create_token([f"{engine}-{name}"]) for name in ("ci", "flux", "none", "maker")
    )
    address = {"VAULT_CACERT": str(server.ca), "VAULT_MAX_RETRIES": "0"}
    denied = "Vault transit does not let the identity encrypt with the key, or there is no such key"

    def named(path: str) -> Mapping[str, list[str]]:
        return {"vaultTransit": [f"{server.address}/v1/{path}"]}

    def calls() -> int:
        return sum(count for line, count in server.stats().paths.items() if f"/{engine}/" in line)

    yield Backend(
        named(f"{engine}/keys/flux"),
        "hc_vault",
        address | {"VAULT_TOKEN": writer},
        address | {"VAULT_TOKEN": reader},
        calls,
        {
            "denied": Fault(denied, "update on ENGINE/encrypt/KEY", environ={"VAULT_TOKEN": reader}),
            "absent": Fault(denied, "or correct the key's name", named(f"{engine}/keys/none")),
            "absent, and not made": Fault(
                "the key is not there in Vault transit",
                "correct its name",
                named(f"{engine}/keys/none"),
                {"VAULT_TOKEN": maker},
            ),
            "no engine": Fault(
                "the key is not there in Vault transit",
                "correct its name",
                named("none/keys/flux"),
                {"VAULT_TOKEN": other},
            ),
            "silent": Fault(
                "Vault transit does not answer", "look after", {"vaultTransit": ["https://127.0.0.1:1/v1/t/keys/flux"]}
            ),
            "sealed": Fault("Vault transit does not answer", "look after", prepare=lambda: server.answer(503)),
            "anonymous": Fault(denied, "a token that is neither missing nor expired", environ={"VAULT_TOKEN": None}),
            "stranger": Fault(denied, "a token that is neither missing nor", environ={"VAULT_TOKEN": "hvs.stranger"}),
            "untrusted": Fault(
                "the certificate of Vault transit, or of a proxy before it, is not trusted",
                "VAULT_CACERT",
                environ={"VAULT_CACERT": None},
            ),
            "not allowed": Fault(
                "SOPS_HC_VAULT_ALLOWLIST does not allow the address of Vault transit",
                "add it there",
                environ={"SOPS_HC_VAULT_ALLOWLIST": "https://vault.example.com"},
                code=2,
            ),
            "malformed": Fault(
                "the name of a key is malformed", "correct spec.sops", named(f"more/v1/{engine}/keys/flux"), code=2
            ),
            "no scheme": Fault(
                "the name of a key is malformed",
                "correct spec.sops",
                {"vaultTransit": ["vault.example.com/v1/transit/keys/flux"]},
                code=2,
            ),
        },
    )
    server.answer(0)


BACKENDS: dict[str, Callable[[pytest.FixtureRequest, Path], AbstractContextManager[Backend]]] = {
    "aws": aws,
    "gcp-grpc": google("grpc"),
    "gcp-rest": google("rest"),
    "azure": azure,
    "vault": transit,
}
FAULTS = {
    "aws": "denied another's absent disabled silent throttled anonymous no~profile stranger malformed",
    "gcp-grpc": "denied absent silent anonymous stranger untrusted malformed",
    "gcp-rest": "denied absent silent anonymous stranger untrusted malformed",
    "azure": "denied denied~its~version absent absent,~without~a~version disabled silent anonymous stranger malformed",
    "vault": "denied absent absent,~and~not~made no~engine silent sealed anonymous stranger untrusted not~allowed "
    "malformed no~scheme",
}


def certified(folder: Path) -> tuple[Authority, Pair]:
    """An authority, and a pair of it for all that is no loopback's own name."""
    authority = Authority(folder)
    return authority, authority.issue("clouds", names=("localhost", VAULT, LOGIN, HOST, GOOGLE_LOGIN))


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with BACKENDS[request.param](request, tmp_path) as found:
        yield found


each_backend = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


def decrypted(sealer: Sealer, sealed: bytes, environ: Mapping[str, str]) -> Result:
    """By the program itself, in an environment of its own."""
    return subprocess.run(
        [sealer.sops, "--decrypt", "--input-type", "yaml", "--output-type", "yaml", "/dev/stdin"],
        input=sealed,
        env={"HOME": str(sealer.folder), **environ},
        capture_output=True,
        check=False,
    )


def opened(sealer: Sealer, sealed: bytes, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    done = decrypted(sealer, sealed, environ)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout.decode())


@each_backend
def test_what_is_encrypted_to_a_key_is_opened_by_who_may_decrypt(sealer: Sealer, backend: Backend):
    sealer.configured(**backend.spec)
    done = sealer.run(SOURCE, "--unstable", **backend.environ)
    assert (done.returncode, done.stderr) == (0, b"")
    (written,) = documents(done.stdout.decode())
    assert [name for name, keys in written["sops"].items() if isinstance(keys, list) and keys] == [backend.metadata]
    assert b"hunter2" not in done.stdout
    assert opened(sealer, done.stdout, backend.reader) == documents(SOURCE)
    assert decrypted(sealer, done.stdout, backend.environ).returncode == 128


@each_backend
def test_a_second_run_asks_no_key_service_and_gives_the_same(sealer: Sealer, backend: Backend):
    sealer.configured(**backend.spec)
    keeping: list[str | Path] = ["--digest-key-file", sealer.folder / "key", "--previous", sealer.previous]
    source = SOURCE + "---\n" + secret("b", x="hunter2hunter2")
    first = sealer.run(source, *keeping, **backend.environ)
    assert (first.returncode, first.stderr) == (0, b"")
    sealer.previous.write_bytes(first.stdout)
    calls = backend.calls()
    assert calls > 0
    again = sealer.run(source, *keeping)
    assert (again.returncode, again.stderr, again.stdout) == (0, b"", first.stdout)
    assert backend.calls() == calls
    changed = sealer.run(source.replace("name: b", "name: c"), *keeping, **backend.environ)
    assert [cut(changed.stdout)[0] == cut(first.stdout)[0], backend.calls() > calls] == [True, True]
    assert opened(sealer, cut(changed.stdout)[1], backend.reader) == documents(secret("c", x="hunter2hunter2"))


@each_backend
def test_beside_an_age_recipient_either_key_opens_it(sealer: Sealer, backend: Backend):
    sealer.configured(**backend.spec, age=[sealer.recipient])
    done = sealer.run(SOURCE, "--unstable", **backend.environ)
    assert (done.returncode, done.stderr) == (0, b"")
    for environ in (backend.reader, {"SOPS_AGE_KEY": sealer.identity}):
        assert opened(sealer, done.stdout, environ) == documents(SOURCE)


@pytest.mark.parametrize(
    ("backend", "name"),
    [(backend, name.replace("~", " ")) for backend, names in FAULTS.items() for name in names.split()],
    indirect=["backend"],
)
def test_why_a_key_service_does_not_encrypt_is_told(sealer: Sealer, backend: Backend, name: str):
    fault = backend.faults[name]
    # Not encrypted to the age recipient alone, either.
    config = sealer.configured(**{**backend.spec, **fault.spec}, age=[sealer.recipient])
    if "does not answer" in fault.why:
        limits = f'"spec": {{"limits": {{"deadline": "{SECONDS}s"}}, '
        config.write_text(config.read_text().replace('"spec": {', limits))
    environ = {key: value for key, value in {**backend.environ, **fault.environ}.items() if value is not None}
    fault.prepare()
    done = sealer.run(SOURCE, "--unstable", **environ)
    told = done.stderr.decode()
    assert (done.returncode, done.stdout) == (fault.code, b""), told
    assert "where: Secret web/a\n" in told
    assert f"  why:   {fault.why}\n" in told
    assert fault.fix in told.partition("  fix: ")[2]
    secrets = [value for key, value in environ.items() if any(word in key for word in ("TOKEN", "SECRET"))]
    assert [each for each in ("hunter2", *secrets, "127.0.0.1") if each in told] == []


class Everywhere(NamedTuple):
    """All key services at once."""

    spec: Mapping[str, list[str]]
    environ: Mapping[str, str]
    readers: Mapping[str, Mapping[str, str]]
    """By what SOPS names the kinds of keys."""


@pytest.fixture
def everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Everywhere]:
    with ExitStack() as stack:
        # The proxy is Azure's: Google's address is told by its own variable. One file holds what both and Vault trust.
        kms = stack.enter_context(GoogleKms(certified(tmp_path)[1]))
        kms.key(GOOGLE_KEY, encrypters=["ci@shop"], decrypters=["flux@shop"])
        kms.tokens |= {"ya29.ci-token": "ci@shop", "ya29.flux-token": "flux@shop"}
        trusted = tmp_path / "trusted.pem"
        google = {"SOPS_GCP_KMS_ENDPOINT": f"localhost:{kms.grpc_port}", "SSL_CERT_FILE": str(trusted)}
        own = (tmp_path / "ca.pem").read_bytes()
        found = {name: stack.enter_context(BACKENDS[name](request, tmp_path)) for name in ("aws", "azure", "vault")}
        trusted.write_bytes(own + (tmp_path / "ca.pem").read_bytes() + request.getfixturevalue("vault").ca.read_bytes())
        environ = {name: value for each in found.values() for name, value in each.environ.items()}
        yield Everywhere(
            {"gcpKms": [GOOGLE_KEY]} | {name: keys for each in found.values() for name, keys in each.spec.items()},
            environ | google | {"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.ci-token"},
            {each.metadata: each.reader for each in found.values()}
            | {"gcp_kms": google | {"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.flux-token"}},
        )


@pytest.mark.parametrize("named_by", ["spec", "rules"])
def test_of_keys_of_all_services_each_opens_it(sealer: Sealer, everywhere: Everywhere, named_by: str):
    if named_by == "spec":
        sealer.configured(**everywhere.spec, age=[sealer.recipient])
    else:
        names = {"awsKms": "kms", "gcpKms": "gcp_kms", "azureKeyVault": "azure_keyvault"}
        names["vaultTransit"] = "hc_vault_transit_uri"
        rule = {names[each]: keys[0] for each, keys in everywhere.spec.items()} | {"age": sealer.recipient}
        (sealer.folder / ".sops.yaml").write_text(json.dumps({"creation_rules": [rule]}))
        sealer.configured(config=str(sealer.folder / ".sops.yaml"))
    done = sealer.run(SOURCE, "--unstable", **everywhere.environ)
    assert (done.returncode, done.stderr) == (0, b"")
    readers = {**everywhere.readers, "age": {"SOPS_AGE_KEY": sealer.identity}}
    assert sorted(readers) == ["age", "azure_kv", "gcp_kms", "hc_vault", "kms"]
    for kind, environ in readers.items():
        # Without the others being asked first.
        assert opened(sealer, done.stdout, {**environ, "SOPS_DECRYPTION_ORDER": kind}) == documents(SOURCE)


def test_each_service_that_fails_is_told(sealer: Sealer, everywhere: Everywhere):
    sealer.configured(**everywhere.spec)
    environ = {**everywhere.environ, "VAULT_TOKEN": "hvs.stranger", "GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.stranger"}
    done = sealer.run(SOURCE, "--unstable", **environ)
    assert (done.returncode, done.stdout) == (6, b"")
    assert done.stderr.decode() == (
        """\
secretweave: error
  where: Secret web/a
  what:  sops cannot encrypt
  why:   Google Cloud KMS does not accept the credentials; Vault transit does not let the identity encrypt with the \
key, or there is no such key
  fix:   give the platform's environment credentials for Google Cloud KMS (GOOGLE_APPLICATION_CREDENTIALS, \
GOOGLE_CREDENTIALS or GOOGLE_OAUTH_ACCESS_TOKEN), which are right and not expired; allow the identity update on \
ENGINE/encrypt/KEY, with a token that is neither missing nor expired, or correct the key's name
nothing was written
"""
    )


@pytest.mark.parametrize("backend", ["azure"], indirect=True)
def test_a_key_of_azure_without_its_version_is_the_latest_of_the_day(sealer: Sealer, backend: Backend):
    (url,) = backend.spec["azureKeyVault"]
    name, _, version = url.rpartition("/")
    sealer.configured(azureKeyVault=[name])
    done = sealer.run(SOURCE, "--unstable", **backend.environ)
    assert (done.returncode, done.stderr) == (0, b"")
    (written,) = documents(done.stdout.decode())
    assert written["sops"]["azure_kv"][0]["version"] == version
    assert opened(sealer, done.stdout, backend.reader) == documents(SOURCE)


@pytest.mark.parametrize("kind", ["grpc", "rest"])
@pytest.mark.parametrize("login", ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CREDENTIALS", "HOME"])
def test_logins_of_google(sealer: Sealer, tmp_path: Path, kind: str, login: str):
    authority, pair = certified(tmp_path)
    with GoogleKms(pair) as kms, Tunnel(kms.grpc_port if kind == "grpc" else kms.rest_port) as tunnel:
        kms.key(GOOGLE_KEY, encrypters=["ci@shop"])
        text = json.dumps(kms.account("ci@shop").key_file(f"https://{GOOGLE_LOGIN}/token"))
        paths = {"HOME": ".config/gcloud/application_default_credentials.json"}
        path = tmp_path / paths.get(login, "key.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        value = {"HOME": str(tmp_path), "GOOGLE_CREDENTIALS": text}.get(login, str(path))
        sealer.configured(gcpKms=[GOOGLE_KEY])
        environ = {"SSL_CERT_FILE": str(authority.certificate), "HTTPS_PROXY": tunnel.url, login: value}
        done = sealer.run(SOURCE, "--unstable", SOPS_GCP_KMS_CLIENT_TYPE=kind, **environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert kms.calls == [("encrypt", GOOGLE_KEY, "ci@shop")]


@pytest.mark.parametrize("login", ["workload identity", "managed identity"])
def test_logins_of_azure(sealer: Sealer, tmp_path: Path, login: str):
    authority, pair = certified(tmp_path)
    with AzureKeys(pair) as azure, Tunnel(azure.port) as tunnel:
        environ = {"SSL_CERT_FILE": str(authority.certificate), "HTTPS_PROXY": tunnel.url}
        if login == "workload identity":
            azure.federated["ci"] = "token-of-the-cluster"
            (tmp_path / "token").write_text("token-of-the-cluster")
            environ |= {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "ci"}
            environ["AZURE_FEDERATED_TOKEN_FILE"] = str(tmp_path / "token")
        else:
            environ |= {"IDENTITY_ENDPOINT": f"{azure.url}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER}
        sealer.configured(azureKeyVault=[azure.key("rendered")])
        done = sealer.run(SOURCE, "--unstable", **environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"azure_kv:" in done.stdout


@pytest.mark.parametrize("backend", ["vault"], indirect=True)
def test_the_token_that_vault_login_leaves_in_home(sealer: Sealer, backend: Backend):
    environ = dict(backend.environ)
    (sealer.folder / ".vault-token").write_text(environ.pop("VAULT_TOKEN"))
    sealer.configured(**backend.spec)
    done = sealer.run(SOURCE, "--unstable", **environ)
    assert (done.returncode, done.stderr) == (0, b"")
    (sealer.folder / ".vault-token").unlink()
    assert opened(sealer, done.stdout, backend.reader) == documents(SOURCE)


@pytest.mark.parametrize("backend", ["aws"], indirect=True)
def test_a_profile_of_aws_in_home(sealer: Sealer, backend: Backend):
    environ = dict(backend.environ)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    lines = "".join(f"{name.lower()} = {environ.pop(name)}\n" for name in names)
    (sealer.folder / ".aws").mkdir()
    (sealer.folder / ".aws" / "credentials").write_text(f"[ci]\n{lines}")
    sealer.configured(**backend.spec)
    done = sealer.run(SOURCE, "--unstable", AWS_PROFILE="ci", **environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert opened(sealer, done.stdout, backend.reader) == documents(SOURCE)


@each_backend
def test_a_store_reads_what_was_encrypted_as_who_may_decrypt(sealer: Sealer, backend: Backend):
    sealer.configured(**backend.spec)
    sealed = sealer.run(SOURCE, "--unstable", **backend.environ)
    assert (sealed.returncode, sealed.stderr) == (0, b"")
    (sealer.folder / "sealed.yaml").write_bytes(sealed.stdout)
    store = {"file": {"path": "sealed.yaml", "sops": {"program": str(sealer.sops)}}}
    kinds = {"apiVersion": "humanitec.io/v1alpha1", "kind": "SecretStore", "metadata": {"name": "sealed"}}
    (sealer.folder / "config.yaml").write_text(json.dumps({**kinds, "spec": store}))
    woven = secret("b", x="secret://sealed/stringData#x")
    done = sealer.run(woven, output="secret", **backend.reader)
    assert (done.returncode, done.stderr) == (0, b"")
    assert documents(done.stdout.decode()) == documents(secret("b", x="hunter2hunter2"))
    denied = sealer.run(woven, output="secret", **backend.environ)
    assert (denied.returncode, denied.stdout) == (6, b"")
    assert b"why:   a key service refuses the identity\n" in denied.stderr
    assert b"hunter2" not in denied.stderr
