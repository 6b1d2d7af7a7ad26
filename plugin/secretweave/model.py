"""The immutable records that flow from step to step.

NamedTuples, not dataclasses: importing `dataclasses` alone would cost a tenth of the start-up budget.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, NoReturn

from secretweave.errors import Where


class SecretValue:
    """A value read from a store. It does not show itself: not in repr, str, format, json, pickle or a traceback.

    `reveal()` is the only way out, and only `render` and `outputs` call it.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def reveal(self) -> bytes:
        return self._data

    def base64(self) -> str:
        return base64.b64encode(self._data).decode("ascii")

    def __repr__(self) -> str:
        return "SecretValue(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and self._data == other._data

    def __hash__(self) -> int:
        return hash(self._data)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret value is not pickled")


class SecretFields(Mapping[str, Any]):
    """The fields of a secret: str, int, float, bool, None, list and dict as the store typed them, bytes where binary.

    They do not show themselves, as a SecretValue does not.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return "SecretFields(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the fields of a secret are not pickled")


class Reference(NamedTuple):
    """One secret reference as written, whatever its grammar."""

    store: str
    """The store's name; empty: the default store."""
    ref: str
    """The secret's address in the format of that store."""
    version: str | None = None
    """The store's own version; None: the latest."""
    key: str | None = None
    """A field of the secret; with a leading `/` a JSON pointer (RFC 6901); None: the secret as a whole."""
    encode: str | None = None
    """`base64`, `json`, `url` or `shell`."""
    cast: str | None = None
    """`int`, `bool` or `json`: what the scalar becomes instead of a string (`?as=`)."""
    optional: bool = False
    """A missing secret leaves the field out instead of being an error."""
    default: str | None = None
    """The text that stands for a missing secret; never for any other failure."""

    def __str__(self) -> str:
        """How errors and the plan name it: never a value."""
        return f"{self.store or '(default store)'}:{self.ref}" + (f"#{self.key}" if self.key is not None else "")


Template = tuple[str | Reference, ...]
"""A string cut into literal text and references, in order; escapes already undone."""


class Address(NamedTuple):
    """What is fetched once: the store's identity as configured, the secret in it, and the version asked for."""

    store: str
    """`namespace/name` of the SecretStore, or `name` where it has no namespace."""
    ref: str
    version: str | None


class Record(NamedTuple):
    """What a store gave for one Address."""

    value: SecretValue | SecretFields
    """A blob, or fields."""
    version: str
    """The version that was read, in the store's own terms; empty where the store has none."""


class StoreConfig(NamedTuple):
    """One SecretStore document, validated."""

    name: str
    namespace: str | None
    """None: the document names none; it then serves every namespace like one in the operator's namespace."""
    type: str
    """The provider key under `spec`, which is also the name of the module under `stores`."""
    settings: Any
    """The module's own `Settings` tuple."""
    default: bool
    """Labelled `app.humanitec.io/default-store: "true"`."""

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Use(NamedTuple):
    """One place of the stream that needs one value."""

    reference: Reference
    store: StoreConfig
    address: Address
    where: Where
    api_version: str
    kind: str
    namespace: str | None
    """The effective one: as written, else the run's; None: unknown."""
    name: str
    field: str
    """The key path in the object, such as `spec.template.spec.containers[0].env[2].value`."""
    sink: Literal["secret", "env", "mapping", "elsewhere"]
    """`secret`: a field of a Secret; `env`: moves into a generated Secret; `mapping`: a SecretMapping's item."""
