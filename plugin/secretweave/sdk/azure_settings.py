"""How a store on Azure logs in, as its settings say it: records alone, for what is read before any SDK is loaded."""

from typing import NamedTuple

from secretweave.forms import FilePath
from secretweave.stores.base import SecretKeyRef


class ManagedIdentity(NamedTuple):
    client_id: str | None = None
    """Of one that a user assigned; by default the one that the system assigned."""


class WorkloadIdentity(NamedTuple):
    client_id: str | None = None
    """By default AZURE_CLIENT_ID."""
    token_file: FilePath | None = None
    """By default AZURE_FEDERATED_TOKEN_FILE."""


class Cli(NamedTuple):
    """Nothing to set."""


class Auth(NamedTuple):
    client_id: str | None = None
    client_id_secret_ref: SecretKeyRef | None = None
    client_secret_secret_ref: SecretKeyRef | None = None
    workload_identity: WorkloadIdentity | None = None
    managed_identity: ManagedIdentity | None = None
    cli: Cli | None = None


class Entra(NamedTuple):
    """What is known of the login before anybody is asked."""

    auth: Auth
    tenant_id: str | None
    """None: AZURE_TENANT_ID, if the login needs one."""
    authority_host: str | None
    """None: AZURE_AUTHORITY_HOST, else that of the vault's cloud."""
