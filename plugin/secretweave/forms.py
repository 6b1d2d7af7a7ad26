"""Text with a form of its own: sizes, durations, counts and paths in settings, names of Kubernetes. Light to import."""

import os
import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#names
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label."""
PROJECT = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""An AppProject's: a DNS subdomain."""


class Form(NamedTuple):
    """Text with a form of its own."""

    expected: str
    """How an error describes it."""
    pattern: str
    """What the whole text must match; in the common part of Python's and JavaScript's syntax, for the JSON Schema."""
    read: Callable[[re.Match[str], str], Any]
    """(match, folder of the configuration file) -> the value"""


def _size(match: re.Match[str], _folder: str) -> int:
    return int(match[1]) << {None: 0, "K": 10, "M": 20, "G": 30}[match[2]]


def _seconds(match: re.Match[str], _folder: str) -> float:
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _count(match: re.Match[str], _folder: str) -> int:
    return int(match[0])


def _path(match: re.Match[str], folder: str) -> str:
    return os.path.join(folder, match[0])


_DURATION = r"(?=[0-9])(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?(?:([0-9]+)ms)?"

Size = Annotated[int, Form("a size such as `4MiB`", r"([0-9]{1,15})(?:([KMG])i)?B?", _size)]
"""In bytes."""
Seconds = Annotated[float, Form("a duration such as `50s` or `1m30s`", _DURATION, _seconds)]
Count = Annotated[int, Form("a whole number from 1", r"[1-9][0-9]{0,14}", _count)]
FilePath = Annotated[str, Form("the path of a file", r"[^\x00]+", _path)]
"""A relative one is relative to the folder of the configuration file that names it."""
