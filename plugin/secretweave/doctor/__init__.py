"""`secretweave doctor`: what of a set-up works, what does not, and how to mend it; on a laptop and in Argo CD's Pod.

Each check stands by itself: one that crashes is a finding, and the others go on. Nothing is changed, no secret is
shown, and none is read but that of --ref.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from secretweave import config
from secretweave.config import Config
from secretweave.doctor import configuration, daemon, deadlines, process, programs, sidecar, stores
from secretweave.doctor.base import DEFECT, OF_SERVER, Case, Finding, Host, Options, crash
from secretweave.errors import Faults, SecretweaveError
from secretweave.report import one_line

__all__ = ["Finding", "Options", "as_json", "examine", "is_well", "text"]

CHECKS: tuple[tuple[str, Callable[[Case], Iterator[Finding]]], ...] = (
    ("program", process.check),
    ("configuration", configuration.check),
    ("policy", configuration.policy),
    ("deadlines", deadlines.check),
    ("filesystem", sidecar.filesystems),
    ("cmp-server", sidecar.server),
    # Before the stores, whose threads come with them: what is started needs a process that has one.
    ("programs", programs.check),
    ("daemon", daemon.check),
    ("stores", stores.check),
)
"""In the order of the report, each with what a crash of it is told under."""


def examine(environ: Mapping[str, str], options: Options) -> list[Finding]:
    """All that is found, in the order of the checks."""
    read, faults = _configuration(environ, options)
    case = Case(environ, options, _host(environ), read, faults)
    return [finding for subject, check in CHECKS for finding in _isolated(subject, check, case)]


def is_well(findings: Iterable[Finding]) -> bool:
    """Is there no fault?"""
    return all(finding.status != "fault" for finding in findings)


def text(findings: Sequence[Finding]) -> str:
    """For people: aligned, with the fix below what is to be mended."""
    widths = [max((len(finding[column]) for finding in findings), default=0) + 2 for column in (0, 1)]
    lines = []
    for status, subject, what, fix in findings:
        lines.append(f"{status.ljust(widths[0])}{one_line(subject).ljust(widths[1])}{one_line(what)}")
        if fix:
            lines.append(f"{' ' * sum(widths)}fix: {one_line(fix)}")
    return "".join(f"{line}\n" for line in [*lines, _summary(findings)])


def as_json(findings: Iterable[Finding]) -> str:
    """An array, with an object for each finding."""
    import json

    return json.dumps([finding._asdict() for finding in findings], indent=2, ensure_ascii=False) + "\n"


def _configuration(environ: Mapping[str, str], options: Options) -> tuple[Config | None, tuple[SecretweaveError, ...]]:
    try:
        return config.load(options.config, environ), ()
    except Faults as error:
        return None, error.faults
    except SecretweaveError as error:
        return None, (error,)
    except Exception as error:  # noqa: BLE001 - the other checks go on
        return None, (SecretweaveError(crash(error), fix=DEFECT),)


def _host(environ: Mapping[str, str]) -> Host:
    if sidecar.is_here(environ) or any(name in environ for name in OF_SERVER):
        return "sidecar"
    return "daemon" if "SECRETWEAVE_SOCKET" in environ else "plain"


def _isolated(subject: str, check: Callable[[Case], Iterator[Finding]], case: Case) -> Iterator[Finding]:
    try:
        yield from check(case)
    except Exception as error:  # noqa: BLE001 - its text could hold a value
        yield Finding("fault", subject, crash(error), DEFECT)


def _summary(findings: Iterable[Finding]) -> str:
    told = [finding.status for finding in findings]
    counted = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for word, number in (("fault", told.count("fault")), ("warning", told.count("warning")))
        if number
    ]
    return " and ".join(counted) if counted else "all is well"
