"""What of flux/cluster.py needs no API server; the calls themselves: tests/hosts/test_flux_cluster.py."""

import json
import subprocess
import sys
from typing import Any, cast

import pytest

from secretweave.errors import SecretweaveError, StoreError, Unavailable
from secretweave.flux.cluster import Api, connect, yaml
from secretweave.sdk.cluster import Cluster

VALUE = "hunter2-hunter2"


class Connection:
    """In the place of the connection: answers each request alike."""

    identity = "the ServiceAccount of this Pod"

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        self.answer = (status, answer)
        self.sent: list[tuple[str, str]] = []

    def send(self, method: str, path: str, *_: Any, seconds: float) -> tuple[int, dict[str, Any]]:
        assert 0 < seconds <= 20
        self.sent.append((method, path))
        return self.answer


def api(status: int = 200, **answer: Any) -> tuple[Api, Connection]:
    connection = Connection(status, answer)
    return Api(cast("Cluster", connection)), connection


def test_paths_are_those_of_the_api():
    found, connection = api(kind="X")
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "ns"}}
    found.get("v1", "namespaces", None, "shop")
    found.list("v1", "secrets", "ns", "a=b,c in (d)")
    found.replace(lease, "leases")
    found.patch_status("flux.secretweave.dev/v1alpha1", "secretweaves", "ns", "x", {})
    assert connection.sent == [
        ("GET", "/api/v1/namespaces/shop"),
        ("GET", "/api/v1/namespaces/ns/secrets?labelSelector=a%3Db%2Cc%20in%20%28d%29"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l"),
        ("PATCH", "/apis/flux.secretweave.dev/v1alpha1/namespaces/ns/secretweaves/x/status"),
    ]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500])
def test_what_is_said_of_a_secret_is_not_repeated(status: int):
    causes = [{"reason": "FieldValueInvalid", "message": f"Invalid value: {VALUE}", "field": "data[x]"}]
    found, _ = api(status, kind="Status", message=f"Secret is invalid: {VALUE}", details={"causes": causes})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "ns"}}
    with pytest.raises(SecretweaveError) as caught:
        found.apply(secret, "secrets", manager="secretweave")
    assert VALUE not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"


def test_an_event_does_not_raise_and_is_tried_again_where_it_failed():
    found, connection = api(403, kind="Status")
    for _ in range(2):
        found.event({"metadata": {"name": "x"}}, kind="Warning", reason="X", message="x")
    assert len(connection.sent) == 2


def test_a_token_that_is_none_is_not_given():
    found, _ = api(201, kind="TokenRequest")
    with pytest.raises(Unavailable):
        found.token("ns", "account", [])


def test_no_cluster_is_told():
    with pytest.raises(StoreError, match="no Kubernetes cluster is configured"):
        connect(None, None, environ={"HOME": "/nonexistent"})


@pytest.mark.parametrize("text", ["\U0001f511", "\u2028\u2029", "\x85\x9f\x7f", "\ufeff", '"\\/\n\t\x00', "${a} {{b}}"])
def test_yaml_is_json_without_what_yaml_reads_otherwise(text: str):
    written = yaml({"a": text})
    assert json.loads(written) == {"a": text}
    assert not set("\u2028\u2029\x85\x9f\x7f\ufeff") & set(written.decode())


def test_nothing_heavy_is_imported_before_it_is_needed():
    script = "import sys, secretweave.flux.cluster; print([m for m in sys.modules if m in {'urllib3', 'kubernetes'}])"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"
