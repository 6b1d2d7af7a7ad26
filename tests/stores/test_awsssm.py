import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from secretweave.errors import Denied, NotFound, StoreError, Unavailable
from secretweave.model import Record, StoreConfig
from secretweave.sdk.aws import Auth
from secretweave.stores import awsssm, open_store
from secretweave.stores.base import SecretKeyRef, Wanted
from tests.servers.moto import ACCOUNT, ANY_KEYS, REGION, Changed, Keys, Moto, seal
from tests.servers.proxy import Half, Proxy, Reset, Rule, Status
from tests.stores.contract import Opened, Secret, StoreContract, context, plain, told_versions

KEYS = SecretKeyRef("aws-keys", "id"), SecretKeyRef("aws-keys", "secret")
BATCH = "AmazonSSM.GetParameters"
SINGLE = "AmazonSSM.GetParameter"
VALUE = "hunter2"


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
        self._opened: list[awsssm.ParameterStore] = []

    def __call__(
        self, endpoint: str | None = None, *, keys: Keys = ANY_KEYS, auth: Auth | None = None, **settings: Any
    ) -> awsssm.ParameterStore:
        """*endpoint*: left out, moto's own; empty, none. *keys*: of the credential Secret."""
        settings = {"region": REGION, "auth": auth or Auth(*KEYS), **settings}
        url = self.moto.url if endpoint is None else endpoint or None
        config = StoreConfig("ssm", None, "awsssm", awsssm.Settings(endpoint=url, **settings), default=False)
        store = open_store(config, context(config, credentials=dict(zip(KEYS, (keys.id, keys.secret), strict=True))))
        assert isinstance(store, awsssm.ParameterStore)
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


def put(moto: Moto, *secrets: Secret, kind: str = "SecureString", region: str = REGION) -> None:
    """Stores them, later ones of one path as later versions."""
    client = moto.client("ssm", region)
    for path, value in secrets:
        text = json.dumps(value) if isinstance(value, Mapping) else value
        client.put_parameter(Name=path, Value=text, Type=kind, Overwrite=True)


def operations(proxy: Proxy) -> list[str]:
    return [seen.headers["x-amz-target"] for seen in proxy.seen]


def asked(proxy: Proxy) -> list[Any]:
    """The names in each request."""
    return [body.get("Names", body.get("Name")) for body in (json.loads(seen.body) for seen in proxy.seen)]


def refusing(code: str, status: int = 400) -> Status:
    """How Parameter Store refuses."""
    body = json.dumps({"__type": code, "message": f"User may not; {VALUE}"}).encode()
    return Status(status, body, {"Content-Type": "application/x-amz-json-1.1"})


def text(error: StoreError) -> str:
    return f"{error.what} | {error.why} | {error.fix}"


def fetched(store: awsssm.ParameterStore, *refs: str | Wanted) -> list[Any]:
    """What the refs gave, asked as the core asks: values, and errors."""
    wanted = [ref if isinstance(ref, Wanted) else Wanted(ref, None) for ref in refs]
    outcomes: dict[Wanted, Any] = {}
    for batch in store.batches(wanted):
        answers = store.fetch_batch(batch) if len(batch) > 1 else [store.fetch(*batch[0])]
        outcomes.update(zip(batch, answers, strict=True))
    return [plain(found) if isinstance(found, Record) else found for found in map(outcomes.__getitem__, wanted)]


class TestContract(StoreContract):
    """A mapping is stored as JSON text, which a key is picked from."""

    lacks = frozenset({"bytes", "fields"})

    @pytest.fixture
    def opened(self, moto: Moto, opener: Opener) -> Opened:
        def opened(secrets: list[Secret]) -> awsssm.ParameterStore:
            put(moto, *secrets)
            return opener()

        return opened

    def versions(self, _store: object, _path: str, /) -> list[str]:
        return ["1", "2"]


@pytest.mark.parametrize("kind", ["String", "StringList", "SecureString"])
def test_every_type_of_parameter_is_read(moto: Moto, opener: Opener, kind: str):
    put(moto, Secret("/shop/a", "x,y"), Secret("/shop/b", "z"), kind=kind)
    store = opener()
    assert plain(store.fetch("/shop/a", None)) == b"x,y"
    assert fetched(store, "/shop/a", "/shop/b") == [b"x,y", b"z"]


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("token", "token"),
        ("/shop/db", "/shop/db"),
        ("shop/db", "/shop/db"),
        ("/token", "/token"),
        ("a.b_c-d", "a.b_c-d"),
    ],
)
def test_a_name_with_a_slash_begins_with_one(moto: Moto, opener: Opener, proxy: Proxy, ref: str, name: str):
    put(moto, Secret(name, "s"))
    assert plain(opener(proxy.url).fetch(ref, None)) == b"s"
    assert asked(proxy) == [name]


def test_an_arn_is_asked_in_its_region(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("/shop/db", "far"), region="us-east-2")
    put(moto, Secret("/shop/db", "near"))
    arn = f"arn:aws:ssm:us-east-2:{ACCOUNT}:parameter/shop/db"
    assert plain(opener(proxy.url).fetch(arn, None)) == b"far"
    assert proxy.seen[0].holds("/us-east-2/ssm/aws4_request")
    assert asked(proxy) == [arn]


@pytest.mark.parametrize(
    "ref",
    [
        f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:shop",
        f"arn:aws:ssm:evil.example.com/:{ACCOUNT}:parameter/shop",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/shop",
        "shop db",
        "shop:1:2",
        ":1",
    ],
)
def test_what_is_no_name_and_no_arn_is_asked_nowhere(opener: Opener, proxy: Proxy, ref: str):
    store = opener(proxy.url)
    with pytest.raises(StoreError, match="not the name or the ARN of a parameter") as caught:
        store.fetch(ref, None)
    assert not isinstance(caught.value, NotFound)
    assert store.batches([Wanted(ref, None)]) == [[Wanted(ref, None)]]
    assert proxy.seen == []


def test_versions_and_labels(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("/shop/db", "first"), Secret("/shop/db", "second"), Secret("/shop/db", "third"))
    moto.client("ssm").label_parameter_version(Name="/shop/db", ParameterVersion=2, Labels=["canary"])
    store = opener(proxy.url)
    for ref, version, value, read in (
        ("/shop/db", None, b"third", "3"),
        ("/shop/db", "1", b"first", "1"),
        ("/shop/db", "canary", b"second", "2"),
        ("shop/db:1", None, b"first", "1"),
        (f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/shop/db", "2", b"second", "2"),
    ):
        record = store.fetch(ref, version)
        assert (plain(record), record.version) == (value, read)
    assert asked(proxy)[:4] == ["/shop/db", "/shop/db:1", "/shop/db:canary", "/shop/db:1"]


def test_a_reference_with_two_versions_is_refused(opener: Opener):
    with pytest.raises(StoreError, match="it names two versions"):
        opener().fetch("/shop/db:1", "2")


@pytest.mark.parametrize("version", ["7", "beta"])
def test_a_version_that_is_gone_is_told_from_a_parameter_that_is(
    moto: Moto, opener: Opener, proxy: Proxy, version: str
):
    put(moto, Secret("/shop/db", VALUE))
    proxy.rules = [Rule(refusing("ParameterVersionNotFound"))]
    with pytest.raises(NotFound) as caught:
        opener(proxy.url).fetch("/shop/db", version)
    assert caught.value.what == f"`/shop/db` has no version `{version}` in {REGION}"
    with pytest.raises(NotFound):
        opener().fetch("/shop/db", version)
    with pytest.raises(NotFound, match=r"there is no parameter `/shop/dbs`") as caught:
        opener().fetch("/shop/dbs", None)
    assert "spec.awsssm.region" in caught.value.fix


@pytest.mark.parametrize(
    ("count", "requests"), [(1, [SINGLE]), (2, [BATCH]), (10, [BATCH]), (21, [BATCH] * 2 + [SINGLE])]
)
def test_ten_parameters_take_one_request(moto: Moto, opener: Opener, proxy: Proxy, count: int, requests: list[str]):
    names = [f"/shop/{number}" for number in range(count)]
    put(moto, *(Secret(name, name) for name in names))
    assert fetched(opener(proxy.url), *names) == [name.encode() for name in names]
    assert operations(proxy) == requests


def test_a_batch_holds_versions_and_labels_too(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, *(Secret(path, f"{path} {number}") for path in ("a", "b", "c") for number in (1, 2)))
    moto.client("ssm").label_parameter_version(Name="c", ParameterVersion=1, Labels=["canary"])
    refs = [Wanted("a", None), Wanted("b", "1"), Wanted("c", "canary"), Wanted("a", "1")]
    store = opener(proxy.url)
    assert fetched(store, *refs) == [b"a 2", b"b 1", b"c 1", b"a 1"]
    assert asked(proxy) == [["a", "b:1", "c:canary"], "a:1"], "a request names no parameter twice"
    records = store.fetch_batch(refs[:3])
    assert [record.version for record in records if isinstance(record, Record)] == ["2", "1", "1"]


def test_batches_do_not_mix_regions_nor_names_with_arns(moto: Moto, opener: Opener, proxy: Proxy):
    refs = []
    for region in (REGION, "us-east-2"):
        put(moto, Secret("/a", f"{region} a"), Secret("/b", f"{region} b"), region=region)
        refs += [f"arn:aws:ssm:{region}:{ACCOUNT}:parameter/{name}" for name in "ab"]
    found = fetched(opener(proxy.url), "/a", "/b", *refs)
    assert [value.decode() for value in found] == [
        f"{region} {name}" for region in (REGION, REGION, "us-east-2") for name in "ab"
    ]
    assert operations(proxy) == [BATCH] * 3


def test_what_a_batch_does_not_find_is_not_found(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("/a", "1"), Secret("/c", "3"))
    first, absent, gone = fetched(opener(proxy.url), "/a", "/b", Wanted("/c", "9"))
    assert first == b"1"
    assert isinstance(absent, NotFound)
    assert absent.what == f"there is no parameter `/b` in {REGION}"
    assert isinstance(gone, NotFound)
    assert gone.what == f"there is no parameter `/c` in version `9` in {REGION}"
    assert operations(proxy) == [BATCH]


def test_what_a_batch_leaves_out_or_gives_in_another_version_is_read_alone(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, *(Secret(name, name) for name in ("/a", "/b", "/c")))

    def lessen(body: dict[str, Any]) -> dict[str, Any]:
        body["Parameters"] = [entry for entry in body["Parameters"] if entry["Name"] != "/b"]
        body["Parameters"] = [entry | ({"Version": 8} if entry["Name"] == "/c" else {}) for entry in body["Parameters"]]
        return body

    proxy.rules = [Rule(Changed(lessen), path=f"{BATCH}$")]
    assert fetched(opener(proxy.url), "/a", "/b", Wanted("/c", "1")) == [b"/a", b"/b", b"/c"]
    assert operations(proxy)[0] == BATCH
    assert sorted(map(str, asked(proxy)[1:])) == ["/b", "/c:1"]


def test_a_reader_without_the_right_to_batches_reads_each(moto: Moto, opener: Opener, proxy: Proxy):
    names = [f"/shop/{number}" for number in range(25)]
    put(moto, *(Secret(name, name) for name in names))
    keys = moto.user("ssm:GetParameter")
    moto.enforce()
    assert fetched(opener(proxy.url, keys=keys), *names) == [name.encode() for name in names]
    assert operations(proxy) == [BATCH] + [SINGLE] * 25, "asked for a batch once, and never again"


def test_one_denied_parameter_does_not_end_batches(moto: Moto, opener: Opener, proxy: Proxy):
    """AWS denies a request for several as a whole, where one of them is denied."""
    names = [f"/shop/{number}" for number in range(20)]
    put(moto, *(Secret(name, name) for name in names))
    proxy.rules = [Rule(refusing("AccessDeniedException"), path=f"{BATCH}$", times=1)]
    proxy.rules = [*proxy.rules, Rule(refusing("AccessDeniedException"), path=f"{SINGLE}$", times=1)]
    found = fetched(opener(proxy.url), *names)
    assert [type(value) for value in found].count(Denied) == 1
    assert operations(proxy) == [BATCH] + [SINGLE] * 10 + [BATCH]


def test_without_batches_in_the_settings_none_is_asked_for(moto: Moto, opener: Opener, proxy: Proxy):
    put(moto, Secret("/a", "1"), Secret("/b", "2"))
    assert fetched(opener(proxy.url, batch=False), "/a", "/b") == [b"1", b"2"]
    assert operations(proxy) == [SINGLE] * 2


def test_an_identity_without_rights_is_denied(moto: Moto, opener: Opener):
    put(moto, Secret("/a", VALUE), Secret("/b", VALUE))
    keys = moto.user("secretsmanager:GetSecretValue")
    moto.enforce()
    for found in fetched(opener(keys=keys), "/a", "/b"):
        assert isinstance(found, Denied)
        assert found.what == f"the access key of the Secret `aws-keys` may not read it in {REGION}"
        assert "allow ssm:GetParameter on it" in found.fix


def test_the_environment_names_the_endpoint(
    moto: Moto, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put(moto, Secret("/a", "s"))
    keys = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"}
    seal(monkeypatch, tmp_path, {**keys, "AWS_ENDPOINT_URL_SSM": moto.url, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert plain(opener("", auth=Auth()).fetch("/a", None)) == b"s"


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (refusing("AccessDeniedException"), Denied, "may not read it"),
        (refusing("ExpiredTokenException"), Denied, "has expired"),
        (refusing("InvalidKeyId"), Denied, "may not decrypt it"),
        (refusing("ValidationException"), StoreError, "malformed"),
        (refusing("ParameterNotFound"), NotFound, "there is no parameter"),
        (refusing("ParameterVersionNotFound"), NotFound, "has no version"),
        (refusing("InternalServerError", 500), Unavailable, "does not work"),
        (Status(200, b'{"Parameter": {"Name": "/a"}}'), StoreError, "has no value"),
        (Half(), Unavailable, "cannot be rea(d|ched)"),
        (Reset(), Unavailable, "cannot be reached"),
    ],
    ids=range(10),
)
def test_what_goes_wrong_is_told(
    moto: Moto, opener: Opener, proxy: Proxy, fault: Any, kind: type[StoreError], told: str
):
    put(moto, Secret("/a", VALUE))
    proxy.rules = [Rule(fault)]
    with pytest.raises(StoreError) as caught:
        opener(proxy.url).fetch("/a", "1")
    assert type(caught.value) is kind
    assert re.search(told, caught.value.what)
    assert VALUE not in text(caught.value)
    assert caught.value.fix


class TestVersions:
    def test_a_new_version_is_told_after_a_write(self, moto: Moto, opener: Opener):
        put(moto, Secret("/shop/db", "first"))
        store, wanted = opener(), [Wanted("/shop/db", None)]
        assert told_versions(store, wanted) == {wanted[0]: "1"}
        put(moto, Secret("/shop/db", "second"))
        assert told_versions(store, wanted) == {wanted[0]: "2"}
        assert store.fetch("/shop/db", None).version == "2"

    def test_versions_and_labels(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, *(Secret(path, VALUE) for path in ("a", "b", "/shop/db") for _ in range(3)))
        client = moto.client("ssm")
        client.label_parameter_version(Name="/shop/db", ParameterVersion=2, Labels=["canary"])
        store = opener(proxy.url)
        wanted = {
            Wanted("a", None): "3",
            Wanted("a", "1"): "1",
            Wanted("b", "9"): None,
            Wanted("shop/db", "canary"): "2",
            Wanted("/shop/db:1", None): "1",
            Wanted(f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/shop/db:2", None): "2",
            Wanted("/shop/db", "beta"): None,
            Wanted("/shop/dbs", None): None,
        }
        assert told_versions(store, list(wanted)) == wanted
        assert {each: store.fetch(*each).version for each, version in wanted.items() if version} == {
            each: version for each, version in wanted.items() if version
        }
        client.label_parameter_version(Name="/shop/db", ParameterVersion=3, Labels=["canary"])
        assert told_versions(store, [Wanted("shop/db", "canary")]) == {Wanted("shop/db", "canary"): "3"}

    @pytest.mark.parametrize(
        ("count", "requests"), [(1, [SINGLE]), (2, [BATCH]), (10, [BATCH]), (21, [BATCH] * 2 + [SINGLE])]
    )
    def test_ten_take_one_request_and_nothing_is_decrypted(
        self, moto: Moto, opener: Opener, proxy: Proxy, count: int, requests: list[str]
    ):
        names = [f"/shop/{number}" for number in range(count)]
        put(moto, *(Secret(name, VALUE) for name in names))
        heard: list[str] = []

        def hear(body: dict[str, Any]) -> dict[str, Any]:
            entries = body["Parameters"] if "Parameters" in body else [body["Parameter"]]
            heard.extend(entry["Value"] for entry in entries)
            return body

        proxy.rules = [Rule(Changed(hear))]
        told = told_versions(opener(proxy.url), [Wanted(name, None) for name in names])
        assert list(told.values()) == ["1"] * count
        assert operations(proxy) == requests
        assert [json.loads(seen.body)["WithDecryption"] for seen in proxy.seen] == [False] * len(requests)
        # How moto encrypts.
        assert heard == [f"kms:alias/aws/ssm:{VALUE}"] * count

    def test_a_parameter_that_was_made_anew_counts_from_one_as_the_manual_says(self, moto: Moto, opener: Opener):
        put(moto, Secret("/a", "old"))
        store, wanted = opener(), [Wanted("/a", None)]
        assert told_versions(store, wanted) == {wanted[0]: "1"}
        moto.client("ssm").delete_parameter(Name="/a")
        assert told_versions(store, wanted) == {wanted[0]: None}
        put(moto, Secret("/a", "new"))
        assert told_versions(store, wanted) == {wanted[0]: "1"}

    def test_what_secrets_manager_holds_is_not_asked_for(self, moto: Moto, opener: Opener, proxy: Proxy):
        """AWS refuses a request that names it, unless it asks for decryption: it would take nine others with it."""
        moto.client("secretsmanager").create_secret(Name="shop", SecretString="s")
        put(moto, Secret("/a", "1"), Secret("/b", "2"))
        reference = Wanted("/aws/reference/secretsmanager/shop", None)
        store = opener(proxy.url)
        assert plain(store.fetch(*reference)) == b"s"
        proxy.rules = []
        assert told_versions(store, [Wanted("/a", None), reference, Wanted("/b", None)]) == {
            Wanted("/a", None): "1",
            reference: None,
            Wanted("/b", None): "1",
        }
        assert asked(proxy) == [["/a", "/b"]]
        assert store.versions([reference]) == [None]
        assert len(proxy.seen) == 1

    @pytest.mark.parametrize(
        "odd",
        [
            {"Version": 0},
            {"Version": None},
            {"SourceResult": "{}"},
            {"Name": "/c", "ARN": ""},
        ],
        ids=range(4),
    )
    def test_an_answer_in_doubt_tells_none(self, moto: Moto, opener: Opener, proxy: Proxy, odd: dict[str, Any]):
        put(moto, Secret("/a", "1"), Secret("/b", "2"))

        def change(body: dict[str, Any]) -> dict[str, Any]:
            entries = [entry | (odd if entry["Name"] == "/a" else {}) for entry in body["Parameters"]]
            return body | {"Parameters": entries}

        proxy.rules = [Rule(Changed(change))]
        wanted = [Wanted("/a", None), Wanted("/b", None)]
        assert told_versions(opener(proxy.url), wanted) == {wanted[0]: None, wanted[1]: "1"}
        assert operations(proxy) == [BATCH]

    def test_a_batch_that_gives_a_parameter_in_another_version_or_twice_tells_none(
        self, moto: Moto, opener: Opener, proxy: Proxy
    ):
        put(moto, Secret("/a", "1"), Secret("/a", "2"), Secret("/b", "2"))

        def change(body: dict[str, Any]) -> dict[str, Any]:
            entries = [entry | ({"Version": 2} if entry["Name"] == "/a" else {}) for entry in body["Parameters"]]
            return body | {"Parameters": [*entries, *(entry for entry in entries if entry["Name"] == "/b")]}

        proxy.rules = [Rule(Changed(change))]
        wanted = [Wanted("/a", "1"), Wanted("/b", None)]
        assert told_versions(opener(proxy.url), wanted) == dict.fromkeys(wanted)

    @pytest.mark.parametrize("batch", [True, False])
    def test_the_rights_to_read_suffice(self, moto: Moto, opener: Opener, proxy: Proxy, batch: bool):
        names = [f"/shop/{number}" for number in range(12)]
        put(moto, *(Secret(name, VALUE) for name in names))
        keys = moto.user("ssm:GetParameter")
        moto.enforce()
        store, wanted = opener(proxy.url, keys=keys, batch=batch), [Wanted(name, None) for name in names]
        for _ in range(2):
            assert told_versions(store, wanted) == dict.fromkeys(wanted, "1")
        assert operations(proxy) == [BATCH] * batch + [SINGLE] * 24, "asked for a batch once, and never again"
        assert not any(json.loads(seen.body)["WithDecryption"] for seen in proxy.seen)

    def test_a_reader_without_rights_is_told_none(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("/a", VALUE), Secret("/b", VALUE))
        keys = moto.user("secretsmanager:GetSecretValue")
        moto.enforce()
        store, wanted = opener(proxy.url, keys=keys), [Wanted("/a", None), Wanted("/b", None)]
        assert told_versions(store, wanted) == dict.fromkeys(wanted)
        assert told_versions(store, wanted[:1]) == {wanted[0]: None}

    def test_one_denied_parameter_takes_none_of_the_others_with_it(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("/a", VALUE), Secret("/b", VALUE))
        proxy.rules = [
            Rule(refusing("AccessDeniedException"), path=f"{BATCH}$", times=1),
            Rule(refusing("AccessDeniedException"), path=f"{SINGLE}$", body=b"/b"),
        ]
        store, wanted = opener(proxy.url), [Wanted("/a", None), Wanted("/b", None)]
        assert told_versions(store, wanted) == {wanted[0]: "1", wanted[1]: None}
        assert told_versions(store, wanted) == {wanted[0]: "1", wanted[1]: "1"}
        assert operations(proxy) == [BATCH, SINGLE, SINGLE, BATCH]

    def test_what_is_no_name_is_asked_nowhere(self, opener: Opener, proxy: Proxy):
        wanted = [Wanted("shop db", None), Wanted("/shop:1", "2")]
        assert told_versions(opener(proxy.url), wanted) == dict.fromkeys(wanted)
        assert proxy.seen == []

    def test_another_region_that_does_not_answer_is_not_the_store(self, opener: Opener, proxy: Proxy):
        proxy.rules = [Rule(Status(503))]
        wanted = [Wanted(f"arn:aws:ssm:us-east-9:{ACCOUNT}:parameter/{name}", None) for name in "abc"]
        store = opener(proxy.url)
        assert store.versions(wanted[:1]) == [None]
        assert store.versions(wanted) == [None] * 3

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Status(503), Unavailable),
            (Reset(), Unavailable),
            (refusing("ThrottlingException"), Unavailable),
            (refusing("ExpiredTokenException"), Denied),
            (refusing("UnrecognizedClientException"), Denied),
        ],
        ids=range(5),
    )
    def test_what_ends_all_asking_is_raised(
        self, opener: Opener, proxy: Proxy, fault: Any, kind: type[StoreError], count: int
    ):
        proxy.rules = [Rule(fault)]
        with pytest.raises(StoreError) as caught:
            opener(proxy.url).versions([Wanted("/a", None), Wanted("/b", None)][:count])
        assert type(caught.value) is kind
        assert VALUE not in text(caught.value)

    def test_a_login_that_ends_between_two_requests_is_raised(self, moto: Moto, opener: Opener, proxy: Proxy):
        put(moto, Secret("/a", VALUE), Secret("/b", VALUE))
        proxy.rules = [
            Rule(refusing("AccessDeniedException"), path=f"{BATCH}$"),
            Rule(refusing("ExpiredTokenException"), path=f"{SINGLE}$"),
        ]
        with pytest.raises(Denied, match="has expired"):
            opener(proxy.url).versions([Wanted("/a", None), Wanted("/b", None)])

    def test_a_closed_store_tells_nothing(self, opener: Opener, proxy: Proxy):
        store = opener(proxy.url)
        store.close()
        for wanted in ("/a", "/aws/reference/secretsmanager/shop"):
            with pytest.raises(StoreError, match="the store is closed"):
                store.versions([Wanted(wanted, None)])
        assert proxy.seen == []


def test_a_store_closed_while_unused_gives_nothing(opener: Opener, proxy: Proxy):
    store = opener(proxy.url)
    store.close()
    for ask in (lambda: store.fetch("a", None), lambda: store.fetch_batch([Wanted("a", None), Wanted("b", None)])):
        with pytest.raises(StoreError, match="the store is closed"):
            ask()
    assert proxy.seen == []


def test_preloading_needs_no_setting(opener: Opener):
    awsssm.preload()
    assert opener().concurrency == 16
