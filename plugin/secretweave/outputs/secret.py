"""The values themselves, in Kubernetes Secrets."""

from collections.abc import Callable, Iterable, Mapping

from secretweave import resolve
from secretweave.config import Config
from secretweave.model import Use
from secretweave.outputs import Outcome

MASKED = False


def values(uses: Iterable[Use], config: Config, environ: Mapping[str, str], warn: Callable[[str], None]) -> Outcome:
    """The values that could be had, and a fault for each that could not."""
    uses = tuple(uses)
    show = config.settings.report.show_key_names
    records, unfetched = resolve.fetch(uses, environ, show_key_names=show, warn=warn)
    found, absent = resolve.values(uses, records, show_key_names=show)
    return found, [*unfetched, *absent]
