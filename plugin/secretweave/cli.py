"""What the commands do: the only module that prints, sets exit codes and catches SecretweaveError."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from secretweave import options, report
from secretweave.errors import ConfigError, Faults, InputError, SecretweaveError
from secretweave.options import Request
from secretweave.reading import Readable

if TYPE_CHECKING:
    from secretweave.argocd.generate import Host
    from secretweave.config import Config
    from secretweave.model import Use
    from secretweave.outputs import Sealing
    from secretweave.pipeline import Run

    Load = Callable[[], Config]
    """Reads the configuration, when it is needed. Raises ConfigError, or Faults of several."""
    Work = Callable[[Request, Load], int | None]
    """Gives the exit code; None: 0."""

STARTED = time.monotonic()
INTERRUPTED = 130
INTERNAL_ERROR = 70
"""EX_SOFTWARE of sysexits.h."""


def open_closed_streams() -> None:
    """Stands something in for a standard stream that was closed: reads nothing, drops messages, refuses manifests."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Stdout cannot be written, so that manifests that go nowhere are an error.
            access = os.O_RDONLY if name != "stderr" else os.O_WRONLY
            setattr(sys, name, os.fdopen(os.open(os.devnull, access), mode))


def misuse(what: str) -> int:
    """Tells what is wrong with the command line, and gives the exit code."""
    error = ConfigError(" ".join(what.split()), fix="see `secretweave --help`")
    given = options.from_environment((options.REPORT,), os.environ)
    _tell(report.faults(error), given.get(options.REPORT.field))
    return error.exit_code


def run(request: Request, work: "Work") -> int:
    """Does the work; turns whatever goes wrong into a report on stderr and an exit code."""
    report_file = request.report
    cause: BaseException

    def load() -> "Config":
        nonlocal report_file
        from secretweave import config

        loaded = config.load(request.config, os.environ)
        report_file = report_file or loaded.settings.report.file
        return loaded

    try:
        done = work(request, load)
        sys.stdout.flush()
    except SecretweaveError as error:
        code, text, cause = error.exit_code, report.faults(error), error
    except BrokenPipeError:
        _drop_output()
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        _drop_output()
        code, cause = SecretweaveError.exit_code, error
        text = f"secretweave: {error.strerror}; what was written is not whole\n"
    except Exception as error:  # noqa: BLE001 - the last resort: a traceback would show values
        code, cause = INTERNAL_ERROR, error
        text = f"secretweave: internal error ({type(error).__name__}): please report it, with what --debug prints\n"
    else:
        return done or 0
    _tell(text + (report.frames(cause) if request.debug else ""), report_file)
    return code


def _drop_output() -> None:
    """Python writes what is left at its end, and would fail the same way."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def render(request: Request, load: "Load") -> None:
    """`secretweave render`: manifests in, final manifests out."""
    from secretweave import memory, pipeline, stores
    from secretweave.outputs import Outside

    config = _bound(request, load)
    memory.protect()
    out = sys.stdout.buffer
    seconds = config.settings.limits.deadline
    outside = Outside(os.environ, time.monotonic() + seconds, warn, sealing=_sealing(request))
    # An SDK takes longer to import than a chart to render: it costs no time while that is waited for.
    meanwhile = partial(stores.preload, dict.fromkeys(store.type for store in config.stores))
    stdin = Punctual(sys.stdin.fileno(), outside.deadline, seconds, meanwhile)
    found = pipeline.weave(sources(request.files, stdin), out, config, _run(request), outside)
    if sys.stderr.isatty() and not sys.stdout.isatty():
        secrets = len({use.address for use in found.uses})
        sys.stderr.write(
            f"secretweave: {_counted(len(found.uses), 'reference')} woven from {_counted(secrets, 'secret')}\n"
        )


def _sealing(request: Request) -> "Sealing":
    """Raises ConfigError: it is asked to seal, by an output that does not."""
    from secretweave.outputs import Sealing

    if request.output != "sops":
        # What sops' own variables say is said to sops, wherever it runs.
        others = {name: os.environ[name] for name in options.HOSTS_OF_SEALING if name in os.environ}
        harmless = options.from_environment(options.SEALING, others)
        asked = [
            option
            for option in options.SEALING
            if (value := getattr(request, option.field)) and value != harmless.get(option.field)
        ]
        if asked:
            raise ConfigError(
                f"the output {request.output} encrypts nothing",
                why=f"{', '.join(f'--{option.name}' for option in asked)}: that is for --output sops",
                fix="pass --output sops, or take it away",
            )
        return Sealing()
    from secretweave.sealing import reuse

    key = reuse.read_key(request.digest_key_file) if request.digest_key_file else None
    return Sealing(request.age, key, request.previous, request.unstable, request.sops_config, request.namespace)


def check(request: Request, load: "Load") -> None:
    """`secretweave check`: references, policy and configuration; no store is contacted."""
    sys.stdout.write(f"{_counted(len(_uses(request, load)), 'reference')}, no fault\n")


def plan(request: Request, load: "Load") -> None:
    """`secretweave plan`: what would be read, and where it would go. Raises ConfigError for an unknown format."""
    _known_format(request)
    uses = _uses(request, load)
    _put(report.as_json(uses) if request.format == "json" else report.table(uses))


def _put(text: str) -> None:
    """To stdout, whatever the locale: names come from manifests and from file names."""
    sys.stdout.buffer.write(text.encode(errors="backslashreplace"))


def _known_format(request: Request) -> None:
    """What the environment says was not checked yet. Raises ConfigError."""
    if request.format not in options.FORMAT.choices:
        raise ConfigError(
            f"no format is called {request.format}", fix=f"use one of {', '.join(options.FORMAT.choices)}"
        )


def generate(_request: Request, load: "Load") -> None:
    """`secretweave argocd generate`: the manifests of the Application that Argo CD's variables name."""
    from secretweave.argocd import generate

    _end_in_order()
    generate.generate(_host(load), sys.stdout.buffer)


def prepare(_request: Request, load: "Load") -> None:
    """`secretweave argocd init`: what the source needs before it is rendered."""
    from secretweave.argocd import generate

    _end_in_order()
    generate.prepare(_host(load))


def _end_in_order() -> None:
    """Argo CD cancels by SIGTERM: what helm and kustomize were given to write in must not stay behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def parameters(_request: Request, load: "Load") -> None:
    """`secretweave argocd parameters`: what Argo CD's UI offers."""
    from secretweave.argocd import generate

    sys.stdout.write(generate.announced(_host(load)) + "\n")


def serve(request: Request, load: "Load") -> None:
    """`secretweave argocd serve`: until it is ended by a signal."""
    from secretweave.argocd import generate
    from secretweave.argocd.daemon import serve

    serve.serve(load, request.config, generate.socket_of(os.environ), os.environ, _log)


def probe(_request: Request, _load: "Load") -> None:
    """`secretweave argocd probe`: does the daemon answer?"""
    from secretweave.argocd import generate
    from secretweave.argocd.daemon import client

    try:
        client.ping(generate.socket_of(os.environ))
    except (ConfigError, Faults) as error:
        # It answers. No restart mends a configuration, and a Pod that is not ready takes the rest of Argo CD with it.
        _say(report.faults(error))


def push(request: Request, load: "Load") -> None:
    """`secretweave flux push`: what Flux's OCIRepository takes, into a registry."""
    from secretweave import memory
    from secretweave.flux import push as flux
    from secretweave.outputs import Outside

    _end_in_order()
    memory.protect()
    request = request._replace(output="secret" if request.plaintext else "sops")
    config = _bound(request, load)
    deadline = STARTED + config.settings.limits.deadline
    outside = Outside(os.environ, deadline, warn, sealing=_sealing(request))
    pushed = flux.push(request, config, _run(request), outside)
    if not (pushed.changed or request.dry_run):
        _say("secretweave: nothing has changed, and nothing was pushed\n")
    sys.stdout.write(f"{pushed.name}\n")


def control(request: Request, load: "Load") -> None:
    """`secretweave flux controller`: until it is ended by a signal."""
    from secretweave.flux.controller import run as controller

    terms = controller.Terms(request.namespace, request.artifact_url or "", request.secret_mappings)
    controller.control(load, request.config, terms, os.environ, _log)


def examine(request: Request, _load: "Load") -> int:
    """`secretweave doctor`: the exit code is 1 if something must be mended."""
    from secretweave import doctor

    _known_format(request)
    found = doctor.examine(os.environ, doctor.Options(request.config, request.namespace, request.identity, request.ref))
    _put(doctor.as_json(found) if request.format == "json" else doctor.text(found))
    return 0 if doctor.is_well(found) else 1


def _log(line: str) -> None:
    sys.stderr.write(line if line.endswith("\n") else line + "\n")
    sys.stderr.flush()


def _host(load: "Load") -> "Host":
    from secretweave.argocd.generate import Host

    return Host(os.environ, load, warn, STARTED)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _uses(request: Request, load: "Load") -> "list[Use]":
    from secretweave import pipeline

    config = _bound(request, load)
    return pipeline.check(sources(request.files, sys.stdin.buffer), config, _run(request), warn).uses


def _bound(request: Request, load: "Load") -> "Config":
    """The configuration for the run: without a project, a store that needs one is refused when it is used."""
    from secretweave.config import binding

    project = {"project": request.project} if request.project else {}
    return binding.bound(load(), {"namespace": request.namespace, **project})


def _run(request: Request) -> "Run":
    from secretweave.pipeline import Run

    identity = request.identity or request.project
    destination = request.namespace if request.project else None
    return Run(request.output, request.namespace, identity, request.allow_empty, destination)


def warn(text: str) -> None:
    _say(f"secretweave: warning: {report.one_line(text)}\n")


class Punctual:
    """A stream that must end before the run does. The first time it is waited for, *meanwhile* is called."""

    def __init__(self, handle: int, deadline: float, seconds: float, meanwhile: Callable[[], None]) -> None:
        self._handle = handle
        self._deadline = deadline
        self._seconds = seconds
        self._meanwhile: Callable[[], None] | None = meanwhile

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end. Raises InputError: the deadline is over."""
        if self._meanwhile is not None and not select.select([self._handle], [], [], 0)[0]:
            self._meanwhile()
            self._meanwhile = None
        if not select.select([self._handle], [], [], max(self._deadline - time.monotonic(), 0))[0]:
            raise InputError(
                f"the input had not ended when the run's deadline of {self._seconds:g} s was over",
                why="the program before this one is slow or hangs",
                fix="let it write a file first, or raise limits.deadline in the configuration",
            )
        return os.read(self._handle, size)


def sources(files: tuple[str, ...], stdin: Readable) -> Iterator[tuple[str, Readable]]:
    """The inputs in order: stdin for `-` or without any, a folder's manifests by name. Raises InputError."""
    for file in files or ("-",):
        if file == "-":
            yield "stdin", stdin
            continue
        for path in _manifests(file) if os.path.isdir(file) else (file,):
            try:
                with open(path, "rb") as stream:
                    yield path, stream
            except OSError as error:
                raise InputError(f"{path}: {error.strerror}", fix="name a file or a folder that can be read") from None


def _manifests(folder: str) -> Iterator[str]:
    found = False
    for path, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".yaml", ".yml", ".json")):
                found = True
                yield os.path.join(path, name)
    if not found:
        raise InputError(f"{folder} holds no .yaml, .yml or .json file", fix="name a file or another folder")


def _tell(text: str, report_file: str | None) -> None:
    """Puts a failure where a person will see it."""
    _say(text)
    if report_file:
        try:
            with open(report_file, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            _say(f"secretweave: the report {report_file} cannot be written: {error.strerror}\n")


def _say(text: str) -> None:
    sys.stderr.write(text)
    if "HELM_PLUGIN_DIR" in os.environ:
        from secretweave.hosts import helm

        helm.tell(text, os.environ)


QUICK: "Mapping[str, Work]" = {"render": render, "argocd generate": generate, "argocd init": prepare}
"""The commands that are started for each chart or Application, and so without click."""
