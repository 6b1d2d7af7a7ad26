"""How a program is run, tried with real ones: each is Python code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from secretweave.errors import ConfigError, InputError, SecretweaveError
from secretweave.sources import programs, sandbox, scrubbing
from secretweave.sources.programs import Call, Inline

pytestmark = pytest.mark.filterwarnings(
    # From Python 3.12 on, where the tests run in parallel: their runner has a second thread.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
PYTHON = os.path.realpath(sys.executable)
NAME = os.path.basename(PYTHON)
landlock = pytest.mark.skipif(not sandbox.landlock_abi(), reason="the kernel has no Landlock")


def python(
    folder: Path, code: str, *arguments: str | Inline, seconds: float = 60, environ: dict[str, str] | None = None
) -> Call:
    return Call(
        program=PYTHON,
        arguments=["-I", "-S", "-c", code, *arguments],
        folder=str(folder),
        environ=environ or {"LC_ALL": "C.UTF-8"},
        readable=[sys.base_prefix, str(folder)],
        writable=[],
        root=str(folder),
        deadline=time.monotonic() + seconds,
        seconds=seconds,
    )


def run(call: Call) -> tuple[bytes, str]:
    """(stdout, what it said)"""
    with programs.started(call) as output:
        data = b"".join(iter(lambda: output.read(1 << 16), b""))
        assert output.read(1) == b""
        return data, output.said


def failure(call: Call) -> SecretweaveError:
    with pytest.raises(SecretweaveError) as raised:
        run(call)
    return raised.value


def running(pid: int) -> bool:
    """A zombie is not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    """Within a few seconds."""
    until = time.monotonic() + 10
    while running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not running(pid)


def test_what_it_writes_and_says(tmp_path: Path):
    code = "import sys; print('kind: ConfigMap'); print('WARNING: deprecated', file=sys.stderr)"
    assert run(python(tmp_path, code)) == (b"kind: ConfigMap\n", "WARNING: deprecated")


def test_it_has_the_named_environment_and_folder_and_nothing_to_read(tmp_path: Path):
    code = "import os, sys; print(dict(os.environ), os.getcwd(), repr(sys.stdin.read()))"
    assert run(python(tmp_path, code, environ={"HOME": "/h", "LC_ALL": "C.UTF-8"}))[0].decode() == (
        f"{{'HOME': '/h', 'LC_ALL': 'C.UTF-8'}} {tmp_path} ''\n"
    )


def test_it_has_no_other_open_file(tmp_path: Path):
    handle = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(handle, True)
    code = """
import os
def is_open(number):
    try: os.fstat(number)
    except OSError: return False
    return True
print([number for number in range(256) if is_open(number)])
"""
    assert run(python(tmp_path, code))[0] == b"[0, 1, 2]\n"
    os.close(handle)


def test_files_in_memory(tmp_path: Path):
    code = """
import os, sys
for argument in sys.argv[1:]:
    before, _, path = argument.rpartition("=")
    print(before, open(path).read(), open(path).read())
try: os.write(os.open(path, os.O_RDWR), b"changed")
except PermissionError: print("sealed")
"""
    call = python(tmp_path, code, Inline(b"a: 1", "the values"), Inline(b"b: 2", "the values", "--values="))
    assert run(call)[0].decode().splitlines() == [
        " a: 1 a: 1",
        "--values b: 2 b: 2",
        "sealed",
    ]


def test_a_file_in_memory_is_large(tmp_path: Path):
    code = "import sys; print(len(open(sys.argv[1]).read()))"
    assert run(python(tmp_path, code, Inline(b"x" * 5_000_000, "the values")))[0] == b"5000000\n"


def test_what_it_says_of_a_file_in_memory_names_what_it_is(tmp_path: Path):
    code = "import sys; sys.exit(f'failed to parse {sys.argv[1]}: line 3')"
    error = failure(python(tmp_path, code, Inline(b"", "the values of the parameters")))
    assert error.why == "failed to parse the values of the parameters: line 3"


def test_an_exit_code(tmp_path: Path):
    error = failure(python(tmp_path, "import sys; print('a: 1'); sys.exit('Error: no chart\\n\\nUse --debug')"))
    assert (type(error), error.what) == (InputError, f"{NAME} failed (exit code 1)")
    assert error.why == "Error: no chart | Use --debug"
    assert error.fix == "correct what it complains of, in the repository or in the Application's parameters"


def test_output_and_then_a_failure(tmp_path: Path):
    with programs.started(python(tmp_path, "import sys; print('a: 1', flush=True); sys.exit(3)")) as output:
        assert output.read(100) == b"a: 1\n"
        with pytest.raises(InputError, match=r"failed \(exit code 3\)"):
            output.read(100)


def test_a_signal(tmp_path: Path):
    error = failure(python(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert error.what == f"{NAME} was ended by SIGKILL"
    assert error.fix == "raise the sidecar's memory limit, or make the source smaller"


def test_20_megabytes(tmp_path: Path):
    data, _ = run(python(tmp_path, "for line in range(20): print('x' * 999_999)"))
    assert (len(data), data[-2:]) == (20_000_000, b"x\n")


def test_a_piece_is_no_longer_than_asked_for(tmp_path: Path):
    with programs.started(python(tmp_path, "print('abcdef', end='')")) as output:
        assert [output.read(4), output.read(4), output.read(4)] == [b"abcd", b"ef", b""]


def test_50_megabytes_of_complaints(tmp_path: Path):
    code = """
import sys
print("begin", file=sys.stderr)
for line in range(50): print("x " * 500_000, file=sys.stderr)
print("end", file=sys.stderr)
print("a: 1")
"""
    data, said = run(python(tmp_path, code))
    assert data == b"a: 1\n"
    assert said == "begin | ... | end"


def test_complaints_after_stdout_is_closed(tmp_path: Path):
    code = "import os, sys; os.close(1); sys.stderr.write('x\\n' * 500_000); sys.stderr.flush(); os._exit(1)"
    assert len(failure(python(tmp_path, code)).why) == 2048


def test_it_lingers_after_both_are_closed(tmp_path: Path):
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(4)"
    assert failure(python(tmp_path, code)).what == f"{NAME} failed (exit code 4)"


@pytest.mark.parametrize("lingers", ["", "import os; os.close(1)", "import os; os.close(1); os.close(2)"])
def test_at_the_deadline_even_who_ignores_signals_is_ended(tmp_path: Path, lingers: str):
    code = f"""
import signal, time
for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP: signal.signal(number, signal.SIG_IGN)
{lingers}
time.sleep(60)
"""
    began = time.monotonic()
    with programs.started(python(tmp_path, code, seconds=0.5)) as output:
        with pytest.raises(InputError) as raised:
            output.read(1)
        assert not running(output.pid)
    assert time.monotonic() - began < 10
    assert raised.value.what == f"{NAME} had not ended when the run's deadline of 0.5 s was over"
    assert raised.value.fix == "make the source smaller, or raise limits.deadline in the configuration"


def test_one_that_writes_forever_is_ended_too(tmp_path: Path):
    error = failure(python(tmp_path, "while True: print('x')", seconds=0.5))
    assert error.what == f"{NAME} had not ended when the run's deadline of 0.5 s was over"


FORKS = """
import os, sys, time
if (child := os.fork()) == 0:
    try: os.setsid()
    except OSError: pass
    {closes}
    time.sleep(60)
print(child, flush=True)
{after}
"""


def test_what_it_started_is_ended_at_the_deadline(tmp_path: Path):
    call = python(tmp_path, FORKS.format(closes="", after="time.sleep(60)"), seconds=1)
    with programs.started(call) as output:
        child = int(output.read(100))
        assert running(child)
        with pytest.raises(InputError, match="deadline"):
            output.read(1)
    assert gone(child)


def test_what_it_left_in_the_background_is_ended(tmp_path: Path):
    data, _ = run(python(tmp_path, FORKS.format(closes="os.close(1)", after="")))
    assert gone(int(data))


def test_who_holds_stdout_is_waited_for_until_the_deadline(tmp_path: Path):
    """What it would still write is part of the output."""
    error = failure(python(tmp_path, FORKS.format(closes="os.close(2)", after=""), seconds=0.5))
    assert "had not ended" in error.what


def test_leaving_early_ends_it(tmp_path: Path):
    with programs.started(python(tmp_path, "import time\nprint('a', flush=True)\ntime.sleep(60)")) as output:
        assert output.read(10) == b"a\n"
        assert running(output.pid)
    assert not running(output.pid)


def test_no_handle_is_left_open(tmp_path: Path):
    before = sorted(os.listdir("/proc/self/fd"))
    run(python(tmp_path, "print()", Inline(b"", "a file")))
    failure(python(tmp_path, "raise SystemExit(1)"))
    failure(python(tmp_path, "")._replace(program=str(tmp_path / "absent")))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_killed_run_leaves_no_program_behind(tmp_path: Path):
    code = f"""
import time
from secretweave.sources import programs
call = programs.Call({PYTHON!r}, ["-I", "-S", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"],
    "/", {{}}, [{sys.base_prefix!r}], [], "/", time.monotonic() + 60, 60)
with programs.started(call) as output:
    print(output.read(100).decode(), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert running(child)
        process.kill()
    assert gone(child)


def test_an_ignored_sigchld_hides_no_failure(tmp_path: Path):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert failure(python(tmp_path, "raise SystemExit(7)")).what == f"{NAME} failed (exit code 7)"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_it_can_make_no_socket(tmp_path: Path):
    error = failure(python(tmp_path, "import socket; socket.socket(socket.AF_UNIX)"))
    assert error.why.endswith("PermissionError: [Errno 1] Operation not permitted")


@landlock
def test_it_reads_nothing_else(tmp_path: Path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").touch()
    error = failure(python(tmp_path / "inside", "open('../outside')"))
    assert error.why.endswith("PermissionError: [Errno 13] Permission denied: '../outside'")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("absent", "No such file or directory"),
        ("folder", "Permission denied"),
        ("no program", "Exec format error"),
    ],
)
def test_what_cannot_be_started(tmp_path: Path, program: str, why: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "no program").touch(mode=0o755)
    error = failure(python(tmp_path, "")._replace(program=str(tmp_path / program)))
    assert (type(error), error.what, error.why) == (ConfigError, f"the program {program} cannot be started", why)


def test_a_null_byte_in_an_argument(tmp_path: Path):
    error = failure(python(tmp_path, "", "a\0b"))
    assert (error.what, error.why) == (
        f"the program {NAME} cannot be started",
        "an argument or its environment holds a null byte",
    )


def test_the_list_of_arguments(tmp_path: Path, fp: FakeProcess):
    command = ["/tools/helm", "template", "shop", ".", "--namespace", "team a"]
    fp.register(command, stdout=b"kind: ConfigMap\n", stderr=b"WARNING: old\n")
    call = python(tmp_path, "")._replace(program="/tools/helm", arguments=command[1:])
    assert run(call) == (b"kind: ConfigMap\n", "WARNING: old")
    assert fp.call_count(command) == 1


def test_an_exit_code_of_a_stand_in(tmp_path: Path, fp: FakeProcess):
    fp.register(["/tools/kustomize", "build"], stderr=b"Error: no kustomization\n", returncode=1)
    error = failure(python(tmp_path, "")._replace(program="/tools/kustomize", arguments=["build"]))
    assert (error.what, error.why) == ("kustomize failed (exit code 1)", "Error: no kustomization")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("open /repo/charts/shop/values.yaml: no such file", "open charts/shop/values.yaml: no such file"),
        ("in '/repo': nothing", "in '.': nothing"),
        ("/repository/a and /repo-b", "/repository/a and /repo-b"),
        ("open /etc/secrets/token: denied", "open token: denied"),
        ('file "/proc/1/environ"', 'file "environ"'),
        ("see file:///etc/shadow", "see file:shadow"),
        ("../../etc/passwd is above", "../../etc/passwd is above"),
        ("at '/spec/replicas': got string", "at '/spec/replicas': got string"),
        ("Get https://user:pa/ss@host/x: EOF", "Get https://***@host/x: EOF"),
        ("oci://registry.example/shop@sha256:0 absent", "oci://registry.example/shop@sha256:0 absent"),
        ("https://host/x?ref=v1.2&token=abc&sig=d", "https://host/x?ref=v1.2&token=***&sig=***"),
        ("Authorization: Bearer abc.def, denied", "Authorization: Bearer ***, denied"),
        ("PASSWORD=hunter2 is set", "PASSWORD=*** is set"),
        ("key AKIAIOSFODNN7EXAMPLE/wJalrXUtnFEMI/K7MDENG: no", "key ***: no"),
        ("key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "key ***"),
        ("data c2VjcmV0d2VhdmUvcGFzcwo=", "data ***"),
        ("charts/Backend2/templates/deployment", "charts/Backend2/templates/deployment"),
        (
            "ServiceAccount/argocd-server-2 and validatingwebhookconfigurations",
            "ServiceAccount/argocd-server-2 and validatingwebhookconfigurations",
        ),
        ("id 0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", "id ***"),
        ("commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", "commit ***"),
        ("token ghp_16C7e42F292c6912E7710c838347Ae178B4a", "token ***"),
        ("templates/deployment-backend-2.yaml:3:4", "templates/deployment-backend-2.yaml:3:4"),
        ("CustomResourceDefinition.v1.apiextensions.k8s.io", "CustomResourceDefinition.v1.apiextensions.k8s.io"),
        ("Deployment.v1.apps/shop-backend-2.[noNs]", "Deployment.v1.apps/shop-backend-2.[noNs]"),
        ("line 1: cannot unmarshal !!str `hunter2` into int", "line 1: cannot unmarshal !!str *** into int"),
        ("config: `\npatch: hunter2\n`: no patch from [a: [b]\nc: hunter2]", "config: ***: no patch from [***]"),
        ("cut in the midst of `hunter2", "cut in the midst of ***"),
        ("<.Values.x>: range can't iterate over hunter2", "<.Values.x>: range can't iterate over ***"),
        ('strconv.Atoi: parsing "hunter2": invalid syntax', "strconv.Atoi: parsing ***: invalid syntax"),
        ("at '/password': 'hunter2' does not match pattern '^x'", "at '/password': *** does not match pattern '^x'"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07", "red bell"),
        ("one\r\n\n\ttwo\n", "one | two"),
    ],
)
def test_what_is_shown_of_what_it_says(text: str, shown: str):
    assert scrubbing.scrub(text, "/repo") == shown


def test_a_long_text_is_cut_in_its_middle():
    shown = scrubbing.scrub("begin " + "word " * 1000 + "end", "/repo")
    assert (len(shown), shown[:11], shown[-8:]) == (2048, "begin word ", "word end")


def test_find(tmp_path: Path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helm").touch(mode=0o755)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "helm").touch(mode=0o644)
    path = f"relative::{tmp_path}/absent:{tmp_path}/none:{tmp_path}/first:{tmp_path}/second"
    assert programs.find("helm", None, {"PATH": path}) == f"{tmp_path}/first/helm"
    assert programs.find("helm", f"{tmp_path}/second/helm", {"PATH": path}) == f"{tmp_path}/second/helm"


def test_nothing_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "helm").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the program helm is not installed"):
        programs.find("helm", None, {"PATH": ".:"})
    with pytest.raises(ConfigError, match="the program helm is not installed"):
        programs.find("helm", None, {})


def test_a_configured_program_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        programs.find("kustomize", str(tmp_path / "absent"), {"PATH": "/usr/bin"})
    assert raised.value.what == "the program kustomize that spec.argocd.kustomize.program names cannot be run"
    assert (
        raised.value.fix
        == "use an image that has kustomize, or correct spec.argocd.kustomize.program in the configuration"
    )
