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
    many: bool = False
    """Given several times, or as several texts with commas between them."""

    @property
    def environ(self) -> tuple[str, ...]:
        return (f"SECRETWEAVE_{self.name.upper().replace('-', '_')}", *self.hosts)

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    def read(self, text: str) -> "str | bool | tuple[str, ...]":
        if self.flag:
            return text.lower() in TRUE
        return tuple(part for part in text.split(",") if part) if self.many else text


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
    "output",
    "What a value leaves as: `secret`, `sops` (Secrets encrypted), or `redacted` (masked, no store contacted).",
    metavar="NAME",
)
AGE = Option(
    "age",
    "For `--output sops`: age recipients.",
    metavar="RECIPIENT[,RECIPIENT]",
    hosts=("SOPS_AGE_RECIPIENTS",),
    many=True,
)
SOPS_CONFIG = Option(
    "sops-config",
    "For `--output sops`: a .sops.yaml whose creation rules name the keys; none is looked for.",
    metavar="FILE",
    hosts=("SOPS_CONFIG",),
)
DIGEST_KEY_FILE = Option(
    "digest-key-file",
    "For `--output sops`: 32 random bytes, by which an earlier run's ciphertext is known again.",
    metavar="FILE",
)
PREVIOUS = Option(
    "previous",
    "For `--output sops`: earlier output, whose ciphertext is kept where nothing changed; it need not be there yet.",
    metavar="PATH[,PATH]",
    many=True,
)
UNSTABLE = Option("unstable", "For `--output sops`: encrypt anew each time, without --previous.", flag=True)
ALLOW_EMPTY = Option("allow-empty", "An input without any manifest is a success.", flag=True)
REPORT = Option("report", "Where faults are written beside stderr.", metavar="FILE")
DEBUG = Option("debug", "Show where in the program an error arose (never a value).", flag=True)

FORMAT = Option("format", "Of what is told: `table` for people, `json` for CI.", choices=("table", "json"))
REF = Option(
    "ref", "A secret that should be readable: `secret://STORE/REF#KEY`. It is read, and not shown.", metavar="REF"
)

PATH = Option("path", "The folder that is rendered.", metavar="DIR")
KUSTOMIZE = Option("kustomize", "It is a kustomization. Without one of these three, what it holds decides.", flag=True)
HELM = Option("helm", "It is a chart.", flag=True)
PLAIN = Option("plain", "It holds manifests as they are, in its own folders too.", flag=True)
RELEASE_NAME = Option("release-name", "Of the chart; the folder's name without it.", metavar="NAME")
VALUES = Option("values", "Values files of the chart, in the repository.", metavar="FILE[,FILE]", many=True)
SOURCE = Option("source", "The annotation org.opencontainers.image.source: whence the folder is.", metavar="URL")
REVISION = Option(
    "revision", "The annotation org.opencontainers.image.revision, such as main@sha1:COMMIT.", metavar="REVISION"
)
CREATED = Option(
    "created",
    "The annotation org.opencontainers.image.created; else SOURCE_DATE_EPOCH, else now, where anything changed.",
    metavar="TIME",
)
ANNOTATION = Option("annotation", "A further annotation of the artifact.", metavar="NAME=TEXT", many=True)
PLAINTEXT = Option("plaintext", "Push Secrets that are not encrypted: whoever may pull them reads them.", flag=True)
INSECURE_REGISTRY = Option(
    "insecure-registry", "The registry speaks plain HTTP; on loopback that is found out.", flag=True
)
DRY_RUN = Option("dry-run", "Do all but push, and print the digest.", flag=True)

WATCHED = Option("namespace", "Look after the objects of one namespace alone.", metavar="NAME")
ARTIFACT_URL = Option(
    "artifact-url", "Of this controller's artifacts, as others reach them; else flux.artifacts.url.", metavar="URL"
)
SECRET_MAPPINGS = Option("secret-mappings", "Make Secrets of the cluster's SecretMappings, too.", flag=True)

COMMON = (CONFIG, NAMESPACE, IDENTITY, ALLOW_EMPTY, REPORT, DEBUG)
SEALING = (AGE, SOPS_CONFIG, DIGEST_KEY_FILE, PREVIOUS, UNSTABLE)
HOSTS_OF_SEALING = tuple(name for option in SEALING for name in option.hosts)
RENDER = (OUTPUT, *SEALING, *COMMON)
CHECK = (PROJECT, *COMMON)
PLAN = (FORMAT, *CHECK)
ARGOCD = (CONFIG, REPORT, DEBUG)
"""Of the plugin's commands: all else Argo CD's variables say."""
DOCTOR = (CONFIG, NAMESPACE, IDENTITY, REF, FORMAT, DEBUG)
CONTROLLER = (CONFIG, WATCHED, ARTIFACT_URL, SECRET_MAPPINGS, REPORT, DEBUG)
PUSH = (
    PATH,
    KUSTOMIZE,
    HELM,
    PLAIN,
    RELEASE_NAME,
    VALUES,
    SOURCE,
    REVISION,
    CREATED,
    ANNOTATION,
    PLAINTEXT,
    INSECURE_REGISTRY,
    DRY_RUN,
    *SEALING,
    *COMMON,
)

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
    age: tuple[str, ...] = ()
    sops_config: str | None = None
    digest_key_file: str | None = None
    previous: tuple[str, ...] = ()
    unstable: bool = False
    path: str | None = None
    kustomize: bool = False
    helm: bool = False
    plain: bool = False
    release_name: str | None = None
    values: tuple[str, ...] = ()
    source: str | None = None
    revision: str | None = None
    created: str | None = None
    annotation: tuple[str, ...] = ()
    plaintext: bool = False
    insecure_registry: bool = False
    dry_run: bool = False
    artifact_url: str | None = None
    secret_mappings: bool = False


def from_environment(options: Sequence[Option], environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that the environment sets; an empty variable sets nothing."""
    found: dict[str, Any] = {}
    for option in options:
        text = next((environ[name] for name in option.environ if environ.get(name)), None)
        if text is not None:
            found[option.field] = option.read(text)
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
    environment = from_environment(RENDER, environ)
    given: dict[str, Any] = {}
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
        told = option.read("true" if option.flag else value if equals else rest.pop(0))
        given[option.field] = (*given.get(option.field, ()), *told) if isinstance(told, tuple) else told
    return Request(files=tuple(files), **environment | given)
