from collections.abc import Mapping
from typing import Any

import pytest

from secretweave.errors import NotFound, StoreError
from secretweave.model import StoreConfig
from secretweave.stores import env, open_store
from secretweave.stores.base import Store
from tests.stores.contract import Opened, Secret, StoreContract, context, plain

ENVIRON = {"APP_TOKEN": "s3cr3t", "APP_EMPTY": "", "APP_DB": '{"user": "web"}', "OTHER": "hidden", "APPLE": "fruit"}


def open_env(environ: Mapping[str, str] = ENVIRON, *, show: bool = True, **settings: Any) -> Store:
    config = StoreConfig("ci", None, "env", env.Settings(**settings), default=False)
    return open_store(config, context(config, environ, show=show))


class TestEnv(StoreContract):
    lacks = frozenset({"bytes", "metadata", "typed fields", "versions"})

    @pytest.fixture
    def opened(self) -> Opened:
        def opened(secrets: list[Secret]) -> Store:
            environ = {}
            for path, value in secrets:
                if not isinstance(value, str):
                    pytest.skip("a variable has no fields")
                environ[f"APP_{path}"] = value
            return open_env(environ, prefix="APP_")

        return opened


@pytest.mark.parametrize(
    ("settings", "ref", "value"),
    [
        ({"prefix": "APP_"}, "TOKEN", b"s3cr3t"),
        ({"prefix": "APP_"}, "EMPTY", b""),
        ({"prefix": "APP_"}, "DB", b'{"user": "web"}'),
        ({"variables": ("OTHER", "APP_TOKEN")}, "OTHER", b"hidden"),
        ({"variables": ("OTHER", "APP_TOKEN")}, "APP_TOKEN", b"s3cr3t"),
    ],
)
def test_a_variable_is_found(settings: dict[str, Any], ref: str, value: bytes):
    record = open_env(**settings).fetch(ref, None)
    assert (plain(record), record.version) == (value, "")


@pytest.mark.parametrize(
    ("settings", "ref"),
    [
        ({"prefix": "APP_"}, "APP_TOKEN"),
        ({"prefix": "APP_"}, "OTHER"),
        ({"prefix": "APP_"}, "LE"),
        ({"prefix": "APP_"}, "token"),
        ({"variables": ("OTHER",)}, "APP_TOKEN"),
        ({"variables": ("OTHER", "UNSET")}, "UNSET"),
    ],
)
def test_what_is_not_set_or_not_named_is_not_found(settings: dict[str, Any], ref: str):
    with pytest.raises(NotFound, match=f"nothing is stored at `{ref}`"):
        open_env(**settings).fetch(ref, None)


def test_a_variable_has_no_versions():
    with pytest.raises(NotFound, match="`TOKEN` has no version `1`"):
        open_env(prefix="APP_").fetch("TOKEN", "1")


@pytest.mark.parametrize(
    ("show", "fix"),
    [(True, "write `TOKEN`, if that is meant"), (False, "correct the reference, or set the variable")],
)
def test_other_names_are_told_only_where_that_is_allowed(show: bool, fix: str):
    with pytest.raises(NotFound) as caught:
        open_env(prefix="APP_", show=show).fetch("TOKEM", None)
    assert caught.value.fix == fix
    assert "s3cr3t" not in repr(vars(caught.value))


def test_bytes_that_are_not_utf_8_survive():
    assert plain(open_env({"APP_KEY": "\udcff\udc80a"}, prefix="APP_").fetch("KEY", None)) == b"\xff\x80a"


@pytest.mark.parametrize("settings", [{}, {"prefix": "APP_", "variables": ("OTHER",)}])
def test_it_is_off_until_exactly_one_setting_says_what_may_be_read(settings: dict[str, Any]):
    with pytest.raises(StoreError, match="does not say which variables it may read"):
        open_env(**settings)


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("ARGOCD_ENV_", "a tenant"),
        ("ARGOCD_APP_", "a tenant"),
        ("ARGO", "a tenant"),
        ("P", "a tenant"),
        ("PARAM_X", "a tenant"),
        ("VAULT_", "credentials"),
        ("VAULT_TOKEN", "credentials"),
        ("A", "a tenant"),
        ("AWS", "credentials"),
        ("SECRETWEAVE_CREDENTIAL_", "credentials"),
        ("KUBECONFIG", "credentials"),
        ("SOPS_AGE_", "credentials"),
        ("AZURE_CLIENT_", "credentials"),
        ("GOOGLE_", "credentials"),
    ],
)
def test_a_prefix_that_reaches_what_is_not_the_platforms_to_give_is_refused(prefix: str, why: str):
    with pytest.raises(StoreError, match="it would read variables") as caught:
        open_env(prefix=prefix)
    assert why in caught.value.why


@pytest.mark.parametrize("name", ["ARGOCD_ENV_TOKEN", "PARAM_TOKEN", "VAULT_TOKEN", "AWS_SECRET_ACCESS_KEY"])
def test_a_variable_that_is_not_the_platforms_to_give_is_refused(name: str):
    with pytest.raises(StoreError, match="it would read variables"):
        open_env({name: "s3cr3t"}, variables=("OTHER", name))
