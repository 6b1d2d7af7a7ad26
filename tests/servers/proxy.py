"""A reverse proxy on loopback that does to a store's answers what networks, load balancers and tired servers do.

    with Proxy(upstream="https://127.0.0.1:8200", trust=ca, certificate=pair) as proxy:
        proxy.rules = [Rule(Reset(), after=2), Rule(Status(503), path="^GET /v1/secret/", times=1)]
        ...                                      # the program under test talks to proxy.url
        assert len(proxy.seen) == 5

The first rule that fits a request decides; a request that none fits is handed on. HTTP/1.1, with or without TLS. It
runs in a thread of its own, and everything it began ends with it.
"""

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from tests.servers.certificates import Pair

REASONS = http.client.responses
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"})
CREDENTIAL_HEADERS = frozenset({"authorization", "x-vault-token", "x-amz-security-token", "cookie"})
UPSTREAM_SECONDS = 30


class Seen(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def line(self) -> str:
        """Method and path; for AWS, where every path is `/`, the operation behind them."""
        return " ".join(filter(None, (self.method, self.path, self.headers.get("x-amz-target"))))

    @property
    def credentials(self) -> frozenset[str]:
        """The names of the headers that show who asks."""
        return CREDENTIAL_HEADERS & self.headers.keys()

    @property
    def identity(self) -> str:
        """Who asks; of what AWS signs, without the signature, which is another for each request."""
        shown = " ".join(self.headers[name] for name in sorted(self.credentials))
        return re.sub(r"(Credential=[^/]+)/.*", r"\1", shown)

    def holds(self, text: str) -> bool:
        """Does *text* stand anywhere in it?"""
        return any(text in each for each in (self.path, *self.headers.values(), self.body.decode("latin-1")))


class Answer(NamedTuple):
    code: int
    headers: Mapping[str, str]
    body: bytes

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.code} {REASONS.get(self.code, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode("latin-1")


class Exchange:
    """One request, and what a fault may do about it."""

    def __init__(self, proxy: "Proxy", request: Seen, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.closed = False
        self._proxy = proxy
        self._writer = writer

    async def upstream(self) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(
            self._proxy.workers, self._proxy.ask_upstream, self.request
        )

    async def send(self, answer: Answer) -> None:
        head = self.request.method == "HEAD"
        await self.write(answer.head() + (b"" if head else answer.body))

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        self.closed = True

    async def reset(self) -> None:
        """Ends the connection so that the other side reads ECONNRESET, not the end of the data."""
        connection = self._writer.get_extra_info("socket")
        # None: the client has left already, and there is nobody to reset.
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.closed = True


class Fault(Protocol):
    async def meet(self, exchange: Exchange, /) -> None: ...


class Latency(NamedTuple):
    """Each answer comes late."""

    seconds: float

    async def meet(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.seconds)
        await exchange.send(await exchange.upstream())


class Reset(NamedTuple):
    """The connection is reset, before the answer or in the midst of it."""

    midway: bool = False

    async def meet(self, exchange: Exchange) -> None:
        if self.midway:
            answer = await exchange.upstream()
            await exchange.write(answer.head() + answer.body[: len(answer.body) // 2])
            # A reset overtakes what the other side has not read yet.
            await asyncio.sleep(0.02)
        await exchange.reset()


class Half(NamedTuple):
    """The answer ends after half of what it announced."""

    async def meet(self, exchange: Exchange) -> None:
        answer = await exchange.upstream()
        await exchange.write(answer.head() + answer.body[: len(answer.body) // 2])
        await exchange.close()


class Trickle(NamedTuple):
    """The answer comes byte by byte: no pause is long, the whole is."""

    pause: float = 0.3

    async def meet(self, exchange: Exchange) -> None:
        answer = await exchange.upstream()
        for byte in answer.head() + answer.body:
            await exchange.write(bytes([byte]))
            await asyncio.sleep(self.pause)


class Hang(NamedTuple):
    """The request is taken and never answered."""

    async def meet(self, exchange: Exchange) -> None:
        del exchange
        await asyncio.Event().wait()


class Status(NamedTuple):
    """Another answer than the store's."""

    code: int
    body: bytes = b""
    headers: Mapping[str, str] = {}

    async def meet(self, exchange: Exchange) -> None:
        await exchange.send(Answer(self.code, self.headers, self.body))


class Expired:
    """The credentials of the first request that meets it are refused from then on; others are good.

    *seconds* before each refusal: of tokens that are signed here, one of the same second is the same one.
    """

    def __init__(self, refusal: "Status", seconds: float = 0) -> None:
        self._refusal = refusal
        self._seconds = seconds
        self._known: str | None = None

    async def meet(self, exchange: Exchange) -> None:
        shown = exchange.request.identity
        self._known = shown if self._known is None else self._known
        if shown == self._known:
            await asyncio.sleep(self._seconds)
            await self._refusal.meet(exchange)
        else:
            await exchange.send(await exchange.upstream())


class Redirect(NamedTuple):
    """The client is sent elsewhere, with the same method and body."""

    to: str
    """An address without a path."""
    code: int = 307

    async def meet(self, exchange: Exchange) -> None:
        await exchange.send(Answer(self.code, {"Location": self.to + exchange.request.path}, b""))


class Rule(NamedTuple):
    """Which requests meet a fault."""

    fault: Fault
    path: str = ""
    """A pattern looked for in the request's `line`; empty: every request."""
    after: int = 0
    """So many that fit are let through first."""
    times: int | None = None
    """So many meet it, those after them are let through; None: all of them do."""
    known: bool = False
    """Only requests that show who asks."""
    body: bytes = b""
    """Only requests whose body holds this."""

    def fits(self, request: Seen) -> bool:
        meant = self.body in request.body and (bool(request.credentials) or not self.known)
        return meant and re.search(self.path, request.line) is not None


class Proxy:
    """Serves from `__enter__` to `__exit__`; with *refuse* its port is taken, and closed."""

    def __init__(
        self,
        upstream: str = "",
        *,
        certificate: Pair | None = None,
        trust: Path | None = None,
        rules: Sequence[Rule] = (),
        refuse: bool = False,
    ) -> None:
        """*certificate*: of the proxy, which then speaks TLS; *trust*: the authority of an upstream that does."""
        self.seen: list[Seen] = []
        self._taken: list[socket.socket] = []
        self.workers = ThreadPoolExecutor(32, "upstream")
        self._rules = list(rules)
        self._met = [0] * len(self._rules)
        self._upstream = urlsplit(upstream)
        self._trust = ssl.create_default_context(cafile=trust) if self._upstream.scheme == "https" else None
        self._tls = certificate.server_context() if certificate else None
        self._refuse = refuse
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._tasks: set[asyncio.Task[None]] = set()
        self._defects: list[BaseException] = []

    @property
    def connections(self) -> int:
        """How many were opened to it so far."""
        return len(self._taken)

    @property
    def rules(self) -> Sequence[Rule]:
        return self._rules

    @rules.setter
    def rules(self, rules: Sequence[Rule]) -> None:
        """New rules count from the start, and `seen` begins anew."""
        self._rules, self._met, self.seen = list(rules), [0] * len(rules), []

    def __enter__(self) -> Self:
        self._loop.set_exception_handler(self._note)
        self._thread.start()
        if not self._refuse:
            self._socket.listen(256)
            self._loop.call_soon_threadsafe(self._loop.add_reader, self._socket, self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._socket.close()
        self.workers.shutdown()
        if self._defects and error is None:
            raise self._defects[0]

    def ask_upstream(self, request: Seen) -> Answer:
        address = self._upstream.hostname or "", self._upstream.port
        connection = (
            http.client.HTTPSConnection(*address, context=self._trust, timeout=UPSTREAM_SECONDS)
            if self._trust
            else http.client.HTTPConnection(*address, timeout=UPSTREAM_SECONDS)
        )
        with contextlib.closing(connection):
            headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def _accept(self) -> None:
        # Not asyncio.start_server: it would leave behind, at the end, connections that have not yet become a stream.
        with contextlib.suppress(BlockingIOError):
            while True:
                taken, _ = self._socket.accept()
                taken.setblocking(False)
                self._taken.append(taken)
                task = self._loop.create_task(self._serve(taken))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, taken: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, taken, ssl=self._tls)
        except OSError:
            # The client does not trust the certificate.
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            while (request := await _request(reader)) is not None:
                self.seen.append(request)
                exchange = Exchange(self, request, writer)
                await self._answer(exchange)
                if exchange.closed or request.headers.get("connection", "").lower() == "close":
                    break
        except (OSError, asyncio.IncompleteReadError):
            # The client went away.
            pass
        except Exception as error:  # noqa: BLE001 - a defect of the proxy fails the test, at the end of its `with`
            self._defects.append(error)
        finally:
            transport.abort()

    async def _answer(self, exchange: Exchange) -> None:
        for index, rule in enumerate(self._rules):
            if rule.fits(exchange.request):
                self._met[index] += 1
                count = self._met[index] - rule.after
                if count > 0 and (rule.times is None or count <= rule.times):
                    await rule.fault.meet(exchange)
                    return
        await exchange.send(await exchange.upstream())

    async def _end(self) -> None:
        self._loop.remove_reader(self._socket)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # An aborted transport lets go of its socket in the next turns of the loop.
        await asyncio.sleep(0.01)
        for taken in self._taken:
            taken.close()

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, OSError):
            self._defects.append(error)


async def _request(reader: asyncio.StreamReader) -> Seen | None:
    """The next request of a connection; None at its end."""
    line = await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise NotImplementedError("a request whose body comes in chunks")
    return Seen(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def elsewhere(certificate: Pair | None) -> Iterator[Proxy]:
    """Where a redirect leads: it answers everything with an empty object, and keeps what it was shown."""
    fault = Status(200, b"{}", {"Content-Type": "application/json"})
    with Proxy(certificate=certificate, rules=[Rule(fault)]) as proxy:
        yield proxy
