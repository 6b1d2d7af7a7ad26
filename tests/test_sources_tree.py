"""What the repository's copy may hold, and where its root is."""

import os
import time
from pathlib import Path

import pytest

from secretweave.errors import Faults, InputError, PolicyError
from secretweave.sources import tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "app").mkdir(parents=True)
    return folder


def faults(root: Path) -> list[tuple[type, str, str]]:
    with pytest.raises(Faults) as caught:
        tree.check(str(root), str(root / "app"))
    return [(type(fault), str(fault.where), fault.what) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("folder", "source_path", "root"),
    [
        ("/work/1f/apps/shop", "apps/shop", "/work/1f"),
        ("/work/1f/apps/shop", "apps/shop/", "/work/1f"),
        ("/work/1f/apps/shop", "./apps//shop", "/work/1f"),
        ("/work/1f", ".", "/work/1f"),
        ("/work/1f", "", "/work/1f"),
        # Whatever does not add up: nothing but the folder is the repository's.
        ("/work/1f/shop", "apps/shop", "/work/1f/shop"),
        ("/work/1f/myapps/shop", "apps/shop", "/work/1f/myapps/shop"),
        ("/work/1f/shop", "/1f/shop", "/work/1f/shop"),
        ("/work/1f/shop", "../1f/shop", "/work/1f/shop"),
        ("/work/1f/shop", "x/../shop", "/work/1f/shop"),
    ],
)
def test_the_root(folder: str, source_path: str, root: str):
    assert tree.root_of(folder, source_path) == root


def test_links_in_the_repository_are_followed(root: Path):
    (root / "common").mkdir()
    (root / "common" / "values.yaml").write_text("")
    (root / "app" / "values.yaml").symlink_to("../common/values.yaml")
    (root / "app" / "common").symlink_to("../common")
    (root / "app" / "nowhere").symlink_to("missing.yaml")
    (root / "app" / "loop").symlink_to("loop")
    tree.check(str(root), str(root / "app"))


def test_every_link_that_leads_out_is_told(root: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("")
    (root / "app" / "a").symlink_to(tmp_path / "secret")
    (root / "app" / "b").symlink_to("../../secret")
    (root / "c").symlink_to("/proc/self/environ")
    (root / ".git").mkdir()
    (root / ".git" / "d").symlink_to("/etc")
    (root / "e").symlink_to("../missing")
    what = "a symbolic link leads out of the repository"
    assert faults(root) == [(PolicyError, name, what) for name in (".git/d", "app/a", "app/b", "c", "e")]


def test_a_link_that_leads_out_by_another_one(root: Path):
    (root / "up").mkdir()
    (root / "up" / "here").symlink_to("..")
    (root / "app" / "a").symlink_to("../up/here/../secret")
    assert [name for _, name, _ in faults(root)] == ["app/a"]


def test_a_folder_whose_name_begins_like_the_root_is_outside(root: Path):
    (root.parent / "repository").mkdir()
    (root / "app" / "a").symlink_to("../../repository")
    assert [name for _, name, _ in faults(root)] == ["app/a"]


def test_a_pipe(root: Path):
    os.mkfifo(root / "app" / "values.yaml")
    assert faults(root) == [(PolicyError, "app/values.yaml", "neither a file, a folder nor a symbolic link")]


def test_an_app_outside_of_the_root(root: Path, tmp_path: Path):
    with pytest.raises(InputError, match="not in the repository"):
        tree.check(str(root), str(tmp_path))


def test_folders_that_are_too_deep(root: Path):
    (root / "/".join("x" * tree.DEPTH_MAX)).mkdir(parents=True)
    with pytest.raises(InputError, match="more than folders 100 deep"):
        tree.check(str(root), str(root / "app"))


def test_too_many_files(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree, "ENTRIES_MAX", 3)
    for name in "abcd":
        (root / name).write_text("")
    with pytest.raises(InputError, match="more than 3 files"):
        tree.check(str(root), str(root / "app"))


def test_ten_thousand_files_take_no_time(root: Path):
    for folder in range(100):
        (root / f"{folder}").mkdir()
        for file in range(100):
            (root / f"{folder}" / f"{file}.yaml").touch()
    best = min(_seconds(root) for _ in range(3))
    assert best < 0.2


def _seconds(root: Path) -> float:
    start = time.process_time()
    tree.check(str(root), str(root / "app"))
    return time.process_time() - start


def test_a_chosen_path(root: Path, tmp_path: Path):
    (root / "app" / "values.yaml").write_text("")
    (root / "app" / "link").symlink_to("values.yaml")
    assert tree.inside(f"{root}/app/../app/link", str(root), "x") == f"{root}/app/values.yaml"
    assert tree.inside(f"{root}/app/missing", str(root), "x") == f"{root}/app/missing"
    for path in (f"{root}/../secret", "/etc/passwd", str(tmp_path), f"{root}/app/a\0b"):
        with pytest.raises(PolicyError) as caught:
            tree.inside(path, str(root), "values-files[0]")
        assert str(caught.value.where) == "values-files[0]"
        assert "secret" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
