"""The one table: what a store can do to a run, and what is then promised; README tells it in words.

`test_faults.py` here and `tests/hosts/test_faults_hosts.py` make a case of each line for each store. A run asks for
REFS secrets of one store, with `limits: {request: 3s, deadline: 6s}` in the configuration unless a line says otherwise.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from tests.servers.proxy import Expired, Half, Hang, Latency, Redirect, Reset, Rule, Status, Trickle

REFS = 30
CONCURRENCY = 16
ATTEMPTS = 3
REQUEST = 3.0
DEADLINE = 6.0
SEVERAL = 3
"""The most requests in which a store asks for all of them, several at a time, before it asks for each."""
STARTING = 4.0
"""Seconds for the interpreter, the SDK and a busy machine; on top of what is promised."""
STOPPING = 1.0
"""Seconds between a signal and the end."""
BODY_CANARY = "b0dy-canary"
"""Stands in every answer of a vendor's that is no success: no body is told."""

Kind = Literal["throttled", "broken", "away", "forbidden", "expired"]


class Vendor(NamedTuple):
    """The words of one store's vendor."""

    reads: str
    """What the requests for a secret look like, as a rule's `path`."""
    answers: Mapping[Kind, Status]
    elsewhere: str
    """The address of a server that nothing secret may reach."""

    def says(self, kind: Kind, **headers: str) -> Status:
        answer = self.answers[kind]
        more = {name.replace("_", "-"): text for name, text in headers.items()}
        return answer._replace(headers={**answer.headers, **more})


class Promise(NamedTuple):
    fault: str
    rules: Callable[[Vendor], Sequence[Rule]] = lambda _: ()
    """What the proxy does."""
    code: int = 6
    says: str = ""
    """What the report holds, as a pattern, in any case of letters."""
    seconds: float = REQUEST
    """The longest, beside STARTING."""
    requests: int = ATTEMPTS * CONCURRENCY + 1
    """The most for secrets: a store that is down is found once, by those under way, not by each reference. One more,
    because some faults let the first one through."""
    front: Literal["proxy", "closed", "stranger", "misnamed"] = "proxy"
    """Where the store seems to be: at the proxy, at a closed port, behind a certificate of another authority, or behind
    one for another name."""
    limits: str = f"{{request: {REQUEST:g}s, deadline: {DEADLINE:g}s}}"
    recovers: frozenset[str] = frozenset()
    """The stores that answer it with success instead."""

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "-", self.fault)


UNREACHABLE = r"cannot be reached|not answer|connection|breaks? off|broke|cut off"
THROTTLED = r"429|too many|throttl|no more requests|asked too often"
TRUST = r"certificate"
FOREIGN = r"something else|not the|is not|redirect|elsewhere"


def page(code: int, **headers: str) -> Status:
    """What a load balancer or a login portal answers in the place of a store."""
    more = {name.replace("_", "-"): text for name, text in headers.items()}
    return Status(code, f"<html>{BODY_CANARY}</html>".encode(), {"Content-Type": "text/html", **more})


PROMISES = (
    Promise("every answer 0.2 s late", lambda _: [Rule(Latency(0.2))], code=0),
    # The network.
    Promise("nothing listens", says=UNREACHABLE, requests=0, front="closed"),
    Promise("connections are reset", lambda _: [Rule(Reset())], says=UNREACHABLE),
    Promise("a connection is reset once", lambda store: [Rule(Reset(), store.reads, times=1)], code=0),
    Promise("connections are reset in the midst of answers", lambda _: [Rule(Reset(midway=True))], says=UNREACHABLE),
    Promise("the first answers end half-way", lambda _: [Rule(Half())], says=UNREACHABLE),
    Promise("answers end half-way", lambda store: [Rule(Half(), store.reads, known=True)], says=UNREACHABLE),
    Promise(
        "answers trickle",
        lambda store: [Rule(Trickle(), store.reads, known=True)],
        says="did not answer within 3 s",
        requests=CONCURRENCY,
    ),
    Promise("requests are never answered", lambda _: [Rule(Hang())], says=UNREACHABLE),
    Promise(
        "the store hangs in the midst of the run",
        lambda store: [Rule(Hang(), store.reads, after=1, known=True)],
        says=UNREACHABLE,
    ),
    Promise(
        "the deadline comes first",
        lambda _: [Rule(Hang())],
        # The store's own time, which ends with the run's, may be over first.
        says="deadline|in time",
        seconds=1.5,
        limits="{request: 15s, deadline: 1500ms}",
    ),
    # TLS.
    Promise("a certificate of another authority", says=TRUST, seconds=0, requests=0, front="stranger"),
    Promise("a certificate for another name", says=TRUST, seconds=0, requests=0, front="misnamed"),
    # What passes, or does not.
    Promise("429 always", lambda store: [Rule(store.says("throttled"), known=True)], says=THROTTLED),
    Promise(
        "429 once, with Retry-After",
        lambda store: [Rule(store.says("throttled", Retry_After="1"), store.reads, times=1, known=True)],
        code=0,
    ),
    Promise(
        "429 with a Retry-After beyond the deadline",
        lambda store: [Rule(page(429, Retry_After="3600"), store.reads, known=True)],
        says=THROTTLED + "|did not answer within 3 s",
    ),
    Promise("500 always", lambda store: [Rule(store.says("broken"), known=True)], says=r"500"),
    Promise("502 of a load balancer", lambda _: [Rule(page(502))], says=r"502"),
    Promise("503 always", lambda store: [Rule(store.says("away"), known=True)], says=r"503|sealed"),
    Promise("503 once", lambda store: [Rule(store.says("away"), times=1)], code=0),
    Promise(
        "503 from the midst of the run on",
        lambda store: [Rule(store.says("away"), store.reads, after=1, known=True)],
        says=r"503|sealed",
    ),
    # Who asks.
    Promise(
        "403 always",
        lambda store: [Rule(store.says("forbidden"), store.reads, known=True)],
        says=r"denied|denies|may not|refuses|does not let",
        seconds=0,
        requests=REFS + SEVERAL,
    ),
    Promise(
        "the token expires in the midst of the run",
        lambda store: [Rule(Expired(store.says("expired"), 1.1), store.reads, after=1, known=True)],
        says=r"token|credentials|expired",
        requests=REFS + CONCURRENCY,
        limits="{request: 6s, deadline: 9s}",
        recovers=frozenset({"gcpsm", "vault with a login"}),
    ),
    # Another.
    Promise(
        "a redirect to another address",
        lambda store: [Rule(Redirect(store.elsewhere))],
        says=FOREIGN,
        seconds=0,
        requests=CONCURRENCY,
    ),
    Promise(
        "a redirect in the midst of the run",
        lambda store: [Rule(Redirect(store.elsewhere), store.reads, after=1, known=True)],
        says=FOREIGN,
        requests=REFS,
    ),
    Promise("a login page with 200", lambda _: [Rule(page(200))], says=FOREIGN + "|cannot be read"),
)
