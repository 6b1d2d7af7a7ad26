import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import Record, StoreConfig
from secretweave.sdk.aws import Auth, WebIdentity
from secretweave.stores import awssm, open_store
from secretweave.stores.base import SecretKeyRef, Wanted
from tests.servers.certificates import Authority
from tests.servers.moto import ACCOUNT, ANY_KEYS, REGION, Changed, Keys, Moto, policy, seal
from tests.servers.proxy import Half, Hang, Latency, Proxy, Redirect, Reset, Rule, Status, elsewhere
from tests.stores.contract import Opened, Secret, StoreContract, context, plain, told_versions

KEYS = SecretKeyRef("aws-keys", "id"), SecretKeyRef("aws-keys", "secret"), SecretKeyRef("aws-keys", "token")
BATCH = "secretsmanager.BatchGetSecretValue"
SINGLE = "secretsmanager.GetSecretValue"
DESCRIBE = "secretsmanager.DescribeSecret"
VALUE = "hunter2"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"


@pytest.fixture
def moto(moto_server: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Moto:
    seal(monkeypatch, tmp_path)
    moto_server.reset()
    return moto_server


@pytest.fixture
def proxy(moto: Moto) -> Iterator[Proxy]:
    with Proxy(moto.url) as proxy:
        yield proxy


class Opener:
    """Opens stores, and closes them at the end."""

    def __init__(self, moto: Moto) -> None:
        self.moto = moto
        self.warnings: list[str] = []
        self._opened: list[awssm.SecretsManager] = []

    def __call__(
        self,
        endpoint: str | None = None,
        *,
        keys: Keys | None = ANY_KEYS,
        auth: Auth | None = None,
        environ: Mapping[str, str] | None = None,
        seconds: float = 30,
        attempt_seconds: float = 5,
        **settings: Any,
    ) -> awssm.SecretsManager:
        """*endpoint*: left out, moto's own; empty, none. *keys*: of the credential Secret."""
        static = Auth(*KEYS[:2], KEYS[2] if keys.token else None) if keys else Auth()
        settings = {"region": REGION, "auth": auth or static, **settings}
        url = self.moto.url if endpoint is None else endpoint or None
        config = StoreConfig("aws", None, "awssm", awssm.Settings(endpoint=url, **settings), default=False)
        held = {ref: value for ref, value in zip(KEYS, keys or (None,) * 3, strict=True) if value}
        given = context(config, environ, warn=self.warnings.append, credentials=held, seconds=seconds)
        given = given._replace(limits=given.limits._replace(attempt_seconds=attempt_seconds))
        store = open_store(config, given)
        assert isinstance(store, awssm.SecretsManager)
        self._opened.append(store)
        return store

    def end(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture
def opener(moto: Moto) -> Iterator[Opener]:
    opener = Opener(moto)
    yield opener
    opener.end()


def token(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"


def put(moto: Moto, *secrets: Secret, region: str = REGION, keys: Keys = ANY_KEYS) -> list[str]:
    """Stores them, later ones of one path as later versions; their ARNs."""
    client = moto.client("secretsmanager", region, keys)
    arns: dict[str, str] = {}
    for number, (path, value) in enumerate(secrets):
        text = json.dumps(value) if isinstance(value, Mapping) else value
        content = {"SecretBinary" if isinstance(text, bytes) else "SecretString": text}
        if path in arns:
            client.put_secret_value(SecretId=path, ClientRequestToken=token(number), **content)
        else:
            made = client.create_secret(Name=path, ClientRequestToken=token(number), **content)
            arns[path] = made["ARN"]
    return list(arns.values())


def operations(proxy: Proxy) -> list[str]:
    return [seen.headers["x-amz-target"] for seen in proxy.seen if "x-amz-target" in seen.headers]


def refusing(code: str, status: int = 400) -> Status:
    """How Secrets Manager refuses."""
    body = json.dumps({"__type": code, "Message": f"User may not; {VALUE}"}).encode()
    return Status(status, body, {"Content-Type": "application/x-amz-json-1.1"})


def named(parameter: Any) -> str | None:
    """A fault in the name of a test."""
    if isinstance(parameter, Status):
        return f"{parameter.code} {json.loads(parameter.body)['__type']}" if parameter.headers else str(parameter.code)
    return type(parameter).__name__ if isinstance(parameter, tuple) else None


def text(error: StoreError) -> str:
    return f"{error.what} | {error.why} | {error.fix}"


def fetched(store: awssm.SecretsManager, *refs: str) -> list[Any]:
    """What the refs gave, asked as the core asks: values, and errors."""
    wanted = [Wanted(ref, None) for ref in refs]
    outcomes: dict[Wanted, Any] = {}
    for batch in store.batches(wanted):
        answers = store.fetch_batch(batch) if len(batch) > 1 else [store.fetch(*batch[0])]
        outcomes.update(zip(batch, answers, strict=True))
    return [plain(found) if isinstance(found, Record) else found for found in map(outcomes.__getitem__, wanted)]


class TestContract(StoreContract):
    """A mapping is stored as JSON text, which a key is picked from."""

    lacks = frozenset({"fields"})

    @pytest.fixture
    def opened(self, moto: Moto, opener: Opener) -> Opened:
        def opened(secrets: list[Secret]) -> awssm.SecretsManager:
            put(moto, *secrets)
            return opener()

        self.moto = moto
        return opened

    def versions(self, _store: object, path: str, /) -> list[str]:
        found = self.moto.client("secretsmanager").list_secret_version_ids(SecretId=path, IncludeDeprecated=True)
        return sorted(version["VersionId"] for version in found["Versions"])


@pytest.mark.parametrize("name", ["shop/db", "a_b+c=d.e@f-g"])
def test_names_of_every_form_are_read(moto: Moto, opener: Opener, name: str):
    put(moto, Secret(name, VALUE))
    assert plain(opener().fetch(name, None)) == VALUE.encode()


def test_the_region_of_an_arn_goes_before_the_stores(moto: Moto, opener: Opener):
    (arn,) = put(moto, Secret("shop/db", "far"), region="us-east-2")
    put(moto, Secret("shop/db", "near"))
    store = opener()
    assert plain(store.fetch(arn, None)) == b"far"
    assert plain(store.fetch(arn[:-7], None)) == b"far"
    assert plain(store.fetch("shop/db", None)) == b"near"


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1"])
def test_an_arn_of_another_partition_is_asked_there(moto: Moto, opener: Opener, proxy: Proxy, region: str):
    (arn,) = put(moto, Secret("shop/db", "far"), region=region)
    assert arn.split(":")[1] != "aws"
    assert plain(opener(proxy.url).fetch(arn, None)) == b"far"
    assert proxy.seen[0].holds(f"/{region}/secretsmanager/aws4_request")


def test_an_arn_needs_no_region_of_the_store(moto: Moto, opener: Opener):
    (arn,) = put(moto, Secret("shop/db", "s"))
    store = opener(region=None)
    assert plain(store.fetch(arn, None)) == b"s"
    with pytest.raises(StoreError, match="no AWS region is known") as caught:
        store.fetch("shop/db", None)
    assert "spec.awssm.region" in caught.value.fix


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/shop",
        f"arn:aws:secretsmanager:evil.example.com/:{ACCOUNT}:secret:shop",
        f"arn:aws:secretsmanager::{ACCOUNT}:secret:shop",
        "arn:aws:secretsmanager:eu-west-1:1:secret:shop",
        f"arn:evil:secretsmanager:{REGION}:{ACCOUNT}:secret:shop",
    ],
)
def test_what_only_looks_like_an_arn_is_asked_nowhere(opener: Opener, proxy: Proxy, arn: str):
    store = opener(proxy.url)
    with pytest.raises(StoreError, match="not the ARN of a secret") as caught:
        store.fetch(arn, None)
    assert not isinstance(caught.value, NotFound)
    assert store.batches([Wanted(arn, None)]) == [[Wanted(arn, None)]]
    assert proxy.seen == []


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-north-1"}, "eu-central-1"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1"),
        ({}, "sa-east-1"),
    ],
)
def test_the_region_is_found(
    moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path, environ: dict[str, str], asked: str
):
    (tmp_path / "config").write_text("[default]\nregion = sa-east-1\n")
    put(moto, Secret("shop", "s"), region=asked)
    assert plain(opener(proxy.url, region=None, environ=environ).fetch("shop", None)) == b"s"
    assert proxy.seen[0].holds(f"/{asked}/secretsmanager/aws4_request")


def test_stages_and_version_ids(moto: Moto, opener: Opener):
    put(moto, Secret("shop", "first"), Secret("shop", "second"))
    moto.client("secretsmanager").put_secret_value(
        SecretId="shop", ClientRequestToken=token(9), SecretString="third", VersionStages=["canary"]
    )
    store = opener()
    for version, value, read in (
        ("AWSCURRENT", b"second", token(1)),
        ("AWSPREVIOUS", b"first", token(0)),
        ("canary", b"third", token(9)),
        (token(0), b"first", token(0)),
    ):
        record = store.fetch("shop", version)
        assert (plain(record), record.version) == (value, read)


@pytest.mark.parametrize("version", ["beta", token(7)])
def test_a_version_that_is_gone_is_told_from_a_secret_that_is(moto: Moto, opener: Opener, proxy: Proxy, version: str):
    put(moto, Secret("shop", "s"))
    body = b'{"__type": "ResourceNotFoundException", "Message": "Secrets Manager can\'t find the specified %s"}'
    proxy.rules = [Rule(Status(400, body % b"secret value for staging label: beta"))]
    with pytest.raises(NotFound) as caught:
        opener(proxy.url).fetch("shop", version)
    assert caught.value.what == f"the secret `shop` in {REGION} has no version `{version}`"
    proxy.rules = [Rule(Status(400, body % b"secret."))]
    with pytest.raises(NotFound) as caught:
        opener(proxy.url).fetch("shop", version)
    assert caught.value.what == f"there is no secret `shop` in {REGION}"
    assert "spec.awssm.region" in caught.value.fix
    with pytest.raises(NotFound):
        opener().fetch("shop", version)


def test_a_secret_without_a_value_is_not_found(moto: Moto, opener: Opener):
    moto.client("secretsmanager").create_secret(Name="shop")
    with pytest.raises(NotFound, match="has no value yet"):
        opener().fetch("shop", None)


def test_bytes_come_in_a_batch_too(moto: Moto, opener: Opener):
    put(moto, Secret("a", bytes(range(256))), Secret("b", "text"))
    assert fetched(opener(), "a", "b") == [bytes(range(256)), b"text"]


def test_a_secret_marked_for_deletion_is_not_found(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("shop", VALUE), Secret("other", "s"))
    moto.client("secretsmanager").delete_secret(SecretId="shop")
    store = opener(proxy.url)
    with pytest.raises(NotFound, match="scheduled for deletion"):
        store.fetch("shop", None)
    gone, there = fetched(store, "shop", "other")
    assert isinstance(gone, NotFound)
    assert "scheduled for deletion" in gone.what
    assert there == b"s"
    assert operations(proxy) == [SINGLE, BATCH]


@pytest.mark.parametrize(("count", "requests"), [(1, [SINGLE]), (2, [BATCH]), (20, [BATCH]), (21, [BATCH, SINGLE])])
def test_twenty_secrets_take_one_request(moto: Moto, opener: Opener, proxy: Proxy, count: int, requests: list[str]):
    names = [f"shop/{number}" for number in range(count)]
    put(moto, *(Secret(name, name) for name in names))
    assert fetched(opener(proxy.url), *names) == [name.encode() for name in names]
    assert operations(proxy) == requests


def test_a_batch_tells_the_version_of_each(moto: Moto, opener: Opener):
    put(moto, Secret("a", "1"), Secret("b", "1"), Secret("b", "2"))
    records = opener().fetch_batch([Wanted("a", None), Wanted("b", None)])
    assert [record.version for record in records if isinstance(record, Record)] == [token(0), token(2)]


def test_what_has_a_version_is_read_alone(opener: Opener):
    wanted = [Wanted("a", None), Wanted("a", "AWSPREVIOUS"), Wanted("b", None), Wanted("b", token(1))]
    assert opener().batches(wanted) == [[wanted[0], wanted[2]], [wanted[1]], [wanted[3]]]


def test_batches_do_not_mix_regions_nor_names_with_arns(moto: Moto, opener: Opener, proxy: Proxy):
    near = put(moto, Secret("a", "near a"), Secret("b", "near b"))
    far = put(moto, Secret("a", "far a"), Secret("b", "far b"), region="us-east-2")
    refs = ["a", far[0], near[0], "b", far[1][:-7], near[1]]
    expected = [b"near a", b"far a", b"near a", b"near b", b"far b", b"near b"]
    assert fetched(opener(proxy.url), *refs) == expected
    assert operations(proxy) == [BATCH] * 3


def test_a_secret_of_another_account_does_not_stand_in_for_one_of_its_name(moto: Moto, opener: Opener):
    sts = moto.client("sts")
    other = sts.assume_role(RoleArn="arn:aws:iam::210987654321:role/owner", RoleSessionName="test")["Credentials"]
    keys = Keys(other["AccessKeyId"], other["SecretAccessKey"], other["SessionToken"])
    arns = put(moto, Secret("a", "foreign"), Secret("b", "foreign"), keys=keys)
    put(moto, Secret("b", "own"))
    absent, own, *_foreign = fetched(opener(), "a", "b", *arns)
    assert isinstance(absent, NotFound)
    assert own == b"own"


def test_the_errors_of_a_batch_are_each_secrets_own(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("a", "1"), Secret("c", "3"))
    first, absent, third = fetched(opener(proxy.url), "a", "b", "c")
    assert (first, third) == (b"1", b"3")
    assert isinstance(absent, NotFound)
    assert absent.what == f"there is no secret `b` in {REGION}"
    assert operations(proxy) == [BATCH]


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("AccessDeniedException", Denied, "may not read it"),
        ("DecryptionFailure", Denied, "may not decrypt it"),
        ("ResourceNotFoundException", NotFound, "there is no secret"),
    ],
)
def test_a_certain_error_of_a_batch_is_not_asked_about_again(
    moto: Moto, opener: Opener, proxy: Proxy, code: str, kind: type[StoreError], told: str
):
    put(moto, Secret("a", "1"), Secret("b", VALUE))

    def refuse(body: dict[str, Any]) -> dict[str, Any]:
        body["SecretValues"] = [entry for entry in body["SecretValues"] if entry["Name"] == "a"]
        body["Errors"] = [{"SecretId": "b", "ErrorCode": code, "Message": f"about {VALUE}"}]
        return body

    proxy.rules = [Rule(Changed(refuse))]
    first, second = fetched(opener(proxy.url), "a", "b")
    assert first == b"1"
    assert type(second) is kind
    assert told in second.what
    assert VALUE not in text(second)
    assert operations(proxy) == [BATCH]


def test_an_error_that_may_pass_and_an_entry_that_is_missing_are_read_alone(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("a", "1"), Secret("b", "2"), Secret("c", "3"))

    def lessen(body: dict[str, Any]) -> dict[str, Any]:
        body["SecretValues"] = [entry for entry in body["SecretValues"] if entry["Name"] == "a"]
        body["Errors"] = [{"SecretId": "b", "ErrorCode": "InternalServiceError", "Message": ""}]
        return body

    proxy.rules = [Rule(Changed(lessen), path=BATCH)]
    assert fetched(opener(proxy.url), "a", "b", "c") == [b"1", b"2", b"3"]
    assert operations(proxy) == [BATCH, SINGLE, SINGLE]


def test_all_pages_of_a_batch_are_read(opener: Opener, proxy: Proxy):
    def page(name: str, following: str) -> Rule:
        entry = {"Name": name, "VersionId": token(0), "SecretString": name}
        body = {"SecretValues": [entry], "Errors": []} | ({"NextToken": following} if following else {})
        return Rule(Status(200, json.dumps(body).encode()), times=1)

    # Moto knows no pages of a list of ids.
    proxy.rules = [page("a", "page 2"), page("b", "page 3"), page("c", "")]
    assert fetched(opener(proxy.url), "a", "b", "c") == [b"a", b"b", b"c"]
    assert operations(proxy) == [BATCH] * 3
    assert [json.loads(seen.body).get("NextToken") for seen in proxy.seen] == [None, "page 2", "page 3"]


def test_a_reader_without_the_right_to_batches_reads_each(moto: Moto, opener: Opener, proxy: Proxy):
    names = [f"shop/{number}" for number in range(45)]
    put(moto, *(Secret(name, name) for name in names))
    keys = moto.user("secretsmanager:GetSecretValue")
    moto.enforce()
    assert fetched(opener(proxy.url, keys=keys), *names) == [name.encode() for name in names]
    assert operations(proxy) == [BATCH] + [SINGLE] * 45, "asked for a batch once, and never again"


def test_a_reader_with_all_rights_reads_batches(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("a", "1"), Secret("b", "2"))
    keys = moto.user("secretsmanager:GetSecretValue", "secretsmanager:BatchGetSecretValue")
    moto.enforce()
    assert fetched(opener(proxy.url, keys=keys), "a", "b") == [b"1", b"2"]
    assert operations(proxy) == [BATCH]


def test_without_batches_in_the_settings_none_is_asked_for(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("a", "1"), Secret("b", "2"))
    assert fetched(opener(proxy.url, batch=False), "a", "b") == [b"1", b"2"]
    assert operations(proxy) == [SINGLE] * 2


@pytest.mark.parametrize("fault", [refusing("UnknownOperationException", 404), Status(501)])
def test_an_endpoint_without_batches_is_asked_for_each(moto: Moto, opener: Opener, proxy: Proxy, fault: Status):
    put(moto, Secret("a", "1"), Secret("b", "2"))
    proxy.rules = [Rule(fault, path=BATCH)]
    store = opener(proxy.url)
    assert fetched(store, "a", "b") == [b"1", b"2"]
    assert fetched(store, "a", "b") == [b"1", b"2"]
    assert operations(proxy) == [BATCH] + [SINGLE] * 4


def test_a_batch_refused_for_one_of_its_secrets_does_not_end_batches(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("a", "1"), Secret("b", "2"))
    proxy.rules = [Rule(refusing("InvalidParameterException"), path=BATCH, times=1)]
    store = opener(proxy.url)
    assert fetched(store, "a", "b") == [b"1", b"2"]
    assert fetched(store, "a", "b") == [b"1", b"2"]
    assert operations(proxy) == [BATCH, SINGLE, SINGLE, BATCH]


def test_single_reads_in_the_place_of_a_batch_go_side_by_side(moto: Moto, opener: Opener, proxy: Proxy):
    names = [f"shop/{number}" for number in range(16)]
    put(moto, *(Secret(name, name) for name in names))
    proxy.rules = [Rule(refusing("AccessDeniedException"), path=BATCH), Rule(Latency(0.5))]
    store = opener(proxy.url)
    begin = time.monotonic()
    assert fetched(store, *names) == [name.encode() for name in names]
    assert time.monotonic() - begin < 16 * 0.5 / 2


def test_a_store_that_dies_during_single_reads_is_unavailable_at_once(moto: Moto, opener: Opener, proxy: Proxy):
    names = [f"shop/{number}" for number in range(20)]
    proxy.rules = [Rule(refusing("AccessDeniedException"), path=BATCH), Rule(Status(503))]
    with pytest.raises(Unavailable):
        fetched(opener(proxy.url), *names)
    assert operations(proxy).count(SINGLE) <= 16 * 3


class TestWhoAsks:
    def test_keys_of_a_secret(self, moto: Moto, opener: Opener, proxy: Proxy):
        keys = moto.user("secretsmanager:GetSecretValue")
        put(moto, Secret("shop", "s"))
        moto.enforce()
        padded = Keys(f"{keys.id}\n", f"{keys.secret}\n")
        assert plain(opener(proxy.url, keys=padded).fetch("shop", None)) == b"s"
        assert [seen.line for seen in proxy.seen] == [f"POST / {SINGLE}"]

    def test_an_identity_without_rights_is_denied(self, moto: Moto, opener: Opener):
        keys = moto.user("ssm:GetParameter")
        put(moto, Secret("shop", VALUE), Secret("other", VALUE))
        moto.enforce()
        store = opener(keys=keys)
        with pytest.raises(Denied) as caught:
            store.fetch("shop", None)
        assert caught.value.what == f"the access key of the Secret `aws-keys` may not read it in {REGION}"
        assert "secretsmanager:GetSecretValue" in caught.value.fix
        assert keys.id not in text(caught.value)
        assert {type(found) for found in fetched(store, "shop", "other")} == {Denied}

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda keys: keys._replace(secret="wrong"), "does not accept the signature"),
            (lambda keys: keys._replace(id="AKIAIOSFODNN7EXAMPLE"), "does not know the keys"),
        ],
    )
    def test_wrong_keys_get_no_role(
        self, moto: Moto, opener: Opener, monkeypatch: pytest.MonkeyPatch, change: Any, told: str
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
        keys = change(moto.user("sts:AssumeRole"))
        moto.enforce()
        with pytest.raises(Denied, match=f"{told} of the access key of the Secret `aws-keys`") as caught:
            opener(keys=keys, auth=Auth(*KEYS[:2], role_arn=ROLE))
        assert not {keys.id, keys.secret} & set(text(caught.value).split())

    def test_temporary_keys_bring_their_token(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("shop", "s"))
        store = opener(proxy.url, keys=Keys("ASIAEXAMPLE", "example", "the-token"))
        assert plain(store.fetch("shop", None)) == b"s"
        assert proxy.seen[0].headers["x-amz-security-token"] == "the-token"

    def test_a_credential_that_is_not_there_is_told(self, opener: Opener):
        with pytest.raises(StoreError, match="no credential Secret aws-keys"):
            opener(keys=None, auth=Auth(*KEYS[:2]))

    def test_the_environment(
        self, moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        put(moto, Secret("shop", "s"))
        variables = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": proxy.url}
        seal(monkeypatch, tmp_path, variables)
        store = opener("", auth=Auth())
        assert plain(store.fetch("shop", None)) == b"s"
        assert proxy.seen[0].holds("Credential=AKIAENV/")
        proxy.rules = [Rule(refusing("AccessDeniedException"))]
        with pytest.raises(Denied, match=r"the AWS identity that was found here \(env\) may not read it"):
            store.fetch("shop", None)

    def test_the_endpoint_of_the_service_goes_before_the_general_one(
        self, moto: Moto, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        put(moto, Secret("shop", "s"))
        variables = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto.url}
        seal(monkeypatch, tmp_path, variables)
        assert plain(opener("").fetch("shop", None)) == b"s"

    def test_a_profile(self, moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path):
        put(moto, Secret("shop", "s"), region="eu-south-1")
        (tmp_path / "config").write_text(
            "[profile shop]\nregion = eu-south-1\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = x\n"
        )
        store = opener(proxy.url, region=None, auth=Auth(profile="shop"))
        assert plain(store.fetch("shop", None)) == b"s"
        assert proxy.seen[0].holds("Credential=AKIAPROFILE/")

    def test_a_profile_that_is_not_there(self, opener: Opener):
        with pytest.raises(StoreError, match="the AWS profile is not there") as caught:
            opener(auth=Auth(profile="shop"))
        assert "spec.awssm.auth.profile" in caught.value.fix

    def test_a_profile_that_asks_for_an_mfa_code_is_refused_without_a_prompt(self, opener: Opener, tmp_path: Path):
        (tmp_path / "config").write_text(
            f"[profile shop]\nrole_arn = {ROLE}\nsource_profile = base\n"
            f"mfa_serial = arn:aws:iam::{ACCOUNT}:mfa/reader\n"
            "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n"
        )
        with pytest.raises(Denied, match="asks for an MFA code"):
            opener(auth=Auth(profile="shop"))

    def test_a_role_is_assumed_once(self, moto: Moto, opener: Opener, proxy: Proxy, monkeypatch: pytest.MonkeyPatch):
        put(moto, *(Secret(name, name) for name in "abc"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        auth = Auth(*KEYS[:2], role_arn=ROLE, external_id="shop-1", session_name="render")
        store = opener(proxy.url, auth=auth)
        assert fetched(store, "a", "b", "c") == [b"a", b"b", b"c"]
        assert plain(store.fetch("a", None)) == b"a"
        login, *reads = proxy.seen
        assert all(
            login.holds(each)
            for each in ("Action=AssumeRole&", "ExternalId=shop-1", "RoleSessionName=render", "role%2Freader")
        )
        assert [seen.headers.get("x-amz-target") for seen in reads] == [BATCH, SINGLE]
        assert all("x-amz-security-token" in seen.headers for seen in reads)

    def test_a_role_that_is_not_given_is_denied(self, moto: Moto, opener: Opener, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
        moto.client("iam").create_role(RoleName="reader", AssumeRolePolicyDocument=policy(Principal="*"))
        keys = moto.user("secretsmanager:GetSecretValue")
        moto.enforce()
        with pytest.raises(Denied) as caught:
            opener(keys=keys, auth=Auth(*KEYS[:2], role_arn=ROLE))
        assert caught.value.what == f"the role {ROLE} is not given to the access key of the Secret `aws-keys`"
        assert "trust policy" in caught.value.fix

    def test_a_web_identity(
        self, moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        put(moto, Secret("a", "1"), Secret("b", "2"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        (tmp_path / "token").write_text("header.claims.signature")
        auth = Auth(web_identity=WebIdentity(ROLE, str(tmp_path / "token")))
        assert fetched(opener(proxy.url, auth=auth), "a", "b") == [b"1", b"2"]
        login, read = proxy.seen
        assert login.holds("Action=AssumeRoleWithWebIdentity&")
        assert login.holds("WebIdentityToken=header.claims.signature")
        assert "authorization" not in login.headers
        assert "x-amz-security-token" in read.headers

    def test_a_role_on_top_of_a_web_identity(
        self, moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        put(moto, Secret("shop", "s"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        (tmp_path / "token").write_text("header.claims.signature")
        auth = Auth(web_identity=WebIdentity(ROLE, str(tmp_path / "token")), role_arn=f"{ROLE}-of-shop")
        assert plain(opener(proxy.url, auth=auth).fetch("shop", None)) == b"s"
        assert [seen.holds("Action=AssumeRole&") for seen in proxy.seen] == [False, True, False]

    def test_the_web_identity_of_a_pod_is_found(
        self, moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """IRSA: https://docs.aws.amazon.com/eks/latest/userguide/iam-roles-for-service-accounts.html."""
        put(moto, Secret("shop", "s"))
        (tmp_path / "token").write_text("header.claims.signature")
        variables = {
            "AWS_ROLE_ARN": ROLE,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ENDPOINT_URL_STS": proxy.url,
            "AWS_DEFAULT_REGION": REGION,
        }
        seal(monkeypatch, tmp_path, variables)
        assert plain(opener(proxy.url, auth=Auth()).fetch("shop", None)) == b"s"
        assert [seen.holds("Action=AssumeRoleWithWebIdentity&") for seen in proxy.seen] == [True, False]

    def test_the_identity_of_a_container_is_found(
        self, moto: Moto, opener: Opener, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """EKS Pod Identity: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html."""
        put(moto, Secret("shop", "s"))
        (tmp_path / "token").write_text("the-token")
        given = {"AccessKeyId": "ASIAPOD", "SecretAccessKey": "x", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}
        agent = Rule(Status(200, json.dumps(given).encode()), path="^GET /v1/credentials$")
        proxy.rules = [agent]
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{proxy.url}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        }
        seal(monkeypatch, tmp_path, variables)
        assert plain(opener(proxy.url, auth=Auth()).fetch("shop", None)) == b"s"
        login, read = proxy.seen
        assert login.headers["authorization"] == "the-token"
        assert read.holds("Credential=ASIAPOD/")
        proxy.rules = [Rule(Status(500), path="^GET /v1/credentials$")]
        with pytest.raises(Denied, match="the AWS credentials could not be fetched"):
            opener(proxy.url, auth=Auth())

    def test_a_web_identity_without_its_token_is_told(self, opener: Opener, tmp_path: Path):
        with pytest.raises(Denied, match="a file of the AWS identity cannot be read"):
            opener(auth=Auth(web_identity=WebIdentity(ROLE, str(tmp_path / "token"))))

    def test_no_credentials_at_all(self, opener: Opener):
        begin = time.monotonic()
        with pytest.raises(Denied, match="no AWS credentials were found") as caught:
            opener(auth=Auth())
        assert "spec.awssm.auth" in caught.value.fix
        assert time.monotonic() - begin < 5

    def test_half_of_the_environments_keys(self, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        seal(monkeypatch, tmp_path, {"AWS_ACCESS_KEY_ID": "AKIAENV"})
        with pytest.raises(Denied, match="the AWS credentials are incomplete"):
            opener(auth=Auth())

    @pytest.mark.parametrize(
        ("auth", "told", "fix"),
        [
            (Auth(KEYS[0]), "half of the AWS keys", "add spec.awssm.auth.secretAccessKeySecretRef"),
            (Auth(None, KEYS[1]), "half of the AWS keys", "add spec.awssm.auth.accessKeyIDSecretRef"),
            (Auth(None, None, KEYS[2]), "without its keys", "accessKeyIDSecretRef"),
            (Auth(*KEYS[:2], profile="shop"), "several AWS identities", "keep"),
            (Auth(profile="shop", web_identity=WebIdentity(ROLE, "/token")), "several AWS identities", "keep"),
            (Auth(*KEYS[:2], session_name="shop"), "a session name stands without", "spec.awssm.auth.roleARN"),
            (Auth(external_id="shop"), "without a role to assume", "spec.awssm.auth.roleARN"),
        ],
    )
    def test_settings_that_contradict_one_another(self, opener: Opener, auth: Auth, told: str, fix: str):
        with pytest.raises(StoreError, match=told) as caught:
            opener(auth=auth)
        assert fix in caught.value.fix


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("fault", "kind", "told"),
        [
            (refusing("ExpiredTokenException"), Denied, "has expired"),
            (refusing("UnrecognizedClientException"), Denied, "does not know the keys"),
            (refusing("InvalidSignatureException"), Denied, "does not accept the signature"),
            (refusing("AccessDeniedException"), Denied, "may not read it"),
            (refusing("DecryptionFailure"), Denied, "may not decrypt it"),
            (refusing("InvalidRequestException"), StoreError, "not in a state to be read"),
            (refusing("InvalidParameterException"), StoreError, "malformed"),
            (Status(403, b"<html>"), Denied, "may not read it"),
            (Status(404, b"<html>"), StoreError, "refuses the request"),
            (Status(200, b"[]"), Unavailable, "cannot be read"),
            (Status(200, b"{}"), Unavailable, "cannot be read"),
            (Status(200, b'{"Name": "shop"}'), StoreError, "has no value"),
            (refusing("InternalServiceError", 500), Unavailable, "does not work"),
            (refusing("ThrottlingException"), Unavailable, "takes no more requests"),
            (Status(429), Unavailable, "takes no more requests"),
            (Status(503), Unavailable, "does not work"),
            (Half(), Unavailable, "cannot be rea(d|ched)"),
            (Reset(), Unavailable, "cannot be reached"),
            (Reset(midway=True), Unavailable, "cannot be reached"),
        ],
        ids=named,
    )
    def test_it_is_told(self, moto: Moto, opener: Opener, proxy: Proxy, fault: Any, kind: type[StoreError], told: str):
        put(moto, Secret("shop", VALUE))
        proxy.rules = [Rule(fault)]
        store = opener(proxy.url)
        with pytest.raises(StoreError) as caught:
            store.fetch("shop", None)
        assert type(caught.value) is kind
        assert re.search(told, caught.value.what)
        assert caught.value.__cause__ is None
        assert VALUE not in text(caught.value)
        assert caught.value.fix

    @pytest.mark.parametrize(
        "fault",
        [refusing("ThrottlingException"), Status(429), Status(500), Status(502), Status(503), Half(), Reset()],
        ids=named,
    )
    def test_what_can_pass_is_tried_again(self, moto: Moto, opener: Opener, proxy: Proxy, fault: Any):
        put(moto, Secret("shop", "s"))
        proxy.rules = [Rule(fault, times=2)]
        assert plain(opener(proxy.url).fetch("shop", None)) == b"s"
        assert len(proxy.seen) == 3

    def test_what_a_proxy_asks_to_wait_is_waited(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("shop", "s"))
        proxy.rules = [Rule(Status(429, headers={"Retry-After": "1"}), times=1)]
        begin = time.monotonic()
        assert plain(opener(proxy.url).fetch("shop", None)) == b"s"
        assert time.monotonic() - begin >= 1

    def test_a_wait_that_would_pass_the_deadline_does_not_begin(self, opener: Opener, proxy: Proxy):
        proxy.rules = [Rule(Status(429, headers={"Retry-After": "3600"}))]
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="takes no more requests"):
            opener(proxy.url).fetch("shop", None)
        assert time.monotonic() - begin < 5
        assert len(proxy.seen) == 1

    @pytest.mark.parametrize(
        "code", ["AccessDeniedException", "ExpiredTokenException", "ResourceNotFoundException", "DecryptionFailure"]
    )
    def test_what_cannot_pass_is_tried_once(self, opener: Opener, proxy: Proxy, code: str):
        proxy.rules = [Rule(refusing(code))]
        with pytest.raises(StoreError):
            opener(proxy.url).fetch("shop", None)
        assert len(proxy.seen) == 1

    def test_a_server_that_hangs(self, opener: Opener, proxy: Proxy):
        proxy.rules = [Rule(Hang())]
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            opener(proxy.url, attempt_seconds=0.2).fetch("shop", None)
        assert time.monotonic() - begin < 8

    def test_an_endpoint_where_nothing_listens(self, opener: Opener):
        with Proxy(refuse=True) as closed, pytest.raises(Unavailable, match="cannot be reached") as caught:
            opener(closed.url).fetch("shop", None)
        assert "spec.awssm.region or endpoint" in caught.value.fix

    def test_another_region_that_does_not_answer_is_not_the_store(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("shop", "s"))
        store = opener(proxy.url)
        assert plain(store.fetch("shop", None)) == b"s"
        proxy.rules = [Rule(Status(503))]
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                store.fetch(f"arn:aws:secretsmanager:us-east-9:{ACCOUNT}:secret:shop", None)
            assert not isinstance(caught.value, Unavailable)
        assert len(proxy.seen) == 3, "a region that is down is found once"
        proxy.rules = []
        assert plain(store.fetch("shop", None)) == b"s"

    def test_a_redirect_is_not_followed(self, opener: Opener, proxy: Proxy):
        with elsewhere(None) as other:
            proxy.rules = [Rule(Redirect(other.url))]
            with pytest.raises(Unavailable, match="sends elsewhere"):
                opener(proxy.url).fetch("shop", None)
            assert other.seen == []

    def test_tls_is_verified(self, moto: Moto, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        put(moto, Secret("shop", "s"))
        authority = Authority(tmp_path)
        with Proxy(moto.url, certificate=authority.issue("server")) as proxy:
            with pytest.raises(Unavailable, match="is not trusted") as caught:
                opener(proxy.url).fetch("shop", None)
            assert "AWS_CA_BUNDLE" in caught.value.fix
            assert proxy.seen == []
            monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.certificate))
            assert plain(opener(proxy.url).fetch("shop", None)) == b"s"

    def test_a_login_that_hangs_says_so(self, opener: Opener, proxy: Proxy, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        proxy.rules = [Rule(Hang())]
        with pytest.raises(Unavailable, match="the AWS login does not answer"):
            opener(proxy.url, auth=Auth(*KEYS[:2], role_arn=ROLE), attempt_seconds=0.2)

    def test_no_request_begins_after_the_deadline(self, opener: Opener, proxy: Proxy):
        store = opener(proxy.url, seconds=0)
        with pytest.raises(Unavailable, match="in the time of the run"):
            store.fetch("shop", None)
        assert proxy.seen == []

    def test_no_pause_begins_that_would_pass_the_deadline(self, opener: Opener, proxy: Proxy):
        proxy.rules = [Rule(Status(503))]
        store = opener(proxy.url, seconds=1.5)
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            store.fetch("shop", None)
        assert time.monotonic() - begin < 1.5
        assert len(proxy.seen) < 3

    def test_an_endpoint_in_clear_on_another_machine_is_warned_of(self, opener: Opener):
        opener("http://secrets.example.com")
        assert opener.warnings == ["AWS Secrets Manager is asked without TLS: secrets cross the network in clear"]
        opener.warnings.clear()
        opener()
        assert opener.warnings == []

    @pytest.mark.parametrize("endpoint", ["secrets.example.com", "ftp://secrets.example.com", "https://a b"])
    def test_an_endpoint_that_is_no_url(self, opener: Opener, endpoint: str):
        with pytest.raises(StoreError, match="the endpoint is no URL"):
            opener(endpoint)


class TestVersions:
    def test_a_new_version_is_told_after_a_write(self, moto: Moto, opener: Opener):
        put(moto, Secret("shop", "first"))
        store, wanted = opener(), [Wanted("shop", None)]
        assert told_versions(store, wanted) == {wanted[0]: token(0)}
        moto.client("secretsmanager").put_secret_value(
            SecretId="shop", ClientRequestToken=token(1), SecretString="second"
        )
        assert told_versions(store, wanted) == {wanted[0]: token(1)}
        assert store.fetch("shop", None).version == token(1)

    @pytest.mark.parametrize("batch", [True, False])
    def test_one_request_tells_all_versions_of_a_secret_and_no_value(
        self, moto: Moto, opener: Opener, proxy: Proxy, batch: bool
    ):
        put(moto, *(Secret("shop", f"{VALUE} {number}") for number in range(4)), Secret("other", VALUE))
        client = moto.client("secretsmanager")
        canary = {"SecretString": VALUE, "VersionStages": ["canary"]}
        client.put_secret_value(SecretId="shop", ClientRequestToken=token(9), **canary)
        heard: list[str] = []

        def hear(body: dict[str, Any]) -> dict[str, Any]:
            heard.append(json.dumps(body))
            return body

        proxy.rules = [Rule(Changed(hear))]
        store = opener(proxy.url, batch=batch)
        told = told_versions(
            store,
            [
                Wanted("shop", None),
                Wanted("other", None),
                Wanted("shop", "AWSPREVIOUS"),
                Wanted("shop", "canary"),
                Wanted("shop", token(2)),
                Wanted("shop", "beta"),
                Wanted("shop", token(7)),
            ],
        )
        assert [(*each, version) for each, version in told.items()] == [
            ("shop", None, token(3)),
            ("shop", "AWSPREVIOUS", token(2)),
            ("shop", "canary", token(9)),
            ("shop", token(2), token(2)),
            ("shop", "beta", None),
            ("shop", token(7), None),
            ("other", None, token(4)),
        ]
        assert operations(proxy) == [DESCRIBE] * 2
        assert len(heard) == 2
        assert not any(VALUE in answer for answer in heard)
        assert {each: store.fetch(*each).version for each, version in told.items() if version} == {
            each: version for each, version in told.items() if version
        }

    def test_a_version_without_a_label_is_left_to_a_read(self, moto: Moto, opener: Opener, proxy: Proxy):
        """AWS does not list it: "every version ID that has a staging label attached". Moto does, without labels."""
        put(moto, Secret("shop", "1"), Secret("shop", "2"), Secret("shop", "3"))
        wanted = Wanted("shop", token(0))
        assert told_versions(opener(), [wanted]) == {wanted: None}

        def lessen(body: dict[str, Any]) -> dict[str, Any]:
            listed = body["VersionIdsToStages"]
            return body | {"VersionIdsToStages": {version: labels for version, labels in listed.items() if labels}}

        proxy.rules = [Rule(Changed(lessen))]
        assert told_versions(opener(proxy.url), [wanted, Wanted("shop", None)]) == {
            wanted: None,
            Wanted("shop", None): token(2),
        }

    def test_of_what_is_deleted_or_empty_none_is_told(self, moto: Moto, opener: Opener):
        put(moto, Secret("shop", "s"))
        client = moto.client("secretsmanager")
        client.create_secret(Name="empty")
        client.delete_secret(SecretId="shop")
        wanted = [Wanted("shop", None), Wanted("shop", token(0)), Wanted("empty", None)]
        assert told_versions(opener(), wanted) == dict.fromkeys(wanted)
        client.restore_secret(SecretId="shop")
        assert told_versions(opener(), wanted[:1]) == {wanted[0]: token(0)}

    @pytest.mark.parametrize(
        "odd",
        [
            {"VersionIdsToStages": {token(0): ["AWSCURRENT"], token(1): ["AWSCURRENT"]}},
            {"VersionIdsToStages": {token(0): ["AWSPENDING"]}},
            {"VersionIdsToStages": {}},
            {"VersionIdsToStages": None},
            {"DeletedDate": 1.0},
            {"Name": "shops"},
            {"Name": None},
        ],
        ids=range(7),
    )
    def test_an_answer_in_doubt_tells_none(self, moto: Moto, opener: Opener, proxy: Proxy, odd: dict[str, Any]):
        put(moto, Secret("shop", "s"))
        proxy.rules = [Rule(Changed(lambda body: body | odd))]
        assert told_versions(opener(proxy.url), [Wanted("shop", None)]) == {Wanted("shop", None): None}
        assert operations(proxy) == [DESCRIBE]

    def test_an_arn_is_asked_in_its_region(self, moto: Moto, opener: Opener, proxy: Proxy):
        (arn,) = put(moto, Secret("shop", "far 1"), Secret("shop", "far 2"), region="us-east-2")
        put(moto, Secret("shop", "near"))
        wanted = [Wanted(arn, None), Wanted(arn[:-7], "AWSPREVIOUS"), Wanted("shop", None)]
        assert list(told_versions(opener(proxy.url), wanted).values()) == [token(1), token(0), token(0)]
        regions = [next(each for each in (REGION, "us-east-2") if seen.holds(f"/{each}/")) for seen in proxy.seen]
        assert regions == ["us-east-2", "us-east-2", REGION]

    def test_a_reader_who_may_not_describe_is_asked_for_values_instead(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("a", "1"), Secret("b", "2"))
        keys = moto.user("secretsmanager:GetSecretValue")
        moto.enforce()
        store, wanted = opener(proxy.url, keys=keys), [Wanted("a", None), Wanted("b", None)]
        assert told_versions(store, wanted) == dict.fromkeys(wanted)
        assert operations(proxy) == [DESCRIBE] * 2
        assert plain(store.fetch("a", None)) == b"1"

    def test_the_right_to_describe_reads_no_value(self, moto: Moto, opener: Opener):
        put(moto, Secret("a", "1"))
        keys = moto.user("secretsmanager:DescribeSecret")
        moto.enforce()
        store = opener(keys=keys)
        assert told_versions(store, [Wanted("a", None)]) == {Wanted("a", None): token(0)}
        with pytest.raises(Denied):
            store.fetch("a", None)

    def test_what_is_no_arn_is_asked_nowhere(self, opener: Opener, proxy: Proxy):
        wanted = Wanted(f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/shop", None)
        assert told_versions(opener(proxy.url), [wanted]) == {wanted: None}
        assert proxy.seen == []

    def test_another_region_that_does_not_answer_is_not_the_store(self, opener: Opener, proxy: Proxy):
        proxy.rules = [Rule(Status(503))]
        wanted = Wanted(f"arn:aws:secretsmanager:us-east-9:{ACCOUNT}:secret:shop", None)
        assert told_versions(opener(proxy.url), [wanted]) == {wanted: None}

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Status(503), Unavailable),
            (Status(429), Unavailable),
            (Reset(), Unavailable),
            (Half(), Unavailable),
            (Status(200, b"{}"), Unavailable),
            (refusing("ThrottlingException"), Unavailable),
            (refusing("ExpiredTokenException"), Denied),
            (refusing("UnrecognizedClientException"), Denied),
            (refusing("InvalidSignatureException"), Denied),
        ],
        ids=range(9),
    )
    def test_what_ends_all_asking_is_raised(
        self, moto: Moto, opener: Opener, proxy: Proxy, fault: Any, kind: type[StoreError]
    ):
        put(moto, Secret("shop", "s"))
        proxy.rules = [Rule(fault)]
        with pytest.raises(StoreError) as caught:
            opener(proxy.url).versions([Wanted("shop", None)])
        assert type(caught.value) is kind
        assert VALUE not in text(caught.value)

    def test_a_closed_store_tells_nothing(self, opener: Opener, proxy: Proxy):
        store = opener(proxy.url)
        store.close()
        with pytest.raises(StoreError, match="the store is closed"):
            store.versions([Wanted("shop", None)])
        assert proxy.seen == []


def test_a_store_closed_while_unused_gives_nothing(opener: Opener, proxy: Proxy):
    store = opener(proxy.url)
    store.close()
    for ask in (lambda: store.fetch("a", None), lambda: store.fetch_batch([Wanted("a", None), Wanted("b", None)])):
        with pytest.raises(StoreError, match="the store is closed"):
            ask()
    assert proxy.seen == []


def test_connections_are_used_again(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("shop", "s"))
    store = opener(proxy.url)
    for _ in range(5):
        store.fetch("shop", None)
    assert proxy.connections == 1


def test_preloading_needs_no_setting(opener: Opener):
    awssm.preload()
    assert opener().concurrency == 16
