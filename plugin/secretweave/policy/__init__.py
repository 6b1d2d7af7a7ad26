"""The rules: pure, over what the scan has found. Only the configuration can relax one, never a manifest."""

from collections.abc import Iterable

from secretweave.errors import PolicyError, Where
from secretweave.model import Use
from secretweave.policy import access, restricted
from secretweave.policy.resources import Resource, is_of_ours, read
from secretweave.policy.settings import Policy, ResourceKeys

__all__ = ["Kind", "Policy", "Resource", "ResourceKeys", "check", "concerns", "is_of_ours", "read"]

Kind = tuple[str, str, Where]
"""apiVersion, kind, place of an object."""


def concerns(api_version: str, kind: str, rules: Policy) -> bool:
    """Whether an object of this kind must be looked at, whatever else it holds."""
    return is_of_ours(api_version) or access.refuses_kind(api_version, kind, rules)


def check(
    kinds: Iterable[Kind],
    uses: Iterable[Use],
    resources: Iterable[Resource],
    rules: Policy,
    identity: str | None,
    destination: str | None = None,
) -> tuple[list[PolicyError], list[tuple[Where, str]]]:
    """Every fault by any rule, and what is allowed but should be known; *identity* and *destination* as in a Run."""
    refused = (access.kind(api_version, kind, where, rules) for api_version, kind, where in kinds)
    of_uses, warnings = access.uses(uses, identity, rules, destination)
    of_graph = restricted.check(resources, rules.restricted)
    faults = [*(fault for fault in refused if fault), *of_uses, *of_graph.faults]
    return faults, [*warnings, *of_graph.warnings]
