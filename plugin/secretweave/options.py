"""The options of the commands: one table, from which `cli` makes click's and a plain render reads its own.

A post-renderer is started for every chart; importing click would double its start-up. So `quick` reads the arguments
of a render by itself, and gives up (None) at whatever it does not know: click then answers, with its help and errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Option(NamedTuple):
    name: str
    """Without its dashes; the environment name is `SECRETWEAVE_<NAME>`."""
    help: str
    flag: bool = False
    metavar: str = ""
    hosts: tuple[str, ...] = ()
    """Environment names of the hosts that say the same."""
    choices: tuple[str, ...] = ()
    """Empty: any text."""

    @property
    def environ(self) -> tuple[str, ...]:
        return (f"SECRETWEAVE_{self.name.upper().replace('-', '_')}", *self.hosts)

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")


CONFIG = Option("config", "Configuration: a YAML file, or a folder of them.", metavar="PATH")
NAMESPACE = Option(
    "namespace",
    "Namespace of objects that name none.",
    metavar="NAME",
    hosts=("HELM_NAMESPACE", "ARGOCD_APP_NAMESPACE"),
)
IDENTITY = Option("identity", "Who asks, as the platform vouches for it: policy rules are bound to it.", metavar="NAME")
PROJECT = Option(
    "project", "Judge as for an Argo CD Application of this AppProject; --namespace is its destination.", metavar="NAME"
)
OUTPUT = Option(
    "output", "What a value leaves as: `secret`, or `redacted` (masked, no store contacted).", metavar="NAME"
)
ALLOW_EMPTY = Option("allow-empty", "An input without any manifest is a success.", flag=True)
REPORT = Option("report", "Where faults are written beside stderr.", metavar="FILE")
DEBUG = Option("debug", "Show where in the program an error arose (never a value).", flag=True)

FORMAT = Option("format", "Of what is told: `table` for people, `json` for CI.", choices=("table", "json"))
REF = Option(
    "ref", "A secret that should be readable: `secret://STORE/REF#KEY`. It is read, and not shown.", metavar="REF"
)

COMMON = (CONFIG, NAMESPACE, IDENTITY, ALLOW_EMPTY, REPORT, DEBUG)
RENDER = (OUTPUT, *COMMON)
CHECK = (PROJECT, *COMMON)
PLAN = (FORMAT, *CHECK)
ARGOCD = (CONFIG, REPORT, DEBUG)
"""Of the plugin's commands: all else Argo CD's variables say."""
DOCTOR = (CONFIG, NAMESPACE, IDENTITY, REF, FORMAT, DEBUG)

TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


class Request(NamedTuple):
    """A command's options, wherever they were given."""

    command: str = "render"
    files: tuple[str, ...] = ()
    """None: stdin, as is `-`."""
    config: str | None = None
    namespace: str | None = None
    identity: str | None = None
    project: str | None = None
    """Only where no store is contacted: whoever runs a command may say any."""
    output: str = "secret"
    allow_empty: bool = False
    report: str | None = None
    debug: bool = False
    format: str = "table"
    """Of the plan and of doctor: `table` or `json`."""
    ref: str | None = None
    """For doctor to read."""


def from_environment(options: Sequence[Option], environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that the environment sets; an empty variable sets nothing."""
    found: dict[str, Any] = {}
    for option in options:
        text = next((environ[name] for name in option.environ if environ.get(name)), None)
        if text is not None:
            found[option.field] = text.lower() in TRUE if option.flag else text
    return found


def quick(arguments: Sequence[str], environ: Mapping[str, str]) -> Request | None:
    """The request of `secretweave [render] [OPTIONS] [FILE...]`, or of `secretweave argocd generate` or `init`.

    None: something that click must answer.
    """
    if "_SECRETWEAVE_COMPLETE" in environ:
        return None
    command = " ".join(arguments)
    if command in {"argocd generate", "argocd init"}:
        return Request(command, **from_environment(ARGOCD, environ))
    given = from_environment(RENDER, environ)
    options = {option.name: option for option in RENDER}
    files: list[str] = []
    rest = list(arguments)
    if rest[:1] == ["render"]:
        rest.pop(0)
    elif rest and not rest[0].startswith("-"):
        return None
    while rest:
        argument = rest.pop(0)
        if argument == "-" or not argument.startswith("-"):
            files.append(argument)
            continue
        name, equals, value = argument.removeprefix("--").partition("=")
        option = options.get(name) if argument.startswith("--") else None
        if option is None or (option.flag and equals) or not (option.flag or equals or rest):
            return None
        given[option.field] = True if option.flag else value if equals else rest.pop(0)
    return Request(files=tuple(files), **given)
