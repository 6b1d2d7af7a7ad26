import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from secretweave import __version__, options
from secretweave.options import Option, Request
from tests.conftest import Command

SECRET = b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  a: secret://shop/app/token\n"
WOVEN = SECRET.replace(b"secret://shop/app/token", b'"s3cr3t-t0ken"')
PLAIN = b"# nothing here\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {commit: 81111e1, mode: 0755}"


def test_without_a_command_it_renders_stdin(secretweave: Command) -> None:
    done = secretweave(stdin=SECRET)
    assert (done.returncode, done.stdout, done.stderr) == (0, WOVEN, b"")


def test_files_folders_and_stdin_make_one_stream(secretweave: Command, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.yaml").write_bytes(PLAIN)
    (tmp_path / "a.yml").write_bytes(SECRET)
    (tmp_path / "sub" / "c.json").write_bytes(b'{"apiVersion": "v1", "kind": "Service"}')
    (tmp_path / "notes.txt").write_bytes(b"not: yaml: at: all")
    done = secretweave("render", tmp_path, "-", stdin=SECRET)
    expected = [WOVEN, PLAIN + b"\n", b'{"apiVersion": "v1", "kind": "Service"}\n', WOVEN]
    assert done.stdout == b"---\n".join(expected)


def test_a_fault_names_its_file(secretweave: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(PLAIN + b"\n---\n" + SECRET.replace(b"app/token", b"none"))
    done = secretweave(tmp_path / "a.yaml")
    assert (done.returncode, done.stdout) == (6, b"")
    assert f"where: {tmp_path}/a.yaml, document 2, line 11, Secret s, stringData.a".encode() in done.stderr


def test_without_a_configuration_what_holds_no_reference_passes(secretweave: Command, tmp_path: Path) -> None:
    environ = {"SECRETWEAVE_CONFIG": "", "HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}
    assert secretweave(stdin=PLAIN, **environ).stdout == PLAIN
    done = secretweave(stdin=SECRET, **environ)
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"no store is called `shop`" in done.stderr


def test_the_working_directory_is_no_place_for_a_configuration(
    secretweave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("not a configuration")
    monkeypatch.chdir(tmp_path)
    assert secretweave(stdin=PLAIN, SECRETWEAVE_CONFIG="", HOME=str(tmp_path / "none")).stdout == PLAIN


def test_empty_input_is_an_error_unless_allowed(secretweave: Command) -> None:
    assert (secretweave().returncode, secretweave().stdout) == (3, b"")
    assert secretweave(stdin=b"# only a comment\n").returncode == 3
    assert secretweave("--allow-empty").returncode == 0
    assert secretweave(SECRETWEAVE_ALLOW_EMPTY="true").returncode == 0


@pytest.mark.parametrize(
    "option", ["--age=age1x", "--sops-config=a", "--digest-key-file=a", "--previous=a", "--unstable"]
)
def test_who_asks_for_encryption_gets_no_plaintext(secretweave: Command, option: str) -> None:
    done = secretweave(option, stdin=SECRET)
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"why:   {option.partition('=')[0]}: that is for --output sops".encode() in done.stderr
    assert secretweave(stdin=SECRET, SECRETWEAVE_AGE="age1x").returncode == 2


def test_what_is_said_to_sops_is_not_said_to_us(secretweave: Command) -> None:
    assert secretweave(stdin=SECRET, SOPS_AGE_RECIPIENTS="age1x,age1y", SOPS_CONFIG="a").stdout == WOVEN


def test_check_contacts_no_store(secretweave: Command) -> None:
    done = secretweave("check", stdin=SECRET.replace(b"app/token", b"none"))
    assert (done.returncode, done.stdout) == (0, b"1 reference, no fault\n")


def test_plan_is_a_table_for_people(secretweave: Command) -> None:
    assert secretweave("plan", "--namespace=prod", stdin=SECRET).stdout.decode().splitlines() == [
        "SOURCE  DOC  OBJECT         FIELD         STORE  REF        VERSION  GOES TO",
        "stdin   1    Secret prod/s  stringData.a  shop   app/token  latest   Secret",
    ]


def test_plan_is_json_for_ci(secretweave: Command) -> None:
    source = SECRET.replace(b"app/token", b"app/key?version=1&default=x#k")
    assert json.loads(secretweave("plan", "--format", "json", stdin=source).stdout) == [
        {
            "source": "stdin",
            "document": 1,
            "line": 5,
            "apiVersion": "v1",
            "kind": "Secret",
            "namespace": None,
            "name": "s",
            "field": "stringData.a",
            "store": "shop",
            "ref": "app/key",
            "key": "k",
            "version": "1",
            "optional": True,
            "target": "secret",
        }
    ]


def test_redacted_by_option_and_by_environment(secretweave: Command) -> None:
    expected = SECRET.replace(b"secret://shop/app/token", b'"***shop:app/token***"')
    assert secretweave("--output", "redacted", stdin=SECRET).stdout == expected
    assert secretweave(stdin=SECRET, SECRETWEAVE_OUTPUT="redacted").stdout == expected
    done = secretweave("--output", "nothing", stdin=SECRET)
    assert (done.returncode, done.stdout) == (2, b"")


def test_every_fault_of_the_configuration_is_told(secretweave: Command, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "apiVersion: secretweave.dev/v1alpha1\nkind: Configuration\nspec:\n  limit: {}\n  limits: {depth: x}\n"
    )
    done = secretweave("--config", config, stdin=PLAIN)
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"{config}, document 1, line 4".encode() in done.stderr
    assert f"{config}, document 1, line 5".encode() in done.stderr


def test_a_report_file_gets_the_faults(secretweave: Command, tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = secretweave("--report", report, stdin=b"")
    assert report.read_bytes() == done.stderr
    assert done.stderr.startswith(b"secretweave: error\n")


def test_debug_shows_frames_and_no_message(secretweave: Command) -> None:
    done = secretweave("--debug", stdin=SECRET.replace(b"secret://shop", b"hunter2 secret://shop"))
    assert done.returncode == 5
    assert b"cli.py" in done.stderr
    assert b"hunter2" not in done.stderr


def test_version_help_and_completion(secretweave: Command) -> None:
    assert secretweave("--version").stdout == f"secretweave {__version__}\n".encode()
    assert b"Without a command: render" in secretweave("--help").stdout
    assert b"SECRETWEAVE_NAMESPACE" in secretweave("render", "--help").stdout
    assert b"_SECRETWEAVE_COMPLETE=bash_complete" in secretweave("completion", "bash").stdout
    completed = secretweave(_SECRETWEAVE_COMPLETE="bash_complete", COMP_WORDS="secretweave pl", COMP_CWORD="1")
    assert completed.stdout == b"plain,plan\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_completion(shell: str, secretweave: Command) -> None:
    done = secretweave("completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"_SECRETWEAVE_COMPLETE={shell}_complete".encode() in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--nonsense"], "--nonsense"),
        (["plan", "--namespace"], "--namespace"),
        (["render", "--config"], "--config"),
        (["--allow-empty=1"], "--allow-empty"),
        (["plan", "--format", "xml"], "'table', 'json'"),
    ],
)
def test_a_wrong_command_line_is_told_as_any_fault(
    arguments: list[str], named: str, secretweave: Command, tmp_path: Path
) -> None:
    done = secretweave(*arguments, stdin=SECRET, SECRETWEAVE_REPORT=str(tmp_path / "report"))
    assert (done.returncode, done.stdout) == (2, b"")
    first, what, fix, last = done.stderr.decode().splitlines()
    assert (first, fix, last) == ("secretweave: error", "  fix:   see `secretweave --help`", "nothing was written")
    assert what.startswith("  what:  ")
    assert named in what
    assert (tmp_path / "report").read_bytes() == done.stderr


def test_a_format_of_the_environment_is_checked(secretweave: Command) -> None:
    done = secretweave("plan", stdin=SECRET, SECRETWEAVE_FORMAT="xml")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no format is called xml" in done.stderr
    assert secretweave("plan", stdin=PLAIN, SECRETWEAVE_FORMAT="json").stdout == b"[]\n"


def piped(home: Path, line: str) -> "subprocess.CompletedProcess[bytes]":
    """A line of shell in which $SECRETWEAVE is the command."""
    environ = {"PATH": os.environ["PATH"], "SECRETWEAVE_CONFIG": str(home / "config.yaml")}
    command = f"{sys.executable} -m secretweave"
    return subprocess.run(
        ["bash", "-c", line], env=environ | {"SECRETWEAVE": command}, input=SECRET, capture_output=True, check=False
    )


@pytest.mark.parametrize("command", ["render", "check", "plan"])
def test_output_that_cannot_be_written_is_an_error(command: str, home: Path) -> None:
    full = piped(home, f"$SECRETWEAVE {command} >/dev/full")
    assert (full.returncode, full.stderr) == (
        1,
        b"secretweave: No space left on device; what was written is not whole\n",
    )
    closed = piped(home, f"$SECRETWEAVE {command} >&-")
    assert (closed.returncode, closed.stderr.count(b"\n")) == (1, 1)


def test_a_closed_stderr_changes_nothing(home: Path) -> None:
    done = piped(home, "$SECRETWEAVE 2>&-")
    assert (done.returncode, done.stdout) == (0, WOVEN)
    assert piped(home, "$SECRETWEAVE --namespace= none.yaml 2>&-").returncode == 3


def test_a_closed_stdin_is_empty_input(home: Path) -> None:
    done = piped(home, "$SECRETWEAVE <&-")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"the input holds no manifest" in done.stderr


def test_a_reader_that_goes_away_is_told_by_the_exit_code_alone(home: Path, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_bytes((PLAIN + b"\n---\n") * 20_000)
    done = piped(home, f"$SECRETWEAVE {tmp_path}/many.yaml | head -c 1; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"#", b"")


def test_progress_is_for_a_terminal_alone(home: Path) -> None:
    assert piped(home, "$SECRETWEAVE").stderr == b""
    person, terminal = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "secretweave"],
        env={"SECRETWEAVE_CONFIG": str(home / "config.yaml")},
        input=SECRET,
        stdout=subprocess.PIPE,
        stderr=terminal,
        check=True,
    )
    os.close(terminal)
    assert done.stdout == WOVEN
    assert os.read(person, 1000) == b"secretweave: 1 reference woven from 1 secret\r\n"
    os.close(person)


def test_without_the_c_parser_the_command_says_so(home: Path) -> None:
    hidden = "import sys; sys.modules['_ruamel_yaml'] = None; from secretweave.__main__ import main; main()"
    done = piped(home, f'{sys.executable} -c "{hidden}"')
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"pip install 'ruamel.yaml[oldlibyaml]'" in done.stderr


@pytest.mark.parametrize("option", options.RENDER, ids=lambda option: option.name)
def test_every_option_has_an_environment_name(option: Option) -> None:
    arguments = [f"--{option.name}"] if option.flag else [f"--{option.name}", "x"]
    (name, *_) = option.environ
    assert name == f"SECRETWEAVE_{option.field.upper()}"
    assert options.quick([], {name: "yes" if option.flag else "x"}) == options.quick(arguments, {})


def test_redacted_output_needs_no_store(secretweave: Command, home: Path) -> None:
    store = (home / "config.yaml").read_text().replace("path: secrets.yaml", "path: gone.yaml")
    (home / "gone-config.yaml").write_text(store)
    done = secretweave("--config", home / "gone-config.yaml", "--output", "redacted", stdin=SECRET)
    assert (done.returncode, done.stdout) == (0, SECRET.replace(b"secret://shop/app/token", b'"***shop:app/token***"'))
    assert secretweave("--config", home / "gone-config.yaml", stdin=SECRET).returncode == 6


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ([], {}, Request()),
        (["render", "a", "-"], {}, Request(files=("a", "-"))),
        (["--namespace=n", "--config", "c"], {}, Request(namespace="n", config="c")),
        ([], {"HELM_NAMESPACE": "h", "SECRETWEAVE_DEBUG": "1"}, Request(namespace="h", debug=True)),
        (["--namespace", "n"], {"SECRETWEAVE_NAMESPACE": "e"}, Request(namespace="n")),
        ([], {"SECRETWEAVE_NAMESPACE": ""}, Request()),
        (["--help"], {}, None),
        (["plan"], {}, None),
        (["--namespace"], {}, None),
        (["--allow-empty=1"], {}, None),
        ([], {"_SECRETWEAVE_COMPLETE": "bash_source"}, None),
    ],
)
def test_a_render_is_read_without_click(
    arguments: list[str], environ: dict[str, str], expected: Request | None
) -> None:
    assert options.quick(arguments, environ) == expected


@pytest.mark.parametrize(
    "source",
    [
        b"---\n# Source: shop/templates/db.yaml\n" + SECRET,
        SECRET.replace(
            b"{name: s}",
            b"{name: s, annotations: {postrenderer.helm.sh/postrender-filename: 'shop/templates/db.yaml'}}",
        ),
    ],
)
def test_a_fault_names_the_template_that_helm_rendered(secretweave: Command, source: bytes) -> None:
    done = secretweave(stdin=source.replace(b"app/token", b"none"))
    assert b"where: stdin, document 1 (shop/templates/db.yaml), line " in done.stderr


def test_a_plan_is_utf_8_whatever_the_locale_and_the_names_of_files(secretweave: Command, tmp_path: Path) -> None:
    file = tmp_path / "\udcff.yaml"
    file.write_bytes(SECRET.replace(b"name: s", b"name: \xc3\xa9"))
    done = secretweave("plan", "--format", "json", file, PYTHONIOENCODING="ascii")
    assert done.stderr == b""
    assert [(row["source"], row["name"]) for row in json.loads(done.stdout)] == [(str(file), "é")]
