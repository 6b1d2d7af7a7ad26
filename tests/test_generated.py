"""A generated Secret's name: which workload it belongs to, and nothing else, so that it stays the same."""

import re

import pytest

from tests.conftest import Command

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: prod}
spec: {template: {spec: {containers: [{name: c, env: [{name: A, value: "secret://shop/app/key?version=1"}]}]}}}
"""


def named(secretweave: Command, source: str, *arguments: str) -> str:
    found = re.search(
        r"^  name: (web-[0-9a-f]{8})$", secretweave(*arguments, stdin=source.encode()).stdout.decode(), re.MULTILINE
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("?version=1", "?version=2"),
        ("secret://shop/app/key?version=1", "secret://shop/app/token"),
        ("name: A", "name: B"),
        ("apps/v1", "apps/v1beta1"),
        ("namespace: prod}", "namespace: prod, labels: {a: b}}"),
    ],
)
def test_a_name_stays(secretweave: Command, written: str, instead: str) -> None:
    assert named(secretweave, DEPLOYMENT.replace(written, instead)) == named(secretweave, DEPLOYMENT)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("kind: Deployment", "kind: StatefulSet"),
        ("namespace: prod", "namespace: test"),
        (", namespace: prod", ""),
        ("namespace: prod", "namespace: prod, annotations: {helm.sh/hook: pre-install}"),
    ],
)
def test_another_owner_has_another_name(secretweave: Command, written: str, instead: str) -> None:
    assert named(secretweave, DEPLOYMENT.replace(written, instead)) != named(secretweave, DEPLOYMENT)


def test_the_namespace_may_come_from_the_host(secretweave: Command) -> None:
    bare = DEPLOYMENT.replace(", namespace: prod", "")
    assert named(secretweave, bare, "--namespace=prod") == named(secretweave, DEPLOYMENT)
