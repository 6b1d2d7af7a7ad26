"""The program on one screen: read -> find -> check -> resolve -> render (-> seal) -> write.

Nothing reaches stdout before every step is done: a fault anywhere leaves it empty.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from secretweave import outputs, policy
from secretweave.config import Config
from secretweave.edits import Change
from secretweave.errors import Faults, InputError, SecretweaveError
from secretweave.find import MARKERS, concerns, scan
from secretweave.outputs import Outside
from secretweave.reading import Readable, manifests
from secretweave.reading.manifests import Document, Interest
from secretweave.reading.spool import Spool
from secretweave.render import render
from secretweave.scan.page import Findings, Options

Sources = Iterable[tuple[str, Readable]]
"""(name, stream) of each input, in order."""


class Run(NamedTuple):
    """Who asks, for what; the rest is configuration."""

    output: str = "secret"
    namespace: str | None = None
    """Of objects that name none."""
    identity: str | None = None
    """As the host vouches for it; policy rules are bound to it."""
    allow_empty: bool = False
    destination: str | None = None
    """The namespace of the Application's destination, as Argo CD vouches for it; None: there is none, or no Argo CD."""


def weave(sources: Sources, out: BinaryIO, config: Config, run: Run, outside: Outside) -> Findings:
    """Reads manifests, writes them woven. Raises SecretweaveError or Faults before the first byte is written."""
    output = outputs.find(run.output)
    with _spool(config) as spool:
        found = _find(sources, spool, config, run, outside.warn, mask=output.MASKED)
        values, missing = output.values(found.uses, config, outside)
        changes, unfit = render(found.edits, values, masked=output.MASKED)
        _raise([*missing, *sorted(unfit, key=_place)])
        if len(changes) != len(found.edits):
            raise SecretweaveError("an edit was planned that could not be made", fix="report it: this is a defect")
        woven = _woven(spool, changes)
        out.writelines(output.seal(woven, config, outside) if hasattr(output, "seal") else woven)
        out.flush()
    return found


def _woven(spool: Spool, changes: Iterable[Change]) -> Iterator[bytes | memoryview]:
    position = 0
    for change in changes:
        yield from spool.chunks(position, change.start)
        yield change.data
        position = change.end
    yield from spool.chunks(position, spool.size)


def check(sources: Sources, config: Config, run: Run, warn: Callable[[str], None]) -> Findings:
    """Everything that can be judged without a store. Raises SecretweaveError or Faults."""
    with _spool(config) as spool:
        return _find(sources, spool, config, run, warn, mask=False)


def _spool(config: Config) -> Spool:
    limits = config.settings.limits
    return Spool(memory=limits.spool_memory, folder=limits.spool_folder)


def _find(
    sources: Sources, spool: Spool, config: Config, run: Run, warn: Callable[[str], None], *, mask: bool
) -> Findings:
    faults: list[SecretweaveError] = []
    rules = config.settings.policy
    interest = Interest(MARKERS, lambda api_version, kind: concerns(api_version, kind, rules))
    reader = manifests.Reader(sources, spool, interest, config.settings.limits.document_bytes, faults)
    documents: Iterable[Document] = reader
    if config.settings.secret_stores.in_stream == "use":
        from secretweave.config import stream

        # All of them at once: a store may stand behind its use.
        documents = list(reader)
        manifests_of = (stream.Manifest(each.source, each.index, each.line, each.data) for each in documents)
        config = stream.extended(config, manifests_of, run.namespace, faults)
    found = scan(documents, config, Options(run.namespace, mask))
    if not (reader.saw_content or run.allow_empty or config.settings.allow_empty_input):
        faults.append(
            InputError(
                "the input holds no manifest",
                why="the program before it failed or rendered nothing; a host that prunes would delete everything",
                fix="see why nothing is rendered; if it is meant to be, set allowEmptyInput in the configuration, "
                "or pass --allow-empty",
            )
        )
    faults += found.faults
    refused, warnings = policy.check(found.kinds, found.uses, found.resources, rules, run.identity, run.destination)
    _raise(sorted([*faults, *refused], key=_place))
    for where, text in (*found.warnings, *warnings):
        warn(f"{where}: {text}")
    return found


def _place(fault: SecretweaveError) -> tuple[str, int]:
    return fault.where.source, fault.where.line


def _raise(faults: list[SecretweaveError]) -> None:
    if faults:
        raise Faults(faults)
