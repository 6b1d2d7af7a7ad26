"""The rendered copy that `make demo` falls back to is what Helm makes of the chart today."""

from pathlib import Path

from tests.hosts.programs import Helm

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop"


def test_the_copy_is_up_to_date(helm: Helm):
    rendered = helm.run("template", "shop", str(SHOP / "chart"), "--namespace", "shop")
    # Helm 4 writes an empty line behind each document.
    assert rendered.stdout.replace("\n\n", "\n") == (SHOP / "rendered.yaml").read_text().replace("\n\n", "\n")
