"""`vault`: HashiCorp Vault and OpenBao, which have one API.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: shop}
    spec:
      vault:
        url: https://vault.example.com:8200       # else VAULT_ADDR, else BAO_ADDR
        path: secret                              # the engine's mount; refs are then relative to it
        namespace: team-a                         # else VAULT_NAMESPACE, else BAO_NAMESPACE
        auth:                                     # one of these; {} takes what the environment says
          tokenSecretRef: {name: vault-token, key: token}
          tokenFile: /vault/secrets/token
          appRole: {roleID: 59d6d1ca, secretIDSecretRef: {name: vault, key: secret-id}}     # or roleIDSecretRef
          kubernetes: {role: secretweave}         # tokenFile: by default the service account's
          jwt: {role: secretweave, tokenFile: /var/run/secrets/tokens/vault}
          userPass: {username: web, passwordSecretRef: {name: vault, key: password}}
        tls: {caFile: ca.pem, certFile: client.pem, keyFile: client.key}
        kvVersion: 2                              # says what is else looked up with one request per mount
        field: value                              # each secret is this one field of it

Each login has a `path` too, where its method is mounted. `tls` has also `caSecretRef`, `serverName` and
`insecureSkipVerify`; what it leaves out comes from VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY,
VAULT_TLS_SERVER_NAME and VAULT_SKIP_VERIFY. A proxy is that of VAULT_PROXY_ADDR or VAULT_HTTP_PROXY, else of
HTTPS_PROXY (HTTP_PROXY, ALL_PROXY), which NO_PROXY limits. BAO_ stands for VAULT_ wherever the latter is not set.

**auth: {}** is, in this order: the method that VAULT_AUTH_METHOD names (`approle` with VAULT_ROLE_ID and
VAULT_SECRET_ID, `kubernetes` with VAULT_ROLE_ID and VAULT_KUBERNETES_JWT_TOKEN_PATH, `userpass` with VAULT_USERNAME
and VAULT_PASSWORD_FILE or VAULT_PASSWORD_ENV; their mounts are VAULT_LOGIN_MOUNT_POINT and
VAULT_KUBERNETES_MOUNT_POINT; or `token`); VAULT_TOKEN; BAO_TOKEN; VAULT_ROLE_ID with VAULT_SECRET_ID; the file
VAULT_TOKEN_FILE; ~/.vault-token; no token, as a Vault agent that adds its own likes it.

**ref**: the secret's path, relative to `path`; without `path` it begins with the mount. KV 1 and 2 are told apart by
one request per mount (`sys/internal/ui/mounts`); where that is refused, or not known to an old Vault, it is taken for
KV 2, whose mount is `path`, or what precedes `/data/` in the ref, or the ref's first part. In a KV 2 engine `data/`
after the mount may be written or left out, and with `path: secret` the whole `secret/data/app/db` may stand as well as
`app/db`. So the secret that is itself called `data/x` must be written `data/data/x`. Of any other engine
(`database/creds/shop`, `pki/...`) the path is read as it is, once in a run: credentials that it makes live as long as
their lease, which ends with the token that asked for them at the latest. `sys/` and `auth/` are no secrets.

**#KEY**: a field of the secret. Without it: the field `value`, if it is the only one. With the setting `field` each
secret is that field's value alone, and #KEY reaches into it. Without #KEY and `field` a secret of several fields is an
error.

**version**: the number of a KV 2 version; other engines have none.

A token that a login gave is renewed, if it may be, when two thirds of its time are over and it is still in use. It is
revoked at the end of the run, unless a lease hangs on it; a given one is left as it is.

Least permission, for `secret/app/db` of a KV 2: `path "secret/data/app/db" { capabilities = ["read"] }`.

The Flux controller (`secretweave flux controller`), and nothing else, also asks a KV 2 whether there is a new version,
with one request per secret that gives no value: GET secret/metadata/app/db. That takes the permission
`path "secret/metadata/app/db" { capabilities = ["read"] }` beside the other; without it, and of other engines, the
values are read instead, as they are at each `interval`. Before that, a right to the values alone that is taken away is
not noticed, nor a secret that was deleted with its metadata and written anew: it counts from 1 again.

Vault: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2, .../kv-v1, /vault/api-docs/auth/approle
(kubernetes, jwt, userpass), /vault/api-docs/system/internal-ui-mounts; OpenBao: https://openbao.org/api-docs/
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from secretweave.errors import Denied, NotFound, StoreError
from secretweave.model import Record, SecretFields, SecretValue
from secretweave.sdk import vault_http
from secretweave.sdk.vault_connection import POOL, Tls, connection_of, variable
from secretweave.sdk.vault_http import Answer, Http
from secretweave.sdk.vault_login import Auth, Tokens, is_unknown, way_of
from secretweave.stores.base import CallLimits, Context, Store, Wanted

preload = vault_http.preload


class Settings(NamedTuple):
    url: str | None = None
    path: str | None = None
    """The mount of the engine; None: each ref begins with one."""
    namespace: str | None = None
    auth: Auth = Auth()
    tls: Tls = Tls()
    kv_version: Literal[1, 2] | None = None
    """None: it is looked up."""
    field: str | None = None
    """Each secret is this field of it; None: all its fields."""


def words(settings: Settings) -> frozenset[str]:
    """`data/app` and, with a path, `PATH/data/app` mean what `app` means, wherever the engine is a KV 2."""
    return frozenset({"data", *(settings.path or "").strip("/").split("/")})


def connect(settings: Settings, context: Context) -> Store:
    """Asks Vault nothing yet: the login and the look-ups come with the first secret."""
    namespace = (settings.namespace or variable(context.environ, "NAMESPACE")).strip("/")
    if not namespace.isascii() or not namespace.isprintable():
        raise StoreError(
            "the namespace of Vault is no plain text", fix="correct spec.vault.namespace or VAULT_NAMESPACE"
        )
    way = way_of(settings.auth, context)
    http = Http(connection_of(settings.url, settings.tls, context), namespace, context.limits)
    tokens = Tokens(http, way, lasting=isinstance(context.limits, CallLimits))
    return VaultStore(http, tokens, settings, namespace)


LOOK_UP = "sys/internal/ui/mounts/"
REFUSED_LOOK_UP = "preflight capability check"
"""In Vault's words for: this token may read nothing in that mount. Its other refusals hold for every mount."""
RFC_3339 = r"[0-9T:.Z+-]{10,40}"
NUMBER = "[1-9][0-9]{0,17}"
"""Of a KV 2 version."""
CLOCKS_APART_SECONDS_MAX = 300.0
"""Between Vault, which deletes a version when its time is over, and this machine."""
KV = frozenset({"kv1", "kv2"})


class Mount(NamedTuple):
    path: str
    """With its last slash; empty: unknown, and of no matter."""
    engine: str
    """kv1, kv2, or Vault's name of another."""
    doubt: str = ""
    """Why it may be otherwise."""


class Target(NamedTuple):
    mount: Mount
    rest: str
    """Behind the mount; of a KV 2 without `data/`."""

    @property
    def path(self) -> str:
        """In the API, below /v1/."""
        return self.mount.path + ("data/" if self.mount.engine == "kv2" else "") + self.rest

    @property
    def about(self) -> str:
        """In the API, where a KV 2 tells of the secret without it."""
        return f"{self.mount.path}metadata/{self.rest}"


class VaultStore:
    concurrency = POOL

    def __init__(self, http: Http, tokens: Tokens, settings: Settings, namespace: str) -> None:
        import threading

        self._http = http
        self._tokens = tokens
        self._path = (settings.path or "").strip("/")
        self._kv_version = settings.kv_version
        self._field = settings.field
        self._namespace = namespace
        self._finding = threading.Lock()
        self._mounts: list[Mount] = []
        self._doubts: dict[str, str] = {}
        """By the folder whose mount could not be looked up; that of another folder may be. Empty: no mount can."""

    def batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """Several spellings of one secret are one batch."""
        batches: dict[tuple[str, str | None], list[Wanted]] = {}
        for each in wanted:
            try:
                ref = self._clean(each.ref)
            except StoreError:
                key = each.ref, each.version  # it is told when this one is fetched
            else:
                key = self._target(ref).path, each.version
            batches.setdefault(key, []).append(each)
        return list(batches.values())

    def fetch_batch(self, batch: Sequence[Wanted]) -> Sequence[Record]:
        return [self.fetch(*batch[0])] * len(batch)

    def fetch(self, ref: str, version: str | None) -> Record:
        ref = self._clean(ref)
        target = self._target(ref)
        if not target.rest:
            raise StoreError("the ref names an engine of Vault, and no secret in it", fix="add the secret's path to it")
        parameters = {}
        if version is not None:
            if target.mount.engine != "kv2":
                engine = "a KV version 1" if target.mount.engine == "kv1" else f"the {target.mount.engine}"
                raise StoreError(f"{engine} engine has no versions", fix="take the version out of the reference")
            if not re.fullmatch(NUMBER, version):
                raise StoreError(
                    "the version is no whole number", why="KV version 2 counts from 1", fix="correct the version"
                )
            parameters = {"version": version}
        dynamic = target.mount.engine not in KV
        answer = self._get(target.path, parameters, leasing=dynamic)
        if answer.status >= 400:
            raise self._fault(target, ref, version, answer)
        return self._record(target.mount, answer.body.get("data"))

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        """By secret, whichever of its versions; one more of all that has none, which costs no request."""
        batches: dict[str | None, list[Wanted]] = {}
        for each in wanted:
            target = self._versioned(each.ref)
            batches.setdefault(target and target.about, []).append(each)
        return list(batches.values())

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        target = self._versioned(batch[0].ref)
        if target is None:
            return [None] * len(batch)
        answer = self._get(target.about)
        # That the metadata may not be read says nothing of the secret; that nobody is known who asks does.
        if (answer.status == 403 and is_unknown(answer)) or "missing client token" in answer.fault:
            raise self._denied(target, answer)
        data = answer.body.get("data") if answer.status == 200 else None
        return [_told(data, each.version) for each in batch]

    def probe(self) -> None:
        answer = self._get("auth/token/lookup-self")
        # A policy may keep a token from looking at itself; Vault knows it then all the same.
        if answer.status >= 400 and (self._tokens.has_none or answer.status != 403 or is_unknown(answer)):
            raise self._denied(Target(Mount("", ""), ""), answer)

    def close(self) -> None:
        self._tokens.close()
        self._http.close()

    def _get(
        self, path: str, parameters: dict[str, str] | None = None, *, leasing: bool = False, counts: bool = True
    ) -> Answer:
        url = f"/v1/{quote(path)}"
        # Another system makes what has a lease: asked twice it may make two, and its failure is not one of Vault.
        last_word = frozenset({500} if leasing else ())
        for _ in range(2):
            token = self._tokens.take(leasing=leasing, counts=counts)
            answer = self._http.ask(token.reading(url, parameters or {}), twice=not leasing, last_word=last_word)
            if not self._tokens.took(token, answer):
                break
        return answer

    def _clean(self, ref: str) -> str:
        """A ref as Vault's own programs take it, with or without slashes around it."""
        ref = ref.strip("/")
        parts = [*filter(None, [self._path]), *([ref] if ref else [])]
        segments = "/".join(parts).split("/")
        if {"", ".", ".."} & set(segments) or not ref.isprintable():
            raise StoreError("the ref is no path of Vault", why="a part of it is empty or dots", fix="correct the ref")
        # The store's own token could be read there.
        if segments[0] in {"sys", "auth"} or segments[-3:] == ["auth", "token", "lookup-self"]:
            raise StoreError("the ref names no secret", why="`sys/` and `auth/` are Vault's own", fix="correct the ref")
        return ref

    def _target(self, ref: str) -> Target:
        mount = self._mount(ref)
        whole = not self._path or (mount.engine == "kv2" and ref.startswith(f"{self._path}/data/"))
        rest = ref[len(mount.path) :] if whole else ref
        return Target(mount, rest.removeprefix("data/") if mount.engine == "kv2" else rest)

    def _versioned(self, ref: str) -> Target | None:
        """What the ref names, if that has versions."""
        try:
            ref = self._clean(ref)
        except StoreError:
            return None
        target = self._target(ref)
        return target if target.mount.engine == "kv2" and target.rest else None

    def _mount(self, ref: str) -> Mount:
        """The mount that a ref is in: one request for all that is in it."""
        if self._kv_version == 1:
            return Mount(f"{self._path}/" if self._path else "", "kv1")
        if self._kv_version == 2:
            return self._assumed(ref, "")
        sought = self._path or ref
        folder = sought.rpartition("/")[0]
        with self._finding:
            for each in self._mounts:
                if f"{sought}/".startswith(each.path):
                    return self._checked(each)
            doubt = self._doubts.get("") or self._doubts.get(folder)
            if doubt is None:
                answer = self._get(LOOK_UP + sought, counts=False)  # Vault does not count it as one of a token's uses
                found = _mount(answer.body.get("data"), sought)
                if found:
                    self._mounts.append(found)
                    return self._checked(found)
                doubt = (
                    f"Vault did not tell what engine this is (status {answer.status}), so it was taken for KV version 2"
                )
                self._doubts[folder if REFUSED_LOOK_UP in answer.fault else ""] = doubt
            return self._assumed(ref, doubt)

    def _checked(self, mount: Mount) -> Mount:
        if self._path and mount.path != f"{self._path}/":
            raise StoreError(
                f"spec.vault.path of the SecretStore is no mount, but inside the mount `{mount.path}`",
                fix="write the mount there, and the rest in each ref",
            )
        return mount

    def _assumed(self, ref: str, doubt: str) -> Mount:
        before, data, _ = ref.partition("/data/")
        return Mount(f"{self._path or (before if data else ref.partition('/')[0])}/", "kv2", doubt)

    def _record(self, mount: Mount, data: Any) -> Record:
        fields, version = data, ""
        if mount.engine == "kv2":
            fields, metadata = (data.get("data"), data.get("metadata")) if isinstance(data, dict) else (None, None)
            number = metadata.get("version") if isinstance(metadata, dict) else None
            if not isinstance(fields, dict) or not isinstance(number, int):
                raise StoreError(
                    "Vault's answer is not that of a KV version 2 engine",
                    why=mount.doubt,
                    fix="correct spec.vault.kvVersion of the SecretStore, or the ref",
                )
            version = str(number)
        if not isinstance(fields, dict):
            raise StoreError("Vault's answer holds no data", fix="correct the ref")
        if mount.engine == "kv1" and _is_kv_2(fields):
            raise StoreError("the engine is KV version 2", fix="correct spec.vault.kvVersion of the SecretStore")
        if self._field is None:
            return Record(SecretFields(fields), version)
        if self._field not in fields:
            raise NotFound(
                f"the secret has no field `{self._field}`",
                why="spec.vault.field of the SecretStore names it",
                fix="store the secret under that field, or correct the setting",
            )
        from secretweave.select import text

        return Record(SecretValue(text(fields[self._field])), version)

    def _fault(self, target: Target, ref: str, version: str | None, answer: Answer) -> StoreError:
        if answer.status in {401, 403} or "missing client token" in answer.fault:
            return self._denied(target, answer)
        engine = target.mount.engine
        if "one use left" in answer.fault:
            return StoreError(
                "the token has one use left, and Vault gives nothing that has a lease with the last one",
                fix="give the token, or the role's tokens, one use more",
            )
        if "no handler for route" in answer.fault:
            return StoreError("no engine of Vault is mounted there", fix="correct the ref, or spec.vault.path")
        if engine == "kv1" and answer.status == 404 and "versioned K/V" in str(answer.body.get("warnings")):
            return StoreError("the engine is KV version 2", fix="correct spec.vault.kvVersion of the SecretStore")
        if answer.status == 404:
            return _gone(answer) or self._absent(target, ref, version)
        if answer.status == 405:
            return StoreError(
                "Vault has nothing to read there", why="the path is one for writing", fix="correct the ref"
            )
        if engine not in KV:
            return StoreError(
                f"the {engine} engine gives nothing for this path (status {answer.status})",
                why="it knows no such role or key, or what it makes them in (a database, a cloud) does not answer",
                fix="correct the ref, or look after the engine's configuration in Vault",
            )
        return StoreError(
            f"Vault does not understand the request (status {answer.status})",
            why=target.mount.doubt,
            fix="correct the ref",
        )

    def _denied(self, target: Target, answer: Answer) -> Denied:
        identity = self._tokens.identity + (f" in the namespace {self._namespace}" if self._namespace else "")
        if self._tokens.has_none:
            return Denied(
                "Vault wants a token, and there is none",
                why="neither the SecretStore nor the environment gives one",
                fix="set spec.vault.auth of the SecretStore, or VAULT_TOKEN",
            )
        if is_unknown(answer):
            return Denied(
                "Vault does not know the token",
                why=f"{identity} has expired, was revoked, has no use left, or is of another Vault",
                fix="give a fresh token",
            )
        doubt = f"; {target.mount.doubt}" if target.mount.doubt else ""
        # Without the secret's own path: so all that one identity is denied in a mount is told as one fault.
        return Denied(
            "Vault does not let it be read",
            why=f"no policy of {identity} allows it{doubt}",
            fix=f'add to a policy: path "{target._replace(rest="PATH").path}" {{ capabilities = ["read"] }}',
        )

    def _absent(self, target: Target, ref: str, version: str | None) -> NotFound:
        mount, rest = target.mount, target.rest
        why, fix = "", "correct the ref, or store the secret in Vault"
        if mount.doubt:
            why, fix = (
                mount.doubt,
                "set spec.vault.path and spec.vault.kvVersion of the SecretStore, or correct the ref",
            )
        if mount.engine == "kv2" and rest.startswith("data/"):
            why, fix = "`data/` is written twice", "write it once, or leave it out"
        elif mount.engine == "kv2" and rest.startswith("metadata/"):
            why, fix = "`metadata/` stands where `data/` may stand", "leave it out"
        elif mount.engine == "kv1" and rest.startswith("data/"):
            why, fix = "the engine is KV version 1, whose paths have no `data/`", "leave it out"
        elif self._path and ref.startswith(f"{self._path}/"):
            why, fix = f"spec.vault.path names the mount `{self._path}` already", "leave the mount out of the ref"
        return NotFound(
            f"nothing is stored at `{target.path}`" + (f" in version {version}" if version else ""), why=why, fix=fix
        )


def _mount(data: Any, sought: str) -> Mount | None:
    """What the answer to a look-up says, if it is one."""
    path, kind = (data.get("path"), data.get("type")) if isinstance(data, dict) else (None, None)
    if not isinstance(path, str) or not path.endswith("/") or not f"{sought}/".startswith(path):
        return None
    if not isinstance(kind, str) or not re.fullmatch(r"[\w-]{1,64}", kind):
        return None
    options = data.get("options")
    if kind in {"kv", "generic"}:
        kind = "kv2" if isinstance(options, dict) and options.get("version") == "2" else "kv1"
    return Mount(path, kind)


def _is_kv_2(fields: dict[str, Any]) -> bool:
    """Is this what a KV 2 engine gives for a secret?"""
    metadata = fields.get("metadata")
    return set(fields) == {"data", "metadata"} and isinstance(metadata, dict) and "created_time" in metadata


def _told(about: Any, wanted: str | None) -> str | None:
    """The version that a read would give, if the metadata leave no doubt of it."""
    versions = about.get("versions") if isinstance(about, dict) else None
    if not isinstance(versions, dict):
        return None
    number = str(about.get("current_version")) if wanted is None else wanted
    found = versions.get(number)
    if not re.fullmatch(NUMBER, number) or not isinstance(found, dict):
        return None
    return number if found.get("destroyed") is False and _lasts(found.get("deletion_time")) else None


def _lasts(deletion_time: Any) -> bool:
    """Will a version that Vault deletes at this time (RFC 3339; empty: never) be there for a while? No: perhaps not."""
    if deletion_time == "":
        return True
    from datetime import UTC, datetime, timedelta

    try:
        ends = datetime.fromisoformat(deletion_time)
        return ends > datetime.now(UTC) + timedelta(seconds=CLOCKS_APART_SECONDS_MAX)
    except (TypeError, ValueError):
        # Without a zone it cannot be compared.
        return False


def _gone(answer: Answer) -> NotFound | None:
    """What a KV 2 engine says of a version that it has no more."""
    data = answer.body.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("version"), int):
        return None
    version, when = metadata["version"], str(metadata.get("deletion_time"))
    if metadata.get("destroyed"):
        return NotFound(f"version {version} was destroyed", fix="write a new version, or name another one")
    at = f" at {when}" if re.fullmatch(RFC_3339, when) else ""
    return NotFound(f"version {version} was deleted{at}", fix="undelete it (vault kv undelete), or write a new version")
