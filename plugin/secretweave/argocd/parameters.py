"""What an Application may choose: one table, from which Argo CD's UI is told, and by which what was chosen is read.

    spec:
      source:
        plugin:
          name: secretweave
          parameters:
            - {name: values-files, array: [values-production.yaml]}
            - {name: helm-parameters, map: {image.tag: v1.2.3}}

The same, but for the maps, by `plugin.env`, where a name is in upper case with underscores (`VALUES_FILES`) and a list
has commas or line breaks between its items; a parameter wins over it. Argo CD hands parameters over as PARAM_* too, in
which is lost how a name was written: they are not read.

https://argo-cd.readthedocs.io/en/stable/operator-manual/config-management-plugins/#using-environment-variables-in-your-plugin
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from secretweave.argocd.app import App
from secretweave.errors import ConfigError, SecretweaveError, Where

STRING, ARRAY, MAP = "string", "array", "map"
COLLECTIONS = (STRING, ARRAY, MAP)
WHERE = "spec.source.plugin"
ENV = "ARGOCD_ENV_"
WORDS = {"true": True, "false": False}
HELM, KUSTOMIZE, PLAIN = "helm", "kustomize", "plain"


class Parameter(NamedTuple):
    name: str
    title: str
    tooltip: str
    kinds: tuple[str, ...]
    """Of sources that it is for; none: of all."""
    collection: str = STRING
    flag: bool | None = None
    """For a yes or no: what holds when nothing is chosen. None: it is none."""


TABLE = (
    Parameter("type", "Type", "helm, kustomize or plain; left out, what the folder holds decides", ()),
    Parameter("release-name", "Release name", "of the chart; left out, the Application's name", (HELM,)),
    Parameter(
        "values-files",
        "Values files",
        "relative to the app's folder, inside of the repository; a later one wins",
        (HELM,),
        ARRAY,
    ),
    Parameter("values", "Values", "YAML that wins over the values files", (HELM,)),
    Parameter(
        "helm-parameters",
        "Helm parameters",
        "single values by their path, as with `helm --set`: true, false, null and whole numbers are no text",
        (HELM,),
        MAP,
    ),
    Parameter(
        "helm-string-parameters", "Helm string parameters", "single values by their path, always text", (HELM,), MAP
    ),
    Parameter("kube-version", "Kubernetes version", "left out, the destination cluster's", (HELM, KUSTOMIZE)),
    Parameter("api-versions", "API versions", "left out, the destination cluster's", (HELM, KUSTOMIZE), ARRAY),
    Parameter("include-crds", "Include CRDs", "of the chart's folder crds", (HELM,), flag=True),
    Parameter("skip-tests", "Skip tests", "leave out the chart's tests", (HELM,), flag=False),
    Parameter("skip-schema-validation", "Skip schema validation", "of the chart's values", (HELM,), flag=False),
    Parameter(
        "enable-helm", "Inflate charts", "that lie in the repository, where the platform allows it", (KUSTOMIZE,),
        flag=False,
    ),
    Parameter("recurse", "Recurse", "into the folders of the app's folder", (PLAIN,), flag=False),
    Parameter("include", "Include", "a glob such as {*.yml,*.yaml} that the files' paths must match", (PLAIN,)),
    Parameter("exclude", "Exclude", "a glob that the files' paths must not match", (PLAIN,)),
)  # fmt: skip
BY_NAME = {parameter.name: parameter for parameter in TABLE}


def announce(app: App, kind: str) -> str:
    """The parameters for a source of that kind, as Argo CD's UI takes them.

    https://github.com/argoproj/argo-cd/blob/v3.2.12/reposerver/repository/repository.proto, ParameterAnnouncement
    """
    return json.dumps([_announced(each, app) for each in TABLE if not each.kinds or kind in each.kinds])


def _announced(parameter: Parameter, app: App) -> dict[str, Any]:
    flag = parameter.flag
    told: dict[str, Any] = {
        "name": parameter.name,
        "title": parameter.title,
        "tooltip": parameter.tooltip,
        "itemType": "string" if flag is None else "boolean",
        "collectionType": parameter.collection,
    }
    if parameter.collection == STRING:
        shown = "" if flag is None else str(flag).lower()
        told[STRING] = app.short_name if parameter.name == "release-name" else shown
    else:
        told[parameter.collection] = [] if parameter.collection == ARRAY else {}
    return told


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """What was chosen, by name: text, a yes or no, a tuple of texts, or texts by their names.

    What is chosen as nothing (an empty text or list) is not there. Raises ConfigError, which shows names alone.
    """
    chosen = _from_env(environ)
    seen = set()
    for index, entry in enumerate(_entries(environ.get("ARGOCD_APP_PARAMETERS", ""))):
        field = f"{WHERE}.parameters[{index}]"
        parameter = _known(entry, field)
        if parameter.name in seen:
            raise _wrong(f"the parameter {parameter.name} is there twice", field, "keep one of the two")
        seen.add(parameter.name)
        value = _value(parameter, entry, field)
        if value not in ("", (), {}):
            chosen[parameter.name] = value
    return chosen


def idle(choices: Mapping[str, Any], kind: str) -> list[str]:
    """The names of what was chosen for sources of other kinds."""
    return [name for name in choices if BY_NAME[name].kinds and kind not in BY_NAME[name].kinds]


def _from_env(environ: Mapping[str, str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name in sorted(environ):
        _know_variable(name.removeprefix(ENV), name, environ[name])
    for parameter in TABLE:
        name = parameter.name.upper().replace("-", "_")
        text = environ.get(f"{ENV}{name}", "")
        if not text or parameter.collection == MAP:
            continue
        field = f"{WHERE}.env, {name}"
        if parameter.collection == ARRAY:
            items = tuple(_text(item.strip(), field) for item in re.split("[,\n]", text) if item.strip())
            if items:
                chosen[parameter.name] = items
        else:
            chosen[parameter.name] = _scalar(parameter, text, field)
    return chosen


def _know_variable(name: str, variable: str, value: str) -> None:
    """Raises ConfigError for one of the tenant's that sets nothing: what it was meant to do would not be done."""
    if name == variable or not value:
        return
    known = {parameter.name.upper().replace("-", "_"): parameter for parameter in TABLE}
    if name not in known:
        fix = _nearest(name, known, "take it out; there are")
        raise _wrong(f"there is no setting {name[:64]}", f"{WHERE}.env", fix)
    if known[name].collection == MAP:
        raise _wrong(
            f"{name} cannot be given by env",
            f"{WHERE}.env",
            f"write it under parameters: {{name: {known[name].name}, map: {{...}}}}",
        )


def _entries(text: str) -> list[Any]:
    try:
        entries = json.loads(text or "null")
    except (ValueError, RecursionError):
        entries = 0
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise _wrong(
            "ARGOCD_APP_PARAMETERS is no list of parameters", "", "let Argo CD set it, or set it as Argo CD would"
        )
    return entries


def _known(entry: Any, field: str) -> Parameter:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise _wrong("a parameter has no name", field, "name it")
    if name not in BY_NAME:
        fix = _nearest(name.lower(), BY_NAME, "use one of")
        raise _wrong(f"there is no parameter {name[:64]}", field, fix)
    return BY_NAME[name]


def _nearest(name: str, known: Mapping[str, Parameter], otherwise: str) -> str:
    """The fix for an unknown name. Not settings.nearest, whose module brings the YAML library."""
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"{otherwise} {', '.join(known)}"


def _value(parameter: Parameter, entry: dict[str, Any], field: str) -> Any:
    given = [collection for collection in COLLECTIONS if entry.get(collection) is not None]
    if given not in ([], [parameter.collection]):
        raise _wrong(
            f"the parameter {parameter.name} is given as {' and '.join(given)}",
            field,
            f"write it as `{parameter.collection}:`",
        )
    value = entry.get(parameter.collection)
    if value is None:
        return ""
    if parameter.collection == STRING and isinstance(value, str):
        return _scalar(parameter, value, field)
    if parameter.collection == ARRAY and isinstance(value, list):
        return tuple(_text(item, field) for item in value)
    if parameter.collection == MAP and isinstance(value, dict):
        return {_text(name, field): _text(item, field) for name, item in value.items()}
    raise _wrong(f"the parameter {parameter.name} is not of the type {parameter.collection}", field, "correct it")


def _scalar(parameter: Parameter, text: str, field: str) -> str | bool:
    if parameter.flag is None or not text:
        return _text(text, field)
    if text.lower() not in WORDS:
        raise _wrong(f"{parameter.name} is neither true nor false", field, "write true or false")
    return WORDS[text.lower()]


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong("a value is no text", field, "put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong("a value is not UTF-8", field, "write it as UTF-8") from None
    return value


def _wrong(what: str, field: str, fix: str) -> SecretweaveError:
    return ConfigError(what, where=Where(field=field), fix=fix)
