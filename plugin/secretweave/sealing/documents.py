"""A woven stream -> the same with its Secrets encrypted, document by document.

The stream is read again, as the input was: what the proof passes is never parsed. Plaintext of a Secret is in memory
alone, and only until it is encrypted; what is kept until all is done is ciphertext, and what was readable anyway.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from secretweave.config import Config
from secretweave.errors import Faults, InputError, PolicyError, SecretweaveError, Where
from secretweave.outputs import Outside
from secretweave.reading import Pieces
from secretweave.reading.manifests import BLOCK, Document, Interest, Reader
from secretweave.reading.spool import Spool
from secretweave.sealing import encryption, manifest, reuse

if TYPE_CHECKING:
    from concurrent.futures import Future

AT_ONCE = 4
"""The most programs that run at a time; each uses a processor for a moment."""
WAITING_MAX = 4 * AT_ONCE
HELD_MAX = 8 << 20
"""Bytes that may wait behind a Secret that is being encrypted."""
SOURCE = "the woven manifests"


def seal(woven: Iterable[bytes | memoryview], config: Config, outside: Outside) -> Iterator[bytes | memoryview]:
    """What is written instead of *woven*. Raises SecretweaveError or Faults before the first byte."""
    plan, tagger = encryption.plan(config, outside), encryption.tagger(config, outside)
    limits = config.settings.limits
    with Spool(memory=limits.spool_memory, folder=limits.spool_folder) as sealed:
        earlier = () if outside.sealing.unstable else outside.sealing.previous
        previous = reuse.Previous(earlier, tagger) if tagger else None
        _Sealer(plan, tagger, previous, config, outside, sealed).run(woven)
        yield from sealed.chunks(0, sealed.size)


class _Window(Spool):
    """What the Reader has taken and nobody has passed on yet: a Spool that lets go of its beginning."""

    def __init__(self, sealer: "_Sealer", keep: int) -> None:
        super().__init__()
        self._sealer = sealer
        self._keep = keep
        """So many bytes before what is read next can still become documents."""
        self._held = bytearray()
        self._begin = 0

    def append(self, data: bytes) -> int:
        offset = self.size
        if offset - self._begin > self._keep:
            self._sealer.passes(self.take(offset - self._keep))
        self.size += len(data)
        self._held += data
        return offset

    def take(self, end: int) -> bytes:
        """The bytes up to *end* that were not taken yet. Raises SecretweaveError: they were."""
        if end < self._begin:
            # It would leave unencrypted.
            raise SecretweaveError(
                "a document was passed on before it was looked at", fix="report it: this is a defect"
            )
        data = bytes(self._held[: end - self._begin])
        del self._held[: end - self._begin]
        self._begin = end
        return data


class _Sealer:
    def __init__(
        self,
        plan: encryption.Plan,
        tagger: reuse.Tagger | None,
        previous: reuse.Previous | None,
        config: Config,
        outside: Outside,
        sealed: Spool,
    ) -> None:
        self._plan = plan
        self._tagger = tagger
        self._previous = previous
        self._limits = config.settings.limits
        self._namespace = outside.sealing.namespace
        self._sealed = sealed
        self._waiting: deque[bytes | Future[bytes]] = deque()
        """What is to be written, in order, from the first Secret on that is not encrypted yet."""
        self._held = 0
        """Bytes that went into that as they are."""
        self._faults: list[SecretweaveError] = []

    def run(self, woven: Iterable[bytes | memoryview]) -> None:
        """Raises SecretweaveError or Faults."""
        from concurrent.futures import ThreadPoolExecutor

        limit = self._limits.document_bytes
        window = _Window(self, limit + 2 * BLOCK)
        interest = Interest((), lambda _, kind: kind == "Secret")
        with ThreadPoolExecutor(AT_ONCE) as self._pool:
            try:
                for document in Reader([(SOURCE, Pieces(woven))], window, interest, limit, self._faults):
                    self.passes(window.take(document.start))
                    data = window.take(document.end)
                    if not self._faults:
                        self._document(document, data)
                self.passes(window.take(window.size))
                self._settle(0)
            finally:
                self._pool.shutdown(cancel_futures=True)
        if self._faults:
            raise Faults(_told_once(self._faults))

    def passes(self, data: bytes) -> None:
        """What leaves as it is."""
        if self._waiting and data:
            self._waiting.append(data)
            self._held += len(data)
            if self._held > HELD_MAX:
                self._settle(0)
        elif data:
            self._sealed.append(data)

    def _document(self, document: Document, data: bytes) -> None:
        try:
            parts = manifest.parts(document.data, self._namespace, depth=self._limits.depth, nodes=self._limits.nodes)
        except SecretweaveError as fault:
            # The document's number is not always the input's: the Secret's name tells more.
            self._faults.append(fault if fault.where.resource else fault.at(Where(SOURCE, document.index)))
            return
        if not parts:
            self.passes(data)
            return
        for number, part in enumerate(parts):
            if number:
                self.passes(b"---\n")
            if part.secret is None:
                self.passes(part.text.encode())
            else:
                self._waiting.append(self._pool.submit(self._encrypted, part.text.encode(), part.secret))
                self._settle(WAITING_MAX)

    def _encrypted(self, text: bytes, secret: manifest.Secret) -> bytes:
        if self._tagger is None:
            return self._plan.encrypt(text, secret)
        state = self._tagger.started(text, self._plan.fingerprint(secret))
        earlier = self._previous.find(secret.name, state) if self._previous else None
        if earlier is not None:
            return earlier
        sealed = self._plan.encrypt(text, secret)
        return self._tagger.line(state, sealed) + sealed

    def _settle(self, most: int) -> None:
        """Writes what is done, until so few wait. After a fault nothing further is begun."""
        while len(self._waiting) > most:
            first = self._waiting.popleft()
            if isinstance(first, bytes):
                self._held -= len(first)
                self._sealed.append(first)
                continue
            if self._faults and first.cancel():
                continue
            try:
                self._sealed.append(first.result())
            except SecretweaveError as fault:
                self._faults.append(fault)


def _told_once(faults: list[SecretweaveError]) -> list[SecretweaveError]:
    """Of those of the program, one for several Secrets."""
    told: list[SecretweaveError] = []
    for fault in faults:
        same = next((each for each in told if _same(each, fault)), None)
        if same is None:
            told.append(fault)
        else:
            same.also = (*same.also, fault.where)
    return told


def _same(one: SecretweaveError, other: SecretweaveError) -> bool:
    return not isinstance(one, InputError | PolicyError) and (type(one), *_texts(one)) == (type(other), *_texts(other))


def _texts(fault: SecretweaveError) -> tuple[str, str, str]:
    return fault.what, fault.why, fault.fix
