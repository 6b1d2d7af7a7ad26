"""The kubelet's `$(NAME)` rules: the table of upstream's own tests, and what secretweave builds on them.

https://github.com/kubernetes/kubernetes/blob/v1.36.3/third_party/forked/golang/expansion/expand_test.go
"""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import BadReference
from secretweave.model import Reference
from secretweave.text.kubelet import expand, has_variables, mentions, refer, unescape

VARIABLES = {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}
DB = Reference("shop", "db")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(VAR_A)", "A"),
        ("$(VAR_A)-$(VAR_A)", "A-A"),
        ("$(VAR_A)-1", "A-1"),
        ("___$(VAR_B)___", "___B___"),
        ("___$(VAR_C)", "___C"),
        ("$(VAR_A)_$(VAR_B)_$(VAR_C)", "A_B_C"),
        ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
        ("$$(VAR_A)_$$(VAR_B)", "$(VAR_A)_$(VAR_B)"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("foo\\$(VAR_C)bar", "foo\\Cbar"),
        ("foo\\\\$(VAR_C)bar", "foo\\\\Cbar"),
        ("foo\\\\\\\\$(VAR_A)bar", "foo\\\\\\\\Abar"),
        ("$(VAR_A$(VAR_B))", "$(VAR_A$(VAR_B))"),
        ("$(VAR_A$(VAR_B)", "$(VAR_A$(VAR_B)"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("%%$(VAR_REF)--$(VAR_REF)%%", "%%$(VAR_A)--$(VAR_A)%%"),
        ("foo$(VAR_EMPTY)bar", "foobar"),
        ("foo$(VAR_Awhoops!", "foo$(VAR_Awhoops!"),
        ("f00__(VAR_A)__", "f00__(VAR_A)__"),
        ("$?_boo_$!", "$?_boo_$!"),
        ("$VAR_A", "$VAR_A"),
        ("$(VAR_DNE)", "$(VAR_DNE)"),
        ("$$$$$$(BIG_MONEY)", "$$$(BIG_MONEY)"),
        ("$$$$$$(VAR_A)", "$$$(VAR_A)"),
        ("$$$$$$$(GOOD_ODDS)", "$$$$(GOOD_ODDS)"),
        ("$$$$$$$(VAR_A)", "$$$A"),
        ("$VAR_A)", "$VAR_A)"),
        ("${VAR_A}", "${VAR_A}"),
        ("$(VAR_B)_______$(A", "B_______$(A"),
        ("$(VAR_C)_______$(", "C_______$("),
        ("$(VAR_A)foobarzab$", "Afoobarzab$"),
        ("foo-\\$(VAR_A", "foo-\\$(VAR_A"),
        ("--$($($($($--", "--$($($($($--"),
        ("$($($($($--foo$(", "$($($($($--foo$("),
        ("foo0--$($($($(", "foo0--$($($($("),
        ("$(foo$$var)", "$(foo$$var)"),
        ("\n", "\n"),
    ],
)
def test_upstream_table(text: str, expected: str):
    assert expand(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", True),
        ("a $(b c) d", True),
        ("$()", True),
        ("$$$(A)", True),
        ("$$(A) $(B)", True),
        ("$(A\nB)", True),
        ("", False),
        ("$$(A)", False),
        ("$$$$(A)", False),
        ("$(A", False),
        ("$A)", False),
        ("${A}", False),
        ("(A)$", False),
    ],
)
def test_has_variables(text: str, expected: bool):
    assert has_variables(text) is expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("$(A)",), True),
        (("$(A)", DB), True),
        ((DB, "$(A)"), True),
        (("$$(A)", DB), False),
        (("$", DB, "(A)"), False),
        (("$(", DB, ")"), False),
        (("$(curl ", DB, " x)"), False),
        (("$(curl ", DB, " x) $(A)"), True),
        (("$(curl $(A) ", DB, " x)"), True),
        (("$(A", DB, "B"), False),
    ],
)
def test_mentions(pieces: tuple[str | Reference, ...], expected: bool):
    assert mentions(pieces) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a$$b", "a$b"),
        ("$$$$", "$$"),
        ("$$$", "$$"),
        ("$", "$"),
        ("a$", "a$"),
        ("$$(A)", "$(A)"),
        ("$a$(", "$a$("),
        ("cost: $5 or 100%", "cost: $5 or 100%"),
        ("$é", "$é"),
    ],
)
def test_unescape(text: str, expected: str):
    assert unescape(text) == expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("http://$(IP)/?t=", DB), "http://$(IP)/?t=$(SW_0)"),
        ((DB, "$$", DB), "$(SW_0)$$$(SW_1)"),
        (("$(A) $", DB), "$(A) $$$(SW_0)"),
        (("$(A) $$$", DB), "$(A) $$$$$(SW_0)"),
        (("$(A) $(curl ", DB, " x)"), "$(A) $$(curl $(SW_0) x)"),
        (("$(A) $(", DB), "$(A) $$($(SW_0)"),
        (("$(A) $5 ${B} $", DB, "$"), "$(A) $5 ${B} $$$(SW_0)$"),
    ],
)
def test_refer(pieces: tuple[str | Reference, ...], expected: str):
    assert refer(pieces, ["SW_0", "SW_1"]) == expected


def test_nul_cannot_be_referred_around():
    with pytest.raises(BadReference):
        refer(("a\0$(A)", DB), ["SW_0"])


pieces_of_env = st.lists(st.one_of(st.just(DB), st.text("$()aA \n", max_size=8)), max_size=6)


@given(pieces_of_env, st.text("$()aA", max_size=4))
def test_a_text_with_referred_variables_expands_to_the_text_with_the_values(pieces: list[str | Reference], value: str):
    names = [f"SW_{index}" for index, piece in enumerate(pieces) if isinstance(piece, Reference)]
    environment = {"A": "1", "aa": "2"}
    opaque = "".join(piece if isinstance(piece, str) else "\ue000" for piece in pieces)
    expected = expand(opaque, environment).replace("\ue000", value)
    assert expand(refer(pieces, names), environment | dict.fromkeys(names, value)) == expected


@given(st.text("$()aA \n"))
def test_a_text_without_variables_is_what_unescape_gives_whatever_the_environment(text: str):
    if not has_variables(text):
        assert expand(text, {"A": "1", "": "2", "a": "3"}) == unescape(text)


@pytest.mark.parametrize("text", ["$(" * 200_000, "$(" * 200_000 + ")", "$$(" * 200_000 + "x" + "$" * 200_000])
def test_linear_time(text: str):
    before = process_time()
    has_variables(text)
    expand(text, VARIABLES)
    refer((text, DB, text), ["SW_0"])
    assert process_time() - before < 2
