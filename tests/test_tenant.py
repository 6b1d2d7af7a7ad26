"""What a tenant of Argo CD sets: ARGOCD_ENV_*, PARAM_* and parameters reach the process, and set nothing in it."""

from pathlib import Path

import pytest

from tests.conftest import Command

SECRET = b"""\
apiVersion: v1
kind: Secret
metadata: {name: web}
stringData:
  token: secret://prod/app/token
"""
STORE = """\
apiVersion: humanitec.io/v1alpha1
kind: SecretStore
metadata: {{name: prod}}
spec: {{{spec}}}
"""
ELSEWHERE = "127.0.0.1:1"
TENANT = {
    f"{prefix}{name}": value
    for prefix in ("ARGOCD_ENV_", "PARAM_")
    for name, value in {
        "VAULT_ADDR": f"https://{ELSEWHERE}",
        "VAULT_TOKEN": "tenant-token",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": f"https://{ELSEWHERE}",
        "GOOGLE_CLOUD_PROJECT": "tenant",
        "KUBECONFIG": "/tmp/tenant",
        "HTTPS_PROXY": f"http://{ELSEWHERE}",
        "SECRETWEAVE_CONFIG": "/tmp/tenant.yaml",
        "SECRETWEAVE_IDENTITY": "tenant",
    }.items()
}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("vault: {}", "the address of Vault is not known"),
        ("awssm: {}", "nor a profile names one"),
        ("awsssm: {}", "nor a profile names one"),
        ("gcpsm: {}", "set GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_a_tenants_environment_says_nothing_of_where_a_store_is(
    secretweave: Command, tmp_path: Path, spec: str, said: str
):
    config = tmp_path / "config.yaml"
    config.write_text(STORE.format(spec=spec))
    platform = {"HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "platform", "AWS_SECRET_ACCESS_KEY": "platform"}
    # No look for the machine's own identity: that is asked for on a network.
    platform |= {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true"}
    done = secretweave(stdin=SECRET, SECRETWEAVE_CONFIG=str(config), **platform, **TENANT)
    assert (done.returncode, done.stdout) == (6, b"")
    assert said in done.stderr.decode()
    assert ELSEWHERE not in done.stderr.decode()


def test_a_tenants_environment_names_no_configuration_and_no_identity(secretweave: Command, tmp_path: Path):
    config = tmp_path / "config.yaml"
    config.write_text(
        STORE.format(spec="env: {prefix: APP_}") + "---\napiVersion: secretweave.dev/v1alpha1\nkind: Configuration\n"
        "spec: {policy: {stores: [{store: prod, identities: [tenant]}]}}\n"
    )
    done = secretweave(stdin=SECRET, SECRETWEAVE_CONFIG=str(config), **TENANT)
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"a run without an identity may not read prod:app/token" in done.stderr
