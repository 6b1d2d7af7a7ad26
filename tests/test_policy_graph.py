"""The rules over resources of the restricted types, on Definitions in short form and on random graphs."""

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import Where
from secretweave.policy import read, restricted
from secretweave.policy.graph import Graph
from secretweave.policy.placeholders import ANY, Pointer
from secretweave.policy.resources import Criterion, Provision, Resource
from secretweave.policy.settings import ResourceKeys, Restricted
from secretweave.yamltree import Mapping, load
from tests.sizes import examples

pytestmark = pytest.mark.once

SECRET = "secret_refs: {p: {store: my-store, ref: path}}"


def judged(stream: str, rules: Restricted | None = None) -> tuple[list[str], list[str]]:
    """What is refused, and what is warned of, in a stream of Definitions, whose head may be left out."""
    resources = []
    for number, root in enumerate(load(stream.encode()), 1):
        assert isinstance(root, Mapping)
        version = root.text("apiVersion") or "entity.humanitec.io/v1b1"
        kind = root.text("kind") or "Definition"
        found = read(version, kind, root, Where("in", number, 1), ResourceKeys())
        assert found is not None
        resources.append(found)
    judgement = restricted.check(resources, rules or Restricted())
    return [fault.what for fault in judgement.faults], [text for _, text in judgement.warnings]


def of(kind: str, name: str, inputs: str = "", rest: str = "criteria: [{}]") -> str:
    return f"---\nmetadata: {{id: {name}}}\nentity:\n  type: {kind}\n  driver_inputs: {{{inputs}}}\n  {rest}\n"


def cr(kind: str, name: str, spec: str) -> str:
    return f"---\napiVersion: humanitec.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def to(*specifications: str) -> str:
    return "values: [" + ", ".join(f"\"${{resources['{each}'].outputs.x}}\"" for each in specifications) + "]"


@pytest.mark.parametrize(
    ("stream", "refused"),
    [
        # (A)
        (
            of("config", "app", to("logging.default#logging")),
            ["config/app refers to logging.default#logging, of the restricted type logging"],
        ),
        (of("config", "app", to("agent")), ["config/app refers to agent"]),
        (of("ingress", "web", to("k8s-namespace")), ["ingress/web refers to k8s-namespace"]),
        (of("config", "app", "secret_refs: {a: {value: '${resources.agent.values}'}}"), ["config/app refers to agent"]),
        (of("k8s-cluster", "main", to("agent", "k8s-namespace")), []),
        (of("config", "app", to("dns", "agent-pool", "k8s-service-account")), []),
        (of("config", "app", "values: '$\\{resources.agent.outputs.x} ${context.env.id} ${AGENT}'"), []),
        # (A) by co-provisioning
        (
            of("k8s-cluster", "main", rest="provision: {'k8s-cluster#run': {is_dependent: false}}"),
            [],
        ),
        (
            of("logging", "logs", rest="provision: {sink.a#b: {is_dependent: true}, agent: {is_dependent: true}}"),
            ["sink.a#b, provisioned along with logging/logs, refers to it, of the restricted type logging"],
        ),
        (
            of("queue", "q", rest="provision: {agent#x: {match_dependents: true}}") + of("config", "app", to("queue")),
            ["config/app refers to agent#x, of the restricted type agent"],
        ),
        (of("queue", "q", rest="provision: {agent#x: {match_dependents: true}}") + of("agent", "a", to("queue")), []),
        # (B) direct
        (
            of("k8s-cluster", "main", to("config.x")) + of("config", "x", SECRET, "criteria: [{class: x}]"),
            ["k8s-cluster/main -> config/x uses secret my-store:path"],
        ),
        (of("k8s-cluster", "main", to("config.x")) + of("config", "y", SECRET, "criteria: [{class: y}]"), []),
        # (B) indirect
        (
            of("config", "b", SECRET, "criteria: [{class: b, res_id: b}]")
            + of("config", "a", to("config#b"), "criteria: [{class: a}]")
            + of("logging", "x", to("config.a")),
            ["logging/x -> config/a -> config/b uses secret my-store:path"],
        ),
        # A restricted one may refer to a restricted one, but not to one that uses a secret.
        (of("k8s-cluster", "main", to("agent")) + of("agent", "a"), []),
        (
            of("k8s-cluster", "main", to("agent")) + of("agent", "a", SECRET),
            ["k8s-cluster/main -> agent/a uses secret my-store:path"],
        ),
        # Each Definition that could serve is taken.
        (
            of("agent", "a", to("config.x#y"))
            + of("config", "any", SECRET)
            + of("config", "class", SECRET, "criteria: [{class: z}, {class: x}]")
            + of("config", "id", SECRET, "criteria: [{res_id: y}]")
            + of("config", "other-class", SECRET, "criteria: [{class: z, res_id: y}]")
            + of("config", "other-id", SECRET, "criteria: [{class: x, res_id: z}]")
            + of("config", "none", SECRET, "name: x"),
            [
                "agent/a -> config/any uses secret my-store:path",
                "agent/a -> config/class uses secret my-store:path",
                "agent/a -> config/id uses secret my-store:path",
                "agent/a -> config/none uses secret my-store:path",
            ],
        ),
        # Cycles, and a resource that means itself.
        (of("agent", "a", to("dns")) + of("dns", "d", to("dns", "config")) + of("config", "c", to("dns")), []),
        (
            of("agent", "a", to("dns")) + of("dns", "d", to("dns", "config"))
            + of("config", "c", f"{to('dns')}, {SECRET}"),
            ["agent/a -> dns/d -> config/c uses secret my-store:path"],
        ),
        # (B) by co-provisioning
        (
            of("sink", "s", "", "provision: {}") + of("config", "c", SECRET, "provision: {sink: {is_dependent: true}}")
            + of("logging", "l", to("sink")),
            ["logging/l -> sink/s -> config/c uses secret my-store:path"],
        ),
        (
            of("queue", "q", rest="provision: {policy: {match_dependents: true}}")
            + of("policy", "p", SECRET) + of("logging", "l", to("queue")),
            ["logging/l -> policy/p uses secret my-store:path"],
        ),
        (
            of("logging", "l", rest="provision: {policy: {is_dependent: false, match_dependents: true}}")
            + of("policy", "p", SECRET),
            [],
        ),
        # What cannot be read is refused, and refers to everything.
        (
            of("agent", "a", "values: '${resources[x]}'") + of("config", "c", SECRET),
            ["a resource placeholder in agent/a cannot be read", "agent/a -> config/c uses secret my-store:path"],
        ),
        (of("", "a", SECRET), ["the type of resource/a cannot be told"]),
        (of("", "a", to("dns")), ["the type of resource/a cannot be told"]),
        (of("", "a"), []),
        # Objects of the Operator.
        (
            cr("Resource", "c", "{type: config, inputs: {store: my-store, ref: path}}")
            + cr("Resource", "n", "{type: k8s-namespace, inputs: '${resources.config.outputs.x}'}"),
            ["k8s-namespace/n -> config/c uses secret my-store:path"],
        ),
        (
            cr("Workload", "w", "{variables: {A: '${resources.logging.outputs.url}', B: {store: a, ref: b}}}"),
            ["workload/w refers to logging"],
        ),
    ],
)  # fmt: skip
def test_what_is_refused(stream: str, refused: list[str]):
    assert judged(stream)[0] == refused


OWN = of("logging", "l", SECRET)
OWN_TEXT = ["logging/l, of a restricted type, uses secret my-store:path itself"]
NAMESPACE = of("ingress", "i", to("k8s-namespace"))
AGENT = of("k8s-cluster", "c", to("agent"))


@pytest.mark.parametrize(
    ("stream", "rules", "expected"),
    [
        (OWN, Restricted(), ([], OWN_TEXT)),
        (OWN, Restricted(own_reference="refuse"), (OWN_TEXT, [])),
        (OWN, Restricted(own_reference="allow"), ([], [])),
        (NAMESPACE, Restricted(reference_to_namespace="warn"), ([], ["ingress/i refers to k8s-namespace"])),
        (NAMESPACE, Restricted(reference_to_namespace="allow"), ([], [])),
        (AGENT, Restricted(restricted_to_restricted="warn"), ([], ["k8s-cluster/c refers to agent"])),
        (AGENT, Restricted(restricted_to_restricted="refuse"), (["k8s-cluster/c refers to agent"], [])),
        (AGENT, Restricted(types=("k8s-cluster",)), ([], [])),
        (of("config", "c", to("dns")), Restricted(types=("dns",)), (["config/c refers to dns"], [])),
    ],
)
def test_what_the_configuration_may_change(stream: str, rules: Restricted, expected: tuple[list[str], list[str]]):
    assert judged(stream, rules) == expected


def test_no_setting_relaxes_what_is_refused_on_the_way_to_a_secret():
    lax = Restricted(restricted_to_restricted="allow", own_reference="allow", reference_to_namespace="allow")
    stream = of("k8s-cluster", "c", to("k8s-namespace")) + of("k8s-namespace", "n", SECRET)
    assert judged(stream, lax) == (["k8s-cluster/c -> k8s-namespace/n uses secret my-store:path"], [])


def test_one_fault_tells_every_place():
    inputs = "values: {a: '${resources.agent.outputs.x} ${resources.agent.outputs.y}', b: '${resources.agent.values}'}"
    (root,) = load(of("config", "c", inputs).encode())
    assert isinstance(root, Mapping)
    found = read("entity.humanitec.io/v1b1", "Definition", root, Where("in", 1, 1), ResourceKeys())
    assert found is not None
    (fault,) = restricted.check([found], Restricted()).faults
    fields = [where.field for where in (fault.where, *fault.also)]
    assert fields == [f"entity.driver_inputs.values.{name}" for name in "aab"]
    assert (
        fault.why
        == "resources of the restricted types (k8s-cluster, k8s-namespace, agent, logging) may not be referred to"
    )
    assert fault.fix == "take the reference out: the orchestrator provisions that resource by itself"


# Random graphs, against reachability by brute force.

TYPES, CLASSES, IDS = ["agent", "logging", "config", "dns"], ["x", "y"], ["1", "2"]
POINTERS = st.builds(
    Pointer, st.sampled_from(TYPES), st.none() | st.sampled_from(CLASSES), st.none() | st.sampled_from(IDS)
)
CRITERIA = st.builds(Criterion, st.none() | st.sampled_from(CLASSES), st.none() | st.sampled_from(IDS))
PROVISIONS = st.builds(Provision, POINTERS, st.booleans(), st.booleans(), st.just(Where()))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Resource, ...]:
    first = POINTERS | st.just(ANY)
    return tuple(
        Resource(
            draw(st.sampled_from(TYPES)),
            str(number),
            tuple(draw(st.lists(CRITERIA, max_size=2))),
            tuple((pointer, Where()) for pointer in draw(st.lists(POINTERS if number else first, max_size=2))),
            (("s:r", Where()),) if draw(st.booleans()) else (),
            tuple(draw(st.lists(PROVISIONS, max_size=1))),
            Where(),
            "entity.type",
        )
        for number in range(draw(st.integers(1, 8)))
    )  # fmt: skip


def serves(resource: Resource, pointer: Pointer) -> bool:
    return pointer.type in {"*", resource.type} and (
        not resource.serves
        or any(
            (None in {pointer.class_, each.class_} or pointer.class_ == each.class_)
            and (None in {pointer.id, each.id} or pointer.id == each.id)
            for each in resource.serves
        )
    )


def edges(resources: tuple[Resource, ...]) -> set[tuple[int, int]]:
    """Every pair, until nothing is added any more."""
    every = range(len(resources))
    found = {
        (x, y) for x in every for y in every for pointer, _ in resources[x].points if serves(resources[y], pointer)
    }
    for x in every:
        for each in resources[x].provisions:
            found |= {(y, x) for y in every if each.is_dependent and serves(resources[y], each.pointer)}
    before = -1
    while before != len(found):
        before = len(found)
        for x, y in tuple(found):
            for each in resources[y].provisions:
                found |= {(x, z) for z in every if each.match_dependents and serves(resources[z], each.pointer)}
    return found


def reachable(start: int, found: set[tuple[int, int]]) -> Iterator[int]:
    seen = {start}
    layer = {start}
    while layer:
        layer = {y for x, y in found if x in layer} - seen
        seen |= layer
        yield from layer


@examples(400)
@given(graphs())
def test_what_is_found_is_what_can_be_reached(resources: tuple[Resource, ...]):
    graph = Graph(resources)
    expected = edges(resources)
    count = 0
    for start, resource in enumerate(resources):
        if resource.type not in {"agent", "logging"}:
            continue
        paths = list(graph.paths_to_secrets(start))
        assert sorted(path[-1] for path in paths) == sorted(
            end for end in reachable(start, expected) if resources[end].secrets
        )
        assert all(path[0] == start and len(set(path)) == len(path) for path in paths)
        assert all(set(pairwise(path)) <= expected for path in paths)
        count += len(paths)
    faults = restricted.check(resources, Restricted()).faults
    assert sum(" -> " in fault.what for fault in faults) == count


@examples(200)
@given(graphs())
def test_what_refers_to_a_restricted_type_is_found(resources: tuple[Resource, ...]):
    graph = Graph(resources)
    expected = edges(resources)
    for index, resource in enumerate(resources):
        matched = {
            each.pointer
            for x, y in expected
            for each in resources[y].provisions
            if x == index and each.match_dependents
        }
        assert set(graph.references[index]) == {pointer for pointer, _ in resource.points} | matched


def test_the_order_is_that_of_the_stream():
    stream = "".join(of("agent", f"a{n}", to("config")) + of("config", f"c{n}", SECRET) for n in range(3))
    refused, _ = judged(stream)
    assert refused == [f"agent/a{a} -> config/c{c} uses secret my-store:path" for a in range(3) for c in range(3)]
    assert refused == judged(stream)[0]


def many(count: int, *, secret: bool) -> tuple[Resource, ...]:
    """Thousands, each of which refers to thousands: by type, by an id that nothing names, by an id of its own."""
    made = []
    for n in range(count):
        pointers = [
            Pointer("config"),
            Pointer("config", "default", f"nobody-{n}"),
            Pointer("config", None, f"id-{n // 2}"),
        ]
        serving = Criterion(None, f"id-{n}") if n % 2 else Criterion("default", None)
        kind = "agent" if n % 10 == 0 else "config"
        points = tuple((pointer, Where()) for pointer in pointers)
        made.append(Resource(kind, str(n), (serving,), points, (), (), Where(), "entity.type"))
    leaf = Resource("dns", "leaf", (), (), (("s:r", Where()),), (), Where(), "entity.type")
    return (*made, leaf) if secret else tuple(made)


@pytest.mark.parametrize("secret", [False, True])
def test_thousands_of_resources_take_seconds(secret: bool):
    began = time.monotonic()
    assert restricted.check(many(2000, secret=secret), Restricted()).faults == []
    assert time.monotonic() - began < 10
