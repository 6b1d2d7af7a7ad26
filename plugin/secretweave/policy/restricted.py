"""The rules over resources of the restricted types, which the orchestrator provisions by itself.

(A) No resource refers to one. (B) None of them refers, through any chain of references, to a resource that uses a
secret reference.
(https://developer.humanitec.com/integration-and-extensions/humanitec-operator/overview)
"""

from collections.abc import Iterable
from typing import NamedTuple

from secretweave.errors import PolicyError, Where, listed
from secretweave.policy.graph import Graph
from secretweave.policy.placeholders import ANY, Pointer
from secretweave.policy.resources import Resource
from secretweave.policy.settings import Restricted, Verdict

NAMESPACE = "k8s-namespace"
SHOWN = 3
"""How many secrets of one resource an error names."""


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
    graph = Graph(tuple(resources))
    judgement = Judgement([], [])
    for index, resource in enumerate(graph.resources):
        _untold(resource, judgement)
        for pointer, places in graph.references[index].items():
            _refers(resource, pointer, places, rules, judgement)
        _provides(resource, rules, judgement)
        if resource.type in rules.types:
            _own(resource, rules, judgement)
            for path in graph.paths_to_secrets(index):
                _reaches([graph.resources[each] for each in path], judgement)
    return judgement


def _untold(resource: Resource, judgement: Judgement) -> None:
    if not resource.type and (resource.points or resource.secrets or resource.provisions):
        judgement.faults.append(
            PolicyError(
                f"the type of {resource} cannot be told",
                where=resource.where,
                why=f"it is looked for at {resource.type_key}; if it is a restricted one, this may not pass",
                fix="write it there; for humanitec.io objects, policy.restricted.resourceKeys.type can say where it is",
            )
        )


def _refers(resource: Resource, pointer: Pointer, places: list[Where], rules: Restricted, judgement: Judgement) -> None:
    if pointer.type == ANY.type:
        fault = PolicyError(
            f"a resource placeholder in {resource} cannot be read",
            where=places[0],
            why="it may refer to any resource, also to one of a restricted type",
            fix="write it as ${resources['TYPE.CLASS#ID'].outputs.NAME}; where it is meant literally, with $\\{",
        )
        fault.also = tuple(places[1:])
        judgement.faults.append(fault)
    elif pointer.type in rules.types:
        _forbidden(resource.type, f"{resource} refers to", pointer.type, str(pointer), places, rules, judgement)


def _provides(resource: Resource, rules: Restricted, judgement: Judgement) -> None:
    """What comes along with a restricted resource, and refers to it: judged also if it is not in the stream."""
    for provision in resource.provisions if resource.type in rules.types else ():
        if provision.is_dependent:
            what = f"{provision.pointer}, provisioned along with {resource}, refers to"
            source = provision.pointer.type
            _forbidden(source, what, resource.type, "it", [provision.where], rules, judgement)


def _forbidden(
    source: str, what: str, target: str, shown: str, places: list[Where], rules: Restricted, judgement: Judgement
) -> None:
    """Rule (A), for a reference from one type to a restricted one."""
    verdict: Verdict = "refuse"
    setting = ""
    if source in rules.types:
        verdict, setting = rules.restricted_to_restricted, "restrictedToRestricted"
    elif target == NAMESPACE:
        verdict, setting = rules.reference_to_namespace, "referenceToNamespace"
    relax = f"; or relax policy.restricted.{setting} in the configuration" if setting else ""
    fault = PolicyError(
        f"{what} {shown}" + ("" if shown == target else f", of the restricted type {target}"),
        where=places[0],
        why=f"resources of the restricted types ({', '.join(rules.types)}) may not be referred to",
        fix=f"take the reference out: the orchestrator provisions that resource by itself{relax}",
    )
    fault.also = tuple(places[1:])
    judgement.add(verdict, fault)


def _own(resource: Resource, rules: Restricted, judgement: Judgement) -> None:
    if resource.secrets:
        fault = PolicyError(
            f"{resource}, of a restricted type, uses secret {_named(resource)} itself",
            where=resource.secrets[0][1],
            why="policy.restricted.ownReference of the configuration",
            fix="give it the value without a secret reference; or set policy.restricted.ownReference to `allow`",
        )
        fault.also = tuple(where for _, where in resource.secrets[1:])
        judgement.add(rules.own_reference, fault)


def _reaches(path: list[Resource], judgement: Judgement) -> None:
    way = " -> ".join(map(str, path))
    judgement.faults.append(
        PolicyError(
            f"{way} uses secret {_named(path[-1])}",
            where=path[0].where,
            why=f"no {path[0].type} may refer, directly or through others, to a resource that uses a secret reference",
            fix=f"break the chain, or take the secret reference out of {path[-1]} ({path[-1].secrets[0][1]})",
        )
    )


def _named(resource: Resource) -> str:
    names = list(dict.fromkeys(secret for secret, _ in resource.secrets))
    return listed(names, SHOWN)
