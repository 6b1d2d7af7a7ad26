r"""Reads dotenv: the part of it in which its readers agree; what two of them would read differently is an error.

There is no standard. These were compared; outside quotes a line is accepted if all of them that can read it give the
same value, and quotes are read as the libraries read them:

- https://github.com/theskumar/python-dotenv and https://github.com/motdotla/dotenv (quotes, escapes, comments, `${}`)
- `docker run --env-file` and `kubectl create secret --from-env-file` (a value is the rest of the line)
- https://github.com/getsops/sops, stores/dotenv (the same, and `\n` is a line break)

| line | |
|---|---|
| `NAME=value`, `export NAME=value` | the value verbatim, up to the end of the line; `NAME=` is the empty text |
| `NAME='value'` | verbatim |
| `NAME="value"` | with the escapes `\n` `\r` `\t` `\"` `\\`, as in python-dotenv |
| `# comment`, an empty line | skipped; a comment may also stand behind a quoted value |

Nothing is expanded. Refused: white space around `=` or at the end of an unquoted value, `#` and `\n` in one, `${`
outside single quotes, a quote that does not end on its line, a name twice, a line without `=`.
"""

import re

from secretweave.errors import InputError, Where

ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
QUOTED = re.compile(r"(?:'([^']*)'|\"((?:[^\"\\]|\\.)*)\")(?:[ \t]*|[ \t]+#.*)", re.DOTALL)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
IN_QUOTES = "put the value in single quotes, which keep it as it is"


def parse(data: bytes, *, by_sops: bool = False) -> dict[str, str]:
    """The values by name. Raises InputError, with the line.

    *by_sops*: it is what SOPS decrypted, in which the `\\n` of an unquoted value is known to be a line break.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not UTF-8", fix="write the file as UTF-8") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        # Only these two end a line: str.splitlines would also cut a value at U+2028 and its like.
        source = line.removesuffix("\r")
        if not source.strip(" \t") or source.lstrip(" \t").startswith("#"):
            continue
        try:
            name, value = _assignment(source, by_sops=by_sops)
        except InputError as error:
            raise error.at(Where(line=number)) from None
        if name in values:
            raise InputError("a name stands in the file twice", where=Where(line=number), fix="keep one of them")
        values[name] = value
    return values


def _assignment(line: str, *, by_sops: bool) -> tuple[str, str]:
    match = ASSIGNMENT.fullmatch(line)
    if match is None or "\r" in line:
        raise InputError("not a line of `NAME=value`", fix="write a name of letters, digits and `_`, and `=` behind it")
    name, value = match[1], match[2]
    if value.startswith(("'", '"')):
        return name, _quoted(value)
    if value != value.strip():
        raise InputError(
            "white space around an unquoted value", why="some readers keep it, others do not", fix=IN_QUOTES
        )
    if "#" in value or value.startswith("`"):
        raise InputError(
            "`#`, or a back quote at the start, in an unquoted value",
            why="some readers see a comment or a quote",
            fix=IN_QUOTES,
        )
    if ("\\n" in value and not by_sops) or value.endswith("\\"):
        raise InputError(
            "`\\n`, or `\\` at the end, in an unquoted value",
            why="some readers see a line break, others a backslash",
            fix="put the value in double quotes for a line break, in single quotes for a backslash",
        )
    _refuse_variable(value)
    return name, value.replace("\\n", "\n")


def _quoted(value: str) -> str:
    match = QUOTED.fullmatch(value)
    if match is None:
        raise InputError(
            "a quoted value does not end with its quote on the same line",
            fix='close the quote; write `\\n` in double quotes for a line break, and `\\"` for a quote',
        )
    if match[1] is not None:
        if re.search(r"\\(?:\\|$)", match[1]):
            raise InputError(
                "a double or last backslash in single quotes",
                why="some readers keep both, others one",
                fix="use double quotes, and `\\\\` for each backslash",
            )
        return match[1]
    _refuse_variable(re.sub(r"\\.", "\\\\", match[2], flags=re.DOTALL))
    return re.sub(r"\\(.)", _unescaped, match[2], flags=re.DOTALL)


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1] not in ESCAPES:
        raise InputError("an unknown escape in double quotes", fix="use single quotes, or `\\\\` for a backslash")
    return ESCAPES[escape[1]]


def _refuse_variable(value: str) -> None:
    if "${" in value:
        raise InputError("`${` in a value", why="some readers put another variable there", fix=IN_QUOTES)
