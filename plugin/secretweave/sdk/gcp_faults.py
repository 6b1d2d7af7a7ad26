"""What Google Cloud's faults are called: the errors of its SDK, of requests and of its APIs, without a word of them."""

import re
from typing import Any

from secretweave.errors import Denied, Unavailable
from secretweave.sdk import load

EXTRA = "gcp"
PASSING = frozenset({429, 500, 502, 503, 504})
"""What another attempt may not meet again."""
STATUSES = frozenset(
    {"NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "ABORTED", "UNIMPLEMENTED"}
)
"""The codes of google.rpc.Code that an error may name."""
STATE = re.compile(r"Secret Version \[[^\]]*\] is in (DISABLED|DESTROYED) state")
"""How a FAILED_PRECONDITION tells the state of a version; it can also be of a key in Cloud KMS."""
GRANT = "grant the identity roles/secretmanager.secretAccessor on the secret, or correct the reference"
"""To an identity that is known, and to whom nothing else stands in the way."""
REFUSALS = {
    "invalid_grant": "its key, token or subject token is revoked, expired or of another account, or the clock is wrong",
    "invalid_client": "the client of the credentials is deleted or disabled",
    "invalid_target": "the workload identity pool or its provider is not there, or disabled",
    "unauthorized_client": "the attribute condition of the workload identity provider refuses it",
    "invalid_request": "the credentials file does not fit the workload identity provider",
    "access_denied": "a rule of the organization refuses it",
}
"""The OAuth error codes (RFC 6749, RFC 8693) that Google's servers give."""


def can_pass(error: Exception) -> bool:
    """May another attempt go better?"""
    faults = load("requests.exceptions", EXTRA)
    if isinstance(error, load("google.api_core.exceptions", EXTRA).GoogleAPICallError):
        return error.code in PASSING
    error = _cause(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return False
    return isinstance(error, (faults.ConnectionError, faults.Timeout, faults.ChunkedEncodingError))


def unavailable(error: Exception, whom: str) -> Unavailable:
    """Why *whom* gave no answer: what was raised, without a word of it."""
    faults = load("requests.exceptions", EXTRA)
    code = getattr(error, "code", None)
    if code == 429:
        why = "more requests than the quota of the project allows, by all who ask"
        fix = "try again later, or raise the quota"
        return Unavailable(f"{whom} answers that there are too many requests (429)", why=why, fix=fix)
    if isinstance(code, int) and code >= 500:
        return Unavailable(f"{whom} answers with HTTP {code}", why="it is out of order", fix="try again later")
    if isinstance(code, int):
        why = "it is not the API, or a proxy stands before it"
        what = f"{whom} sends the request elsewhere (HTTP {code})"
        return Unavailable(what, why=why, fix="correct spec.gcpsm.endpoint")
    error = _cause(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Unavailable(
            f"the certificate of {whom} is not trusted",
            why="it is of an authority not known here, of another name, or expired",
            fix="set spec.gcpsm.caFile to the certificate of its authority",
        )
    fix = "check spec.gcpsm.endpoint, the network, its firewalls and HTTPS_PROXY"
    if isinstance(error, faults.ProxyError):
        return Unavailable(f"the proxy on the way to {whom} does not connect", fix="check HTTPS_PROXY and NO_PROXY")
    if isinstance(error, faults.Timeout):
        return Unavailable(f"{whom} does not answer in time", why="it, or the network, is slow or hangs", fix=fix)
    if isinstance(error, faults.SSLError):
        return Unavailable(f"no TLS connection to {whom}", why="it, or a proxy, speaks TLS otherwise or not", fix=fix)
    if isinstance(error, (faults.ChunkedEncodingError, faults.ContentDecodingError)):
        return Unavailable(f"the answer of {whom} breaks off", why="it, or a proxy, closed the connection", fix=fix)
    why = "nothing answers there, its name is not known, or the connection was closed"
    return Unavailable(f"{whom} cannot be reached", why=why, fix=fix)


def _cause(error: Exception) -> Exception:
    """What google-auth has wrapped."""
    wrapped = isinstance(error, load("google.auth.exceptions", EXTRA).TransportError)
    inner = error.args[0] if wrapped and error.args else error
    return inner if isinstance(inner, Exception) else error


def asked_pause(error: Exception) -> float:
    """The seconds that an answer's Retry-After asks for."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After")
    if not asked:
        return 0
    try:
        seconds: float = load("urllib3.util.retry", EXTRA).Retry().parse_retry_after(asked)
    except load("urllib3.exceptions", EXTRA).InvalidHeader:
        return 0
    return seconds


def refused(error: Exception) -> Denied:
    codes = re.findall(r"[a-z]+_[a-z]+", str(error.args[0])[:200] if error.args else "")
    code = next((each for each in codes if each in REFUSALS), None)
    return Denied(
        f"the login is refused ({code})" if code else "the login is refused",
        why=REFUSALS[code] if code else "the credentials are not complete, or not allowed to have a token",
        fix="renew or correct the credentials of spec.gcpsm.auth (or the workload identity of the pod)",
    )


def told(error: Any) -> tuple[str, str, str]:
    """(status, reason, state of the version) of an error's body; nothing of it that we do not know."""
    try:
        body = error.response.json()["error"]
        reasons = [each["reason"] for each in body.get("details", ()) if "reason" in each]
        state = STATE.search(body.get("message", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", "", ""
    status = next((each for each in STATUSES if each == body.get("status")), "")
    reason = reasons[0] if reasons and isinstance(reasons[0], str) else ""
    return status, reason, state[1] if state and status == "FAILED_PRECONDITION" else ""


def denied(reason: str, project_name: str, who: str) -> Denied:
    project = f"project `{project_name}`"
    if reason == "SERVICE_DISABLED":
        why = "or the quota of another project is used (spec.gcpsm.quotaProject), or another project is meant"
        fix = "gcloud services enable secretmanager.googleapis.com --project PROJECT"
        return Denied(f"the Secret Manager API is not enabled in {project}", why=why, fix=fix)
    if reason == "BILLING_DISABLED":
        return Denied(f"{project} has no billing account", fix="link one, or correct spec.gcpsm.projectID")
    if reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT":
        why = "the access scopes of the machine or its node pool do not hold cloud-platform"
        return Denied("the login may not ask this API", why=why, fix="add the scope, or use workload identity")
    if reason == "USER_PROJECT_DENIED":
        why = f"{who} lacks serviceusage.services.use there"
        return Denied("the quota project may not be used", why=why, fix="grant it, or correct spec.gcpsm.quotaProject")
    if reason in {"CONSUMER_INVALID", "CONSUMER_SUSPENDED"}:
        return Denied(f"{project} is not there, or is suspended", fix="correct spec.gcpsm.projectID, or the reference")
    if reason == "SECURITY_POLICY_VIOLATED":
        why = "a VPC Service Controls perimeter refuses it"
        return Denied(f"{project} may not be asked from here", why=why, fix="allow it in the perimeter's ingress rules")
    return Denied(
        f"reading it in {project} is denied (PERMISSION_DENIED)",
        why=f"{who} lacks secretmanager.versions.access, or there is no such secret or project",
        fix=GRANT,
    )


def not_the_api(host: str) -> Unavailable:
    return Unavailable(
        f"the answer of {host} is not Secret Manager's",
        why="the address is another's, or a proxy answers in its place",
        fix="correct spec.gcpsm.endpoint",
    )
