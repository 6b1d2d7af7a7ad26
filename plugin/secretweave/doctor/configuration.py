"""The configuration: where it comes from, what is wrong with it, who else can change it, and what tenants could do."""

import os
import re
import stat
from collections.abc import Iterator

from secretweave.config import Config, files
from secretweave.config.binding import PLACEHOLDER
from secretweave.doctor.base import Case, Finding, judged
from secretweave.policy.settings import StoreRule

SUBJECT = "configuration"


def check(case: Case) -> Iterator[Finding]:
    for fault in case.faults:
        yield from judged("fault", SUBJECT, fault)
    config = case.config
    if config is None:
        return
    if not config.sources:
        folders = " or ".join(files.folders(case.environ))
        yield Finding(
            "fault" if case.has_tenants else "warning",
            SUBJECT,
            f"none was found: neither config.yaml nor config.d in {folders}",
            "write one, or name it in SECRETWEAVE_CONFIG",
        )
        return
    yield Finding("ok", SUBJECT, _source(config, case))
    yield from _modes(config, case)
    yield from _credentials(config, case)


def policy(case: Case) -> Iterator[Finding]:
    """What the rules let everybody do."""
    config = case.config
    if config is None or not config.sources:
        return
    findings = list(_policy(config, case))
    if not any(finding.status in {"warning", "fault"} for finding in findings):
        rules = len(config.settings.policy.stores)
        told = f"{_counted(rules, 'rule')} of who may read which store" if rules else "no rule"
        everybody = "" if rules else (": no store may be read" if _is_closed(config) else ": every store may be read")
        findings.insert(0, Finding("ok", "policy", told + everybody))
    yield from findings


def _source(config: Config, case: Case) -> str:
    given = _given(case)
    by = "found by default"
    if given is not None:
        by = "SECRETWEAVE_CONFIG" if given == case.environ.get("SECRETWEAVE_CONFIG") else "--config"
    place = given or os.path.dirname(config.sources[0])
    return f"{_counted(len(config.sources), 'file')} at {place} ({by}), {_counted(len(config.stores), 'store')}"


def _given(case: Case) -> str | None:
    return case.options.config or case.environ.get("SECRETWEAVE_CONFIG") or None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _modes(config: Config, case: Case) -> Iterator[Finding]:
    folders = dict.fromkeys(os.path.dirname(path) or "." for path in config.sources)
    for path in (*config.sources, *folders):
        mode = os.stat(path).st_mode
        # A mounted ConfigMap's folder is open to all by its mode, and can be written by nobody.
        if os.statvfs(path).f_flag & os.ST_RDONLY or not mode & (stat.S_IWGRP | stat.S_IWOTH):
            continue
        # In such a folder (/tmp) nobody replaces another's file; where all its files count, adding one is enough.
        if mode & stat.S_ISVTX and path in folders and not os.path.isdir(_given(case) or path):
            continue
        everybody = mode & stat.S_IWOTH
        yield Finding(
            "fault" if everybody or case.has_tenants else "warning",
            SUBJECT,
            f"{path} may be written by {'everybody' if everybody else 'its group'}; it says who may read what",
            "mount it read-only" if case.has_tenants else f"chmod go-w {path}",
        )


def _credentials(config: Config, case: Case) -> Iterator[Finding]:
    source = config.settings.credentials
    if source.from_ == "folder" and case.host != "sidecar":
        if source.folder and os.path.isdir(source.folder):
            yield Finding("ok", "credentials", f"from the folder {source.folder}")
        else:
            yield Finding(
                "fault",
                "credentials",
                f"the folder {source.folder} is not there" if source.folder else "no folder is set",
                "mount the credential Secrets there, or correct credentials.folder in the configuration",
            )
    elif source.from_ == "environment" and case.has_tenants:
        yield Finding(
            "warning",
            "credentials",
            "they come from environment variables, which other processes of this user can read",
            "set credentials.from to folder or cluster",
        )


def _is_closed(config: Config) -> bool:
    rules = config.settings.policy
    return (rules.unruled_stores or ("refuse" if rules.stores else "allow")) == "refuse"


def _policy(config: Config, case: Case) -> Iterator[Finding]:
    rules = config.settings.policy
    names = sorted({store.name for store in config.stores})
    in_stream = config.settings.secret_stores.in_stream == "use"
    unknown = sorted({rule.store for rule in rules.stores} - set(names))
    if unknown and not in_stream:
        yield Finding(
            "warning", "policy", f"rules name stores that are not there: {', '.join(unknown)}", "correct the names"
        )
    if case.has_tenants:
        ruled = {rule.store for rule in rules.stores}
        free = [name for name in names if name not in ruled]
        if not _is_closed(config) and (free or not names):
            which = ", ".join(free) if free else "every store that is added"
            yield Finding(
                "fault",
                "policy",
                f"no rule binds who may read: every Application reads all of {which}",
                "set policy.unruledStores to refuse, and write a rule for each store (argocd/example/config)",
            )
        for name in dict.fromkeys(rule.store for rule in rules.stores if not _binds(rule)):
            yield Finding(
                "warning",
                "policy",
                f"a rule of the store {name} names no project: each may read all that it allows",
                "give it identities, destinations, or prefixes with {project}; namespaces are the manifest's to choose",
            )
    if in_stream:
        yield Finding(
            "fault" if case.has_tenants else "warning",
            "policy",
            "SecretStores in manifests are used: whoever writes one chooses where this identity is shown",
            "set secretStores.inStream to ignore",
        )
    if case.has_tenants and config.settings.report.show_key_names:
        yield Finding(
            "warning",
            "policy",
            "errors list the paths and fields that stores hold, and Argo CD shows them to other tenants",
            "set report.showKeyNames to false",
        )


def _binds(rule: StoreRule) -> bool:
    """Does it matter for it which project asks?"""
    if rule.identities is not None or rule.destinations is not None:
        return True
    return rule.prefixes is not None and all(re.search(PLACEHOLDER, each) for each in rule.prefixes)
