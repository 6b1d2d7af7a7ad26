import io
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import Faults, SecretweaveError
from secretweave.reading import manifests
from secretweave.reading.manifests import Document, Interest, Reader
from secretweave.reading.proof import BOM
from secretweave.reading.spool import Spool
from tests import yaml_fuzz
from tests.sizes import examples

INTEREST = Interest((b"secret://", b"secret:!"), lambda _, kind: kind == "Secret")
LIMIT = 4 << 20


class Read:
    """A whole run of the reader."""

    def __init__(self, *sources: bytes, limit: int = LIMIT) -> None:
        self.faults: list[SecretweaveError] = []
        named = [(f"{number}.yaml", io.BytesIO(source)) for number, source in enumerate(sources, 1)]
        with Spool() as spool:
            reader = Reader(named, spool, INTEREST, limit, self.faults)
            self.documents = list(reader)
            self.saw_content = reader.saw_content
            self.out = b"".join(spool.chunks(0, spool.size))

    @property
    def datas(self) -> list[bytes]:
        return [document.data for document in self.documents]

    @property
    def told(self) -> list[str]:
        return [f"{fault.where}: {fault.what}" for fault in self.faults]


PLAIN = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"
SECRET = b"apiVersion: v1\nkind: Secret\n"


@pytest.mark.parametrize(
    "source",
    [
        b"",
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        b"# comment\n\n---\n" + PLAIN + b"---\n# nothing\n---\n" + PLAIN,
        b"---\n" + PLAIN + b"--- # why\n" + PLAIN.rstrip(b"\n"),
        b"---\r\n" + PLAIN.replace(b"\n", b"\r\n") + b"---\r\n",
        b"\xef\xbb\xbf---\n" + PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN + b"data:\n- a: 1\n  # comment\n# comment\n\n   \n  b: \xc3\xa9\n",
        b"apiVersion: v1 # why\nkind: ConfigMap   \ndata: {\nkind: x}\n".replace(b"\nkind: x", b"\n kind: x"),
        b"kind: ConfigMap\napiVersion: v1\ndata:\n  run: |\n    a \\\n      b '\\d' !important [ ! -f x ] != y\n",
        b"kind: ConfigMap\n\n# comment\napiVersion: v1\n",
    ],
)
def test_what_is_ordinary_passes_unseen(source: bytes) -> None:
    read = Read(source)
    assert (read.documents, read.told) == ([], [])
    assert read.out == source


SEEN = {
    "of a kind": SECRET,
    "kind first": b"kind: Secret\napiVersion: v1\n",
    "a reference": PLAIN + b"data:\n  a: secret://a/b\n",
    "a reference in a comment": PLAIN + b"# secret://a/b\n",
    "a reference in a key": PLAIN + b"data:\n  secret://a/b: x\n",
    "an escape of a reference": PLAIN + b"data:\n  a: secret:!//a/b\n",
    "base64 1": PLAIN + b"data:\n  a: c2VjcmV0Oi8vYS9i\n",
    "base64 2": PLAIN + b"data:\n  a: eHNlY3JldDovL2EvYg==\n",
    "base64 3": PLAIN + b"data:\n  a: eHhzZWNyZXQ6Ly9hL2I=\n",
    "flow": b"{apiVersion: v1, kind: Secret}\n",
    "JSON": b'{"apiVersion": "v1", "kind": "Secret"}',
    "JSON over lines": b'{\n  "kind": "Secret"\n}\n',
    "a quoted key": b"apiVersion: v1\n'kind': Secret\n",
    "an escaped key": b'apiVersion: v1\n"ki\\x6ed": Secret\n',
    "an explicit key": b"apiVersion: v1\n? kind\n: Secret\n",
    "a quoted kind": b"apiVersion: v1\nkind: 'ConfigMap'\n",
    "a kind on the next line": b"apiVersion: v1\nkind:\n  Secret\n",
    "a kind over two lines": b"apiVersion: v1\nkind: Sec\n  ret\n",
    "a kind over three lines": b"apiVersion: v1\nkind: Sec\r\n\r\n  ret\r\n",
    "a folded kind": b"apiVersion: v1\nkind: >-\n  Secret\n",
    "a kind with an anchor": b"apiVersion: v1\nkind: &a Secret\n",
    "a kind that is an alias": b"metadata: {name: &a Secret}\napiVersion: v1\nkind: *a\n",
    "a kind with a tag": b"apiVersion: v1\nkind: !!str Secret\n",
    "a tagged key": b"apiVersion: v1\n!!str kind: Secret\n",
    "two kinds": b"apiVersion: v1\nkind: Secret\nkind: ConfigMap\n",
    "no kind": b"apiVersion: v1\nmetadata: {}\n",
    "a kind in another case": PLAIN + b"Kind: Secret\n",
    "items": b"apiVersion: v1\nkind: List\nitems: []\n",
    "quoted items": b"apiVersion: v1\nkind: List\n'items': []\n",
    "a merge key": b"x: &a {kind: Secret}\napiVersion: v1\nkind: ConfigMap\n<<: *a\n",
    "an indented root": b"  apiVersion: v1\n  kind: Secret\n",
    "an indented root after comments": b"# a\n\n # b\n  kind: Secret\n",
    "a quoted scalar before the first key": b"\n 'x\nkind: ConfigMap\napiVersion: v1\n'\n",
    "a sequence": b"- kind: Secret\n",
    "a sequence that goes on at column 0": b"- 'x\nkind: ConfigMap\napiVersion: v1\n'\n",
    "a tab at column 0": PLAIN + b"\tx: 1\n",
    "!!binary": PLAIN + b"data:\n  a: !!binary |\n    c2Vj\n    cmV0Oi8v\n",
    "a percent-escaped !!binary": PLAIN + b"data:\n  a: !!bin%61ry |\n    c2Vj\n    cmV0Oi8v\n",
    "a verbatim !!binary": PLAIN + b"data:\n  a: !<tag:yaml.org,2002:binary> |\n    c2Vj\n    cmV0Oi8v\n",
    "\\x": PLAIN + b'data:\n  a: "\\x73ecret://a"\n',
    "\\u": PLAIN + b'data:\n  a: "\\u0073ecret://a"\n',
    "\\U": PLAIN + b'data:\n  a: "\\U00000073ecret://a"\n',
    "\\/": PLAIN + b'data:\n  a: "secret:\\/\\/a"\n',
    "an escaped line break": PLAIN + b'data:\n  a: "sec\\\n    ret://a"\n',
    "an escaped CRLF": PLAIN + b'data:\n  a: "sec\\\r\n    ret://a"\n',
    "lone CR": PLAIN + b"data: x\rkind: Secret\n",
    "NEL": PLAIN + b"data: x\xc2\x85kind: Secret\n",
    "LS": PLAIN + b"data: x\xe2\x80\xa8kind: Secret\n",
    "PS": PLAIN + b"data: x\xe2\x80\xa9kind: Secret\n",
    "BOM within": PLAIN + b"\xef\xbb\xbfkind: Secret\n",
    "a document's end": PLAIN + b"...\nkind: Secret\n",
    "a directive that is none": b"%x\n" + PLAIN,
}


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("before", [b"", b"---\n", PLAIN + b"---\n", b"# a\n" + b"---\n" + PLAIN + b"---   # b\n"])
@pytest.mark.parametrize("after", [b"", b"\n---\n" + PLAIN])
def test_what_may_matter_is_seen(name: str, before: bytes, after: bytes) -> None:
    read = Read(before + SEEN[name] + after)
    assert read.datas == [SEEN[name] + (b"\n" if after else b"")]
    assert read.told == []
    assert read.out == before + SEEN[name] + after


def test_a_lone_cr_at_the_end_is_seen() -> None:
    assert Read(PLAIN + b"data: x\r").datas == [PLAIN + b"data: x\r"]


REFUSED = {
    "NUL": (PLAIN + b"x: \0\n", "document 1, line 5: a NUL byte"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "document 1, line 1: not UTF-8"),
    "Latin-1": (PLAIN + b"x: \xe9\n", "document 1, line 5: not UTF-8"),
    "cut off in a character": (PLAIN + b"x: \xe2\x80", "document 1, line 5: not UTF-8"),
    "a surrogate": (PLAIN + b"x: \xed\xa0\x80", "document 1, line 5: not UTF-8"),
    "on the marker": (PLAIN + b"--- {kind: Secret}\n", "document 2, line 5: a line that begins with --- and goes on"),
    "glued": (PLAIN + b"---kind: Secret\n", "document 2, line 5: a line that begins with --- and goes on"),
    "glued comment": (PLAIN + b"---# x\n" + PLAIN, "document 2, line 5: a line that begins with --- and goes on"),
    "four": (b"----\n" + PLAIN, "document 1, line 1: a line that begins with --- and goes on"),
    "no-break space": (b"---\xc2\xa0\n" + PLAIN, "document 1, line 1: a line that begins with --- and goes on"),
    "%YAML": (b"%YAML 1.1\n---\n" + PLAIN, "document 1, line 1: a %YAML or %TAG directive"),
    "%TAG": (PLAIN + b"...\n%TAG ! a:\n---\n" + PLAIN, "document 1, line 1: a %YAML or %TAG directive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_readers_disagree_on_is_refused_and_reading_goes_on(name: str) -> None:
    source, told = REFUSED[name]
    read = Read(source + b"\n---\n" + SECRET)
    assert read.told == [f"1.yaml, {told}"]
    assert read.datas == [SECRET]


def test_every_fault_is_told_with_its_place() -> None:
    read = Read(b"--- x\n---\na: \xff\n---\n" + SECRET + b"---\nb: \0\n")
    assert read.told == [
        "1.yaml, document 1, line 1: a line that begins with --- and goes on",
        "1.yaml, document 2, line 3: not UTF-8",
        "1.yaml, document 4, line 8: a NUL byte",
    ]
    assert read.datas == [SECRET]


def test_too_many_faults_end_the_reading() -> None:
    with pytest.raises(Faults) as raised:
        Read(b"--- x\n" * 1_000_000)
    assert 1000 < len(raised.value.faults) < 200_000


@pytest.mark.parametrize("text", [b"\xe2\x82\xac", b"\xf0\x9f\x98\x80", b"a\xc3\xa9"])
@pytest.mark.parametrize("shift", range(5))
def test_characters_at_the_edge_of_a_portion_are_whole(text: bytes, shift: int) -> None:
    line = b"x" * shift + text * 20_000
    assert Read(PLAIN + b"data:\n  a: " + line + b"\n").told == []
    assert Read(PLAIN + b"data:\n  a: " + line + text[:-1] + b"\n").told == ["1.yaml, document 1, line 6: not UTF-8"]


@pytest.mark.parametrize("sign", [b"\r", b"\x80", b"\xff", b"-", b"'"])
def test_a_long_run_of_one_sign_takes_no_long_time(sign: bytes) -> None:
    assert len(Read(sign * (8 << 20), limit=1 << 20).told) == 1


def test_a_document_knows_its_place() -> None:
    source = (
        b"\xef\xbb\xbf# top\n" + SECRET + b"---\n" + PLAIN + b"--- # why\n" + SECRET + b"---\n\xef\xbb\xbf" + SECRET
    )
    size = len(SECRET)
    first = source.index(b"---")
    second = source.index(b"--- # why")
    third = source.rindex(b"---")
    assert Read(source).documents == [
        Document("1.yaml", 1, 3, 3, first, 0, b"# top\n" + SECRET),
        Document("1.yaml", 3, second, second + 10, third, 9, SECRET),
        Document("1.yaml", 4, third, third + 7, third + 7 + size, 12, SECRET),
    ]


def test_comments_before_the_first_marker_are_no_document() -> None:
    assert [document.index for document in Read(b"# top\n\n---\n" + SECRET).documents] == [1]


@pytest.mark.parametrize(
    "source", [b"", b"\n", b"# only\n", b"---\n", b"---\n---\n# only\n", b"\xef\xbb\xbf", b"  # a\r\n"]
)
def test_nothing_but_comments_is_no_content(source: bytes) -> None:
    assert not Read(source).saw_content


@pytest.mark.parametrize("source", [PLAIN, b"# a\n---\n" + PLAIN, b"a", b"{}"])
def test_content_is_seen(source: bytes) -> None:
    assert Read(source).saw_content


def test_sources_become_one_stream() -> None:
    read = Read(PLAIN.rstrip(b"\n"), b"", SECRET, b"\xef\xbb\xbf---\n" + SECRET, b"# only\n")
    assert read.out == PLAIN + b"---\n" + SECRET + b"---\n" + SECRET + b"---\n# only\n"
    at = len(PLAIN)
    step = len(SECRET) + 4
    assert read.documents == [
        Document("3.yaml", 1, at, at + 4, at + step, 0, SECRET),
        Document("4.yaml", 1, at + step, at + step + 4, at + 2 * step, 1, SECRET),
    ]


LONG = 3 << 20


@pytest.mark.parametrize(
    "middle",
    [b"    a line of text\n" * (LONG // 19), b"    x" + b"y" * LONG + b"\n", b"    \xe2\x82\xac" * (LONG // 7) + b"\n"],
    ids=["lines", "one line", "one line of three-byte characters"],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_long_document_passes_without_being_kept(middle: bytes, newline: bytes) -> None:
    long = PLAIN + b"data:\n  a: |\n" + middle + b"  b: x\n"
    source = (SECRET + b"---\n" + long + b"---\n" + SECRET).replace(b"\n", newline)
    read = Read(source, limit=1 << 20)
    assert read.datas == [SECRET.replace(b"\n", newline)] * 2
    assert read.told == []
    assert read.documents[1].line == source.count(b"\n") - 2
    assert read.out == source


@pytest.mark.parametrize("position", [100, 1 << 20, (1 << 20) + 100, (2 << 20) - 3, LONG])
def test_a_long_document_that_matters_names_the_setting(position: int) -> None:
    text = b"x" * position + b" secret://a/b " + b"x" * (LONG - position)
    for long in (
        PLAIN + b"data:\n  a: " + text + b"\n",
        PLAIN + b"data:\n  a: |\n    " + text.replace(b"x" * 80, b"x" * 80 + b"\n    ") + b"\n",
    ):
        read = Read(b"---\n" + long + b"---\n" + SECRET, limit=1 << 20)
        assert read.told == [
            "1.yaml, document 1, line 1: a document of more than 1048576 bytes that must be looked into"
        ]
        assert "limits.documentBytes" in read.faults[0].fix
        assert read.datas == [SECRET]


def test_a_long_document_that_is_refused_says_why() -> None:
    read = Read(b"---\n" + PLAIN + b"    x\n" * (LONG // 6) + b"    \xff\n    x\n", limit=1 << 20)
    assert read.told == ["1.yaml, document 1, line 1: not UTF-8"]


def told(read: Read) -> tuple[list[Document], list[str], bytes, bool]:
    return read.documents, read.told, read.out, read.saw_content


@given(st.randoms(use_true_random=False), st.integers(len(BOM) + len(b"---"), 300))
@examples(500)
def test_where_blocks_end_tells_nothing(random: Random, block: int) -> None:
    source = yaml_fuzz.stream(random)
    expected = told(Read(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "BLOCK", block)
        assert told(Read(source)) == expected


def test_a_pipe_gives_what_it_has() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    source = b"\xef\xbb\xbf---\n" + PLAIN + b"---\n" + SECRET
    with Spool() as spool:
        documents = list(Reader([("stdin", Dribble(source))], spool, INTEREST, LIMIT, []))
    assert [document.data for document in documents] == [SECRET]
