"""The age keys that Secrets are sealed for, and the key by which ciphertext of what is unchanged stays the same.

    Secret NAME-age                  made for a SecretWeave that names no Secret of yours, with our label and an
                                     ownerReference; one without them is never taken over. Its `age.agekey` is what
                                     kustomize-controller's spec.decryption.secretRef reads: the newest identity first,
                                     then the one before it
    Secret secretweave-digest-key    of the controller's namespace, made once; whoever has it can guess at values

A rotation writes the Secret first and seals for the new key afterwards: whatever is published can be opened. The old
identity stays for one more period, so that an artifact that is still in use can be opened, too.
"""

import base64
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave.errors import ConfigError, Denied, NotFound, StoreError
from secretweave.flux.cluster import Conflict
from secretweave.flux.controller.resource import MANAGED, Spec, is_owned, owner, since, stamp

if TYPE_CHECKING:
    from secretweave.flux.cluster import Api

ENTRY = "age.agekey"
ROTATED = "flux.secretweave.dev/rotated-at"
DIGEST_SECRET, DIGEST_ENTRY, DIGEST_BYTES = "secretweave-digest-key", "key", 32


class Keys(NamedTuple):
    recipients: tuple[str, ...]
    newest: str
    """The recipient that the object's status tells."""
    due: float | None
    """Seconds until the next rotation; None: they are not ours to rotate."""


def digest_key(api: "Api", namespace: str) -> bytes:
    """Made at the first start; a second controller finds it. Raises StoreError."""
    import secrets

    for _ in range(2):
        try:
            found = _data(api.get("v1", "secrets", namespace, DIGEST_SECRET)).get(DIGEST_ENTRY, b"")
        except NotFound:
            key = secrets.token_bytes(DIGEST_BYTES)
            metadata = {"name": DIGEST_SECRET, "namespace": namespace, "labels": dict([MANAGED])}
            try:
                api.create(_secret(metadata, {DIGEST_ENTRY: key}), "secrets")
            except Conflict:
                continue
            return key
        if len(found) < DIGEST_BYTES:
            raise ConfigError(
                f"the Secret {DIGEST_SECRET} of the controller's namespace holds no key",
                why=f"its entry `{DIGEST_ENTRY}` is missing or shorter than {DIGEST_BYTES} bytes",
                fix="delete the Secret: it is made anew, and everything is encrypted afresh once",
            )
        return found
    raise StoreError(f"the Secret {DIGEST_SECRET} comes and goes", fix="see who else writes it")


def of(api: "Api", obj: Mapping[str, Any], spec: Spec) -> Keys:
    """The keys of an object; makes and rotates those that are ours. Raises ConfigError, Denied, another StoreError."""
    namespace = obj["metadata"]["namespace"]
    _check_recipients(spec.recipients)
    if spec.key_secret:
        try:
            given = api.get("v1", "secrets", namespace, spec.key_secret)
        except NotFound:
            raise ConfigError(
                f"there is no Secret {spec.key_secret}, which spec.keys.secretRef names",
                fix=f"make it in the namespace {namespace}, with an age identity in an entry that ends with `.agekey`; "
                "or leave spec.keys.secretRef out, and one is made",
            ) from None
        return _given(given, spec)
    name = f"{obj['metadata']['name']}-age"
    try:
        found = api.get("v1", "secrets", namespace, name)
    except NotFound:
        metadata = {"name": name, "namespace": namespace}
        identities, due = [_new()], spec.rotate_after
        api.create(_made(obj, metadata, identities), "secrets")
    else:
        identities, due = _ours(api, obj, found, spec)
    newest = _recipient(identities[0])
    return Keys(_unique([newest, *spec.recipients]), newest, due)


def _given(secret: Mapping[str, Any], spec: Spec) -> Keys:
    entries = {key: value for key, value in _data(secret).items() if key.endswith(".agekey")}
    found = [each for key in sorted(entries) for each in _identities(entries[key])]
    if not found:
        raise ConfigError(
            f"the Secret {spec.key_secret} of spec.keys.secretRef holds no age identity",
            fix="put one into an entry whose name ends with `.agekey`, as `age-keygen` writes it",
        )
    recipients = [_recipient(each) for each in found]
    return Keys(_unique([*recipients, *spec.recipients]), recipients[0], None)


def _ours(api: "Api", obj: Mapping[str, Any], secret: dict[str, Any], spec: Spec) -> tuple[list[str], float]:
    metadata = secret["metadata"]
    key, value = MANAGED
    if (metadata.get("labels") or {}).get(key) != value or not is_owned(secret, obj["metadata"]["name"]):
        raise Denied(
            f"the Secret {metadata['name']} is not ours, and is left as it is",
            why="one of the name that the controller would give to the age key is there already",
            fix="name it in spec.keys.secretRef if it holds the identities that are meant, or remove it",
        )
    identities = _identities(_data(secret).get(ENTRY, b""))
    age = since((metadata.get("annotations") or {}).get(ROTATED))
    over = age is None or age >= spec.rotate_after
    sealed = (obj.get("status") or {}).get("ageRecipient")
    if over and age is not None and identities and sealed not in {None, _recipient(identities[0])}:
        # What is published is sealed for the one before, which a further rotation would take away: a store that was
        # down for a period must not leave what nobody can open.
        over, age = False, spec.rotate_after
    if identities and not over and _belongs(secret, obj):
        return identities, spec.rotate_after - (age or 0.0)
    if over or not identities:
        identities = [_new(), *identities[:1]]
    # Conflict: somebody else wrote it meanwhile; the next attempt sees what.
    api.replace(_made(obj, metadata, identities, None if over else age), "secrets")
    return identities, spec.rotate_after - (0.0 if over or age is None else age)


def _belongs(secret: Mapping[str, Any], obj: Mapping[str, Any]) -> bool:
    """False: it was made for an object of this name that is no more, and would be deleted after that one."""
    return any(each.get("uid") == obj["metadata"]["uid"] for each in secret["metadata"].get("ownerReferences") or ())


def _made(
    obj: Mapping[str, Any], metadata: Mapping[str, Any], identities: list[str], age: float | None = None
) -> dict[str, Any]:
    labels = {**(metadata.get("labels") or {}), **dict([MANAGED])}
    rotated = stamp(time.time() - (age or 0.0))
    annotations = {**(metadata.get("annotations") or {}), ROTATED: rotated}
    whole = {**metadata, "labels": labels, "annotations": annotations, "ownerReferences": [owner(obj)]}
    whole.pop("managedFields", None)
    text = "".join(f"# public key: {_recipient(each)}\n{each}\n" for each in identities)
    return _secret(whole, {ENTRY: text.encode()})


def _secret(metadata: Mapping[str, Any], data: Mapping[str, bytes]) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": dict(metadata), "type": "Opaque", "data": encoded}


def _data(secret: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def _identities(data: bytes) -> list[str]:
    """As `age-keygen` writes them: a line each, beside comments. Raises ConfigError."""
    try:
        lines = [line.strip() for line in data.decode("ascii").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        for each in found:
            _recipient(each)
    except ValueError:
        raise _no_identity() from None
    return found


def _recipient(identity: str) -> str:
    """Raises ConfigError."""
    pyrage = _pyrage()
    try:
        return str(pyrage.x25519.Identity.from_str(identity).to_public())
    except pyrage.IdentityError:
        raise _no_identity() from None


def _check_recipients(recipients: tuple[str, ...]) -> None:
    """Raises ConfigError. One of a plugin of age's (`age1NAME1...`) is for SOPS to judge."""
    pyrage = _pyrage()
    for number, each in enumerate(recipients):
        if each.count("1") > 1 and each.startswith("age1"):
            continue
        try:
            pyrage.x25519.Recipient.from_str(each)
        except pyrage.RecipientError:
            raise ConfigError(
                f"spec.keys.age[{number}] is no age recipient",
                why="it is cut short or mistyped: its checksum is wrong",
                fix="copy the line `age1...` that `age-keygen` prints as the public key",
            ) from None


def _no_identity() -> ConfigError:
    return ConfigError(
        "the Secret of the age key holds something that is no X25519 identity",
        why="each line is an identity `AGE-SECRET-KEY-1...`, or a comment with `#`",
        fix="write it as `age-keygen` does",
    )


def _new() -> str:
    return str(_pyrage().x25519.Identity.generate())


def _pyrage() -> Any:
    """Raises ConfigError."""
    try:
        import pyrage  # type: ignore[import-untyped]  # a C extension without stubs
    except ImportError:
        raise ConfigError("pyrage is not installed", fix="install secretweave[flux]") from None
    return pyrage


def _unique(each: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each))
