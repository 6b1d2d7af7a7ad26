"""A folder of manifests, by the real command."""

from pathlib import Path

import pytest

from tests.argocd_source import Source, array, config_map, text

FILES = {
    "app/b.yaml": config_map("b"),
    "app/a/c.yml": config_map("a-c"),
    "app/a.yaml": config_map("a"),
    "app/B.json": '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "upper"}}\n',
    "app/README.md": "# none\n",
    "app/x.jsonnet": "{}\n",
}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def names(output: str) -> list[str]:
    """Of the objects, in order."""
    return [line.partition("name")[2].strip(' :"}') for line in output.splitlines() if "name" in line]


def test_files_in_the_order_of_argo_cd(source: Source):
    assert names(source.write(FILES).rendered()) == ["upper", "a", "b"]


def test_a_folder_is_as_it_is_byte_for_byte(source: Source):
    assert source.write({"app/a.yaml": "# c\n" + config_map("a")}).rendered() == "# c\n" + config_map("a")


def test_files_that_argo_cd_skips(source: Source):
    source.write({**FILES, "app/b.yaml": "# +argocd:skip-file-rendering\n" + config_map("b")})
    assert names(source.rendered()) == ["upper", "a"]


def test_recursion(source: Source):
    assert names(source.write(FILES).rendered(text("recurse", "true"))) == ["upper", "a-c", "a", "b"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ("*.yml", "", ["a-c"]),
        ("a/*", "", ["a-c"]),
        ("{*.yml,*.json}", "", ["upper", "a-c"]),
        ("{a,{b,B}}.*", "", ["upper", "a", "b"]),
        ("[!a]*.yaml", "", ["b"]),
        ("?.yaml", "", ["a", "b"]),
        ("**/c.yml", "", ["a-c"]),
        ("a", "", []),
        ("", "a*", ["upper", "b"]),
        ("*.y*ml", "*/*", ["a", "b"]),
    ],
)
def test_globs(source: Source, include: str, exclude: str, expected: list[str]):
    source.write(FILES)
    chosen = [text("recurse", "true"), text("include", include), text("exclude", exclude)]
    if expected:
        assert names(source.rendered(*chosen)) == expected
    else:
        assert "holds no .yaml, .yml or .json that is chosen" in source.refused(*chosen, code=3)


def test_a_glob_that_would_take_for_ever(source: Source):
    source.write({f"app/{'a' * 200}.yaml": config_map("a")})
    assert "that is chosen" in source.refused(text("include", "*a" * 60 + "b"), code=3)
    assert "unfolds into more than 256" in source.refused(text("include", "{a,b}" * 20), code=2)
    assert "unfolds into more than 256" in source.refused(text("include", "{" + "," * 2000 + "}" + "a" * 2000), code=2)
    assert "is longer than 4096 characters" in source.refused(text("include", "a" * 5000), code=2)


def test_an_empty_folder_is_no_app_without_manifests(source: Source):
    assert source.write({"app/README.md": ""}).refused(code=3) == (
        "secretweave: error\n"
        "  what:  the app's folder app holds no .yaml, .yml or .json that is chosen\n"
        "  why:   an app without manifests would have all that it has in the cluster deleted\n"
        "  fix:   correct spec.source.path; set the parameter recurse for files below it; look at include and exclude\n"
        "nothing was written\n"
    )


def test_a_link_in_the_repository(source: Source):
    source.write({"common/a.yaml": config_map("a"), "app/b.yaml": config_map("b")})
    source.link("app/a.yaml", "../common/a.yaml").link("app/c.yaml", "../common")
    assert names(source.rendered()) == ["a", "b"]


def test_a_link_out_of_it(source: Source):
    outside = source.beside("secret.yaml", config_map("outside"))
    told = source.write(FILES).link("app/z.yaml", outside).refused(code=4)
    assert "where: app/z.yaml\n  what:  a symbolic link leads out of the repository\n" in told
    assert str(outside) not in told


def test_a_link_out_of_it_in_a_folder_that_is_not_the_app_s(source: Source):
    source.write({**FILES, "other/x": ""}).link("other/y", "/etc/passwd")
    assert "where: other/y\n" in source.refused(code=4)


def test_three_hundred_files(source: Source):
    source.write({f"app/{number:03}.yaml": config_map(f"n{number:03}") for number in range(300)})
    assert names(source.rendered()) == [f"n{number:03}" for number in range(300)]


def test_manifests_where_a_chart_lies_by_choice(source: Source):
    source.write({"app/Chart.yaml": "name: x\n", "app/a.yaml": config_map("a")})
    assert names(source.rendered(text("type", "plain"), text("include", "a.yaml"))) == ["a"]


def test_two_kinds_at_once(source: Source):
    told = source.write({"app/Chart.yaml": "", "app/kustomization.yaml": ""}).refused(code=3)
    assert "what:  the folder is helm and kustomize at once\n  fix:   set the parameter type: helm\n" in told


def test_an_unknown_type(source: Source):
    told = source.write(FILES).refused(text("type", "jsonnet"), code=2)
    assert "no type of source is called jsonnet" in told


def test_a_parameter_that_is_none(source: Source):
    told = source.write(FILES).refused(array("recurses", "hunter2"), code=2)
    assert "what:  there is no parameter recurses\n  fix:   did you mean recurse?\n" in told
    assert "hunter2" not in told
