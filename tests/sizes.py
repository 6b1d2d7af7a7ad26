"""How many random inputs a run takes, by HYPOTHESIS_PROFILE.

`patient` is what a change must pass. `further` is a quarter of it, for the runs of `.ci/test` on another interpreter or
with the lowest dependencies: those ask whether the same code behaves the same there, not what else the inputs find.
`long` is twenty times as much: `make test-long`.
"""

import os

from hypothesis import settings

FACTORS = {"patient": 1.0, "further": 0.25, "long": 20.0}
FACTOR = FACTORS[os.environ.get("HYPOTHESIS_PROFILE") or "patient"]
COUNT_MIN = 25
"""Fewer find nothing."""


def sized(count: int) -> int:
    """So many in a run that a change must pass."""
    return max(COUNT_MIN, round(count * FACTOR))


def examples(count: int) -> settings:
    # How long an example takes says how busy the machine is, not whether the code is right.
    return settings(max_examples=sized(count), deadline=None)
