"""The containers: what is mounted, what can be written, and Argo CD's plugin server with its file.

https://argo-cd.readthedocs.io/en/stable/operator-manual/config-management-plugins/
"""

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from secretweave import yamltree
from secretweave.doctor.base import Case, Finding, judged
from secretweave.errors import InputError
from secretweave.yamltree import Node, Scalar, Sequence

SERVER = "/var/run/argocd/argocd-cmp-server"
"""Where Argo CD's init container puts it."""
PLUGINS = "/home/argocd/cmp-server/plugins"
"""Where it makes the sockets of plugins; ARGOCD_PLUGINSOCKFILEPATH names another folder."""
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
GENERATE = ["secretweave", "argocd", "generate"]
ORDINARY = ("Chart.yaml", "kustomization.yaml", "deployment.yaml")
"""A file of each kind of source that Argo CD renders by itself."""


def is_here(environ: Mapping[str, str]) -> bool:
    """Is this the plugin server's container?"""
    return os.path.exists(SERVER) or "ARGOCD_PLUGINSOCKFILEPATH" in environ


def filesystems(case: Case) -> Iterator[Finding]:
    folder = case.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - only looked at
    spool = case.config.settings.limits.spool_folder if case.config else ""
    for name, path in (("TMPDIR", folder), ("limits.spoolFolder", spool)):
        if path and _can_write(path):
            yield Finding("ok", "temporary", f"{path} can be written")
        elif path:
            yield Finding(
                # Argo CD's server puts the repositories there.
                "fault" if case.host == "sidecar" and name == "TMPDIR" else "warning",
                "temporary",
                f"nothing can be written in {path}; a long stream is then kept in memory",
                f"let {name} name a folder that this user can write in, such as an emptyDir that is mounted there",
            )
    if not case.has_tenants:
        return
    if os.statvfs("/").f_flag & os.ST_RDONLY:
        yield Finding("ok", "filesystem", "the container's own is read-only")
    else:
        yield Finding(
            "warning",
            "filesystem",
            "the container's own can be written",
            "set readOnlyRootFilesystem: true in its securityContext",
        )
    if case.host == "sidecar" and os.path.exists(TOKEN):
        yield Finding(
            "warning",
            "token",
            "the token of the Pod's ServiceAccount is mounted beside the programs that tenants steer",
            "set automountServiceAccountToken: false for the Pod, and mount it in the daemon's container alone",
        )


def server(case: Case) -> Iterator[Finding]:
    """argocd-cmp-server, its folder of sockets, and the plugin's file."""
    if case.host != "sidecar":
        return
    if case.environ.get("ARGOCD_CMP_SERVER_LOGLEVEL", "").lower() in {"debug", "trace"}:
        yield Finding(
            "fault",
            "cmp-server",
            "it logs at the level debug, which is every manifest as a whole, with the values in it",
            "set ARGOCD_CMP_SERVER_LOGLEVEL to info",
        )
    plugins = case.environ.get("ARGOCD_PLUGINSOCKFILEPATH") or PLUGINS
    # The server's option --config-dir-path may name another folder; it cannot be seen from here.
    file = os.path.join(os.path.dirname(plugins.rstrip("/")), "config", "plugin.yaml")
    findings = list(_of_file(file, case.environ))
    name = _plugin_name(file)
    yield from _running(plugins, name)
    yield from findings


def _running(plugins: str, name: str) -> Iterator[Finding]:
    """*name*: of the socket, without its ending; empty: unknown."""
    if not os.path.isdir(plugins):
        yield Finding(
            "fault",
            "cmp-server",
            f"the folder {plugins} for the plugins' sockets is not there",
            "mount the volume `plugins` of the repo-server's Pod there",
        )
        return
    path = os.path.join(plugins, f"{name}.sock")
    if name and _answers(path):
        yield Finding("ok", "cmp-server", f"it serves the plugin {name}")
    elif not _can_write(plugins):
        yield Finding(
            "fault",
            "cmp-server",
            f"this user cannot write in {plugins}, where the plugin's socket has to be",
            "run the container as user 999, as the repo-server does",
        )
    elif not os.access(SERVER, os.X_OK):
        yield Finding(
            "fault",
            "cmp-server",
            f"{SERVER} is not there, or cannot be executed",
            "mount the volume `var-files` of the repo-server's Pod at /var/run/argocd",
        )
    else:
        yield Finding(
            "fault",
            "cmp-server",
            f"nothing listens at {path}" if name else "the plugin's name is not known",
            f"let the container's command be [{SERVER}], and look at its log",
        )


def _plugin(file: str) -> Node | None:
    """Raises OSError, InputError."""
    with open(file, "rb") as stream:
        documents = yamltree.load(stream.read())
    return documents[0] if len(documents) == 1 else None


def _plugin_name(file: str) -> str:
    """As the server calls its socket; empty: it cannot be told."""
    try:
        plugin = _plugin(file)
    except (OSError, InputError):
        return ""
    name, version = _text(plugin, "metadata", "name"), _text(plugin, "spec", "version")
    return f"{name}-{version}" if name and version else name


def _of_file(file: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    mount = "mount the ConfigMap with argocd/plugin.yaml there"
    try:
        plugin = _plugin(file)
    except OSError as error:
        yield Finding("fault", "plugin.yaml", f"{file} cannot be read ({error.strerror})", mount)
        return
    except InputError as error:
        error.where = error.where._replace(source=file)
        yield from judged("fault", "plugin.yaml", error)
        return
    if _text(plugin, "kind") != "ConfigManagementPlugin":
        yield Finding("fault", "plugin.yaml", f"{file} is no ConfigManagementPlugin", mount)
        return
    found = [*_commands(plugin, environ), *_discover(plugin)]
    if _text(plugin, "spec", "provideGitCreds") == "true":
        found.append(
            Finding(
                "warning",
                "plugin.yaml",
                "spec.provideGitCreds hands the repository's credentials to a plugin that has no use for them",
                "leave it out",
            )
        )
    yield from found or [Finding("ok", "plugin.yaml", f"{file}: {_text(plugin, 'metadata', 'name')}")]


def _commands(plugin: Node | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    generate = _words(_at(plugin, "spec", "generate", "command")) + _words(_at(plugin, "spec", "generate", "args"))
    program = generate[0] if generate else ""
    if [os.path.basename(program), *generate[1:]] != GENERATE:
        yield Finding(
            "fault",
            "plugin.yaml",
            "spec.generate does not run `secretweave argocd generate` and nothing else",
            f"write command: [{', '.join(GENERATE)}]",
        )
        return
    folders = environ.get("PATH", "").split(os.pathsep)
    places = [program] if "/" in program else [os.path.join(folder, program) for folder in folders]
    if not any(os.access(place, os.X_OK) for place in places):
        yield Finding(
            "fault", "plugin.yaml", f"{program} is not on the PATH of this container", "use the image of secretweave"
        )


def _discover(plugin: Node | None) -> Iterator[Finding]:
    """Argo CD asks plugins before it looks for a Chart.yaml itself: one that takes all takes over every Application."""
    if _words(_at(plugin, "spec", "discover", "find", "command")):
        yield Finding(
            "warning",
            "plugin.yaml",
            "spec.discover runs a command, which decides which Applications are this plugin's",
            "name the plugin in the Applications, or discover the file .secretweave (argocd/plugin-discover.yaml)",
        )
    for steps in (("fileName",), ("find", "glob")):
        pattern = _text(plugin, "spec", "discover", *steps)
        taken = [name for name in ORDINARY if fnmatchcase(name, pattern.rpartition("/")[2])]
        if pattern and taken:
            everything = len(taken) == len(ORDINARY)
            yield Finding(
                "fault" if everything else "warning",
                "plugin.yaml",
                f"spec.discover.{'.'.join(steps)} fits "
                + ("every source" if everything else f"each source with a {taken[0]}")
                + ": the plugin takes over Applications that never asked for it",
                "leave discover out, and name the plugin in the Applications",
            )


def _at(node: Node | None, *steps: str) -> Node | None:
    for step in steps:
        node = node.get(step) if isinstance(node, yamltree.Mapping) else None
    return node


def _text(node: Node | None, *steps: str) -> str:
    found = _at(node, *steps)
    return found.value if isinstance(found, Scalar) and yamltree.plain(found) is not None else ""


def _words(node: Node | None) -> list[str]:
    return [item.value for item in node.items if isinstance(item, Scalar)] if isinstance(node, Sequence) else []


def _answers(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(path)
    except OSError:
        return False
    return True


def _can_write(folder: str) -> bool:
    """By doing it: os.access knows nothing of quotas, nor of Landlock."""
    path = os.path.join(folder, f".secretweave-{os.urandom(8).hex()}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        os.unlink(path)
    except OSError:
        return False
    return True
