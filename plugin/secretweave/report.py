"""Faults and plans as text for people, and as JSON for CI. No value is in what it gets, and none in what it gives."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from secretweave.errors import Faults, SecretweaveError

if TYPE_CHECKING:
    from secretweave.model import Use

MOST_PLACES = 5


def faults(error: SecretweaveError) -> str:
    """An error as a block of where / what / why / fix; several as a numbered list."""
    each = error.faults if isinstance(error, Faults) else (error,)
    if len(each) == 1:
        return f"secretweave: error\n{_fault(each[0], '  ')}nothing was written\n"
    blocks = "".join(f"{number}.\n{_fault(fault, '  ')}" for number, fault in enumerate(each, 1))
    return f"secretweave: {len(each)} errors\n{blocks}nothing was written\n"


def status(error: SecretweaveError) -> str:
    """An error for the status of an object, or an event on it: `kubectl get` shows the first line alone."""
    each = error.faults if isinstance(error, Faults) else (error,)
    first = each[0]
    more = f" (and {len(each) - 1} more)" if each[1:] else ""
    head = one_line(f"{first.where}: {first.what}{more}" if str(first.where) else f"{first.what}{more}")
    if not more and not first.also:
        return f"{head}\n{_rows((('why', first.why), ('fix', first.fix)), '  ')}".rstrip("\n")
    return f"{head}\n" + "".join(f"{number}.\n{_fault(fault, '  ')}" for number, fault in enumerate(each, 1)).rstrip(
        "\n"
    )


def _fault(fault: SecretweaveError, indent: str) -> str:
    where = str(fault.where)
    if fault.also:
        shown = "; ".join(map(str, fault.also[:MOST_PLACES]))
        more = len(fault.also) - MOST_PLACES
        where += f"; also {shown}" + (f" and {more} more" if more > 0 else "")
    return _rows((("where", where), ("what", fault.what), ("why", fault.why), ("fix", fault.fix)), indent)


def _rows(rows: Iterable[tuple[str, str]], indent: str) -> str:
    return "".join(f"{indent}{name + ':':7}{one_line(text)}\n" for name, text in rows if text)


def one_line(text: str) -> str:
    """Names come from manifests: a control character in one must not reach a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


COLUMNS = ("SOURCE", "DOC", "OBJECT", "FIELD", "STORE", "REF", "VERSION", "GOES TO")
SINKS = {"secret": "Secret", "env": "generated Secret", "mapping": "Secret", "elsewhere": "the field itself"}


def table(uses: "Sequence[Use]") -> str:
    """What would be read, and where it would go, in aligned columns."""
    rows = [COLUMNS, *map(_row, uses)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _row(use: "Use") -> tuple[str, ...]:
    ref = use.reference.ref + (f"#{use.reference.key}" if use.reference.key is not None else "")
    cells = (
        use.where.source,
        str(use.where.document),
        use.where.resource,
        use.field,
        use.store.id,
        ref,
        use.reference.version or "latest",
        SINKS[use.sink],
    )
    return tuple(map(one_line, cells))


def as_json(uses: "Iterable[Use]") -> str:
    """The plan as a JSON array, an object for each place."""
    import json

    rows = [
        {
            "source": use.where.source,
            "document": use.where.document,
            "line": use.where.line,
            "apiVersion": use.api_version,
            "kind": use.kind,
            "namespace": use.namespace,
            "name": use.name,
            "field": use.field,
            "store": use.store.id,
            "ref": use.reference.ref,
            "key": use.reference.key,
            "version": use.reference.version,
            "optional": use.reference.optional or use.reference.default is not None,
            "target": use.sink,
        }
        for use in uses
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def frames(error: BaseException) -> str:
    """Where in the program an error arose, cause by cause; no message, for it can quote input."""
    lines = []
    while error is not None:
        lines.append(f"{type(error).__module__}.{type(error).__qualname__}")
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            lines.append(f"  {code.co_filename}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return "".join(f"{line}\n" for line in lines)
