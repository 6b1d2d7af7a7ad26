"""The benchmark's streams, the same ones in every tool's own syntax. Deterministic.

Of the documents that nobody has to touch, half are Deployments and half ConfigMaps, 2.6 KB each, as charts have;
`config-maps` is ConfigMaps alone, because what a tool gains depends on the mix.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple


class Stream(NamedTuple):
    name: str
    title: str
    documents: int
    """That nobody has to touch, beside the Secrets with references."""
    lines: int
    """In each ConfigMap."""
    references: int
    """Each in a Secret of its own, spread evenly through the stream."""
    paths: int
    """To so many different secrets."""
    runs: int
    peers: bool
    """Are the peers run on it too?"""
    deployments: bool = True
    """Every other document is one."""


STREAMS = (
    Stream("tiny", "1 Secret, 1 reference", 0, 0, 1, 1, 21, peers=True),
    Stream("typical", "180 KB, 60 documents, 10 references to 5 paths", 50, 74, 10, 5, 11, peers=True),
    Stream("large", "50 MB, 20,000 documents, 500 references to 200 paths", 19_500, 43, 500, 200, 5, peers=True),
    Stream(
        "config-maps",
        "50 MB, 20,000 documents, ConfigMaps alone, 500 references to 200 paths",
        19_500,
        43,
        500,
        200,
        5,
        peers=True,
        deployments=False,
    ),
    Stream("plain-50", "50 MB, no reference", 19_500, 43, 0, 0, 5, peers=False),
    Stream("plain-200", "200 MB, no reference", 78_000, 43, 0, 0, 5, peers=False),
    Stream("one", "one document of 20 MB, no reference", 1, 360_000, 0, 0, 5, peers=True),
)

SYNTAX: dict[str, Callable[[int], str]] = {
    "secretweave": lambda path: f"secret://bench/path-{path}#password",
    "argocd-vault-plugin": lambda path: f"<path:secret/data/path-{path}#password>",
    "vals": lambda path: f"ref+vault://secret/path-{path}#/password",
}

CONFIG_MAP = """---
# Source: chart/templates/configmap.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings-{number}
  namespace: shop
  labels:
    app.kubernetes.io/name: settings
    helm.sh/chart: chart-1.0.0
data:
  settings.ini: |
"""
LINE = '    key.{line} = value {value} and text that is "quoted" here\n'
DEPLOYMENT = """---
# Source: chart/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-{number}
  namespace: shop
  labels: &labels
    app.kubernetes.io/name: web
    app.kubernetes.io/instance: web-{number}
    helm.sh/chart: chart-1.0.0
  annotations:
    checksum/config: "{number:064x}"
spec:
  replicas: 3
  revisionHistoryLimit: 5
  strategy: {{type: RollingUpdate, rollingUpdate: {{maxUnavailable: 25%, maxSurge: 1}}}}
  selector:
    matchLabels:
      app.kubernetes.io/instance: web-{number}
  template:
    metadata:
      labels: *labels
    spec:
      serviceAccountName: web
      automountServiceAccountToken: false
      securityContext: {{runAsNonRoot: true, fsGroup: 1000}}
      containers:
{containers}      volumes:
        - name: config
          configMap: {{name: settings-{number}, defaultMode: 0644}}
        - name: cache
          emptyDir: {{sizeLimit: 64Mi}}
      nodeSelector:
        kubernetes.io/os: linux
      tolerations:
        - {{key: dedicated, operator: Equal, value: shop, effect: NoSchedule}}
"""
CONTAINER = """        - name: {name}
          image: "registry.example.com/shop/{name}:1.10"
          imagePullPolicy: IfNotPresent
          args: ["--listen=:8080", '--log-level=info']
          ports:
            - containerPort: 8080
              name: http
              protocol: TCP
          env:
            - name: MODE
              value: production
            - name: POD_IP
              valueFrom:
                fieldRef:
                  fieldPath: status.podIP
          resources:
            requests: {{cpu: 100m, memory: 128Mi}}
            limits: {{memory: 256Mi}}
          livenessProbe:
            httpGet: {{path: /live, port: http}}
            periodSeconds: 10
          readinessProbe:
            httpGet: {{path: /ready, port: http}}
            periodSeconds: 5
"""
SECRET = """---
# Source: chart/templates/secret.yaml
apiVersion: v1
kind: Secret
metadata:
  name: secret-{number}
  namespace: shop
stringData:
  mode: "0644"
  password: {reference}
"""


def write(stream: Stream, tool: str, out: BinaryIO) -> None:
    """*stream* with references in *tool*'s syntax."""
    out.writelines(piece.encode() for piece in _pieces(stream, SYNTAX[tool]))


def _pieces(stream: Stream, reference: Callable[[int], str]) -> Iterator[str]:
    every = stream.documents // stream.references if stream.references else 0
    for number in range(stream.references):
        yield from _untouched(stream, number * every, every)
        yield SECRET.format(number=number, reference=reference(number % stream.paths))
    done = stream.references * every
    yield from _untouched(stream, done, stream.documents - done)


def _untouched(stream: Stream, first: int, count: int) -> Iterator[str]:
    containers = "".join(CONTAINER.format(name=name) for name in ("web", "proxy"))
    for number in range(first, first + count):
        if number % 2 and stream.deployments:
            yield DEPLOYMENT.format(number=number, containers=containers)
            continue
        yield CONFIG_MAP.format(number=number)
        for start in range(0, stream.lines, 1000):
            lines = range(start, min(start + 1000, stream.lines))
            yield "".join(LINE.format(line=line, value=(number * 7919 + line * 104729) % 1_000_000) for line in lines)
