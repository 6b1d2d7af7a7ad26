"""What an error of AWS, or of its SDK, means. Their texts, which may hold addresses and bodies, are left behind."""

from typing import Any, NamedTuple

from secretweave.errors import Denied, StoreError, Unavailable
from secretweave.sdk import load

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
UNKNOWN_KEY = frozenset({"AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"})
BAD_SIGNATURE = frozenset({"IncompleteSignature", "InvalidSignatureException", "SignatureDoesNotMatch"})
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
THROTTLED = frozenset(
    {"RequestLimitExceeded", "Throttling", "ThrottledException", "ThrottlingException", "TooManyRequestsException"}
)
UNSUPPORTED = frozenset({"InvalidAction", "NotImplemented", "UnknownOperation", "UnknownOperationException"})
MALFORMED = frozenset({"InvalidParameterException", "ValidationException"})


class Refused(Exception):
    """AWS answered, and refuses what was asked. Its message only tells cases apart: it is shown to nobody."""

    def __init__(self, code: str, status: int = 0, message: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.status = status
        self.message = message

    @property
    def is_denial(self) -> bool:
        return self.code in DENIED or self.status in {401, 403}

    @property
    def is_unsupported(self) -> bool:
        return self.code in UNSUPPORTED or self.status == 501


class Teller(NamedTuple):
    """Tells what went wrong, with what is known of who asks."""

    store: str
    """The store's type, for a fix that names a setting."""
    attempts: int
    seconds: float
    who: str = "the AWS identity of this process"
    role: str = "the AWS role"
    """What the login takes on."""

    def fault(self, error: Exception, it: str) -> StoreError | Refused:
        """*it*: who was asked."""
        if isinstance(error, (StoreError, Refused)):
            return error
        if isinstance(error, load("botocore.exceptions", "aws").ClientError):
            return self._answered(error, it)
        words = {"it": it, "store": self.store, "seconds": f"{self.seconds:g}", "attempts": self.attempts}
        for kind in type(error).__mro__:
            if kind.__name__ in FAULTS:
                cls, what, why, fix = FAULTS[kind.__name__]
                return cls(what.format(**words), why=why.format(**words), fix=fix.format(**words))
        return self.unreadable(it)

    def refusal(self, refused: Refused, it: str, region: str, action: str) -> StoreError:
        """What a refusal of *action* means that the store has no words of its own for."""
        if refused.is_denial:
            return Denied(
                f"{self.who} may not read it in {region}",
                why=f"AWS denies {action}, or the use of the key that encrypts it",
                fix=f"allow {action} on it, and kms:Decrypt if a key of your own encrypts it, to this identity",
            )
        if refused.code in MALFORMED:
            return StoreError(
                "AWS takes it for malformed", why=f"AWS answers {refused.code}", fix="correct the reference"
            )
        return StoreError(
            f"{it} refuses the request",
            why=f"it answers with status {refused.status}" if refused.status else "",
            fix=f"check spec.{self.store}.endpoint, and that the service is offered in this region",
        )

    def not_given(self) -> Denied:
        return Denied(
            f"{self.role} is not given to {self.who}",
            why="its trust policy does not admit who asks, or wants an external id; or the token is not valid",
            fix=f"correct spec.{self.store}.auth, or the trust policy of the role",
        )

    def unreadable(self, it: str) -> Unavailable:
        return Unavailable(
            f"the answer of {it} cannot be read",
            why="it was cut off, or something else than AWS gave it",
            fix=f"check spec.{self.store}.endpoint, and the proxies on the way",
        )

    def _answered(self, error: Any, it: str) -> StoreError | Refused:
        """What an error that AWS sent means."""
        sent = error.response.get("Error", {})
        code, message = str(sent.get("Code", "")), str(sent.get("Message", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        auth = f"spec.{self.store}.auth"
        if code in EXPIRED:
            fix = "renew the keys, or give this process an identity that renews itself (a role)"
            return Denied(f"the AWS session of {self.who} has expired", why=f"AWS answers {code}", fix=fix)
        if code in UNKNOWN_KEY:
            fix = f"correct the keys that {auth} names, or the environment's; temporary ones need their session token"
            return Denied(f"AWS does not know the keys of {self.who}", why=f"AWS answers {code}", fix=fix)
        if code in BAD_SIGNATURE:
            why = "the secret access key is wrong, or this machine's clock is"
            return Denied(f"AWS does not accept the signature of {self.who}", why=why, fix=f"correct the key in {auth}")
        if code in THROTTLED or status == 429:
            why = f"AWS answers {code if code in THROTTLED else status}"
            fix = "run again later, let fewer programs ask at a time, or have the account's quota raised"
            return Unavailable(f"{it} takes no more requests for now", why=why, fix=fix)
        refused = Refused(code, status, message)
        if status >= 500 and not refused.is_unsupported:
            why = f"it answers with status {status}"
            return Unavailable(f"{it} does not work", why=why, fix="run again later; see https://health.aws.amazon.com")
        if 300 <= status < 400:
            fix = f"correct spec.{self.store}.endpoint"
            return Unavailable(f"{it} sends elsewhere", why="a redirect is not followed with credentials", fix=fix)
        return self.not_given() if error.operation_name.startswith("AssumeRole") else refused


FAULTS: dict[str, tuple[type[StoreError], str, str, str]] = {
    "NoCredentialsError": (
        Denied,
        "no AWS credentials were found",
        "neither the environment, a profile, a web identity nor the metadata of this machine gives any",
        "set spec.{store}.auth, or give this process an identity (a role, IRSA, Pod Identity, AWS_PROFILE)",
    ),
    "PartialCredentialsError": (
        Denied,
        "the AWS credentials are incomplete",
        "the access key id or the secret access key is missing where they were found",
        "set both, or neither",
    ),
    "CredentialRetrievalError": (
        Denied,
        "the AWS credentials could not be fetched",
        "the credential process, or the metadata service of the container or instance, failed",
        "look after it, or set spec.{store}.auth",
    ),
    "ProfileNotFound": (
        StoreError,
        "the AWS profile is not there",
        "the AWS configuration of this machine has no profile of this name",
        "correct spec.{store}.auth.profile or AWS_PROFILE, or add the profile",
    ),
    "ConfigParseError": (StoreError, "the AWS configuration file cannot be read", "", "correct it"),
    "InvalidConfigError": (StoreError, "the AWS configuration is wrong", "", "correct the profile"),
    "MissingDependencyException": (
        StoreError,
        "the AWS profile needs a package that is not installed",
        "",
        "pip install awscrt, or use another profile",
    ),
    "SSOError": (Denied, "the AWS sign-in is over", "it expired, or there was none", "aws sso login"),
    "TokenRetrievalError": (Denied, "the AWS sign-in is over", "it expired, or there was none", "aws sso login"),
    "LoginError": (Denied, "the AWS sign-in is over", "it expired, or there was none", "aws login"),
    "OSError": (
        Denied,
        "a file of the AWS identity cannot be read",
        "the web identity token or the AWS configuration is not there, or not readable",
        "correct spec.{store}.auth.webIdentity.tokenFile, or mount what is missing",
    ),
    "NoRegionError": (
        StoreError,
        "no AWS region is known",
        "neither the SecretStore, nor the environment, nor a profile names one",
        "set spec.{store}.region, or AWS_REGION",
    ),
    "InvalidRegionError": (StoreError, "the AWS region is malformed", "", "correct spec.{store}.region"),
    "EndpointProviderError": (StoreError, "there is no endpoint for {it}", "", "correct spec.{store}.region"),
    "BaseEndpointResolverError": (StoreError, "there is no endpoint for {it}", "", "correct spec.{store}.region"),
    "ParamValidationError": (
        StoreError,
        "AWS's SDK takes it for malformed",
        "it is empty, or its version is",
        "correct the reference",
    ),
    "SSLError": (
        Unavailable,
        "{it} is not trusted",
        "its TLS certificate is of an authority unknown here, of another name, or expired",
        "name the authority in AWS_CA_BUNDLE, or correct the endpoint",
    ),
    "ProxyConnectionError": (
        Unavailable,
        "{it} cannot be reached",
        "the proxy in HTTPS_PROXY or HTTP_PROXY does not answer",
        "correct it, or name the host in NO_PROXY",
    ),
    "ConnectTimeoutError": (
        Unavailable,
        "{it} cannot be reached",
        "no connection came about within {seconds} s, in {attempts} attempts",
        "open the way (NAT, VPC endpoint, proxy), or correct spec.{store}.region or endpoint",
    ),
    "ReadTimeoutError": (
        Unavailable,
        "{it} does not answer",
        "nothing came for {seconds} s, in {attempts} attempts",
        "look after the network, or run again later",
    ),
    "EndpointConnectionError": (
        Unavailable,
        "{it} cannot be reached",
        "its name is unknown, or nothing listens there",
        "open the way (NAT, VPC endpoint, proxy), or correct spec.{store}.region or endpoint",
    ),
    "ConnectionError": (Unavailable, "{it} cannot be reached", "the connection broke", "look after the network"),
    "HTTPClientError": (Unavailable, "{it} cannot be reached", "the connection broke", "look after the network"),
}
"""What the SDK's own exceptions mean, by the name of their class: not each version has each of them."""
