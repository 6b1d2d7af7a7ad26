"""What a program said, made fit for whoever may see the Application."""

import os
import re
from collections.abc import Container, Mapping
from types import MappingProxyType

WHY_MAX = 2 << 10
"""So many characters of it are shown."""
MASK = "***"
TOKEN_MIN = 20
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
"""Colours and titles of a terminal: ECMA-48's CSI and OSC."""
EXCERPTS = tuple(
    map(
        re.compile,
        (
            r"()`[^`]*(?:`|\Z)",  # yaml.v3: cannot unmarshal !!str `...` into int; kustomize: with config: `...`
            r"(?s)(patch from \[).*(?=\])",  # kustomize: unable to parse SM or JSON patch from [...]
            r"(can't (?:iterate over|use) ).*",  # text/template
            r"(parsing )\"[^\"]*\"(?=: (?:invalid syntax|value out of range))",  # strconv
            r"()'[^'\n]*'(?= (?:does not match pattern|is not valid ))",  # jsonschema
        ),
    )
)
"""Where the programs and the libraries in them tell what stands in a file."""
USER_INFO = re.compile(r"""(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s"'<>]{0,1024}@(?!sha256:)""")
"""A password may hold what a URL should not: up to the last @."""
QUERY = re.compile(r"""([?&](?!ref=|version=|timeout=|submodules=)[\w.-]+=)[^&\s"']+""")
CREDENTIAL = re.compile(r"(?i)(\b(?:bearer|basic)\s+|(?:password|passwd|secret|token|api[-_]?key)=)[^\s,;&]+")
PATH = re.compile(r"""(?<![\w.~-])/[^\s:"'`<>()\[\]{},;|]+""")
HEX = re.compile(r"[0-9a-f]+")
CHANGE = re.compile(r"[a-z](?=[A-Z0-9])|[A-Z](?=[a-z0-9])|[0-9](?=[A-Za-z])")
"""A letter or a digit, and one of another class after it."""
LONG = re.compile(r"\S{1024,}")
"""No word, and slow to look through for what is masked."""
RUN = re.compile(rf"[A-Za-z0-9+/_=-]{{{TOKEN_MIN},}}")


def scrub(text: str, root: str, called: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a program said, as whoever may see the Application may read it: one line, of WHY_MAX characters at most.

    The paths of the repository's copy are told from *root* on, of other files of this machine only the last part, and
    the paths in *called* as it says. What may be a credential or an excerpt of a file is masked, and rather too much
    than too little.
    """
    text = LONG.sub(MASK, ESCAPE.sub("", text))
    for path, name in called.items():
        text = re.sub(rf"{re.escape(path)}(?!\d)", name, text)
    text = re.sub(rf"{re.escape(root)}(?:/|(?![\w.-]))", lambda found: "" if found[0].endswith("/") else ".", text)
    for excerpt in EXCERPTS:
        text = excerpt.sub(rf"\1{MASK}", text)
    tops = frozenset(os.listdir("/"))
    text = USER_INFO.sub(rf"\1{MASK}@", text)
    text = QUERY.sub(rf"\1{MASK}", text)
    text = CREDENTIAL.sub(rf"\1{MASK}", text)
    text = PATH.sub(lambda found: _last_part(found[0], tops), text)
    text = RUN.sub(lambda found: MASK if _like_a_token(found[0]) else found[0], text)
    lines = ("".join(filter(str.isprintable, line.replace("\t", " "))).strip() for line in text.splitlines())
    text = " | ".join(filter(None, lines))
    if len(text) > WHY_MAX:
        head = WHY_MAX // 4
        text = f"{text[:head]} ... {text[head + 5 - WHY_MAX :]}"
    return text


def _last_part(path: str, tops: Container[str]) -> str:
    """Of a path of this machine; what only looks like one, such as a JSON pointer, stays."""
    parts = path.strip("/").split("/")
    return parts[-1] if parts[0] in tops else path


def _like_a_token(text: str) -> bool:
    """Does it look random, as base64, hex and UUIDs do, rather than like words and names with a number?"""
    words = re.findall(r"[0-9A-Za-z]+", text)
    for word in words:
        digits = sum(map(str.isdigit, word))
        if len(word) >= TOKEN_MIN and digits > 2:
            return True
        if len(word) >= 12 and digits and (not word.islower() or HEX.fullmatch(word)):
            return True
    # CamelCase changes at a quarter of its places, base64 at more than half of them.
    places = sum(map(len, words)) - len(words)
    return any(map(str.isdigit, text)) and len(CHANGE.findall(text)) >= 0.3 * places
