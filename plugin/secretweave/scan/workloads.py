"""Where the containers of a workload stand.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from secretweave.config.configuration import PodTemplate
from secretweave.scan.objects import Object, step
from secretweave.yamltree import Mapping, Sequence

POD_SPECS = {
    ("v1", "Pod"): "spec",
    ("v1", "PodTemplate"): "template.spec",
    ("v1", "ReplicationController"): "spec.template.spec",
    ("apps", "Deployment"): "spec.template.spec",
    ("apps", "StatefulSet"): "spec.template.spec",
    ("apps", "DaemonSet"): "spec.template.spec",
    ("apps", "ReplicaSet"): "spec.template.spec",
    ("batch", "Job"): "spec.template.spec",
    ("batch", "CronJob"): "spec.jobTemplate.spec.template.spec",
}
"""(group, or `v1` for the core group; kind) -> the key path of the pod's spec."""


class Container(NamedTuple):
    node: Mapping
    path: str
    """Its key path in the object."""
    name: str
    """As written; its index where it has none."""


def containers(obj: Object, templates: Iterable[PodTemplate]) -> Iterator[Container]:
    """Every container of *obj*: ordinary, init and ephemeral ones. *templates* are those the configuration adds."""
    owner = (obj.group or obj.api_version, obj.kind)
    paths = [POD_SPECS[owner]] if owner in POD_SPECS else []
    paths += [
        f"{each.path}.spec"
        for each in templates
        if fnmatchcase(obj.api_version, each.api_version) and fnmatchcase(obj.kind, each.kind)
    ]
    for path in paths:
        node = obj.node
        for key in path.split("."):
            deeper = node.get(key)
            if not isinstance(deeper, Mapping):
                break
            node = deeper
        else:
            yield from _containers(node, path)


def _containers(pod: Mapping, path: str) -> Iterator[Container]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        members = pod.get(field)
        for index, node in enumerate(members.items if isinstance(members, Sequence) else ()):
            if isinstance(node, Mapping) and node.live:
                yield Container(node, step(step(path, field), index), node.text("name") or str(index))
