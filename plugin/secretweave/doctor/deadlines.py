"""Whether we give up before those who wait for us do: else they tell an app's owner less than we would."""

import re
from collections.abc import Iterator

from secretweave.doctor.base import Case, Finding

SUBJECT = "deadlines"
ARGOCD_SECONDS = 60.0
"""What Argo CD's controller waits for the repo-server unless it is told otherwise.

https://argo-cd.readthedocs.io/en/stable/operator-manual/server-commands/argocd-application-controller/
"""
GRACE_SECONDS = 30.0
"""What Kubernetes gives a Pod to end, unless it is told otherwise."""
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
TOGETHER = "lower limits.deadline, or raise all of them together (argocd/component/timeouts.yaml)"


def check(case: Case) -> Iterator[Finding]:
    if case.config is None:
        return
    limits = case.config.settings.limits
    told = f"a run {limits.deadline:g} s, one request {limits.request:g} s"
    findings = list(_of_argocd(case, limits.deadline)) if case.has_tenants else []
    if limits.request > limits.deadline:
        findings.append(
            Finding(
                "warning",
                SUBJECT,
                f"limits.request ({limits.request:g} s) is longer than limits.deadline ({limits.deadline:g} s)",
                "let it be shorter: a store that hangs is then told as such",
            )
        )
    yield from findings or [Finding("ok", SUBJECT, told)]


def _of_argocd(case: Case, deadline: float) -> Iterator[Finding]:
    given = case.environ.get("ARGOCD_EXEC_TIMEOUT", "")
    timeout = seconds(given)
    if given and timeout is None:
        yield Finding("fault", SUBJECT, "ARGOCD_EXEC_TIMEOUT is no duration", "write it as 60s")
    if timeout is not None and deadline >= timeout:
        yield Finding(
            "fault",
            SUBJECT,
            f"limits.deadline ({deadline:g} s) is not below ARGOCD_EXEC_TIMEOUT ({timeout:g} s)",
            TOGETHER,
        )
    elif deadline >= ARGOCD_SECONDS:
        # Who has raised the one variable that can be seen here has probably raised the others.
        yield Finding(
            "fault" if timeout is None else "warning",
            SUBJECT,
            f"limits.deadline is {deadline:g} s, and Argo CD waits {ARGOCD_SECONDS:g} s unless it is told otherwise",
            TOGETHER,
        )
    assert case.config is not None, "looked at by the caller"
    drain = case.config.settings.argocd.daemon.drain
    if case.host == "daemon" and drain >= GRACE_SECONDS:
        yield Finding(
            "warning",
            SUBJECT,
            f"argocd.daemon.drain is {drain:g} s, and a Pod is killed {GRACE_SECONDS:g} s after it was told to end",
            "lower it to 25s, or raise terminationGracePeriodSeconds of the Pod above it",
        )


def seconds(text: str) -> float | None:
    """Of a duration as Go writes it, such as `1m30s`; None: it is none."""
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)
