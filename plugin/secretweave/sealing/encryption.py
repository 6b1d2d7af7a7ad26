"""With which keys, and by which program, a run encrypts; one Secret at a time."""

import os
from typing import NamedTuple

from secretweave.config import Config
from secretweave.errors import ConfigError, StoreError
from secretweave.outputs import Outside
from secretweave.sdk import sops
from secretweave.sealing import manifest, reuse
from secretweave.sealing.manifest import Secret

ENCRYPTED = f"^({'|'.join(manifest.SECTIONS)})$"
NO_CONFIG = os.devnull
CONFIG_MAX = 1 << 20
GROWTH = 8
"""What is encrypted is at most so many times as long, and SLACK bytes: base64 in ENC[...], indentation, metadata."""
SLACK = 4 << 20


class Plan(NamedTuple):
    """How every Secret of a run is encrypted."""

    keys: tuple[str, ...]
    """As arguments of sops; none: the .sops.yaml names them."""
    config: str
    """The path of a .sops.yaml."""
    rules: bytes
    """What is in it."""
    call: sops.Call
    depth: int
    nodes: int

    def file_name(self, secret: Secret) -> str:
        """What creation rules are matched against."""
        file = f"secret-{secret.name}.yaml"
        return f"{secret.namespace}/{file}" if secret.namespace else file

    def fingerprint(self, secret: Secret) -> bytes:
        """The same only where the same Secret would be encrypted in the same way."""
        fields = [ENCRYPTED, self.file_name(secret), *self.keys]
        return b"".join(
            len(field).to_bytes(8, "big") + field for field in (self.rules, *(field.encode() for field in fields))
        )

    def encrypt(self, text: bytes, secret: Secret) -> bytes:
        """Raises StoreError, or ConfigError for the keys, told of the Secret."""
        name = self.file_name(secret)
        if self.config != NO_CONFIG:
            # sops cuts the folder of the .sops.yaml off before it matches path_regex.
            name = os.path.join(os.path.dirname(self.config), name)
        arguments = [f"--filename-override={name}", f"--encrypted-regex={ENCRYPTED}", *self.keys]
        call = self.call._replace(size_limit=GROWTH * len(text) + SLACK)
        try:
            sealed = sops.encrypt(text, arguments, self.config, call)
            manifest.verify(sealed, secret, depth=self.depth, nodes=self.nodes)
        except (StoreError, ConfigError) as error:
            raise error.at(secret.where) from None
        return sealed if sealed.endswith(b"\n") else sealed + b"\n"


def plan(config: Config, outside: Outside) -> Plan:
    """Raises ConfigError: there are no keys, or they are named in two ways."""
    spec, limits = config.settings.sops, config.settings.limits
    named = {
        "--age": (*spec.age, *outside.sealing.age),
        "--kms": spec.aws_kms,
        "--gcp-kms": spec.gcp_kms,
        "--azure-kv": spec.azure_key_vault,
        "--hc-vault-transit": spec.vault_transit,
    }
    keys = tuple(f"{flag}={','.join(dict.fromkeys(names))}" for flag, names in named.items() if names)
    path = outside.sealing.config or spec.config
    if not keys and not path:
        raise ConfigError(
            "the output sops has no key to encrypt with",
            why="neither recipients nor a .sops.yaml are named; one in the working directory is not looked for",
            fix="name recipients with --age, or keys in spec.sops of the configuration, or a .sops.yaml with "
            "--sops-config",
        )
    if keys and path:
        raise ConfigError(
            "the output sops has keys and a .sops.yaml",
            why="sops would leave out the keys of its creation rules",
            fix="name the keys in one place: spec.sops and --age, or the .sops.yaml",
        )
    call = sops.Call(spec.program, outside.environ, {}, outside.deadline, 0, "spec.sops.program")
    rules = _rules(path) if path else b""
    return Plan(keys, os.path.abspath(path) if path else NO_CONFIG, rules, call, limits.depth, limits.nodes)


def tagger(config: Config, outside: Outside) -> reuse.Tagger | None:
    """None: the ciphertext differs at each run, as was asked for. Raises ConfigError: nobody asked for that."""
    sealing = outside.sealing
    file = config.settings.sops.digest_key_file
    key = sealing.digest_key or (reuse.read_key(file) if file else None)
    if key is not None and (sealing.previous or sealing.unstable):
        return reuse.Tagger(key)
    if sealing.unstable:
        return None
    raise ConfigError(
        "the output sops would differ at each run",
        why="there is no digest key by which an earlier run's ciphertext is known again"
        if key is None
        else "no earlier output is named, whose ciphertext could be used again",
        fix="keep 32 random bytes in a file (`openssl rand -base64 32`) and name it with --digest-key-file"
        + (
            ""
            if sealing.previous
            else ", and name the last run's output with --previous (the first time it need not be there)"
        )
        + "; or pass --unstable",
    )


def _rules(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(CONFIG_MAX + 1)
    except OSError as error:
        raise ConfigError(
            "the .sops.yaml cannot be read",
            why=error.strerror or "",
            fix="correct --sops-config or spec.sops.config",
        ) from None
    if len(data) > CONFIG_MAX:
        raise ConfigError(f"the .sops.yaml is larger than {CONFIG_MAX} bytes", fix="correct the path to it")
    return data
