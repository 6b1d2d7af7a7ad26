"""Secrets encrypted by SOPS: names and metadata readable, `data` and `stringData` not."""

from collections.abc import Iterable, Iterator

from secretweave.config import Config
from secretweave.errors import PolicyError, SecretweaveError
from secretweave.model import Use
from secretweave.outputs import Outcome, Outside, secret

MASKED = False


def values(uses: Iterable[Use], config: Config, outside: Outside) -> Outcome:
    """As the output `secret`; a fault for each value that would stand outside of a Secret, and no store is asked then.

    Raises ConfigError, before a store is asked: there is no key to encrypt with, or nothing to keep ciphertext stable.
    """
    from secretweave.sealing import encryption

    encryption.plan(config, outside)
    encryption.tagger(config, outside)
    uses = tuple(uses)
    open_uses: list[SecretweaveError] = [
        PolicyError(
            "a secret value outside of a Secret",
            where=use.where,
            why="the output sops encrypts Secrets alone: here the value would be readable to whoever reads the output",
            fix="put the reference into a Secret, and have the object name that (policy.values cannot allow it here)",
        )
        for use in uses
        if use.sink == "elsewhere"
    ]
    return ({}, open_uses) if open_uses else secret.values(uses, config, outside)


def seal(woven: Iterable[bytes | memoryview], config: Config, outside: Outside) -> Iterator[bytes | memoryview]:
    """What is written instead. Raises SecretweaveError or Faults before the first byte."""
    from secretweave.sealing import documents

    return documents.seal(woven, config, outside)
