"""What `spec.sops` of a Configuration document may hold: for whom the output `sops` encrypts."""

from typing import NamedTuple

from secretweave.forms import FilePath


class Sops(NamedTuple):
    """Of the output `sops`. Keys are named here, or by a .sops.yaml; --age adds recipients to those named here."""

    program: FilePath | None = None
    """The `sops` program, 3.9 or newer. Left out: the first one on the PATH."""
    config: FilePath | None = None
    """A .sops.yaml whose creation_rules name the keys, in the place of the lists here. A Secret is the file
    `NAMESPACE/secret-NAME.yaml` beside it (without a namespace `secret-NAME.yaml`), to which `path_regex` is held. A
    rule may not say which values are encrypted: that is `data` and `stringData`. None is looked for."""
    age: tuple[str, ...] = ()
    """age recipients, such as `age1...`."""
    aws_kms: tuple[str, ...] = ()
    """ARNs of AWS KMS keys."""
    gcp_kms: tuple[str, ...] = ()
    """Resource IDs of Google Cloud KMS keys."""
    azure_key_vault: tuple[str, ...] = ()
    """URLs of Azure Key Vault keys, with their version."""
    vault_transit: tuple[str, ...] = ()
    """URIs of keys of Vault's transit engine, such as `https://vault.example.com:8200/v1/transit/keys/flux`."""
    digest_key_file: FilePath | None = None
    """32 secret bytes or more, by which ciphertext of an earlier run is known again; --digest-key-file goes first."""
