"""The rules over the graph of resources, for the whole stream.

(A) No resource refers to a restricted type. (B) No restricted resource refers, through any chain of references, to a
resource that uses a secret reference. Where several Definitions could serve a reference, each that could is taken.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from secretweave.errors import PolicyError, Where
from secretweave.policy.placeholders import Pointer
from secretweave.policy.resources import Resource
from secretweave.policy.settings import Restricted, Verdict

NAMESPACE = "k8s-namespace"


class Judgement(NamedTuple):
    faults: list[PolicyError]
    warnings: list[tuple[Where, str]]

    def add(self, verdict: Verdict, fault: PolicyError) -> None:
        if verdict == "refuse":
            self.faults.append(fault)
        elif verdict == "warn":
            self.warnings.append((fault.where, fault.what))


def check(resources: Iterable[Resource], rules: Restricted) -> Judgement:
    """The violations of both rules, in the order of the resources."""
    graph = _Graph(tuple(resources), rules)
    judgement = Judgement([], [])
    for index, resource in enumerate(graph.resources):
        _untold(resource, rules, judgement)
        for pointer, where in graph.references(index):
            _refers(resource, pointer, where, rules, judgement)
        if resource.type in rules.types:
            _own(resource, rules, judgement)
            for path in graph.paths_to_secrets(index):
                _reaches([graph.resources[each] for each in path], judgement)
    return judgement


class _Graph:
    def __init__(self, resources: tuple[Resource, ...], rules: Restricted) -> None:
        self.resources = resources
        self.rules = rules
        self._by_type: dict[str, list[int]] = {}
        for index, resource in enumerate(resources):
            self._by_type.setdefault(resource.type, []).append(index)
        self._served: dict[Pointer, list[int]] = {}
        self._edges = [
            {target for pointer, _ in resource.points for target in self.serving(pointer)} for resource in resources
        ]
        self._extra: dict[int, list[tuple[Pointer, Where]]] = {}
        self._provision()

    def serving(self, pointer: Pointer) -> list[int]:
        """Every resource that could be what *pointer* means."""
        if pointer not in self._served:
            among = range(len(self.resources)) if pointer.type == "*" else self._by_type.get(pointer.type, [])
            self._served[pointer] = [index for index in among if _could_serve(self.resources[index], pointer)]
        return self._served[pointer]

    def references(self, index: int) -> Iterator[tuple[Pointer, Where]]:
        """What a resource refers to, also by co-provisioning; each type once."""
        seen = set()
        for pointer, where in (*self.resources[index].points, *self._extra.get(index, ())):
            if pointer not in seen:
                seen.add(pointer)
                yield pointer, where

    def paths_to_secrets(self, start: int) -> Iterator[list[int]]:
        """The shortest path from a resource to each other one that uses a secret."""
        came: dict[int, int] = {start: start}
        waiting = deque([start])
        while waiting:
            index = waiting.popleft()
            if index != start and self.resources[index].secrets:
                path = [index]
                while path[-1] != start:
                    path.append(came[path[-1]])
                yield path[::-1]
            for target in sorted(self._edges[index]):
                if target not in came:
                    came[target] = index
                    waiting.append(target)

    def _provision(self) -> None:
        """Edges of co-provisioning: what comes along refers to this one, or what refers to this one to that."""
        own = [set(edges) for edges in self._edges]
        for index, resource in enumerate(self.resources):
            for provision in resource.provisions:
                along = self.serving(provision.pointer)
                if provision.is_dependent:
                    for each in along:
                        self._refer(each, index, Pointer(resource.type), provision.where)
                if provision.match_dependents:
                    for dependent in range(len(own)):
                        if index in own[dependent]:
                            self._extra.setdefault(dependent, []).append((provision.pointer, provision.where))
                            self._edges[dependent] |= set(along)

    def _refer(self, source: int, target: int, pointer: Pointer, where: Where) -> None:
        self._edges[source].add(target)
        self._extra.setdefault(source, []).append((pointer, where))


def _could_serve(resource: Resource, pointer: Pointer) -> bool:
    if not resource.serves:
        return True
    return any(
        (pointer.class_ is None or each.class_ in {None, pointer.class_})
        and (pointer.id is None or each.id in {None, pointer.id})
        for each in resource.serves
    )


def _untold(resource: Resource, rules: Restricted, judgement: Judgement) -> None:
    if not resource.type and (resource.points or resource.secrets):
        judgement.faults.append(
            PolicyError(
                f"the type of the resource {resource.name} cannot be told",
                where=resource.where,
                why=f"it is looked for at {rules.resource_keys.type}; if it is a restricted one, this may not pass",
                fix="say where it stands in policy.restricted.resourceKeys of the configuration",
            )
        )


def _refers(resource: Resource, pointer: Pointer, where: Where, rules: Restricted, judgement: Judgement) -> None:
    if pointer.type not in rules.types and pointer.type != "*":
        return
    verdict: Verdict = "refuse"
    fix = "take the reference out; the orchestrator provisions that type by itself"
    if resource.type in rules.types:
        verdict = rules.restricted_to_restricted
    elif pointer.type == NAMESPACE:
        verdict = rules.reference_to_namespace
        fix += ", or relax policy.restricted.referenceToNamespace in the configuration"
    what = "a placeholder that cannot be read" if pointer.type == "*" else f"the restricted type {pointer}"
    judgement.add(
        verdict,
        PolicyError(
            f"{resource} refers to {what}",
            where=where,
            why="no resource may refer to a resource of a restricted type",
            fix=fix,
        ),
    )


def _own(resource: Resource, rules: Restricted, judgement: Judgement) -> None:
    for secret, where in resource.secrets:
        judgement.add(
            rules.own_reference,
            PolicyError(
                f"the restricted resource {resource} uses secret {secret} itself",
                where=where,
                why="policy.restricted.ownReference says so",
                fix="give it its value in another way",
            ),
        )


def _reaches(path: list[Resource], judgement: Judgement) -> None:
    secret, _ = path[-1].secrets[0]
    way = " -> ".join(map(str, path))
    direct = "refers" if len(path) == 2 else "refers, through others,"
    judgement.faults.append(
        PolicyError(
            f"{way} uses secret {secret}",
            where=path[0].where,
            why=f"the restricted resource {path[0]} {direct} to a resource that uses a secret reference",
            fix="break the chain, or take the secret reference out of its last resource",
        )
    )
