"""Documents and streams that try to hide what they hold: ordinary manifests, changed where readers of YAML differ."""

from random import Random

BASES = (
    """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  labels: {app: a, tier: 'b'}
data:
  a: |
    x: 1

    y
  b: plain text
    goes on
  c: "quoted\\n text
    goes on"
""",
    """\
# Source: chart/templates/a.yaml

apiVersion: apps/v1
kind: Deployment # why
metadata:
  name: a
spec:
  template:
    spec:
      containers:
      - name: a
        args: [a, "b", 'c']
        env:
        - name: A
          value: >-
            folded
            text
""",
    """\
kind: ConfigMap
data:
  a: 'single

    quoted'
  ? complex
  : value
metadata: {name: b,
  x: [1,
  2]}
apiVersion: v1
""",
    """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: a
rules:
- apiGroups: [""]
  resources: &r [pods]
  verbs:
  - get
- apiGroups: ['']
  resources: *r
""",
    """\
apiVersion: v1
kind: ConfigMap
metadata: "
data: x
"
spec: {
a: b,
c: d
}
data: [
1
]
""",
)
ORDINARY = tuple(base.encode() for base in BASES)
LINES = (
    b"kind: Secret",
    b"kind: ConfigMap",
    b"Kind: Secret",
    b"  kind: Secret",
    b"'kind': Secret",
    b'"ki\\x6ed": Secret',
    b"? kind\n: Secret",
    b"!!str kind: Secret",
    b"&a kind: Secret",
    b"kind: !!str Secret",
    b"kind: &a Secret",
    b"kind: 'Secret'",
    b"kind: >-\n  Secret",
    b"kind:\n  Secret",
    b"kind:\tSecret",
    b"kind : Secret",
    b"kind: Sec\n  ret",
    b"kind: !%21binary U2VjcmV0",
    b"apiVersion: v1",
    b"items:",
    b"items: []",
    b"'items':\n- kind: Secret",
    b"- kind: Secret",
    b"- 'x",
    b"{kind: Secret}",
    b"kind: Secret}",
    b"<<: *a",
    b"<<: {kind: Secret}",
    b"x: &a {kind: Secret}",
    b"x: &a secret://a/b",
    b"  x: secret://a/b",
    b"# secret://a/b",
    b'  x: "secr\\\n    et://a/b"',
    b'  x: "secr\\x65t://a/b"',
    b'  x: "secret:\\/\\/a/b"',
    b'  x: "\\u0073ecret:\\U0000002f/a"',
    b"  x: !!binary c2VjcmV0Oi8vYS9i",
    b"  x: !!bin%61ry |\n    c2Vjcm\n    V0Oi8vYS9i",
    b"  x: !<tag:yaml.org,2002:binary> |\n    c2Vjcm\n    V0Oi8vYS9i",
    b"  x: !%21binary c2VjcmV0Oi8vYS9i",
    b"  x: !%21binary |\n    c2Vjcm\n    V0Oi8vYS9i",
    b"  x: secret:/\n    /a/b",
    b"  'x secret://a/b': 1",
    b"---",
    b"--- ",
    b"--- # why",
    b"---\tx",
    b"---foo",
    b"----",
    b"--- {kind: Secret}",
    b" ---",
    b"...",
    b"%YAML 1.1",
    b"%TAG ! tag:yaml.org,2002:",
    b"",
    b"   ",
    b"# why",
    b"  # why",
    b"x: '",
    b'x: "',
    b"x: {",
    b"x: [",
    b"}",
    b"]",
    b"'",
    b'"',
    b"x: |1",
    b"x: >+",
    b"\xef\xbb\xbfkind: Secret",
    b"\xef\xbb\xbf---",
)
TOKENS = (
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\n",
    b"\n\n",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xa9",
    b"\xc2\xa0",
    b"\0",
    b"\xff",
    b"\t",
    b" ",
    b"  ",
    b'"',
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b", ",
    b": ",
    b":",
    b"? ",
    b"- ",
    b"-",
    b"&a ",
    b"*a",
    b"!",
    b"!!binary ",
    b"!!str ",
    b"!x!binary ",
    b"#",
    b" #",
    b"|",
    b">",
    b"\\",
    b"\\\n",
    b"\\x73",
    b"%",
    b"@",
    b"secret://",
    b"kind: Secret\n",
    b"\nkind: Secret",
    b"\rkind: Secret\r",
    b"\xc2\x85kind: Secret\xc2\x85",
    b"\xe2\x80\xa8kind: Secret\n",
    b"\n---\n",
    b"\r---\n",
    b"\r\n---\r\n",
    b"\n...\n",
    b"\x0c",
    b"\x0b",
    b"\x1c",
)


def document(random: Random) -> bytes:
    """An ordinary document after a few changes; often it still is one."""
    text = random.choice(ORDINARY)
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4))):
        text = random.choice((_line, _line, _token, _token, _indentation, _order, _word, _breaks))(random, text)
    return text


def stream(random: Random) -> bytes:
    """Some documents, by marker lines of many kinds."""
    markers = (b"---\n", b"---\n", b"---\n", b"--- # why\n", b"---\r\n", b"--- \t\n", b"---#\n", b"...\n---\n")
    parts = [random.choice((b"", b"", b"\xef\xbb\xbf", b"# why\n", b"\n"))]
    for number in range(random.randint(1, 4)):
        if number or random.random() < 0.5:
            if not parts[-1].endswith((b"\n", b"")):
                parts.append(b"\n")
            parts.append(random.choice(markers))
        parts.append(document(random))
    return b"".join(parts)


def _line(random: Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    lines.insert(random.randint(0, len(lines)), random.choice(LINES))
    return b"\n".join(lines)


def _token(random: Random, text: bytes) -> bytes:
    position = random.randint(0, len(text))
    return text[:position] + random.choice(TOKENS) + text[position:]


def _indentation(random: Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    number = random.randrange(len(lines))
    lines[number] = random.choice((b" " + lines[number], b"  " + lines[number], lines[number].lstrip(b" ")))
    return b"\n".join(lines)


def _order(random: Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _word(random: Random, text: bytes) -> bytes:
    old = random.choice((b"ConfigMap", b"kind", b"apiVersion", b"metadata", b"plain text", b"quoted"))
    new = random.choice((b"Secret", b"items", b"kind", b"secret://a/b", b"'Secret'", b'"\\x53ecret"', b"x"))
    return text.replace(old, new, 1)


def _breaks(random: Random, text: bytes) -> bytes:
    new = random.choice((b"\r\n", b"\r\n", b"\r", b"\xc2\x85", b"\xe2\x80\xa9"))
    if random.random() < 0.5:
        return text.replace(b"\n", new)
    position = text.find(b"\n", random.randrange(len(text) + 1))
    return text if position < 0 else text[:position] + new + text[position + 1 :]
