"""What an Application may choose, how it says so, and what Argo CD's UI is told of it."""

import json
from typing import Any

import pytest

from secretweave.argocd import parameters
from secretweave.argocd.app import App
from secretweave.errors import ConfigError
from secretweave.sources import kinds

APP = App("team_shop", "default", "shop", "apps/shop", "1.31.2", ())


def read(*entries: Any, **environ: str) -> dict[str, Any]:
    return parameters.read({"ARGOCD_APP_PARAMETERS": json.dumps(entries)} | environ)


def fault(*entries: Any, **environ: str) -> tuple[str, str, str]:
    with pytest.raises(ConfigError) as caught:
        read(*entries, **environ)
    error = caught.value
    assert "hunter2" not in f"{error.what}{error.where}{error.why}{error.fix}"
    return error.what, str(error.where), error.fix


@pytest.mark.parametrize("text", ["", "null", "[]"])
def test_nothing_chosen(text: str):
    assert parameters.read({"ARGOCD_APP_PARAMETERS": text}) == {}
    assert parameters.read({}) == {}


def test_what_is_chosen_by_parameters():
    assert read(
        {"name": "type", "string": "helm"},
        {"name": "values-files", "array": ["a.yaml", "b,c.yaml"]},
        {"name": "helm-parameters", "map": {"image.tag": "v1"}},
        {"name": "values", "string": "a: 1\n"},
        {"name": "include-crds", "string": "False"},
        {"name": "skip-tests", "string": "true"},
    ) == {
        "type": "helm",
        "values-files": ("a.yaml", "b,c.yaml"),
        "helm-parameters": {"image.tag": "v1"},
        "values": "a: 1\n",
        "include-crds": False,
        "skip-tests": True,
    }


def test_what_is_chosen_as_nothing_is_not_chosen():
    assert read({"name": "type", "string": ""}, {"name": "values-files", "array": []}, {"name": "recurse"}) == {}


def test_what_is_chosen_by_env():
    assert read(
        ARGOCD_ENV_RELEASE_NAME="shop",
        ARGOCD_ENV_VALUES_FILES="a.yaml, b.yaml\nc.yaml\n",
        ARGOCD_ENV_VALUES="a: 1, 2\n",
        ARGOCD_ENV_SKIP_TESTS="true",
        PARAM_TYPE="plain",
        TYPE="plain",
    ) == {
        "release-name": "shop",
        "values-files": ("a.yaml", "b.yaml", "c.yaml"),
        "values": "a: 1, 2\n",
        "skip-tests": True,
    }


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        ("WHATEVER", "there is no setting WHATEVER", "take it out; there are TYPE, "),
        ("VALUE_FILES", "there is no setting VALUE_FILES", "did you mean VALUES_FILES?"),
        (
            "HELM_PARAMETERS",
            "HELM_PARAMETERS cannot be given by env",
            "write it under parameters: {name: helm-parameters",
        ),
    ],
)
def test_env_that_sets_nothing(name: str, what: str, fix: str):
    with pytest.raises(ConfigError) as error:
        read(**{f"ARGOCD_ENV_{name}": "hunter2"})
    assert (error.value.what, error.value.fix[: len(fix)]) == (what, fix)


def test_a_parameter_wins_over_env():
    assert read({"name": "type", "string": "helm"}, ARGOCD_ENV_TYPE="plain") == {"type": "helm"}


def test_an_unknown_parameter():
    where = "spec.source.plugin.parameters[0]"
    assert fault({"name": "value-files", "array": ["hunter2"]}) == (
        "there is no parameter value-files",
        where,
        "did you mean values-files?",
    )
    assert fault({"name": "zzz", "string": "hunter2"})[2].startswith("use one of type, release-name, values-files, ")


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"name": "values-files", "string": "hunter2"}, "the parameter values-files is given as string"),
        ({"name": "values", "array": ["hunter2"]}, "the parameter values is given as array"),
        ({"name": "helm-parameters", "string": "hunter2", "map": {}}, "the parameter helm-parameters is given as "),
        ({"name": "values", "string": 7}, "the parameter values is not of the type string"),
        ({"name": "values-files", "array": [7]}, "a value is no text"),
        ({"name": "helm-parameters", "map": {"a": 7}}, "a value is no text"),
        ({"name": "recurse", "string": "hunter2"}, "recurse is neither true nor false"),
        ({"name": "values", "string": "hunter2\ud800"}, "a value is not UTF-8"),
        ({"string": "hunter2"}, "a parameter has no name"),
        ("hunter2", "a parameter has no name"),
    ],
)
def test_what_is_malformed(entry: Any, what: str):
    found, where, fix = fault(entry)
    assert found.startswith(what)
    assert where == "spec.source.plugin.parameters[0]"
    assert fix


def test_a_parameter_that_is_there_twice():
    entry = {"name": "type", "string": "helm"}
    assert fault(entry, entry)[0] == "the parameter type is there twice"


@pytest.mark.parametrize("text", ["hunter2", "{}", '"x"', "[" * 100_000])
def test_no_list(text: str):
    with pytest.raises(ConfigError, match="no list of parameters"):
        parameters.read({"ARGOCD_APP_PARAMETERS": text})


def test_env_that_is_malformed():
    assert fault(ARGOCD_ENV_INCLUDE_CRDS="hunter2") == (
        "include-crds is neither true nor false",
        "spec.source.plugin.env, INCLUDE_CRDS",
        "write true or false",
    )


def test_the_announcement_of_a_chart():
    announced = json.loads(parameters.announce(APP, "helm"))
    assert [each["name"] for each in announced] == [
        "type",
        "release-name",
        "values-files",
        "values",
        "helm-parameters",
        "helm-string-parameters",
        "kube-version",
        "api-versions",
        "include-crds",
        "skip-tests",
        "skip-schema-validation",
    ]
    assert announced[1] == {
        "name": "release-name",
        "title": "Release name",
        "tooltip": "of the chart; left out, the Application's name",
        "itemType": "string",
        "collectionType": "string",
        "string": "shop",
    }
    assert {each["collectionType"]: each[each["collectionType"]] for each in announced[2:6]} == {
        "array": [],
        "string": "",
        "map": {},
    }
    assert (announced[8]["itemType"], announced[8]["string"], announced[9]["string"]) == ("boolean", "true", "false")


def test_the_announcement_of_other_kinds():
    names = {kind: [each["name"] for each in json.loads(parameters.announce(APP, kind))] for kind in kinds.names()}
    assert names["kustomize"] == ["type", "kube-version", "api-versions", "enable-helm"]
    assert names["plain"] == ["type", "recurse", "include", "exclude"]


def test_what_is_announced_can_be_chosen():
    for each in json.loads(parameters.announce(APP, "helm")):
        assert read({"name": each["name"], each["collectionType"]: each[each["collectionType"]]}).keys() <= {
            each["name"]
        }


def test_every_kind_of_the_table_is_one():
    assert {kind for each in parameters.TABLE for kind in each.kinds} == set(kinds.names())
