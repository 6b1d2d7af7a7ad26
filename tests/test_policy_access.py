"""Which reads, kinds and places the policy allows."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import Where
from secretweave.model import Address, Reference, StoreConfig, Use
from secretweave.policy import access, check, concerns
from secretweave.policy.settings import NativeKind, Policy, RefusedKind, Restricted, StoreRule, ValuePlace
from secretweave.scan.objects import step

SHOP = StoreConfig("shop", "shop-system", "file", None, default=False)


def use(
    ref: str = "team/a",
    *,
    namespace: str | None = "web",
    kind: str = "Secret",
    api_version: str = "v1",
    field: str = "stringData.a",
) -> Use:
    sink: Literal["secret", "elsewhere"] = "secret" if kind == "Secret" else "elsewhere"
    reference = Reference("shop", ref)
    where = Where("stdin", 1, 2, f"{kind} x", field)
    return Use(reference, SHOP, Address(SHOP.id, ref, None), where, api_version, kind, namespace, "x", field, sink)


def refused(rules: Policy, *found: Use, identity: str | None = None, destination: str | None = None) -> list[str]:
    faults, _ = access.uses(found, identity, rules, destination)
    assert all(fault.where == found[0].where and fault.why and fault.fix for fault in faults)
    return [fault.what for fault in faults]


def rule(
    *,
    ids: str | None = None,
    ns: str | None = None,
    under: str | None = None,
    to: str | None = None,
    store: str = "shop",
) -> StoreRule:
    def names(text: str | None) -> tuple[str, ...] | None:
        return None if text is None else tuple(text.split())

    return StoreRule(store, names(ids), names(ns), names(under), names(to))


UNKNOWN = "shop:team/a may be read from some namespaces only, and that of this object is unknown"


@pytest.mark.parametrize(
    ("rules", "identity", "namespace", "expected"),
    [
        # No rule, or none of this store.
        ([], None, None, ""),
        ([rule(store="other")], None, "web", "the store shop may not be read"),
        ([rule(store="sho*")], None, "web", "the store shop may not be read"),
        ([rule(store="sho")], None, "web", "the store shop may not be read"),
        ([rule()], None, None, ""),
        # Namespaces: exactly.
        ([rule(ns="api web")], None, "web", ""),
        ([rule(ns="api")], None, "web", "the namespace web may not read shop:team/a"),
        ([rule(ns="web")], None, "we", "the namespace we may not read shop:team/a"),
        ([rule(ns="we w* web2 WEB")], None, "web", "the namespace web may not read shop:team/a"),
        ([rule(ns="web")], None, None, UNKNOWN),
        ([rule(ns="")], None, "web", "the namespace web may not read shop:team/a"),
        # Identities: exactly.
        ([rule(ids="ci")], "ci", None, ""),
        ([rule(ids="ci")], "c", "web", "the identity c may not read shop:team/a"),
        ([rule(ids="c* ci2")], "ci", "web", "the identity ci may not read shop:team/a"),
        ([rule(ids="ci")], None, "web", "a run without an identity may not read shop:team/a"),
        ([rule(ids="")], None, "web", "a run without an identity may not read shop:team/a"),
        # Both: a manifest can only narrow.
        ([rule(ids="ci", ns="web")], "ci", "web", ""),
        ([rule(ids="ci", ns="web")], "ci", "api", "the namespace api may not read shop:team/a"),
        ([rule(ids="ci", ns="web")], "ci", None, UNKNOWN),
        ([rule(ids="ci", ns="web")], "dev", "web", "the identity dev may not read shop:team/a"),
        ([rule(ids="ci"), rule(ns="web")], "ci", "web", ""),
        ([rule(ids="ci"), rule(ns="web")], "ci", "api", "the namespace api may not read shop:team/a"),
        ([rule(ids="ci"), rule(ns="web")], "ci", None, UNKNOWN),
        ([rule(ids="ci"), rule(ns="web")], "dev", "web", "the identity dev may not read shop:team/a"),
        ([rule(ids="ci"), rule(ns="web")], None, "web", "a run without an identity may not read shop:team/a"),
        # Each identity with namespaces of its own.
        ([rule(ids="ci"), rule(ids="dev", ns="web")], "ci", "api", ""),
        ([rule(ids="ci"), rule(ids="dev", ns="web")], "dev", "web", ""),
        ([rule(ids="ci"), rule(ids="dev", ns="web")], "dev", "api", "the namespace api may not read shop:team/a"),
        ([rule(ids="ci", ns="api"), rule(ids="d", ns="b")], "ci", "web", "the namespace web may not read shop:team/a"),
        # A rule that names neither opens what it covers.
        ([rule(ids="ci"), rule(under="team/a")], None, None, ""),
        ([rule(ids="ci"), rule(under="team/b")], None, None, "a run without an identity may not read shop:team/a"),
        # What covers the ref counts alone.
        ([rule(ids="ci", under="team/b"), rule(ids="dev")], "ci", "web", "the identity ci may not read shop:team/a"),
        ([rule(ns="web", under="team/b"), rule(ns="api")], None, "web", "the namespace web may not read shop:team/a"),
        ([rule(ids="ci", ns="web", under="team/b"), rule(ids="ci", under="team/a")], "ci", "api", ""),
        ([rule(ids="ci", under="b")], "ci", "web", "shop:team/a is under no prefix that may be read"),
    ],
)  # fmt: skip
def test_who_may_read(rules: list[StoreRule], identity: str | None, namespace: str | None, expected: str):
    found = refused(Policy(stores=tuple(rules)), use(namespace=namespace), identity=identity)
    assert found == ([expected] if expected else [])


def test_an_unknown_namespace_names_the_way_to_tell_it():
    faults, _ = access.uses([use(namespace=None)], None, Policy(stores=(rule(ns="web"),)))
    assert [fault.fix for fault in faults] == [
        "pass --namespace (Helm: --post-renderer-args --namespace=NAME), or write metadata.namespace"
    ]


@pytest.mark.parametrize(
    ("prefixes", "allowed", "forbidden"),
    [
        ("team/a", ["team/a", "team/a/b/c", "team/a/..."], ["team", "team/ab", "team/b", "x/team/a", "Team/a"]),
        ("team/a/", ["team/a", "team/a/db"], ["team/ab"]),
        ("a b", ["a", "b", "b/c"], ["ab", "c/a"]),
        ("team/*", ["team/*"], ["team/a"]),
        ("", [], ["a", "team/a"]),
        ("/", [], ["a", "team/a"]),
        ("team/a", [], ["team/a/../b", "team/a/./b", "team/a//b", "team/a/", "/team/a", ".", "..", "a/../team/a", ""]),
    ],
)  # fmt: skip
def test_prefixes_are_whole_segments(prefixes: str, allowed: list[str], forbidden: list[str]):
    rules = Policy(stores=(rule(under=prefixes),))
    assert [ref for ref in (*allowed, *forbidden) if not refused(rules, use(ref))] == allowed


def test_an_unclear_ref_is_free_where_no_prefix_counts():
    assert refused(Policy(stores=(rule(ns="web"),)), use("a//b/../c")) == []
    assert refused(Policy(stores=(rule(ns="web"), rule(under="x"))), use("a//b")) == [
        "a ref with empty or dot segments: shop:a//b"
    ]


@pytest.mark.parametrize(
    ("stores", "unruled", "expected"),
    [
        ((), None, []),
        ((), "allow", []),
        ((), "refuse", ["the store shop may not be read"]),
        ((rule(store="other"),), None, ["the store shop may not be read"]),
        ((rule(store="other"),), "allow", []),
    ],
)
def test_stores_without_a_rule(
    stores: tuple[StoreRule, ...], unruled: Literal["allow", "refuse"] | None, expected: list[str]
):
    assert refused(Policy(stores=stores)._replace(unruled_stores=unruled), use()) == expected


SEGMENT = st.text("ab./", max_size=4)
NAMES = st.none() | st.lists(st.sampled_from(["ci", "dev"]), max_size=2).map(tuple)
SPACES = st.none() | st.lists(st.sampled_from(["web", "api"]), max_size=2).map(tuple)
PREFIXES = st.none() | st.lists(st.sampled_from(["a", "a/b", "b"]), max_size=2).map(tuple)
RULES = st.lists(st.builds(StoreRule, st.just("shop"), NAMES, SPACES, PREFIXES), min_size=1, max_size=4)
WHO = st.none() | st.sampled_from(["ci", "dev"])
SPACE = st.none() | st.sampled_from(["web", "api"])
REFS = st.sampled_from(["a", "a/b", "a/b/c", "b", "ab", "c"])


@given(RULES, WHO, SPACE, REFS)
def test_what_is_allowed_some_rule_allows_as_a_whole(
    rules: list[StoreRule], identity: str | None, namespace: str | None, ref: str
):
    if not refused(Policy(stores=tuple(rules)), use(ref, namespace=namespace), identity=identity):
        assert any(
            (each.identities is None or identity in each.identities)
            and (each.namespaces is None or namespace in each.namespaces)
            and (each.prefixes is None or any(f"{ref}/".startswith(f"{prefix}/") for prefix in each.prefixes))
            for each in rules
        )


@given(RULES, WHO, SPACE, REFS)
def test_no_namespace_opens_what_the_identity_may_not(
    rules: list[StoreRule], identity: str | None, namespace: str | None, ref: str
):
    """Take the rules that are of namespaces alone away: what is then refused stays refused with them."""
    bound = [each for each in rules if each.identities is not None or each.namespaces is None]
    if any(each.identities is not None for each in bound):
        found = use(ref, namespace=namespace)
        before = refused(Policy(stores=tuple(bound)), found, identity=identity)
        after = refused(Policy(stores=tuple(rules)), found, identity=identity)
        assert after or not before


NOWHERE = "a run without a destination may not read shop:team/a"
NOT_TO = "the destination namespace {} may not read shop:team/a"


@pytest.mark.parametrize(
    ("rules", "identity", "destination", "namespace", "expected"),
    [
        # Exactly, and never without one.
        ([rule(to="web api")], None, "web", None, ""),
        ([rule(to="web")], "team-a", "we", "web", NOT_TO.format("we")),
        ([rule(to="we w* web2 WEB")], "team-a", "web", "web", NOT_TO.format("web")),
        ([rule(to="")], "team-a", "web", "web", NOT_TO.format("web")),
        ([rule(to="web")], "team-a", None, "web", NOWHERE),
        ([rule(to="web")], None, None, "web", NOWHERE),
        # With an identity: both.
        ([rule(ids="team-a", to="web")], "team-a", "web", "x", ""),
        ([rule(ids="team-a", to="web")], "team-a", "api", "web", NOT_TO.format("api")),
        ([rule(ids="team-a", to="web")], "team-b", "web", "web", "the identity team-b may not read shop:team/a"),
        ([rule(ids="team-a", to="web")], None, None, "web", "a run without an identity may not read shop:team/a"),
        ([rule(ids="team-a", to="web")], "team-a", None, "web", NOWHERE),
        # A manifest's namespace cannot stand in for it, it can only narrow.
        ([rule(to="web"), rule(ns="web")], None, "api", "web", NOT_TO.format("api")),
        ([rule(to="web"), rule(ns="web")], None, "web", "api", "the namespace api may not read shop:team/a"),
        ([rule(to="web"), rule(ns="web")], None, "web", "web", ""),
        ([rule(to="web", ns="web")], None, "web", "web", ""),
        ([rule(to="web", ns="web")], None, "web", "api", "the namespace api may not read shop:team/a"),
        ([rule(to="web", ns="web")], None, "api", "web", NOT_TO.format("api")),
        # Each with its own.
        ([rule(to="web"), rule(to="api", ns="api")], None, "web", "x", ""),
        ([rule(to="web"), rule(to="api", ns="api")], None, "api", "x", "the namespace x may not read shop:team/a"),
        ([rule(ids="team-a"), rule(to="web")], "team-b", "web", "x", ""),
        ([rule(ids="team-a"), rule(to="web")], "team-b", "api", "x", NOT_TO.format("api")),
        ([rule(ids="team-a"), rule(to="web")], "team-a", "api", "x", ""),
        # A rule that binds nothing opens what it covers.
        ([rule(to="web"), rule(under="team")], None, None, None, ""),
        ([rule(to="web"), rule(under="x")], None, None, None, NOWHERE),
        ([rule(to="web", under="x")], None, "web", None, "shop:team/a is under no prefix that may be read"),
    ],
)  # fmt: skip
def test_who_may_read_by_destination(
    rules: list[StoreRule], identity: str | None, destination: str | None, namespace: str | None, expected: str
):
    rules_ = Policy(stores=tuple(rules))
    found = refused(rules_, use(namespace=namespace), identity=identity, destination=destination)
    assert found == ([expected] if expected else [])


def test_a_rule_of_a_destination_says_where_it_holds():
    faults, _ = access.uses([use()], "ci", Policy(stores=(rule(to="web"),)))
    assert [fault.fix for fault in faults] == [
        "such a rule holds under Argo CD only, for an Application with spec.destination.namespace"
    ]


DESTINED = st.lists(st.builds(StoreRule, st.just("shop"), NAMES, SPACES, PREFIXES, SPACES), min_size=1, max_size=4)


@given(DESTINED, st.data(), WHO, SPACE, SPACE, REFS)
def test_to_name_destinations_as_well_can_only_narrow(
    rules: list[StoreRule],
    data: st.DataObject,
    identity: str | None,
    destination: str | None,
    namespace: str | None,
    ref: str,
):
    index = data.draw(st.integers(0, len(rules) - 1))
    others = [*rules[:index], *rules[index + 1 :]]
    one = rules[index]._replace(destinations=None)
    binds = any(each.identities is not None or each.destinations is not None for each in others)
    if one.identities is None and one.namespaces is not None and binds:
        return  # it begins to bind: the next test
    narrower = one._replace(destinations=data.draw(SPACES.filter(lambda names: names is not None)))
    who = {"identity": identity, "destination": destination}
    before = refused(Policy(stores=(*others, one)), use(ref, namespace=namespace), **who)
    after = refused(Policy(stores=(*others, narrower)), use(ref, namespace=namespace), **who)
    assert after or not before


@given(DESTINED, SPACE, REFS, st.sampled_from(["web", "api"]))
def test_a_rule_that_names_destinations_is_like_one_that_names_identities(
    rules: list[StoreRule], namespace: str | None, ref: str, name: str
):
    """Of namespaces alone a rule narrows the others; with either beside them it is a grant of its own."""
    by_destination = [each._replace(identities=None) for each in rules]
    by_identity = [each._replace(identities=each.destinations, destinations=None) for each in rules]
    found = use(ref, namespace=namespace)
    assert bool(refused(Policy(stores=tuple(by_destination)), found, destination=name)) == bool(
        refused(Policy(stores=tuple(by_identity)), found, identity=name)
    )


@given(DESTINED, SPACE, REFS, SPACE)
def test_no_run_reads_what_only_others_are_allowed(
    rules: list[StoreRule], namespace: str | None, ref: str, destination: str | None
):
    """Whatever a manifest says: where each rule names identities, the one that reads is among them."""
    bound = [each._replace(identities=each.identities or ()) for each in rules]
    if not refused(Policy(stores=tuple(bound)), use(ref, namespace=namespace), identity="ci", destination=destination):
        assert any("ci" in (each.identities or ()) for each in bound)
    stranger = {"identity": "team-x", "destination": destination}
    assert refused(Policy(stores=tuple(bound)), use(ref, namespace=namespace), **stranger)


# Kinds.


@pytest.mark.parametrize(
    ("kind", "api_version", "expected"),
    [
        ("ClusterRole", "rbac.authorization.k8s.io/v1", True),
        ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1beta1", True),
        ("Role", "rbac.authorization.k8s.io/v1", False),
        ("ClusterRole", "other/v1", False),
        ("Pod", "v1", True),
        ("Pod", "other/v1", True),
        ("PodTemplate", "v1", False),
        ("pod", "v1", False),
        ("", "", False),
    ],
)
def test_kinds_that_may_not_pass(kind: str, api_version: str, expected: bool):
    rules = Policy(refused_kinds=(RefusedKind("ClusterRole*", "rbac.authorization.k8s.io/*"), RefusedKind("Pod")))
    faults, warnings = check([(api_version, kind, Where("stdin", 1))], [], [], rules, None)
    assert (len(faults), warnings) == (int(expected), [])
    assert concerns(api_version, kind, rules) is expected


def test_objects_of_the_original_system_concern_the_rules():
    assert concerns("entity.humanitec.io/v1b1", "Definition", Policy())
    assert concerns("humanitec.io/v1alpha1", "Workload", Policy())
    assert not concerns("apps/v1", "Deployment", Policy())


@pytest.mark.parametrize(
    ("kind", "api_version", "stands_for"),
    [
        ("Namespace", "v1", "k8s-namespace"),
        ("Cluster", "cluster.x-k8s.io/v1beta1", "k8s-cluster"),
        ("Cluster", "postgresql.cnpg.io/v1", ""),
        ("Namespace", "example.com/v1", ""),
        ("NamespaceClass", "v1", ""),
    ],
)
def test_native_kinds_hold_no_reference(kind: str, api_version: str, stands_for: str):
    rules = Policy(values=(ValuePlace("shop", "*", "metadata.annotations.*"),))
    found = refused(rules, use(kind=kind, api_version=api_version, field="metadata.annotations.a"))
    expected = f"a reference in a {kind}, which stands for the restricted type {stands_for}"
    assert found == ([expected] if stands_for else [])


def test_native_kinds_are_a_setting():
    kinds = (NativeKind("example.com/*", "Tenant", "agent"),)
    rules = Policy(Restricted(native_kinds=kinds), values=(ValuePlace("shop", "*", "spec.a"),))
    assert refused(rules, use(kind="Namespace", field="spec.a")) == []
    assert len(refused(rules, use(kind="Tenant", api_version="example.com/v2", field="spec.a"))) == 1


# Places.


@pytest.mark.parametrize(
    ("pattern", "field", "expected"),
    [
        ("data.*", "data.a", True),
        ("data.*", 'data["app.ini"]', True),
        ("data.*", "data", False),
        ("data.*", "data.a.b", False),
        ("data.*", "data[0]", False),
        ("data.*", "binaryData.a", False),
        ("data.app-*", "data.app-a", True),
        ("data.app-*", "data.b", False),
        ('data["app.ini"]', 'data["app.ini"]', True),
        ('data["app.ini"]', "data.app.ini", False),
        ("spec.template.spec.containers[*].args[*]", "spec.template.spec.containers[0].args[12]", True),
        ("spec.template.spec.containers[*].args[*]", "spec.template.spec.initContainers[0].args[1]", False),
        ("spec.containers[0].args[1]", "spec.containers[0].args[1]", True),
        ("spec.containers[0].args[1]", "spec.containers[0].args[11]", False),
        ("spec.containers[0].args[1]", "spec.containers[0].args[2]", False),
        ("*.*", "spec.a", True),
        ("*", "spec.a", False),
        ("", "spec", False),
    ],
)
def test_where_a_value_may_stand(pattern: str, field: str, expected: bool):
    found = use(kind="ConfigMap", field=field)
    faults, warnings = access.uses([found], None, Policy(values=(ValuePlace("shop", "ConfigMap", pattern),)))
    assert (faults == []) is expected
    assert warnings == ([(found.where, "the value of shop:team/a stands outside a Secret")] if expected else [])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (ValuePlace("shop", "ConfigMap", "data.*"), True),
        (ValuePlace("shop", "Config*", "data.*"), True),
        (ValuePlace("sho", "ConfigMap", "data.*"), False),
        (ValuePlace("*", "ConfigMap", "data.*"), False),
        (ValuePlace("shop", "Config", "data.*"), False),
    ],
)
def test_the_store_and_kind_of_a_place(place: ValuePlace, expected: bool):
    assert (refused(Policy(values=(place,)), use(kind="ConfigMap", field="data.a")) == []) is expected


def test_secrets_and_environments_need_no_leave():
    assert access.uses([use(), use()._replace(kind="Pod", sink="env")], None, Policy()) == ([], [])


def test_a_refused_place_names_the_setting():
    found = use(kind="Pod", field='spec.containers[0].args[2]["a.\\"b"]')
    ((fault, *_), _) = access.uses([found], None, Policy())
    assert fault.fix == (
        "move it into a Secret or a container's env, or allow it in the configuration: policy.values: "
        '[{store: shop, kind: Pod, field: "spec.containers[*].args[*][\\"a.\\\\\\"b\\"]"}]'
    )


@given(st.lists(st.text(max_size=12) | st.integers(0, 30), min_size=1, max_size=5))
def test_no_key_can_pass_for_a_path(keys: list[str | int]):
    """Whatever a manifest calls its keys: a place of N steps matches patterns of N steps alone."""
    field = ""
    for key in ["spec", *keys]:
        field = step(field, key)
    for length in range(1, 8):
        pattern = "spec" + "".join("[*]" if isinstance(key, int) else ".*" for key in keys[: length - 1])
        pattern += ".*" * (length - 1 - len(keys))
        found = use(kind="Widget", field=field)
        allowed = not refused(Policy(values=(ValuePlace("shop", "Widget", pattern),)), found)
        assert allowed is (length == len(keys) + 1)


def test_all_faults_of_one_reference_are_told():
    rules = Policy(stores=(rule(ns="api"),))
    assert refused(rules, use(kind="ConfigMap", field="data.a")) == [
        "a secret value may not stand in this field of a ConfigMap",
        "the namespace web may not read shop:team/a",
    ]
