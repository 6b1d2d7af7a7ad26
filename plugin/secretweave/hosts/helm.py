"""Where a message reaches the person, though Helm 4 drops whatever its post-renderer writes to stderr.

Helm 4 (internal/plugin/runtime_subprocess.go, runPostrenderer) reads a post-renderer's stderr into a buffer that
nothing prints, not even with --debug, and sets HELM_PLUGIN_NAME and HELM_PLUGIN_DIR; Helm 3 sets neither for a post-
renderer, and shows its stderr when it fails. So under Helm 4 a message goes to Helm's own stderr, which Linux names
/proc/<pid>/fd/2, where the terminal, the CI log or the file of the person is; where that cannot be opened (a socket,
another system than Linux), to the controlling terminal. Loaded only when there is something to tell.
"""

import os
import re
import stat
from collections.abc import Mapping

POST_RENDERER = re.compile(rb"^type:[ \t]*[\"']?postrenderer/v1\b", re.MULTILINE)
MANIFEST_BYTES_MAX = 65536
ANCESTORS_MAX = 4
"""A plugin may start secretweave through scripts of its own."""
STDERR = 2
RESERVE = b" " * 1023 + b"\n"
"""Room for what Helm itself has still to say; see `_tell_file`."""


def tell(text: str, environ: Mapping[str, str]) -> bool:
    """Writes the text where a person sees it, when Helm 4 started this process. Never raises.

    False: this is no run under Helm 4, or there is no way to the person.
    """
    try:
        if not _is_post_renderer(environ):
            return False
        path = _helm_stderr()
        if path is not None:
            return _tell_helm(path, text.encode(errors="replace"))
    except OSError:
        pass
    return _tell_terminal(text.encode(errors="replace"))


def _is_post_renderer(environ: Mapping[str, str]) -> bool:
    """Whether HELM_PLUGIN_DIR is a post-renderer's: another plugin's environment may reach this process as well."""
    folder = environ.get("HELM_PLUGIN_DIR")
    if not folder or not environ.get("HELM_PLUGIN_NAME"):
        return False
    try:
        with open(os.path.join(folder, "plugin.yaml"), "rb") as manifest:
            return POST_RENDERER.search(manifest.read(MANIFEST_BYTES_MAX)) is not None
    except OSError:
        return False


def _helm_stderr() -> str | None:
    """The stderr of the nearest ancestor that does not share ours. Raises OSError where /proc tells nothing."""
    ours = os.fstat(STDERR)
    pid = os.getppid()
    for _ in range(ANCESTORS_MAX):
        if pid <= 1:
            break
        path = f"/proc/{pid}/fd/{STDERR}"
        if not os.path.samestat(os.stat(path), ours):
            return path
        with open(f"/proc/{pid}/stat", "rb") as status:
            # The name, in brackets, may hold anything; state and parent follow it.
            pid = int(status.read().rpartition(b")")[2].split()[1])
    return None


def _tell_helm(path: str, text: bytes) -> bool:
    """Raises OSError where the way there is closed, and another is worth trying."""
    kind = os.stat(path).st_mode
    if stat.S_ISREG(kind):
        return _tell_file(path, text)
    # Not blocking while it is opened: a pipe without a reader would block for ever.
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        if not stat.S_ISFIFO(kind) and not os.isatty(descriptor):
            return False  # /dev/null: the person wants to hear nothing
        os.set_blocking(descriptor, True)
        _write(descriptor, text)
    finally:
        os.close(descriptor)
    return True


def _tell_file(path: str, text: bytes) -> bool:
    """A file that Helm opened without O_APPEND gets room before the text: Helm's next line lands there, not on it."""
    with open(path.replace("/fd/", "/fdinfo/"), encoding="ascii") as information:
        flags = re.search(r"^flags:\s*([0-7]+)$", information.read(), re.MULTILINE)
    appends = flags is not None and int(flags[1], 8) & os.O_APPEND
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
    try:
        _write(descriptor, text if appends else RESERVE + text)
    finally:
        os.close(descriptor)
    return True


def _tell_terminal(text: bytes) -> bool:
    try:
        descriptor = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        _write(descriptor, text)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
