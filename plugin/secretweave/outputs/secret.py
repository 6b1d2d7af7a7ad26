"""The values themselves, in Kubernetes Secrets."""

from collections.abc import Callable, Iterable, Mapping

from secretweave import resolve
from secretweave.config import Config
from secretweave.model import Use
from secretweave.render import Values

MASKED = False


def values(uses: Iterable[Use], config: Config, environ: Mapping[str, str], warn: Callable[[str], None]) -> Values:
    """Raises Faults with every secret that could not be had."""
    uses = tuple(uses)
    show = config.settings.report.show_key_names
    records = resolve.fetch(uses, environ, show_key_names=show, warn=warn)
    return resolve.values(uses, records, show_key_names=show)
