"""What the policy may be set to."""

from typing import NamedTuple


class Policy(NamedTuple):
    pass
