"""Who asks Vault: what stands under `auth`, the token that comes of it, and what becomes of that token."""

import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from secretweave.errors import Denied, StoreError, Unavailable
from secretweave.forms import FilePath
from secretweave.sdk.vault_connection import variable
from secretweave.sdk.vault_http import Answer, Http, Send
from secretweave.stores.base import Context, SecretKeyRef

SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
CREDENTIAL_BYTES_MAX = 64 << 10
CLOSING_SECONDS = 1.5
LASTING_REFUSED_SECONDS = 0.4
"""Below the shortest pause after which a kept store is asked again."""
RENEWED_AFTER = 2 / 3
"""Of a token's time: what is left is for trying again while Vault does not answer."""
RETRY_SECONDS_MIN = 1.0


class AppRole(NamedTuple):
    path: str = "approle"
    """Where the method is mounted under `auth/`."""
    role_id: str | None = None
    role_id_secret_ref: SecretKeyRef | None = None
    secret_id_secret_ref: SecretKeyRef | None = None
    """None: for a role that needs none."""


class Kubernetes(NamedTuple):
    role: str
    path: str = "kubernetes"
    token_file: FilePath = SERVICE_ACCOUNT_TOKEN
    """The service account's token, which Vault has the cluster check. With a serviceAccountName (Flux) one of that
    account is made instead."""
    audiences: tuple[str, ...] = ()
    """Of such a token; none: the API server's own. The role's `audience` in Vault says what it takes."""


class Jwt(NamedTuple):
    token_file: FilePath | None = None
    """A projected token, or another one that the method trusts. Needed, but with a serviceAccountName (Flux)."""
    role: str | None = None
    """None: the method's default role."""
    path: str = "jwt"
    audiences: tuple[str, ...] = ()
    """Of a token that is made for a serviceAccountName; none: the API server's own."""


class UserPass(NamedTuple):
    username: str
    password_secret_ref: SecretKeyRef
    path: str = "userpass"


class Auth(NamedTuple):
    """One of these; none of them: what the environment says."""

    token_secret_ref: SecretKeyRef | None = None
    token_file: FilePath | None = None
    app_role: AppRole | None = None
    kubernetes: Kubernetes | None = None
    jwt: Jwt | None = None
    user_pass: UserPass | None = None


class Way(NamedTuple):
    """How to come by a token."""

    identity: str
    """How errors call who asks."""
    log_in: Callable[[Any], Any] | None
    """(hvac's adapter) -> the response to the login; None: the token is given."""
    token: str = ""
    """The given one; empty: the requests carry none, as a Vault agent that adds its own likes it."""


class Token:
    """A token that a request may carry. Everything in it changes under the lock of its Tokens."""

    def __init__(self, value: str, *, uses: int = 0, revocable: bool = False) -> None:
        self.value = value
        self.ends: float | None = None
        """On time.monotonic's clock, like the next one."""
        self.due = 0.0
        """When it is to be renewed, or has too little time left for a lease."""
        self.seconds = 0
        """Its time when it was last given one."""
        self.renewable = False
        self.renews = False
        """A renewal is under way."""
        self.revocable = revocable
        self.uses = uses
        """At first; 0: as many as one likes."""
        self.left = uses
        self.proved = False
        """Vault has taken it."""
        self.reserved = False
        """Its last use is not for reading: it has been asked for something that may have a lease."""
        self.leased = False

    def reading(self, url: str, parameters: Mapping[str, str]) -> Send:
        return lambda adapter: adapter.get(url, headers=self._headers(), params=parameters)

    def renewing(self) -> Send:
        return lambda adapter: adapter.post("/v1/auth/token/renew-self", headers=self._headers(), json={})

    def revoking(self) -> Send:
        return lambda adapter: adapter.post(
            "/v1/auth/token/revoke-self", headers=self._headers(), timeout=CLOSING_SECONDS
        )

    def _headers(self) -> dict[str, str]:
        return {"X-Vault-Token": self.value} if self.value else {}

    def lives(self, seconds: int, begin: float) -> None:
        """Vault gives it so many seconds, counted from *begin*."""
        self.seconds, self.ends, self.due = seconds, begin + seconds, begin + seconds * RENEWED_AFTER

    def wanes(self) -> bool:
        return self.ends is not None and time.monotonic() >= self.due

    def is_over(self) -> bool:
        return self.ends is not None and time.monotonic() >= self.ends

    def serves(self, *, leasing: bool) -> bool:
        """May it make one more request?

        Vault revokes a token with its last use, and a token's leases with the token: credentials of a dynamic engine
        would be dead before they are deployed. So one use of a token that may have leases stays unspent.
        """
        kept = 1 if (self.reserved or self.leased or leasing) and self.uses > 1 else 0
        return not self.is_over() and (not self.uses or self.left > kept)


class Tokens:
    """Gives each request its token; logs in when there is none that serves, once for all who wait for it.

    *lasting*: for many runs. A token with leases that ends then fails none of them: what it was asked for is out long
    ago. But no lease is asked for with a token that wanes and cannot be renewed.
    """

    def __init__(self, http: Http, way: Way, *, lasting: bool = False) -> None:
        import threading

        self.identity = way.identity
        self.has_none = way.log_in is None and not way.token
        self._http = http
        self._lasting = lasting
        self._log_in = way.log_in
        self._lock = threading.Lock()
        self._token = None if way.log_in else Token(way.token)
        self._made: list[Token] = []
        self._refused: StoreError | None = None
        self._refused_until = math.inf
        self._replaced = False

    def take(self, *, leasing: bool = False, counts: bool = True) -> Token:
        """A token for one request. *leasing*: its answer may have a lease; *counts*: it is one of the token's uses."""
        with self._lock:
            token = self._serving(leasing=leasing)
            if token.renews or not token.renewable or not token.wanes():
                return self._spent(token, leasing=leasing, counts=counts)
            token.renews = True
        # Who else reads meanwhile does so with the time that is left.
        self._renew(token)
        with self._lock:
            return self._spent(self._serving(leasing=leasing), leasing=leasing, counts=counts)

    def _serving(self, *, leasing: bool) -> Token:
        """The present token, or a new one. Under the lock."""
        if self._refused and time.monotonic() < self._refused_until:
            raise type(self._refused)(self._refused.what, why=self._refused.why, fix=self._refused.fix)
        ended = [each for each in self._made if each.is_over()]
        if any(each.leased for each in ended):
            self._lose_leases()
        token = self._token
        fades = leasing and self._lasting and token is not None and token.wanes() and not token.renewable
        if token is None or fades or not token.serves(leasing=leasing):
            token = self._token = self._fresh()
            self._made = [each for each in self._made if each not in ended]
        return token

    def _spent(self, token: Token, *, leasing: bool, counts: bool) -> Token:
        if counts and token.uses:
            token.left -= 1
        token.reserved |= leasing
        return token

    def _renew(self, token: Token) -> None:
        """Where it cannot be renewed it serves until it ends; then there is a new login."""
        begin = time.monotonic()
        answer = None
        try:
            answer = self._http.ask(token.renewing())
        except Unavailable:
            # That is the read's to tell, if it finds the same.
            pass
        finally:
            with self._lock:
                token.renews = False
                if answer is not None:
                    _renewed(token, answer, begin)
                elif token.ends is not None:
                    now = time.monotonic()
                    token.due = now + max((token.ends - now) / 3, RETRY_SECONDS_MIN)

    def took(self, token: Token, answer: Answer) -> bool:
        """Notes what the answer to a request says of its token; True: ask again, with another one.

        That is so for a token of ours that had ended: by its time, or because Vault knows a token no more that it knew
        before. The latter is believed once in a run, lest a server that says so of each be asked for ever.
        """
        with self._lock:
            if answer.status != 403:
                # A kept store meets more than one end of a token.
                self._replaced &= not (self._lasting and answer.status < 400)
                token.proved |= answer.status < 400
                token.leased |= bool(answer.body.get("lease_id"))
                return False
            over = token.is_over()
            if not self._log_in or not (over or (token.proved and is_unknown(answer))):
                return False
            if self._token is token:
                if not over and self._replaced:
                    return False
                self._replaced |= not over
                self._token = None
                self._made.remove(token)
                if token.leased:
                    self._lose_leases()
            return True

    def close(self) -> None:
        """Revokes the tokens that we made.

        Not one with a lease: Vault revokes the leases of a token together with it, and the credentials that this run
        has just handed to the cluster would be deleted in the database. Such a token ends with its time, and then its
        leases do.
        Not one whose uses are spent either: Vault has revoked it already.
        """
        with self._lock:
            made, self._made = self._made, []
            self._token = None
            self._refused = StoreError("the store is closed", fix="report it: this is a defect")
            self._refused_until = math.inf
        for token in made:
            if token.revocable and not token.leased and not token.is_over() and (not token.uses or token.left):
                self._http.try_once(token.revoking())

    def _lose_leases(self) -> None:
        """Raises StoreError, unless what the leases were for is long done."""
        if self._lasting:
            return
        self._refused = StoreError(
            "the token ended during the run, and the credentials that Vault made for it with it",
            fix="let the tokens of the role live longer (token_ttl, token_max_ttl)",
        )
        raise self._refused

    def _fresh(self) -> Token:
        assert self._log_in, "a given token has no end that we know of"
        begin = time.monotonic()
        try:
            # A login may use up a secret ID: it is sent again only where Vault cannot have seen it.
            token = _token(self._http.ask(self._log_in, twice=False), self.identity, begin)
        except StoreError as error:
            # The others who wait would be refused alike; a kept store asks anew, when its turn comes.
            self._refused = error
            self._refused_until = time.monotonic() + LASTING_REFUSED_SECONDS if self._lasting else math.inf
            raise
        self._made.append(token)
        return token


def is_unknown(answer: Answer) -> bool:
    """Does Vault not know the token? A refusal by its policies is told as a list, `1 error occurred: ...`."""
    return answer.fault == "permission denied" or "invalid token" in answer.fault


def _token(answer: Answer, identity: str, begin: float) -> Token:
    if answer.status in {400, 401, 403, 404}:
        raise Denied(
            "Vault refuses the login",
            why=f"{identity} is not there, or its credentials or conditions (addresses, audience, claims) do not fit",
            fix="correct spec.vault.auth of the SecretStore, or the role in Vault",
        )
    auth = answer.body.get("auth")
    value = auth.get("client_token") if isinstance(auth, dict) else None
    if answer.status >= 400 or not isinstance(auth, dict) or not isinstance(value, str):
        raise StoreError("Vault's answer to the login holds no token", fix="look after the auth method in Vault")
    if not value and auth.get("mfa_requirement"):
        raise Denied(
            "Vault wants a second factor for the login", why=f"{identity} is bound to one", fix="use a role without it"
        )
    seconds, uses = auth.get("lease_duration"), auth.get("num_uses")
    token = Token(
        one_line(value, "Vault's answer to the login"),
        uses=uses if isinstance(uses, int) else 0,
        # A batch token is nowhere stored, and cannot be revoked.
        revocable=auth.get("token_type") != "batch",
    )
    if isinstance(seconds, int) and seconds:
        token.lives(seconds, begin)
        # A renewal would cost one of its uses.
        token.renewable = auth.get("renewable") is True and not token.uses
    return token


def _renewed(token: Token, answer: Answer, begin: float) -> None:
    auth = answer.body.get("auth")
    seconds = auth.get("lease_duration") if answer.status < 400 and isinstance(auth, dict) else None
    if not isinstance(seconds, int) or not seconds:
        token.renewable = False
        return
    # Less than before: its longest time is near, and there is no more to be had.
    token.renewable = seconds >= token.seconds
    token.proved = True
    token.lives(seconds, begin)


def way_of(auth: Auth, context: Context) -> Way:
    """How this configuration says to come by a token. Raises StoreError."""
    named = [name for name, value in zip(auth._fields, auth, strict=True) if value is not None]
    if len(named) > 1:
        raise StoreError("spec.vault.auth of the SecretStore names more than one way to log in", fix="keep one of them")
    if auth.token_secret_ref:
        return _given(context.credential(auth.token_secret_ref), "spec.vault.auth.tokenSecretRef")
    if auth.token_file:
        return _given(_read(auth.token_file, "spec.vault.auth.tokenFile"), "spec.vault.auth.tokenFile")
    if auth.app_role:
        role = auth.app_role
        role_id = role.role_id or (context.credential(role.role_id_secret_ref) if role.role_id_secret_ref else "")
        if not role_id:
            raise StoreError(
                "the AppRole has no role ID", fix="set roleID or roleIDSecretRef of spec.vault.auth.appRole"
            )
        secret_id = context.credential(role.secret_id_secret_ref) if role.secret_id_secret_ref else None
        return _app_role(role.path, role_id, secret_id)
    if auth.kubernetes:
        asked = auth.kubernetes
        return _kubernetes(asked.role, asked.path, _token_of(asked.token_file, context, asked.audiences))
    if auth.jwt:
        return _jwt(auth.jwt, context)
    if auth.user_pass:
        user = auth.user_pass
        return _user_pass(user.path, user.username, context.credential(user.password_secret_ref))
    return _ambient(context)


def _ambient(context: Context) -> Way:
    """What the environment says, in the order that the store's manual page gives."""
    environ = context.environ
    method, mount = variable(environ, "AUTH_METHOD"), variable(environ, "LOGIN_MOUNT_POINT")
    both_ids = variable(environ, "ROLE_ID") and variable(environ, "SECRET_ID")
    if method == "approle" or (not method and both_ids and not variable(environ, "TOKEN")):
        role_id = _needed(environ, "ROLE_ID", "approle")
        return _app_role(mount or "approle", role_id, variable(environ, "SECRET_ID") or None)
    if method == "kubernetes":
        file = variable(environ, "KUBERNETES_JWT_TOKEN_PATH") or SERVICE_ACCOUNT_TOKEN
        role = _needed(environ, "ROLE_ID", "kubernetes")
        path = variable(environ, "KUBERNETES_MOUNT_POINT") or "kubernetes"
        return _kubernetes(role, path, _token_of(file, context, ()))
    if method == "userpass":
        if file := variable(environ, "PASSWORD_FILE"):
            password = _read(file, "VAULT_PASSWORD_FILE").rstrip("\r\n")
        else:
            password = environ.get(_needed(environ, "PASSWORD_ENV", "userpass"), "")
        return _user_pass(mount or "userpass", _needed(environ, "USERNAME", "userpass"), password)
    if method not in {"", "token"}:
        raise StoreError(
            "VAULT_AUTH_METHOD names no way to log in that is known",
            fix="use one of token, approle, kubernetes and userpass, or set spec.vault.auth of the SecretStore",
        )
    if token := variable(environ, "TOKEN"):
        return _given(token, "VAULT_TOKEN" if environ.get("VAULT_TOKEN") else "BAO_TOKEN")
    if file := variable(environ, "TOKEN_FILE"):
        return _given(_read(file, "VAULT_TOKEN_FILE"), "VAULT_TOKEN_FILE")
    home = os.path.join(environ["HOME"], ".vault-token") if environ.get("HOME") else ""
    if home and os.path.exists(home):
        return _given(_read(home, "~/.vault-token"), "~/.vault-token")
    return Way("nobody", None)


def _needed(environ: Mapping[str, str], name: str, method: str) -> str:
    value = variable(environ, name)
    if not value:
        raise StoreError(f"VAULT_AUTH_METHOD is {method}, and VAULT_{name} is not set", fix=f"set VAULT_{name}")
    return value


def _given(token: str, source: str) -> Way:
    return Way(f"the token of {source}", None, one_line(token, source))


def _app_role(path: str, role_id: str, secret_id: str | None) -> Way:
    fields = {"role_id": role_id.strip()} | ({"secret_id": secret_id.strip()} if secret_id else {})
    return _login(path, "the AppRole", lambda: fields)


def _kubernetes(role: str, path: str, token: Callable[[], str]) -> Way:
    return _login(path, f"the role {role}", lambda: {"role": role, "jwt": token()})


def _jwt(jwt: Jwt, context: Context) -> Way:
    token, file = _made(context, jwt.audiences), jwt.token_file
    if token is None:
        if file is None:
            raise StoreError(
                "spec.vault.auth.jwt of the SecretStore has no tokenFile",
                why="without a serviceAccountName there is no token that could be made",
                fix="set tokenFile, or in Flux spec.serviceAccountName of the SecretWeave",
            )
        token = partial(_read_token, file, "spec.vault.auth.jwt.tokenFile")
    role, made = jwt.role or "", token
    return _login(jwt.path, f"the role {role or '(default)'}", lambda: {"role": role, "jwt": made()})


def _token_of(file: str, context: Context, audiences: tuple[str, ...]) -> Callable[[], str]:
    """The token of the service account for whom the run is, else of the process's own."""
    return _made(context, audiences) or partial(_read_token, file, "the service account")


def _made(context: Context, audiences: tuple[str, ...]) -> Callable[[], str] | None:
    """Makes a token of the run's service account, anew for each login; None: the run has none."""
    token = context.token
    return None if token is None else lambda: one_line(token(audiences), "the API server's answer")


def _user_pass(path: str, username: str, password: str) -> Way:
    suffix = f"/{quote(username, safe='')}"
    return _login(path, f"the user {username}", lambda: {"password": password}, suffix)


def _login(path: str, who: str, fields: Callable[[], Mapping[str, str]], suffix: str = "") -> Way:
    mount = path.strip("/")
    url = f"/v1/auth/{quote(mount)}/login{suffix}"
    # hvac's classes for the methods send the same; they would import twice as much as all the rest of it that is used.
    return Way(f"{who} at auth/{mount}", lambda adapter: adapter.login(url, use_token=False, json=fields()))


def _read_token(path: str, source: str) -> str:
    """Read anew for each login: such a file is replaced before its token ends."""
    return one_line(_read(path, source), source)


def _read(path: str, source: str) -> str:
    try:
        with open(path, "rb") as file:
            return str(file.read(CREDENTIAL_BYTES_MAX), "utf-8")
    except (OSError, ValueError):
        raise StoreError(
            f"the file of {source} cannot be read",
            why="it is not there, may not be read, or is no text",
            fix="correct the path, or what puts the file there",
        ) from None


def one_line(text: str, source: str) -> str:
    """A credential that goes into a header; whose text requests would otherwise show when it is none."""
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise StoreError(f"{source} holds no token", why="a token is one word of ASCII", fix="correct what it holds")
    return text
