"""The rendered copy that `make demo` falls back to is what Helm makes of the chart today."""

import subprocess
from pathlib import Path

import pytest

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop"


@pytest.mark.hosts
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_the_copy_is_up_to_date(helm: str, request: pytest.FixtureRequest):
    rendered = subprocess.run(
        [str(request.getfixturevalue(helm)), "template", "shop", SHOP / "chart", "--namespace", "shop"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert rendered == (SHOP / "rendered.yaml").read_text()
