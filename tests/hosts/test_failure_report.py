"""A failing run: nothing comes out, and the person is told why, though Helm 4 drops a post-renderer's stderr."""

import os
import pty
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.hosts.programs import Helm

CHART = str(Path(__file__).parent / "charts" / "shop")
RENDER = ("template", "demo", CHART, "--set", "broken=true")


def command(helm: Helm) -> list[str]:
    return [str(helm.path), *RENDER, *helm.post_renderer]


def on_a_terminal(helm: Helm, script: str) -> str:
    """What a person sees who types the script."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve("/bin/sh", ["/bin/sh", "-c", script, "sh", *command(helm)], helm.environment)
    seen = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: the last process closed the terminal
            break
        if not data:
            break
        seen += data
    os.close(terminal)
    os.waitpid(child, 0)
    return seen.decode()


def told(text: str) -> bool:
    """Both faults, once."""
    return text.count("secretweave: 2 errors") == 1 and "elsewhere" in text and "nowhere" in text


def test_nothing_comes_out_and_the_log_shows_why(helm: Helm):
    failed = helm.run(*RENDER, *helm.post_renderer)
    assert failed.returncode == 1
    assert failed.stdout.strip() == ""
    assert told(failed.stderr)


def test_the_terminal_shows_why(helm: Helm):
    assert told(on_a_terminal(helm, '"$@"'))


def test_a_file_that_helm_appends_to_shows_why(helm: Helm, tmp_path: Path):
    on_a_terminal(helm, f'"$@" 2>>{tmp_path}/log')
    log = (tmp_path / "log").read_text()
    assert told(log)
    assert "Error: " in log


@pytest.mark.parametrize("debug", ["", "--debug"])
def test_a_file_that_helm_overwrites_shows_why(helm4: Helm, tmp_path: Path, debug: str):
    """Helm writes on at its own place in the file: room is left for it before the faults."""
    seen = on_a_terminal(helm4, f'"$@" {debug} 2>{tmp_path}/log')
    log = (tmp_path / "log").read_text()
    assert told(log)
    assert re.search("^Error: .* exited with error$", log, re.MULTILINE)
    assert "secretweave" not in seen


def test_nobody_is_told_who_wants_to_hear_nothing(helm4: Helm):
    assert on_a_terminal(helm4, '"$@" 2>/dev/null').strip() == ""


def test_where_helm_s_stderr_is_a_socket_the_terminal_shows_why(helm4: Helm):
    """Node.js starts its children so."""
    script = 'exec python3 -c "$SOCKET" "$@"'
    program = "import socket, subprocess, sys; a, b = socket.socketpair(); subprocess.run(sys.argv[1:], stderr=b)"
    assert told(on_a_terminal(helm4._replace(environment=helm4.environment | {"SOCKET": program}), script))


def test_without_any_way_out_helm_fails_all_the_same(helm4: Helm):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        failed = subprocess.run(
            command(helm4),
            env=helm4.environment,
            stderr=theirs.fileno(),
            stdout=theirs.fileno(),
            start_new_session=True,
            check=False,
        )
        assert failed.returncode == 1
        assert b"exited with error" in ours.recv(65536)


def test_a_reader_that_is_gone_does_not_block(helm4: Helm):
    reading, writing = os.pipe()
    os.close(reading)
    failed = subprocess.run(
        command(helm4), env=helm4.environment, stderr=writing, stdout=writing, timeout=60, check=False
    )
    os.close(writing)
    assert failed.returncode != 0


def test_a_report_file_is_written(helm: Helm, tmp_path: Path):
    failed = helm.run(*RENDER, *helm.post_renderer, SECRETWEAVE_REPORT=str(tmp_path / "report"))
    assert failed.returncode == 1
    assert told((tmp_path / "report").read_text())


def test_a_warning_of_a_good_run_reaches_the_person(helm4: Helm, config: Path):
    """A value that the configuration lets into a ConfigMap is told on every run."""
    config.write_text(
        config.read_text()
        + """\
---
apiVersion: secretweave.dev/v1alpha1
kind: Configuration
spec:
  policy:
    values: [{store: shop, kind: ConfigMap, field: data.*}]
"""
    )
    woven = helm4.weave("template", "demo", CHART, "--set", "greeting=secret://shop/token?encode=json")
    assert woven.returncode == 0
    assert "secretweave: warning: " in woven.stderr
