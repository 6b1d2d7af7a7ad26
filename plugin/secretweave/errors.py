"""What can go wrong, as one tree. Only `cli` catches it, prints it and chooses the exit code.

    SecretweaveError      1   anything else that is ours
      ConfigError         2   the configuration or the command line is wrong
      InputError          3   the manifests cannot be read, or are ambiguous
      PolicyError         4   a rule refuses something
      BadReference        5   a reference is malformed, or stands where it cannot be woven
      StoreError          6   a store could not give what was asked
        NotFound              nothing there
        Denied                the identity may not read it
        Unavailable           the store does not answer
      Faults              -   several of the above: the exit code of the class with the lowest number

No text of an error may hold a secret value or an excerpt of a manifest: a line can hold a literal secret.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Where(NamedTuple):
    """The place of a fault: what is known of it, from the file down to the field."""

    source: str = ""
    """The file's name, or `stdin`."""
    document: int = 0
    """Counted from 1 in its source; 0: the fault is of no one document."""
    line: int = 0
    """Counted from 1 in its source; 0: unknown."""
    resource: str = ""
    """`Kind namespace/name` as far as it is known."""
    field: str = ""
    """The key path, such as `spec.template.spec.containers[0].env[2].value`."""
    template: str = ""
    """The chart's file that Helm says the document was rendered from."""

    def __str__(self) -> str:
        spot = [self.source] if self.source else []
        if self.document:
            spot.append(f"document {self.document}" + (f" ({self.template})" if self.template else ""))
        if self.line:
            spot.append(f"line {self.line}")
        spot += [part for part in (self.resource, self.field.removesuffix(".")) if part]
        return ", ".join(spot)


class SecretweaveError(Exception):
    """The root. `what` happened, `where`, `why` it probably did, and the `fix`."""

    exit_code = 1

    def __init__(self, what: str, *, where: Where | None = None, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where or Where()
        self.also: tuple[Where, ...] = ()
        """The further places of one fault that has several."""
        self.why = why
        self.fix = fix

    def at(self, where: Where) -> "SecretweaveError":
        """The same fault, told where it stands."""
        self.where = where
        return self


class ConfigError(SecretweaveError):
    exit_code = 2


class InputError(SecretweaveError):
    exit_code = 3


class PolicyError(SecretweaveError):
    exit_code = 4


class BadReference(SecretweaveError):
    exit_code = 5


class StoreError(SecretweaveError):
    exit_code = 6


class NotFound(StoreError):
    """Nothing is stored there; the one fault that `default` and `optional` answer."""


class Denied(StoreError):
    """The identity that asks may not read it, or may not log in."""


class Unavailable(StoreError):
    """The store as a whole does not answer: nothing more is asked of it."""


class Faults(SecretweaveError):
    """Every fault that one step found, in the order of the input."""

    def __init__(self, faults: Iterable[SecretweaveError]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{len(self.faults)} faults")
        self.exit_code = min((fault.exit_code for fault in self.faults), default=1)


def listed(names: Sequence[str], most: int) -> str:
    """As a message names them: `a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
