"""Every spelling of a resource placeholder, and what is none. The samples follow the published ones, with own names."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.policy.placeholders import ANY, Pointer, find, specified


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Dots.
        ("${resources.config.outputs.host}", [Pointer("config")]),
        ("${resources.config#app.outputs.host}", [Pointer("config", None, "app")]),
        ("${resources.k8s-service-account#ksa.outputs.name}", [Pointer("k8s-service-account", None, "ksa")]),
        ("${resources.config.default#app.outputs.host}", [Pointer("config", "default", "app")]),
        ("${resources.config.default.outputs.host}", [Pointer("config", "default")]),
        (
            "${resources.config.default#modules.web.externals.db.outputs.host}",
            [Pointer("config", "default", "modules.web.externals.db")],
        ),
        ("${ resources . config . outputs . host }", [Pointer("config")]),
        # Brackets, and what may follow besides outputs.
        ("${resources['postgres-instance.default'].outputs.password}", [Pointer("postgres-instance", "default")]),
        ("${resources['config#app'].outputs.project}", [Pointer("config", None, "app")]),
        ('${resources["k8s-cluster.default#main"].values}', [Pointer("k8s-cluster", "default", "main")]),
        ("${resources['config.default#a.b/c'].account}", [Pointer("config", "default")]),
        ("${resources['config'].guresid}", [Pointer("config")]),
        ('${["resources"]["config.default#app"]["outputs"]["host"]}', [Pointer("config", "default", "app")]),
        ("${['resources'].config.outputs.host}", [Pointer("config")]),
        ("${resources.['config#app'].outputs.x}", [Pointer("config", None, "app")]),
        # JSON strings may be escaped, and may stand within JSON.
        (r'${resources["k8s-\u006eamespace"].outputs.x}', [Pointer("k8s-namespace")]),
        (r'${["r\u0065sources"]["agent"].outputs.x}', [Pointer("agent")]),
        (r'{"a": "${resources[\"agent.default#agent\"].outputs.x}"}', [Pointer("agent", "default", "agent")]),
        (r'"{\"a\": \"${resources[\\\"agent\\\"].outputs.x}\"}"', [Pointer("agent")]),
        # The resource's own class and id, and placeholders within, are not known: any.
        ("${resources['config.@#@'].outputs.x}", [Pointer("config")]),
        ("${resources['config.${context.app.id}#${context.env.id}'].outputs.x}", [Pointer("config")]),
        ("${resources.config#${context.env.id}.outputs.x}", [Pointer("config")]),
        ("${resources['config#${resources.dns.outputs.host}'].outputs.x}", [Pointer("config"), Pointer("dns")]),
        # Selectors: both types count.
        ("${resources.dns<route.outputs.host}", [Pointer("dns"), Pointer("route")]),
        ("${resources['dns.x<route#web'].outputs.host}", [Pointer("dns", "x"), Pointer("route", None, "web")]),
        ("${resources['workload>agent'].outputs.x}", [Pointer("workload"), Pointer("agent")]),
        # Several, nested in text; Terraform's escape.
        ("a ${resources.a.outputs.x}/${context.app.id}/${resources.b.values}", [Pointer("a"), Pointer("b")]),
        ("$${resources.a.outputs.x}", [Pointer("a")]),
        ("key: |\n  host: ${resources.a.outputs.x}\n", [Pointer("a")]),
        # Unclear where the id ends: any.
        ("${resources.config#a.outputs.b.outputs.x}", [Pointer("config")]),
        ("${resources.config.id}", [Pointer("config")]),
        ("${resources.config", [Pointer("config")]),
        # A type of the organisation's own.
        ("${resources['my-org/queue.default#q'].outputs.x}", [Pointer("my-org/queue", "default", "q")]),
    ],
)  # fmt: skip
def test_a_reference_is_read(text: str, expected: list[Pointer]):
    assert list(find(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "${resources}",
        "${resources",
        "${resources.}",
        "${resources[x].outputs}",
        "${resources[''].outputs}",
        "${resources['<'].outputs}",
        "${resources['${context.res.type}'].outputs.x}",
        "${resources.${context.res.type}.outputs.x}",
        "${resources.k8s-${context.x}.outputs.x}",
        "${resources['k8s:namespace'].outputs.x}",
        r'${resources["\u00"].outputs.x}',
        r'${["\u00"].agent.outputs.x}',
        r"${resources[\'agent\"].outputs.x}",
        "${resources#agent}",
        "${'resources'.agent}",
        '${ "resources" ["agent"] }',
    ],
)
def test_what_cannot_be_read_refers_to_everything(text: str):
    assert ANY in find(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resources.config.outputs.x",
        r"$\{resources.config.outputs.x}",
        "${context.app.id}-${context.env.id}",
        "${shared['users-db'].name} ${modules.web.service.name} ${values.KEY}",
        '${["shared"]["resources"]["x"]}',
        "${VAR} ${VAR:-resources} ${#VAR} ${!VAR} $VAR ${var.resources} ${resources_dir} ${resourcesDir}",
        "$(resources.config.outputs.x)",
        "{{ resources.config }}",
        "${}",
        "${",
    ],
)
def test_what_is_none_is_left_alone(text: str):
    assert find(text) == ()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("aws-policy", Pointer("aws-policy")),
        ("aws-policy.read", Pointer("aws-policy", "read")),
        ("k8s-cluster#runtime", Pointer("k8s-cluster", None, "runtime")),
        ("config.default#modules.web", Pointer("config", "default", "modules.web")),
        ("audit.@#@", Pointer("audit")),
        ("${context.x}", ANY),
        ("", ANY),
    ],
)
def test_a_key_of_provision(key: str, expected: Pointer):
    assert specified(key) == expected


NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"outputs", "values", "account", "guresid"}
)


@given(NAME, st.none() | NAME, st.none() | NAME)
def test_all_spellings_mean_the_same(kind: str, class_: str | None, identifier: str | None):
    spec = kind + (f".{class_}" if class_ else "") + (f"#{identifier}" if identifier else "")
    escaped = "".join(f"\\u{ord(character):04x}" for character in spec)
    for text in (
        f"${{resources.{spec}.outputs.x}}",
        f"${{resources['{spec}'].outputs.x}}",
        f'${{resources["{spec}"].outputs.x}}',
        f'${{resources["{escaped}"].outputs.x}}',
        f'${{["resources"]["{spec}"]["outputs"]["x"]}}',
        f'{{"a": "${{resources[\\"{spec}\\"].values}}"}}',
    ):
        assert find(text) == (Pointer(kind, class_, identifier),)


@given(st.text("${}[]'\"\\.#<> resourcesab", max_size=60))
def test_no_text_is_too_much(text: str):
    find(text)


@pytest.mark.parametrize(
    "piece", ["${", "${'", '${["', "${[\\", "${a.", "${resources.", "${   ", '${resources["\\', "${\\"]
)
def test_long_texts_take_linear_time(piece: str):
    began = time.process_time()
    find(piece * 100_000)
    assert time.process_time() - began < 3
