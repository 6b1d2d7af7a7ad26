"""What the proof lets pass unparsed holds nothing that matters, as Kubernetes' and Helm's own code read it."""

import base64
import json
import struct
import subprocess
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest

from tests import yaml_fuzz
from tests.hosts.programs import need
from tests.sizes import sized
from tests.test_proof import passes

RUNS = sized(20_000)


def answers(mode: str, inputs: Iterable[bytes]) -> list[dict[str, Any]]:
    framed = b"".join(struct.pack(">I", len(each)) + each for each in inputs)
    done = subprocess.run([need("sigsyaml"), mode], input=framed, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.split(b"\n") if line]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def matters(answer: dict[str, Any]) -> bool:
    """Whether a document that could be read is an object to be looked at, by encoding/json's folding of keys too."""
    if "error" in answer:
        return False
    value = answer.get("value")
    if any("secret://" in text for text in texts(value)):
        return True
    if not isinstance(value, dict):
        return value is not None
    folded = {key.casefold(): each for key, each in value.items()}
    return folded.get("kind") == "Secret" or "items" in folded


def test_of_a_document() -> None:
    passing = [data for seed in range(RUNS) if passes(data := yaml_fuzz.document(Random(seed)))]
    assert len(passing) > RUNS // 5
    found = answers("json", passing)
    assert sum("value" in answer for answer in found) > len(passing) // 2
    assert [data for data, answer in zip(passing, found, strict=True) if matters(answer)] == []


@pytest.mark.parametrize("splitter", ["kubernetes", "helm3", "helm4"])
def test_of_a_stream_as_the_host_splits_it(splitter: str) -> None:
    passing = [data for seed in range(RUNS) if passes(data := yaml_fuzz.stream(Random(seed)))]
    assert len(passing) > RUNS // 20
    split = answers(splitter, passing)
    pieces = [
        (data, base64.b64decode(piece))
        for data, answer in zip(passing, split, strict=True)
        for piece in answer.get("documents") or ()
    ]
    found = answers("json", [piece for _, piece in pieces])
    assert sum("value" in answer for answer in found) > len(pieces) // 2
    assert [pair for pair, answer in zip(pieces, found, strict=True) if matters(answer)] == []
