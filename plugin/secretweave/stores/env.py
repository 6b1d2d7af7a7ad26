"""`env`: secrets from the environment of this process.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: ci}
    spec:
      env:
        prefix: APP_            # or variables: [DB_PASSWORD, TOKEN]

With `prefix`, `ref` is a variable's name without it: `secret://ci/TOKEN` is APP_TOKEN. With `variables`, `ref` is one
of the names that stand there, as a whole. A variable is one text; `#KEY` picks from one that is JSON or YAML. There are
no versions. A variable that is set and empty is an empty value; one that is not set is a missing secret.

It is off until one of the two says what may be read, and neither can name what is not the platform's to give:

- ARGOCD_... and PARAM_... hold what the owner of an Argo CD Application wrote
  (https://argo-cd.readthedocs.io/en/stable/operator-manual/config-management-plugins/), so a tenant would choose the
  secret;
- VAULT_..., AWS_... and the like are the identities of the stores, and no manifest may carry one off.

Whoever can read /proc/PID/environ of this process, or of one that it starts, reads these secrets too: a file in memory
is the better place for them.
"""

import os
import re
from typing import Annotated, NamedTuple

from secretweave.errors import NotFound, StoreError
from secretweave.forms import Form
from secretweave.model import Record, SecretValue
from secretweave.settings import nearest
from secretweave.stores.base import Context, Store

LOCAL = True
RESERVED = dict.fromkeys(("ARGOCD_", "PARAM_"), "a tenant of Argo CD sets those")
RESERVED |= dict.fromkeys(
    (
        *("VAULT_", "BAO_", "AWS_", "AZURE_", "MSI_", "IDENTITY_", "GOOGLE_", "CLOUDSDK_", "KUBE", "SOPS_"),
        "SECRETWEAVE_",  # SECRETWEAVE_CREDENTIAL_... are those of the stores
    ),
    "those hold credentials of the stores",
)
"""How names begin that no store reads, and why."""

Name = Annotated[
    str, Form("the name of a variable", r"[A-Za-z_][A-Za-z0-9_]{0,255}", lambda match, _folder: str(match[0]))
]


class Settings(NamedTuple):
    prefix: Name | None = None
    """What the names of all its variables begin with."""
    variables: tuple[Name, ...] = ()
    """The names of its variables, in place of a prefix."""


def connect(settings: Settings, context: Context) -> Store:
    """Raises StoreError: nothing is allowed, or what must not be."""
    if (settings.prefix is None) == (not settings.variables):
        raise StoreError(
            "it does not say which variables it may read",
            why="a store of type env has either a prefix or a list of variables",
            fix="set one of spec.env.prefix and spec.env.variables",
        )
    for start, why in RESERVED.items():
        prefix = settings.prefix
        reaches = prefix is not None and (prefix.startswith(start) or start.startswith(prefix))
        if reaches or any(name.startswith(start) for name in settings.variables):
            raise StoreError(
                f"it would read variables {start}...",
                why=why,
                fix="give these secrets a prefix of their own, such as APP_, and name it in spec.env.prefix",
            )
    return EnvStore(settings, context)


class EnvStore:
    concurrency = 1

    def __init__(self, settings: Settings, context: Context) -> None:
        self._prefix = settings.prefix or ""
        self._show_names = context.show_key_names
        self._closed = False
        named = settings.variables or [name for name in context.environ if name.startswith(self._prefix)]
        self._values = {
            # As it was given to the process: Python has decoded it.
            name.removeprefix(self._prefix): SecretValue(os.fsencode(context.environ[name]))
            for name in named
            if name in context.environ
        }

    def fetch(self, ref: str, version: str | None) -> Record:
        if self._closed:
            raise StoreError("the store is closed", fix="report it: this is a defect")
        if ref not in self._values:
            near = nearest(ref, self._values) if self._show_names else ""
            raise NotFound(
                f"nothing is stored at `{ref}`",
                why=f"the variable {self._prefix}{ref} is not set, or not one of this store's"
                if _is_plain(ref)
                else "",
                fix=f"write `{near}`, if that is meant" if near else "correct the reference, or set the variable",
            )
        if version:
            raise NotFound(
                f"`{ref}` has no version `{version}`",
                why="a variable has none",
                fix="remove the version from the reference",
            )
        return Record(self._values[ref], "")

    def close(self) -> None:
        self._values = {}
        self._closed = True


def _is_plain(ref: str) -> bool:
    return re.fullmatch(r"\w{1,100}", ref) is not None
