"""How to log in to a registry, from where Docker and Podman keep it: their files, and the programs that these name.

What a helper program gives wins over what stands in the file, as with `docker` itself. Of several files the first that
is there counts, in the order of the library that Flux's own command uses.

https://github.com/google/go-containerregistry/blob/v0.21.5/pkg/authn/keychain.go
https://docs.docker.com/reference/cli/docker/login/#credential-stores
https://github.com/docker/docker-credential-helpers#development (the protocol)
"""

import base64
import binascii
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from secretweave.errors import ConfigError, Unavailable

FILE_MAX = 1 << 20
HUB = "index.docker.io"
HUB_SERVER = "https://index.docker.io/v1/"
HELPER = re.compile(r"[A-Za-z0-9._-]{1,64}")
NOT_FOUND = "credentials not found"
"""In what a helper says that has none for the registry: no fault."""
IDENTITY = "<token>"
"""The user name under which a helper gives an identity token."""


class Login(NamedTuple):
    user: str = ""
    password: str = ""
    identity_token: str = ""
    """Is exchanged for a registry's token."""
    token: str = ""
    """A registry's own."""


def login(registry: str, repository: str, environ: Mapping[str, str], deadline: float) -> Login | None:
    """None: there is none, and whoever asks is anonymous. *registry*: `HOST` or `HOST:PORT`.

    Raises ConfigError: a file is malformed, a helper is not there or fails; Unavailable: a helper takes too long.
    """
    kept = _kept(environ)
    helper = _mapping(kept, "credHelpers").get(registry) or kept.get("credsStore")
    if helper:
        found = _of_helper(str(helper), HUB_SERVER if registry == HUB else registry, environ, deadline)
        if found is not None:
            return found
    entries = {_bare(key): entry for key, entry in _mapping(kept, "auths").items() if isinstance(entry, Mapping)}
    place = f"{registry}/{repository}"
    # Podman keeps logins for parts of a registry: the longest one counts.
    while place:
        entry = _entry(entries.get(place, {}))
        if entry is not None:
            return entry
        place = place.rpartition("/")[0]
    return None


def _files(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("DOCKER_CONFIG"):
        yield os.path.join(environ["DOCKER_CONFIG"], "config.json")
    elif environ.get("HOME"):
        yield os.path.join(environ["HOME"], ".docker", "config.json")
    if environ.get("REGISTRY_AUTH_FILE"):
        yield environ["REGISTRY_AUTH_FILE"]
    if environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(environ["XDG_RUNTIME_DIR"], "containers", "auth.json")


def _kept(environ: Mapping[str, str]) -> Mapping[str, Any]:
    for path in _files(environ):
        try:
            with open(path, "rb") as file:
                data = file.read(FILE_MAX)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unread(error.strerror or "") from None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, Mapping):
            raise _unread("it is no JSON object")
        return found
    return {}


def _unread(why: str) -> ConfigError:
    return ConfigError(
        "Docker's config.json, or Podman's auth.json, cannot be read",
        why=why,
        fix="correct it, or let DOCKER_CONFIG name the folder of another config.json",
    )


def _mapping(kept: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = kept.get(name)
    return found if isinstance(found, Mapping) else {}


def _bare(key: str) -> str:
    """Docker writes `https://HOST/v1/` for some registries, and `HOST` for others."""
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


def _entry(entry: Mapping[str, Any]) -> Login | None:
    told = {name: value for name, value in entry.items() if isinstance(value, str) and value}
    user, password = told.get("username", ""), told.get("password", "")
    if "auth" in told:
        try:
            user, _, password = base64.b64decode(told["auth"], validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _unread("an `auth` in it is no base64 of USER:PASSWORD") from None
    found = Login(user, password, told.get("identitytoken", ""), told.get("registrytoken", ""))
    return found if any(found) else None


def _of_helper(name: str, server: str, environ: Mapping[str, str], deadline: float) -> Login | None:
    import subprocess

    program = f"docker-credential-{name}"
    fix = f"install {program} on the PATH, or correct credsStore and credHelpers in Docker's config.json"
    if not HELPER.fullmatch(name):
        raise ConfigError("the name of a credential helper is malformed", fix=fix)
    try:
        # It is the user's own program, which logs in with the user's own environment.
        done = subprocess.run(  # noqa: S603 - its name is of letters, and it is in no shell
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            check=False,
            env=dict(environ),
            timeout=max(deadline - time.monotonic(), 0.001),
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"the credential helper {program} did not answer", fix=f"see what `{program} get` waits for"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the credential helper {program} cannot be started", why=error.strerror or "", fix=fix
        ) from None
    if done.returncode:
        if NOT_FOUND in done.stdout.decode(errors="replace"):
            return None
        raise ConfigError(
            f"the credential helper {program} ended with the exit code {done.returncode}",
            fix=f"log in to what it asks, and see what `echo {server} | {program} get` says",
        )
    try:
        given = json.loads(done.stdout)
        user, secret = str(given["Username"]), str(given["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"the credential helper {program} gave no login", fix=fix) from None
    return Login(identity_token=secret) if user == IDENTITY else Login(user, secret)
