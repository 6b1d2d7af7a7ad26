"""What is read of Definitions and of `humanitec.io` objects; modelled on the published shapes, with own names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import InputError, Where
from secretweave.policy import is_of_ours, read
from secretweave.policy.resources import Criterion, Resource
from secretweave.policy.settings import ResourceKeys
from secretweave.yamltree import Mapping, load

WHERE = Where("stdin", 3, 10, "Definition shop")


def resource(text: str, keys: ResourceKeys | None = None) -> Resource:
    (root,) = load(text.encode())
    assert isinstance(root, Mapping)
    found = read(root.text("apiVersion"), root.text("kind"), root, WHERE, keys or ResourceKeys())
    assert found is not None
    return found


def definition(entity: str) -> Resource:
    lines = "\n".join(f"  {line}" for line in entity.strip("\n").splitlines())
    head = "apiVersion: entity.humanitec.io/v1b1\nkind: Definition\nmetadata: {id: shop-db}\nentity:\n"
    return resource(head + lines)


def points(found: Resource) -> list[str]:
    return [str(pointer) for pointer, _ in found.points]


def secrets(found: Resource) -> list[str]:
    return [secret for secret, _ in found.secrets]


DATABASE = """\
name: shop-db
type: postgres
driver_type: humanitec/template
driver_account: cloud
driver_inputs:
  values:
    host: db.${context.env.id}.example
    subnet: ${resources['network.default#vpc'].outputs.subnet}
    templates:
      outputs: |
        name: ${resources.k8s-service-account#ksa.outputs.name}
        plain: $\\{resources.logging.outputs.x}
      manifests:
        ${resources.dns.outputs.host}.yaml: {data: [1, "${resources.route.guresid}"]}
  secret_refs:
    username: {store: vault, ref: shop/db#user, value: null}
    nested:
      list:
      - password: {store: vault, ref: shop/db, version: "3"}
      - url: {value: "${resources['dsn.default'].outputs.url}"}
criteria:
- {class: premium, env_type: production}
- app_id: shop
  res_id: main
provision:
  aws-policy.read#shop: {is_dependent: true, match_dependents: false}
  k8s-cluster#run:
    match_dependents: "true"
    params: {size: "${resources.sizing.values}"}
  monitor:
"""


def test_a_definition_is_read_completely():
    found = definition(DATABASE)
    assert (found.type, found.name, str(found)) == ("postgres", "shop-db", "postgres/shop-db")
    assert found.serves == (Criterion("premium", None), Criterion(None, "main"))
    assert points(found) == ["network.default#vpc", "k8s-service-account#ksa", "dns", "route", "dsn.default", "sizing"]
    assert secrets(found) == ["vault:shop/db#user", "vault:shop/db"]
    assert [(str(each.pointer), each.is_dependent, each.match_dependents) for each in found.provisions] == [
        ("aws-policy.read#shop", True, False),
        ("k8s-cluster#run", False, True),
        ("monitor", False, False),
    ]


def test_each_is_told_where_it_stands():
    found = definition(DATABASE)
    places = [where for _, where in (*found.points, *found.secrets)] + [each.where for each in found.provisions]
    assert [(where.line, where.field) for where in places] == [
        (21, "entity.driver_inputs.values.subnet"),
        (23, "entity.driver_inputs.values.templates.outputs"),
        (27, "entity.driver_inputs.values.templates.manifests"),
        (27, 'entity.driver_inputs.values.templates.manifests["${resources.dns.outputs.host}.yaml"].data[1]'),
        (33, "entity.driver_inputs.secret_refs.nested.list[1].url.value"),
        (42, 'entity.provision["k8s-cluster#run"].params.size'),
        (29, "entity.driver_inputs.secret_refs.username"),
        (32, "entity.driver_inputs.secret_refs.nested.list[0].password"),
        (39, 'entity.provision["aws-policy.read#shop"]'),
        (40, 'entity.provision["k8s-cluster#run"]'),
        (43, "entity.provision.monitor"),
    ]
    assert {(where.source, where.document, where.resource) for where in places} == {("stdin", 3, "Definition shop")}


def test_the_older_form_of_a_definition():
    found = resource("""\
apiVersion: core.api.humanitec.io/v1
kind: Definition
metadata: {id: main-cluster}
object:
  name: cluster
  type: k8s-cluster
  driver_inputs: {values: {proxy: "${resources.agent.outputs.url}"}}
  provision: {agent: {is_dependent: true}}
criteria:
- res_id: main
""")
    assert (str(found), found.serves, points(found)) == (
        "k8s-cluster/main-cluster",
        (Criterion(None, "main"),),
        ["agent"],
    )
    assert [str(each.pointer) for each in found.provisions] == ["agent"]


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ("", ()),
        ("criteria: []", ()),
        ("criteria: {a: {class: x}}", ()),
        ("criteria: [{}]", (Criterion(None, None),)),
        ("criteria: [null, {class: x}]", (Criterion(None, None), Criterion("x", None))),
        ("criteria: [{class: null, res_id: ~}]", (Criterion(None, None),)),
        ('criteria: [{class: "null", res_id: 7}]', (Criterion("null", "7"),)),
        ("criteria: [{class: '${context.env.id}', res_id: x}]", (Criterion(None, "x"),)),
    ],
)
def test_criteria(criteria: str, expected: tuple[Criterion, ...]):
    assert definition(f"type: config\n{criteria}").serves == expected


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        ("type: config", "config"),
        ("type: my-org/queue", "my-org/queue"),
        ('"t\\x79pe": "log\\u0067ing"', "logging"),
        ("type: !!binary bG9nZ2luZw==", "logging"),
        ("{type: logging}", "logging"),
        ("<<: {type: logging}", "logging"),
        ("name: x", ""),
        ("type: null", ""),
        ("type: [logging]", ""),
        ("type: ${context.res.type}", ""),
    ],
)
def test_the_type(entity: str, expected: str):
    assert definition(entity).type == expected


def test_two_types_are_none():
    found = resource("""\
apiVersion: entity.humanitec.io/v1b1
kind: Definition
entity: {type: config}
object: {type: logging}
""")
    assert found.type == ""


@pytest.mark.parametrize("where", ["driver_inputs", "criteria", "x"])
def test_a_key_that_stands_twice_is_refused(where: str):
    with pytest.raises(InputError, match="same key twice"):
        definition(f"type: config\n{where}: a\n{where}: b")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("secret_refs: {a: {store: vault, ref: b}}", ["vault:b"]),
        ('{"secret_refs": {"a": {"store": "vault", "ref": "b"}}}', ["vault:b"]),
        ("values: {a: {store: vault, ref: b, other: 1}}", ["vault:b"]),
        ("secret_refs: {a: {ref: b}}", ["(default store):b"]),
        ("secret_refs: {a: [{deep: {ref: b, store: null}}]}", ["(default store):b"]),
        ("values: {source: {ref: refs/heads/main}}", []),
        ("secret_refs: {a: {store: null, ref: null, value: x}}", []),
        ("secret_refs: {a: {value: '${resources.config.outputs.x}'}}", []),
        ("values: {a: &r {store: vault, ref: b}, b: *r, c: {<<: *r}}", ["vault:b", "vault:b"]),
        ("values: &r {a: {ref: b}}\n  secret_refs: *r", ["(default store):b"]),
        # Text that is itself JSON, YAML or HCL.
        ("""secret_refs: '{"a": {"store": "vault", "ref": "b"}}'""", ["vault:b"]),
        (r"""values: {x: "{\\\"store\\\":\\\"vault\\\",\\\"ref\\\":\\\"b\\\"}"}""", ["vault:b"]),
        ("values:\n    x: |\n      a:\n        ref: b\n        store: vault\n", ["vault:b"]),
        ('values:\n    x: |\n      a = { store = "vault", ref = "b" }\n', ["vault:b"]),
        ("""values: {x: '{"store": null, "ref": "b"}'}""", []),
        ("values: {x: 'the store, and a reference: none'}", []),
        ("values: {x: 'secretStoreRef: a, href: b'}", []),
        # Our own grammar.
        ("values: {x: 'https://a/$(secret://vault/b)'}", ["vault:b"]),
        ("values: {x: 'secret://vault/b?version=2#c'}", ["vault:b#c"]),
        ("values: {x: 'secret:!//vault/b'}", []),
    ],
)  # fmt: skip
def test_secret_references(inputs: str, expected: list[str]):
    assert secrets(definition(f"type: config\ndriver_inputs:\n  {inputs}")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: Resource\nmetadata: {name: a}\nspec: {type: config, class: x, id: y}", ("config/a", "x", "y")),
        ("kind: Resource\nmetadata: {name: a}\nspec: {kind: config}", ("resource/a", None, None)),
        ("kind: Workload\nmetadata: {name: a}\nspec: {}", ("workload/a", None, None)),
        ("kind: WorkloadPatch\nmetadata: {name: a}", ("workloadpatch/a", None, None)),
    ],
)
def test_objects_of_the_operator(text: str, expected: tuple[str, str | None, str | None]):
    found = resource(f"apiVersion: humanitec.io/v1alpha1\n{text}")
    assert (str(found), *found.serves[0]) == expected


def test_where_an_object_says_what_it_is_can_be_set():
    text = "apiVersion: humanitec.io/v1alpha1\nkind: Resource\nmetadata: {labels: {t: agent}}\nspec: {a: {b: x, c: y}}"
    found = resource(text, ResourceKeys("metadata.labels.t", "spec.a.b", "spec.a.c"))
    assert (found.type, found.serves) == ("agent", (Criterion("x", "y"),))


def test_everything_in_an_object_counts():
    found = resource("""\
apiVersion: humanitec.io/v1alpha1
kind: Workload
metadata:
  name: web
  annotations: {a: "${resources.a.outputs.x}"}
spec:
  "${resources.b.outputs.x}": 1
  containers:
  - variables:
      C: {store: vault, ref: d}
status: {e: "${resources['e.f#g'].values}"}
""")
    assert (points(found), secrets(found)) == (["a", "b", "e.f#g"], ["vault:d"])


@pytest.mark.parametrize("kind", ["SecretStore", "SecretMapping"])
def test_stores_and_mappings_are_no_resources(kind: str):
    (root,) = load(b"{}")
    assert isinstance(root, Mapping)
    assert read("humanitec.io/v1alpha1", kind, root, WHERE, ResourceKeys()) is None


@pytest.mark.parametrize(
    ("api_version", "expected"),
    [
        ("humanitec.io/v1alpha1", True),
        ("entity.humanitec.io/v1b1", True),
        ("core.api.humanitec.io/v1", True),
        ("nothumanitec.io/v1", False),
        ("humanitec.io.example/v1", False),
        ("external-secrets.io/v1", False),
        ("v1", False),
        ("", False),
    ],
)
def test_whose_objects_they_are(api_version: str, expected: bool):
    assert is_of_ours(api_version) is expected


def test_aliases_do_not_multiply():
    layers = "".join(f"  l{n}: &l{n} [*l{n - 1}, *l{n - 1}, *l{n - 1}, *l{n - 1}]\n" for n in range(1, 60))
    found = definition("type: config\nvalues:\n  l0: &l0 '${resources.a.outputs.x}'\n" + layers)
    assert points(found) == ["a"]


@given(st.text(max_size=80))
def test_no_text_is_too_much(text: str):
    definition("type: config\nvalues: " + '"' + "".join(f"\\U{ord(each):08x}" for each in text) + '"')
