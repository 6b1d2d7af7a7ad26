"""The graph of resources of the whole stream: who could refer to whom, and the ways to a secret.

Where several Definitions could serve a reference, each that could is taken. Co-provisioning adds references: what comes
along with `is_dependent` refers to the resource that it comes with; with `match_dependents`, what refers to that
resource refers to what comes along, too.
(https://registry.terraform.io/providers/humanitec/humanitec/latest/docs/resources/resource_definition)
"""

from collections import deque
from collections.abc import Iterable, Iterator

from secretweave.errors import Where
from secretweave.policy.placeholders import ANY, Pointer
from secretweave.policy.resources import Resource

Link = Pointer | int
"""What a resource refers to: whatever serves a pointer, or the one resource of that index."""


class Graph:
    """Resources have links, and links mean resources: where thousands refer to what thousands serve, a link is one."""

    def __init__(self, resources: tuple[Resource, ...]) -> None:
        self.resources = resources
        self._of_type: dict[str, list[int]] = {}
        self._of_id: dict[tuple[str, str], list[int]] = {}
        self._of_any_id: dict[str, list[int]] = {}
        self._classes: set[tuple[str, str]] = set()
        self._index()
        self._targets: dict[Link, list[int]] = {}
        self._brought: dict[Link, dict[Pointer, Where]] = {}
        self.references: tuple[dict[Pointer, list[Where]], ...] = tuple({} for _ in resources)
        """What each resource refers to by placeholders and by `match_dependents`, with the places."""
        self._links: tuple[set[Link], ...] = tuple(set() for _ in resources)
        for index, resource in enumerate(resources):
            for pointer, where in resource.points:
                self._refer(index, pointer, where)
        self._provision()
        self._reaching = self._that_reach_a_secret()

    def _refer(self, index: int, pointer: Pointer, where: Where) -> None:
        self.references[index].setdefault(pointer, []).append(where)
        self._links[index].add(self._link(pointer))

    def _link(self, pointer: Pointer) -> Pointer:
        """The same for all pointers whose class or id nothing names: they mean the same."""
        class_, identifier = pointer.class_, pointer.id
        if class_ is not None and (pointer.type, class_) not in self._classes:
            class_ = ""
        if identifier is not None and (pointer.type, identifier) not in self._of_id:
            identifier = ""
        return Pointer(pointer.type, class_, identifier)

    def _meant_by(self, link: Link) -> list[int]:
        """Every resource that could be what *link* means, in the order of the stream."""
        if isinstance(link, int):
            return [link]
        if link not in self._targets:
            among: Iterable[int] = self._of_type.get(link.type, ())
            if link.type == ANY.type:
                among = range(len(self.resources))
            elif link.id is not None:
                among = sorted({*self._of_id.get((link.type, link.id), ()), *self._of_any_id.get(link.type, ())})
            self._targets[link] = [index for index in among if _could_serve(self.resources[index], link)]
        return self._targets[link]

    def paths_to_secrets(self, start: int) -> Iterator[list[int]]:
        """The shortest path from a resource to each other one that uses a secret."""
        came: dict[int, int] = {start: start}
        taken: set[Link] = set()
        waiting = deque([start] if start in self._reaching else [])
        while waiting:
            index = waiting.popleft()
            if index != start and self.resources[index].secrets:
                path = [index]
                while path[-1] != start:
                    path.append(came[path[-1]])
                yield path[::-1]
            fresh = self._links[index] - taken
            taken |= fresh
            for target in sorted({target for link in fresh for target in self._meant_by(link)} & self._reaching):
                if target not in came:
                    came[target] = index
                    waiting.append(target)

    def _index(self) -> None:
        for index, resource in enumerate(self.resources):
            self._of_type.setdefault(resource.type, []).append(index)
            self._classes |= {(resource.type, each.class_) for each in resource.serves if each.class_ is not None}
            for identifier in {each.id for each in resource.serves} or {None}:
                if identifier is None:
                    self._of_any_id.setdefault(resource.type, []).append(index)
                else:
                    self._of_id.setdefault((resource.type, identifier), []).append(index)

    def _provision(self) -> None:
        """Adds the references that co-provisioning makes."""
        matching = False
        for index, resource in enumerate(self.resources):
            for provision in resource.provisions:
                matching = matching or provision.match_dependents
                if provision.is_dependent:
                    for along in self._meant_by(self._link(provision.pointer)):
                        self._links[along].add(index)
        if not matching:
            return
        for index, links in enumerate(self._links):
            ordered = sorted(links, key=str)
            brought = {pointer: where for link in ordered for pointer, where in self._brought_by(link).items()}
            for pointer in sorted(brought, key=str):
                self._refer(index, pointer, brought[pointer])

    def _brought_by(self, link: Link) -> dict[Pointer, Where]:
        """What `match_dependents` adds to whatever has *link*: by what the link means, and what is added, in turn."""
        if link not in self._brought:
            brought: dict[Pointer, Where] = {}
            waiting = [link]
            while waiting:
                for target in self._meant_by(waiting.pop()):
                    for provision in self.resources[target].provisions:
                        if provision.match_dependents and provision.pointer not in brought:
                            brought[provision.pointer] = provision.where
                            waiting.append(self._link(provision.pointer))
            self._brought[link] = brought
        return self._brought[link]

    def _that_reach_a_secret(self) -> set[int]:
        """The resources that use a secret, and those with a way to one."""
        linked: dict[Link, list[int]] = {}
        for index, links in enumerate(self._links):
            for link in links:
                linked.setdefault(link, []).append(index)
        meant: dict[int, list[Link]] = {}
        for link in linked:
            for target in self._meant_by(link):
                meant.setdefault(target, []).append(link)
        reaching = {index for index, resource in enumerate(self.resources) if resource.secrets}
        waiting = list(reaching)
        while waiting:
            for link in meant.pop(waiting.pop(), ()):
                fresh = set(linked.pop(link, ())) - reaching
                reaching |= fresh
                waiting.extend(fresh)
        return reaching


def _could_serve(resource: Resource, pointer: Pointer) -> bool:
    if not resource.serves:
        return True
    return any(
        (pointer.class_ is None or each.class_ in {None, pointer.class_})
        and (pointer.id is None or each.id in {None, pointer.id})
        for each in resource.serves
    )
