"""A Helm chart, as Argo CD itself renders one: `helm template`, with neither a cluster nor a network.

A chart's dependencies are vendored in its folder `charts`. Where the platform allows repositories' hosts, `init`
fetches what is missing there, by the chart's lock file.

What an Application chooses is handed to Helm as files that have no name on any disk, never as arguments. Helm reads
whole numbers of values files as floating-point ones (helm/helm#1707): a template that prints one of 1000000 or more
without `int64` writes `1e+06`, which as a string parameter it does not.

https://helm.sh/docs/helm/helm_template/
"""

import json
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from secretweave.errors import ConfigError, Faults, InputError, PolicyError, SecretweaveError, Where
from secretweave.reading import Readable
from secretweave.sources import tree
from secretweave.sources.kinds import Job, _private

if TYPE_CHECKING:
    from secretweave.sources.programs import Call, Inline

MARKERS = ("Chart.yaml",)
RELEASE = r"(?=.{1,53}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
"""https://github.com/helm/helm/blob/v3.22.0/pkg/chartutil/validate_name.go"""
WORDS = {"true": True, "false": False, "null": None}
WHOLE = r"0|[+-]?[1-9][0-9]{0,18}"
UNREAD = "[\x7f-\x9f\ufeff\ufffe\uffff]"
"""What YAML wants escaped, and JSON does not."""
DECLARING = ("Chart.yaml", "requirements.yaml")
LOCKS = ("Chart.lock", "requirements.lock")
FILE_MAX = 4 << 20
DEPTH_MAX = 100
PIECE = 1 << 16
LOCAL = "file://"
REMOTE = r"(?:https|oci)://((?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?)(?:/[\w./~%+-]*)?"
"""Nothing that two readers of URLs could see another host in."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Dependency(NamedTuple):
    name: str
    repository: str
    """Empty: it is always vendored."""
    file: str
    """That declares it."""


def manifests(job: Job) -> Generator[tuple[str, Readable], None, None]:
    """Raises SecretweaveError for what was chosen, or for the chart; Helm's own failure comes from the stream's end."""
    from secretweave.sources import programs

    missing = _missing(job.folder, _declared(job.folder))
    if missing:
        raise _not_vendored(missing, job)
    arguments: list[str | Inline] = [*_arguments(job), *_values_files(job), *_inline(job.choices)]
    with _private.home(job.environ) as home, programs.started(_call(job, home, arguments)) as output:
        yield "helm template", output


def is_prepared(folder: str) -> bool:
    return not _missing(folder, _declared(folder))


def prepare(job: Job) -> None:
    """Puts missing dependencies into `charts`: out of the repository, or from hosts that the platform allows.

    Raises SecretweaveError, or Faults.
    """
    from secretweave.sources import programs

    missing = _missing(job.folder, _declared(job.folder))
    if not missing:
        return
    # It is the lock file's repositories that Helm asks.
    dependencies = [each for name in (*DECLARING, *LOCKS) for each in _read(job.folder, name)]
    remote = list(dict.fromkeys(each.repository for each in dependencies if _is_remote(each)))
    if remote and not job.settings.helm.repository_hosts:
        raise _not_vendored(missing, job)
    faults = [fault for fault in (_refused(each, job) for each in dependencies) if fault is not None]
    if faults:
        raise Faults(faults)
    if remote and not any(os.path.isfile(os.path.join(job.folder, name)) for name in LOCKS):
        raise InputError(
            "the chart has dependencies, but no Chart.lock",
            where=Where("Chart.yaml"),
            why="what is fetched must be what was reviewed",
            fix="run `helm dependency update` and commit Chart.lock",
        )
    with _private.home(job.environ) as home:
        _write_repositories(home, remote)
        call = _call(job, home, ("dependency", "build", "."), fetches=bool(remote))
        # Helm puts together what it fetches beside `charts`.
        with programs.started(call._replace(writable=(home, job.folder))) as output:
            while output.read(PIECE):
                pass
    missing = _missing(job.folder, _declared(job.folder))
    if missing:
        raise _not_vendored(missing, job)


def _call(job: Job, home: str, arguments: "Sequence[str | Inline]", *, fetches: bool = False) -> "Call":
    from secretweave.sources import programs

    certificates = {name: job.environ[name] for name in CERTIFICATES if fetches and job.environ.get(name)}
    return programs.Call(
        program=programs.find("helm", job.settings.helm.program, job.environ, job.host.section),
        arguments=arguments,
        folder=job.folder,
        environ=_private.environment(home) | certificates,
        readable=(job.root, home, *certificates.values()),
        writable=(home,),
        root=job.root,
        deadline=job.deadline,
        seconds=job.seconds,
        network=fetches,
        fix=job.host.fix,
        more_time=job.host.more_time,
        container=job.host.container,
        has_threads=job.host.has_threads,
    )


def _arguments(job: Job) -> tuple[str, ...]:
    choices = job.choices
    release = choices.get("release-name") or job.app.short_name
    if not re.fullmatch(RELEASE, release):
        raise ConfigError(
            "the release's name is not one that Helm takes",
            where=Where(field="release-name"),
            why="it has at most 53 lower-case letters, digits, dots and dashes, a letter or digit first and last",
            fix="set the parameter release-name; without it the Application's name is taken",
        )
    found = ["template", release, ".", f"--include-crds={_word(choices.get('include-crds', True))}"]
    if job.app.namespace is not None:
        found.append(f"--namespace={job.app.namespace}")
    found += _private.capabilities(job, "--kube-version", "--api-versions")
    found += [f"--{name}" for name in ("skip-tests", "skip-schema-validation") if choices.get(name)]
    return tuple(found)


def _word(flag: bool) -> str:
    return "true" if flag else "false"


def _values_files(job: Job) -> Iterator[str]:
    """Raises PolicyError: one is not of the repository; InputError: one is not there."""
    for index, name in enumerate(job.choices.get("values-files", ())):
        field = f"values-files[{index}]"
        if name.startswith("$"):
            raise InputError(
                "a values file of another source cannot be used",
                where=Where(field=field),
                why="Argo CD gives a plugin one repository, and no `ref` of a multi-source Application",
                fix="commit the file to the app's repository, or write it in the parameter values",
            )
        if "://" in name:
            raise PolicyError(
                "a values file is remote",
                where=Where(field=field),
                why="nothing is fetched while an app is rendered",
                fix="commit the file to the app's repository",
            )
        real = tree.inside(os.path.join(job.folder, name), job.root, field)
        if not os.path.isfile(real):
            raise InputError(
                f"there is no values file {name}",
                where=Where(field=field),
                fix="correct the name: it is relative to the app's folder",
            )
        # Helm takes the argument for a line of comma-separated values, and what has a scheme for a URL.
        quoted = os.path.join(".", os.path.relpath(real, job.folder)).replace('"', '""')
        yield f'--values="{quoted}"'


def _inline(choices: Mapping[str, Any]) -> "Iterator[Inline]":
    """What wins over the values files, in Argo CD's order. Raises ConfigError: a path of a value is malformed."""
    from secretweave.sources.programs import Inline

    if choices.get("values"):
        yield Inline(choices["values"].encode(), "the parameter values", "--values=")
    for name, typed in (("helm-parameters", True), ("helm-string-parameters", False)):
        if choices.get(name):
            yield Inline(_as_yaml(_nested(choices[name], name, typed=typed)), f"the parameter {name}", "--values=")


def _nested(chosen: Mapping[str, str], field: str, *, typed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, text in chosen.items():
        keys = _keys(path, field)
        within = found
        for key in keys[:-1]:
            within = within.setdefault(key, {})
            if not isinstance(within, dict):
                raise _contradiction(field)
        if keys[-1] in within:
            raise _contradiction(field)
        within[keys[-1]] = _typed(text, field) if typed else text
    return found


def _keys(path: str, field: str) -> list[str]:
    """A backslash takes the dot behind it, or whatever it is, as part of a key."""
    keys, escaped = [""], False
    for character in path:
        if escaped:
            keys[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ".":
            keys.append("")
        elif character in "[]":
            raise ConfigError(
                "the path of a value has an index",
                where=Where(field=field),
                why="a file of values cannot set a single item of a list",
                fix="write the whole list in the parameter values",
            )
        else:
            keys[-1] += character
    if escaped or not all(keys) or len(keys) > DEPTH_MAX:
        raise ConfigError(
            "the path of a value is malformed",
            where=Where(field=field),
            fix="write keys with dots between them; a dot that is part of a key is written `\\.`",
        )
    return keys


def _typed(text: str, field: str) -> Any:
    """As `helm --set` reads it: https://github.com/helm/helm/blob/v3.22.0/pkg/strvals/parser.go, typedVal."""
    if text.startswith("{") and text.endswith("}"):
        raise ConfigError(
            "a value is a list",
            where=Where(field=field),
            fix="write the list in the parameter values, or the text in helm-string-parameters",
        )
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if re.fullmatch(WHOLE, text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    return text


def _contradiction(field: str) -> ConfigError:
    return ConfigError(
        "a value is set in two ways", where=Where(field=field), fix="set it, or what is in it, but not both"
    )


def _as_yaml(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(UNREAD, lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _declared(folder: str) -> list[Dependency]:
    """Raises InputError: a file of the chart is malformed."""
    found = []
    for name in DECLARING:
        # Most charts have none, and to read YAML takes longer than to render one. Helm tells what is overlooked.
        if b"dependencies" in _data(os.path.join(folder, name), name):
            found += _read(folder, name)
    return found


def _read(folder: str, name: str) -> list[Dependency]:
    found = []
    for entry in _pairs(os.path.join(folder, name), name).get("dependencies") or ():
        if isinstance(entry, Mapping):
            folded = _folded(entry, name)
            found.append(Dependency(_text(folded.get("name")), _text(folded.get("repository")), name))
    return found


def _pairs(path: str, name: str) -> dict[str, Any]:
    """What a file of a chart holds; nothing where there is no such file. Raises InputError."""
    from secretweave import yamltree

    try:
        root = next(iter(yamltree.load(_data(path, name))), None)
        return _folded(yamltree.plain(root), name) if isinstance(root, yamltree.Mapping) else {}
    except InputError as error:
        raise error.at(Where(name, line=error.where.line)) from None


def _data(path: str, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return b""
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=Where(name), fix="correct it") from None
    if len(data) == FILE_MAX:
        raise InputError("the file is too long", where=Where(name), fix="shorten it")
    return data


def _folded(pairs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Go finds a field whatever the case of its key is (https://pkg.go.dev/encoding/json#Unmarshal)."""
    found = {key.casefold(): value for key, value in pairs.items()}
    if len(found) != len(pairs):
        raise InputError("a mapping has the same key twice, in different cases", where=Where(name), fix="keep one")
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _missing(folder: str, dependencies: list[Dependency]) -> list[str]:
    """The names of those that `charts` does not hold, as far as that shows without unpacking what is there."""
    charts = os.path.join(folder, "charts")
    try:
        entries = sorted(os.listdir(charts))
    except OSError:
        entries = []
    archives = {name for name in entries if name.endswith((".tgz", ".tar.gz"))}
    names = {
        _text(_pairs(os.path.join(charts, name, "Chart.yaml"), f"charts/{name}/Chart.yaml").get("name"))
        for name in set(entries) - archives
        if not name.startswith((".", "_"))
    }
    wanted = dict.fromkeys(each.name for each in dependencies)
    claimed = {archive for archive in archives if any(archive.startswith(f"{name}-") for name in wanted)}
    if archives - claimed:
        # An archive may have any name: Helm will tell.
        return []
    return [name for name in wanted if name not in names and not any(each.startswith(f"{name}-") for each in claimed)]


def _not_vendored(missing: list[str], job: Job) -> InputError:
    return InputError(
        f"the chart's folder charts lacks {', '.join(missing)}",
        where=Where("Chart.yaml", field="dependencies"),
        why=job.host.no_fetching,
        fix=f"run `helm dependency update` and commit the folder charts{job.host.more_hosts}",
    )


def _is_remote(dependency: Dependency) -> bool:
    return bool(dependency.repository) and not dependency.repository.startswith(LOCAL)


def _refused(dependency: Dependency, job: Job) -> SecretweaveError | None:
    """Why it may not come from where it is said to lie."""
    repository = dependency.repository
    where = Where(dependency.file, field=f"dependencies, {dependency.name}, repository")
    if not repository:
        return None
    if repository.startswith(LOCAL):
        try:
            tree.inside(os.path.join(job.folder, repository.removeprefix(LOCAL)), job.root, str(where.field))
        except PolicyError as error:
            return error.at(where)
        return None
    match = re.fullmatch(REMOTE, repository, re.ASCII | re.IGNORECASE)
    if match is None:
        return PolicyError(
            "a dependency's repository is not one that may be asked",
            where=where,
            why="no alias, login or scheme but https and oci may stand there",
            fix="write it as https://HOST/PATH or oci://HOST/PATH",
        )
    host = match[1].lower().removesuffix(":443")
    if host not in {each.lower().removesuffix(":443") for each in job.settings.helm.repository_hosts}:
        return PolicyError(
            "a dependency comes from a host that is not allowed",
            where=where,
            fix=f"vendor it: run `helm dependency update` and commit the folder charts{job.host.more_hosts}",
        )
    return None


def _write_repositories(home: str, remote: list[str]) -> None:
    """Helm builds from those repositories alone that it has a name for."""
    named = [{"name": f"r{index}", "url": url} for index, url in enumerate(remote) if url.lower().startswith("https:")]
    folder = os.path.join(home, "config")
    os.mkdir(folder, 0o700)
    with open(os.path.join(folder, "repositories.yaml"), "w", encoding="utf-8") as file:
        json.dump({"apiVersion": "v1", "repositories": named}, file)
