"""Decrypts and encrypts with the program `sops` itself: all its key services, their logins and its MAC with it.

Of the platform's environment the program gets what `PASSED` names, and nothing else. It works in the root folder: SOPS
looks for a `.sops.yaml` from the working directory upwards, and under Argo CD that folder belongs to the tenant. It has
no terminal, so that what would ask for a passphrase fails. What it says on stderr can name keys, paths and addresses:
that is searched for known causes, and never shown. What is encrypted or decrypted goes through a memory file and a
pipe: it is in no argument, on no disk.

The exit codes: https://github.com/getsops/sops/blob/main/cmd/sops/codes/codes.go
"""

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from secretweave.errors import ConfigError, Denied, SecretweaveError, StoreError, Unavailable, Where

PASSED = re.compile(
    r"(?:SOPS|AWS|AZURE|MSI|IDENTITY|IMDS|GOOGLE|CLOUDSDK|GCE_METADATA|HUAWEICLOUD|VAULT)_\w+"
    r"|DEFAULT_IDENTITY_CLIENT_ID|HOME|GNUPGHOME|XDG_CONFIG_HOME|TMPDIR|SSL_CERT_(?:FILE|DIR)"
    r"|(?:(?:HTTPS?|ALL|NO)_PROXY|(?:https?|all|no)_proxy)"
)
"""The environment of SOPS, of the clouds' SDKs in it, of Vault, of GnuPG, and the proxies. PATH is passed as well,
without its relative folders: a program there would be the tenant's."""
SEALED = re.compile(r"ENC\[AES256_GCM,data:[\w+/=]*,iv:[\w+/=]+,tag:[\w+/=]+,type:\w+\]")
"""A value that SOPS encrypted, anywhere in a text."""
MESSAGE_MAX = 64 << 10
"""So much of what the program says is looked at."""
ENCRYPTS_WITHOUT = re.compile(
    r"SOPS_(?:AGE_\w+|KMS_ARN|GCP_KMS_IDS|HUAWEICLOUD_KMS_IDS|AZURE_KEYVAULT_URLS|VAULT_URIS|PGP_FP|CONFIG)"
)
"""What of that is kept from `encrypt`: it would add keys that the arguments do not name, or could decrypt."""
GET_IT = "install sops 3.9 or newer (https://github.com/getsops/sops/releases), or set {setting}"


class Call(NamedTuple):
    """With what the program is called."""

    program: str | None
    """None: the first `sops` on the PATH."""
    environ: Mapping[str, str]
    """The platform's."""
    ours: Mapping[str, str]
    """Variables that stand before the platform's."""
    deadline: float
    """On time.monotonic's clock."""
    size_limit: int
    """In bytes, of what it gives."""
    setting: str = "spec.file.sops.program"
    """What names the program."""


class Cause(NamedTuple):
    """Why a data key could not be had, as SOPS tells it."""

    pattern: str
    error: type[StoreError]
    why: str
    fix: str


STATUS = r"(?:StatusCode:|Code:|HTTP status:|Error|RESPONSE) ?"
"""Before an HTTP status: of AWS, of Vault, of both APIs of Google, of Azure."""
SILENT = (
    r"connection re(?:fused|set)|no such host|i/o timeout|deadline exceeded|no route to host|x509:|tls:|unreachable"
    rf"|server misbehaving|Client\.Timeout|{STATUS}(?:429|5\d\d)|code = (?:Unavailable|ResourceExhausted)|Throttling"
)
CAUSES = (
    Cause(
        r"did not match any of the recipients|no identity matched",
        Denied,
        "none of the age identities at hand is one that the file was encrypted for",
        "correct spec.file.sops.ageKeyFile or ageKeySecretRef, or add the identity's recipient with `sops updatekeys`",
    ),
    Cause(
        r"age identit",
        Denied,
        "there is no age identity, or it cannot be read",
        "correct spec.file.sops.ageKeyFile or ageKeySecretRef, or SOPS_AGE_KEY_FILE in the platform's environment",
    ),
    Cause(
        r"with PGP key",
        Denied,
        "the PGP key is not at hand or needs a passphrase, or gpg is not installed",
        "import the key, without a passphrase, into the keyring at GNUPGHOME, and have gpg on the PATH",
    ),
    Cause(
        r"get credentials|default credentials|token credential|credentials:|missing client token|no .*IMDS role"
        r"|DefaultAzureCredential",
        Denied,
        "there are no credentials for a key service that the file names",
        "give the platform's environment the credentials (AWS_..., AZURE_..., GOOGLE_..., VAULT_...)",
    ),
    Cause(
        SILENT,
        Unavailable,
        "a key service that the file names does not answer",
        "look after the key service, its address in the file's metadata, and the proxy settings",
    ),
    Cause(
        rf"AccessDenied|PermissionDenied|permission denied|Forbidden|code = Unauthenticated|{STATUS}40[13]",
        Denied,
        "a key service refuses the identity",
        "allow it to decrypt with the file's key (kms:Decrypt and its like)",
    ),
)
"""What each key of a file can fail by: the first that fits. What counts most in a file of several keys stands last:
people decrypt it with keys of their own, this process with one of a key service."""


class Service(NamedTuple):
    """A key service, for what is told of it when it does not encrypt."""

    pattern: str
    """By which SOPS' message tells that it is this one's fault."""
    flag: str
    """Of `sops encrypt`, that names its keys."""
    name: str
    login: str
    """The variables that give it an identity."""
    right: str
    """What the identity needs."""


SERVICES = (
    Service(
        r"AWS KMS|AWS config|failed to assume role|no valid ARN",
        "--kms",
        "AWS KMS",
        "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE",
        "kms:Encrypt",
    ),
    Service(
        r"GCP KMS",
        "--gcp-kms",
        "Google Cloud KMS",
        "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_CREDENTIALS or GOOGLE_OAUTH_ACCESS_TOKEN",
        "cloudkms.cryptoKeyVersions.useToEncrypt (roles/cloudkms.cryptoKeyEncrypter)",
    ),
    Service(
        r"Azure",
        "--azure-kv",
        "Azure Key Vault",
        "AZURE_TENANT_ID and AZURE_CLIENT_ID with AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE, or those of a "
        "managed identity",
        "the permission encrypt for keys, and get for a key named without its version (a role such as Key Vault Crypto "
        "User)",
    ),
    Service(
        r"Vault (?:transit|client|token)|Allowlist",
        "--hc-vault-transit",
        "Vault transit",
        "VAULT_TOKEN, or the file .vault-token in HOME",
        "update on ENGINE/encrypt/KEY, with a token that is neither missing nor expired",
    ),
)
"""The first whose pattern fits an error of one key. A key's own name stands in it as well."""


class Failing(NamedTuple):
    """Why a key service does not encrypt. Texts have the places of a Service's fields."""

    pattern: str
    error: type[SecretweaveError]
    why: str
    fix: str


LOG_IN = "give the platform's environment credentials for {name} ({login})"
FAILINGS = (
    Failing(
        r"no valid (?:ARN|resource ID)",
        ConfigError,
        "the name of a key of {name} is malformed",
        "correct spec.sops or the .sops.yaml",
    ),
    Failing(
        r"Allowlist does not allow",
        ConfigError,
        "SOPS_HC_VAULT_ALLOWLIST does not allow the address of {name}",
        "add it there, or correct the key's address",
    ),
    Failing(
        r"IMDS|default credentials|missing environment variable|missing client token|config profile|load AWS config",
        Denied,
        "there are no credentials for {name}",
        LOG_IN,
    ),
    Failing(
        r"x509:|tls:",
        Unavailable,
        "the certificate of {name}, or of a proxy before it, is not trusted",
        "name the authority's certificate by SSL_CERT_FILE (of Vault by VAULT_CACERT), or correct the key's address",
    ),
    Failing(
        SILENT,
        Unavailable,
        "{name} does not answer",
        "look after {name}, the address of its key, and the proxy settings",
    ),
    Failing(
        r"get credentials|token credential|credentials:|acquire a token|oauth2:|invalid_grant|cannot get Vault token"
        r"|UnrecognizedClient|InvalidSignature|InvalidClientTokenId|ExpiredToken|IncompleteSignature"
        rf"|code = Unauthenticated|invalid token|{STATUS}401",
        Denied,
        "{name} does not accept the credentials",
        LOG_IN + ", which are right and not expired",
    ),
    Failing(
        rf"NotFoundException|code = NotFound|KeyNotFound|encryption key not found|no handler for route|{STATUS}404",
        StoreError,
        "the key is not there in {name}",
        "correct its name in spec.sops or the .sops.yaml, or create it",
    ),
    Failing(
        r"DisabledException|KMSInvalidState|InvalidKeyUsage|FailedPrecondition|KeyDisabled|disabled key|not enabled",
        Denied,
        "the key in {name} is disabled, or is not one to encrypt with",
        "enable it, or name another key in spec.sops or the .sops.yaml",
    ),
    Failing(
        rf"AccessDenied|PermissionDenied|permission denied|Forbidden|{STATUS}403",
        Denied,
        "{name} does not let the identity encrypt with the key, or there is no such key",
        "allow the identity {right}, or correct the key's name",
    ),
)
"""The first that fits an error of one key: who is not logged in is told by what cannot be reached, too."""
SOME_SERVICE = Service("", "", "a key service", "AWS_..., AZURE_..., GOOGLE_..., VAULT_...", "the right to encrypt")
UNKNOWN = Failing(
    "", Denied, "{name} does not encrypt", "see that the identity has {right}, and what `sops encrypt` says"
)
A_KEY_FAILED = re.compile(
    r"(?=failed to encrypt new data key with master key |failed to \w+ Azure [\w ]+ to retrieve key version)"
)
"""Where SOPS begins to tell of each key that failed; of Azure's it asks for the version before it encrypts."""
ONE_ERROR = re.compile(r"\n\s*- \| ")
"""Where SOPS begins to tell of the next key; the lines of one are wrapped behind a bar."""


def decrypt(data: bytes, form: str, call: Call) -> bytes:
    """The plaintext of a file, in the file's own *form* (`yaml`, `json`, `dotenv`). Raises StoreError."""
    if time.monotonic() >= call.deadline:
        raise _late()
    arguments = ["decrypt", "--input-type", form, "--output-type", form]
    try:
        code, plaintext, message = _run(arguments, data, call)
    except _TooLargeError:
        raise StoreError(
            f"the decrypted file is larger than {call.size_limit} bytes", fix="raise spec.file.sizeLimit"
        ) from None
    if code:
        raise _failure(code, message.decode(errors="replace"))
    if not plaintext:
        raise _nothing(call)
    return plaintext


def encrypt(data: bytes, arguments: Sequence[str], config: str, call: Call) -> bytes:
    """The YAML *data* encrypted. *arguments*: what `sops encrypt` is told besides the formats; *config*: a .sops.yaml.

    Raises StoreError, or ConfigError for keys or a .sops.yaml that sops does not take.
    """
    if time.monotonic() >= call.deadline:
        raise _late()
    environ = {name: value for name, value in call.environ.items() if not ENCRYPTS_WITHOUT.fullmatch(name)}
    # --config even where there is none: sops would look for one.
    start = ["--config", config, "encrypt", "--input-type", "yaml", "--output-type", "yaml"]
    try:
        code, sealed, message = _run([*start, *arguments], data, call._replace(environ=environ))
    except Unavailable as late:
        asked = [each.name for each in SERVICES if any(key.startswith(f"{each.flag}=") for key in arguments)]
        late.why = f"{' or '.join(asked)} does not answer" if asked else late.why
        raise
    except _TooLargeError:
        raise StoreError(
            f"the encrypted Secret is larger than {call.size_limit} bytes", fix="cut the Secret up"
        ) from None
    if code:
        raise _failure_to_encrypt(code, message.decode(errors="replace"))
    if not sealed:
        raise _nothing(call)
    return sealed


class _TooLargeError(Exception):
    """The program gave more than it may."""


def _nothing(call: Call) -> StoreError:
    fix = GET_IT.format(setting=call.setting)
    return StoreError("sops gave nothing", why="the program is not SOPS, or is broken", fix=fix)


def refuse_sealed(value: Any, where: Where) -> None:
    """Raises StoreError where anything in *value* is still encrypted: that must not pass for the secret."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list):
            waiting += each.values() if isinstance(each, dict) else each
        text = each.decode("latin-1") if isinstance(each, bytes) else each
        if isinstance(text, str) and SEALED.search(text):
            raise StoreError(
                "a value is encrypted by SOPS, and is not part of a SOPS file",
                where=where,
                why="the `sops` metadata of its file is gone, or it is a SOPS file that is read here as one value",
                fix="restore the file from its history, or name an encrypted file in a SecretStore of its own",
            )


def _found(call: Call) -> str:
    for folder in _folders(call.environ):
        path = os.path.join(folder, "sops")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    fix = GET_IT.format(setting=call.setting)
    raise StoreError("the program sops is not installed", why="there is none on the PATH", fix=fix)


def _folders(environ: Mapping[str, str]) -> list[str]:
    return [folder for folder in environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)]


def _run(arguments: list[str], data: bytes, call: Call) -> tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr) of the program on *data*; it is stopped where it takes or writes too much."""
    program = call.program or _found(call)
    # Not a file's path: what was judged is what is read. /dev/stdin, since sops takes no input without a name before
    # 3.10; a memory file, since that can be written before there is a reader.
    source = os.memfd_create("sops")
    try:
        with open(source, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(source, 0, os.SEEK_SET)
        return _ran([program, *arguments, "/dev/stdin"], source, call)
    finally:
        os.close(source)


def _ran(arguments: list[str], source: int, call: Call) -> tuple[int, bytes, bytes]:
    import subprocess

    environ = {name: value for name, value in call.environ.items() if PASSED.fullmatch(name)}
    environ |= {"PATH": os.pathsep.join(_folders(call.environ)), **call.ours}
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, of which the configuration names the program
            arguments,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "a text of its environment or arguments holds a null byte"
        fix = GET_IT.format(setting=call.setting)
        raise StoreError("the program sops cannot be started", why=why, fix=fix) from None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        output, message = _drained(process.stdout.fileno(), process.stderr.fileno(), call)
        code = process.wait(max(call.deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        raise _late() from None
    finally:
        if process.returncode is None:
            # Before it is waited for, so that the number still is its own; with what it started, such as gpg.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
        process.stderr.close()
    return code, output, message


def _drained(stdout: int, stderr: int, call: Call) -> tuple[bytes, bytes]:
    """What is written to both until they are closed. Raises Unavailable or _TooLargeError."""
    import selectors

    taken = {stdout: bytearray(), stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in taken:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            seconds = call.deadline - time.monotonic()
            if seconds <= 0:
                raise _late()
            for key, _ in selector.select(seconds):
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fd)
                elif key.fd == stdout or len(taken[stderr]) < MESSAGE_MAX:
                    taken[key.fd] += piece
            if len(taken[stdout]) > call.size_limit:
                raise _TooLargeError
    return bytes(taken[stdout]), bytes(taken[stderr])


def _late() -> Unavailable:
    return Unavailable(
        "sops had not ended when the run's deadline was over",
        why="a key service does not answer, or a key agent waits for somebody",
        fix="look after the key service, or raise limits.deadline in the configuration",
    )


def _failure(code: int, message: str) -> StoreError:
    if code == 128:  # CouldNotRetrieveKey
        errors = [re.sub(r"[\s|]+", " ", error) for error in ONE_ERROR.split(message)]
        found = (next((cause for cause in CAUSES if re.search(cause.pattern, error)), None) for error in errors)
        causes = sorted({cause for cause in found if cause is not None}, key=CAUSES.index, reverse=True)
        why = "; ".join(cause.why for cause in causes) or "none of the keys that the file names could be used"
        fix = causes[0].fix if causes else "see what `sops decrypt FILE` says, run by hand with the same environment"
        return (causes[0].error if causes else Denied)("the file's data key cannot be had", why=why, fix=fix)
    if code in {51, 52, 24}:  # MacMismatch, MacNotFound, ErrorDecryptingMac
        return StoreError(
            "the file's MAC does not match",
            why="it was changed by other means than sops after it was encrypted, or is damaged",
            fix="restore it from its history, or correct and encrypt it again with `sops edit`",
        )
    if code == 25:  # ErrorDecryptingTree
        return StoreError(
            "a value of the file cannot be decrypted",
            why="it was moved, renamed or changed by other means than sops, or is damaged",
            fix="restore it from its history, or correct and encrypt it again with `sops edit`",
        )
    if code < 0:
        return _killed(code)
    return StoreError(
        f"sops ended with the exit code {code}",
        why="it cannot read the file, or is older than 3.9" if code in {1, 2, 100} else "",
        fix="see what `sops decrypt FILE` says, run by hand with the same environment",
    )


class Refusal(NamedTuple):
    """Why sops does not encrypt, before any key service was asked."""

    pattern: str
    why: str
    fix: str


REFUSALS = (
    Refusal(
        r"no matching creation rules",
        "no creation rule of the .sops.yaml fits the Secret",
        "add a rule whose path_regex fits NAMESPACE/secret-NAME.yaml, or one without a path_regex",
    ),
    Refusal(
        r"cannot use more than one of encrypted_suffix",
        "a creation rule of the .sops.yaml says which values are encrypted",
        "take encrypted_regex, encrypted_suffix and the like out of the rule: data and stringData are encrypted",
    ),
    Refusal(
        r"no keys provided through command line|has no creation rules",
        "there are no keys to encrypt with",
        "name them in spec.sops of the configuration, with --age, or in the creation_rules of a .sops.yaml",
    ),
    Refusal(
        r"could not read config file|loading config|parsing config|config file|compile regexp",
        "the .sops.yaml cannot be read",
        "correct it, or the path to it (--sops-config, spec.sops.config)",
    ),
    Refusal(
        r"unknown recipient type|malformed recipient|Bech32|age public key|failed to parse input",
        "an age recipient is malformed",
        "correct --age, spec.sops.age, the .sops.yaml or a SecretWeave's spec.keys.age: a recipient begins with age1",
    ),
    Refusal(
        r"not a valid|[Ii]nvalid|could not parse|with a prefixed URL|missing scheme|[Vv]ault path",
        "the name of a key is malformed",
        "correct spec.sops or the .sops.yaml",
    ),
)
"""The first that fits is told."""


def _failure_to_encrypt(code: int, message: str) -> SecretweaveError:
    what = "sops cannot encrypt"
    if code < 0:
        return _killed(code)
    if A_KEY_FAILED.search(message):
        return _failing(what, message)
    for refusal in REFUSALS:
        if re.search(refusal.pattern, message):
            return ConfigError(what, why=refusal.why, fix=refusal.fix)
    return StoreError(
        f"{what}: it ended with the exit code {code}",
        why="it is older than 3.9, or does not read the Secret" if code in {1, 2, 100} else "",
        fix="see what `sops encrypt` says, run by hand with the same keys",
    )


def _failing(what: str, message: str) -> SecretweaveError:
    """What each key's service says, told once; the class is that of the first."""
    found: list[SecretweaveError] = []
    for error in A_KEY_FAILED.split(message)[1:]:
        service = next((each for each in SERVICES if re.search(each.pattern, error)), SOME_SERVICE)
        failing = next((each for each in FAILINGS if re.search(each.pattern, error)), UNKNOWN)
        why, fix = (text.format_map(service._asdict()) for text in (failing.why, failing.fix))
        if why not in {each.why for each in found}:
            found.append(failing.error(what, why=why, fix=fix))
    return type(found[0])(what, why="; ".join(each.why for each in found), fix="; ".join(each.fix for each in found))


def _killed(code: int) -> StoreError:
    return StoreError(
        f"sops was ended by signal {-code}", why="another program or the kernel ended it", fix="run again"
    )
