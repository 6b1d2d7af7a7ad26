"""`awssm`: AWS Secrets Manager.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: aws}
    spec:
      awssm:
        region: eu-west-1        # else AWS_REGION, AWS_DEFAULT_REGION, the profile's
        auth: {}                 # what the SDK finds: environment, profile, IRSA, Pod Identity, an instance's role

or, in the place of `auth: {}`, keys in a Kubernetes Secret, a profile or a web identity; on top of each, a role:

        auth:
          accessKeyIDSecretRef: {name: aws-keys, key: access_key_id}
          secretAccessKeySecretRef: {name: aws-keys, key: secret_access_key}
          roleARN: arn:aws:iam::123456789012:role/reader
          externalID: shop

`ref` is the name of a secret (`shop/db`) or its ARN, whole or without the six random characters at its end. An ARN's
own region is asked, in its partition (`aws-cn` and `aws-us-gov` too); a secret of another account needs its ARN. An
`endpoint`, if set, serves every region; without one the SDK's own rules hold, AWS_ENDPOINT_URL_SECRETS_MANAGER and
AWS_ENDPOINT_URL among them.

`version` is a VersionId (32 to 64 letters, digits and `-`, such as a UUID) or else a staging label: AWSCURRENT,
AWSPREVIOUS, one of your own. Without one AWSCURRENT is read. The version that was read is told as its VersionId.

The value is the SecretString as it stands, or the bytes of a SecretBinary; `#KEY` reads it as JSON.

The least permission is `secretsmanager:GetSecretValue` on the secrets, with `kms:Decrypt` where a key of your own
encrypts them. With `secretsmanager:BatchGetSecretValue` (on `*`) beside it 20 secrets take one request; where that is
denied, each secret is read by itself: `batch: false` then spares the one denied request of each run.

The Flux controller alone (`secretweave flux controller`) asks for versions, to read only what has changed. That takes
`secretsmanager:DescribeSecret` on the secrets beside the above: one request a secret, whatever `batch` says, which
gives no value and needs no `kms:Decrypt`. A secret for which it is denied is read instead; so is a VersionId that has
no staging label left, since DescribeSecret does not list it.

https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from secretweave.errors import Denied, NotFound, StoreError
from secretweave.model import Record, SecretValue
from secretweave.sdk import aws
from secretweave.sdk.aws_batches import BatchingStore, Spot, ends_all_asking
from secretweave.sdk.aws_faults import Refused
from secretweave.select import text
from secretweave.stores.base import Context, Outcome, Store, Wanted

SERVICE = aws.Service("awssm", "secretsmanager", "AWS Secrets Manager")
READ = "secretsmanager:GetSecretValue"
ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:([a-z]{2,}(?:-[a-z0-9]+)+):[0-9]{12}:secret:\S+")
RANDOM_END = re.compile(r"-[A-Za-z0-9]{6}")
"""What AWS puts at the end of an ARN. https://docs.aws.amazon.com/secretsmanager/latest/userguide/troubleshoot.html"""
VERSION_ID = re.compile(r"[A-Za-z0-9-]{32,64}")
CURRENT = "AWSCURRENT"


class Settings(NamedTuple):
    region: str | None = None
    """Left out: AWS_REGION, AWS_DEFAULT_REGION or the profile's. The region of an ARN goes before."""
    endpoint: str | None = None
    """A URL. Left out: as the SDK finds it, which is also by AWS_ENDPOINT_URL_SECRETS_MANAGER and AWS_ENDPOINT_URL."""
    auth: aws.Auth = aws.Auth()
    batch: bool = True
    """Read several secrets with one request, if the identity may call BatchGetSecretValue."""


def preload() -> None:
    aws.preload(SERVICE)


def connect(settings: Settings, context: Context) -> Store:
    """Logs in. Raises StoreError."""
    login = aws.Aws(SERVICE, context, region=settings.region, endpoint=settings.endpoint, auth=settings.auth)
    return SecretsManager(login, batch=settings.batch)


class SecretsManager(BatchingStore):
    largest_batch = 20
    is_own_permission = True

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        by_ref: dict[str, list[Wanted]] = {}
        for each in wanted:
            by_ref.setdefault(each.ref, []).append(each)
        return list(by_ref.values())

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        self.aws.must_be_open()
        about: Mapping[str, Any] = {}
        try:
            with suppress(Refused):
                about = self.aws.call(self.spot(batch[0]).region, "describe_secret", SecretId=batch[0].ref)
        except StoreError as error:
            if ends_all_asking(error):
                raise
        return [_version(about, each) for each in batch]

    def spot(self, wanted: Wanted) -> Spot:
        if not wanted.ref.startswith("arn:"):
            return Spot(self.aws.home(), wanted.ref, "" if wanted.version else "names")
        match = ARN.fullmatch(wanted.ref)
        if not match:
            raise StoreError(
                "it is not the ARN of a secret",
                fix="write arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-RANDOM, or the name alone",
            )
        # Not together with names: the secret of another account may have the name of one that is asked for.
        return Spot(match[1], wanted.ref, "" if wanted.version else "arns")

    def read(self, wanted: Wanted) -> Record:
        region = self.spot(wanted).region
        version = {}
        if wanted.version:
            version = {"VersionId" if VERSION_ID.fullmatch(wanted.version) else "VersionStage": wanted.version}
        try:
            return _record(self.aws.call(region, "get_secret_value", SecretId=wanted.ref, **version))
        except Refused as refusal:
            raise self._fault(refusal, wanted, region) from None

    def read_several(self, batch: Sequence[Wanted]) -> Mapping[Wanted, Outcome]:
        region = self.spot(batch[0]).region
        outcomes: dict[Wanted, Outcome] = {}
        page: dict[str, str] = {}
        # A page may be empty, so there may be more of them than secrets; but not without end.
        for _ in range(2 * len(batch)):
            ids = [each.ref for each in batch]
            answer = self.aws.call(region, "batch_get_secret_value", SecretIdList=ids, **page)
            for each in batch:
                found = _answered(answer.get("SecretValues", ()), each.ref)
                if found is not None:
                    outcomes[each] = found
                refusal = _refused(answer.get("Errors", ()), each.ref)
                if refusal is not None and (fault := self._certain(refusal, each, region)) is not None:
                    outcomes[each] = fault
            if not answer.get("NextToken"):
                break
            page = {"NextToken": answer["NextToken"]}
        return outcomes

    def _certain(self, refusal: Refused, wanted: Wanted, region: str) -> StoreError | None:
        """The fault, if asking again would tell the same."""
        fault = self._fault(refusal, wanted, region)
        return fault if isinstance(fault, (NotFound, Denied)) else None

    def _fault(self, refusal: Refused, wanted: Wanted, region: str) -> StoreError:
        if refusal.code == "ResourceNotFoundException":
            # "... can't find the specified secret value for ..." is about a version, "... specified secret." is not.
            return _no_version(wanted, region) if "secret value" in refusal.message else _no_secret(wanted, region)
        if refusal.code == "InvalidRequestException" and "delet" in refusal.message:
            return NotFound(
                f"the secret `{wanted.ref}` in {region} is scheduled for deletion",
                why="somebody deleted it, and its recovery window still runs",
                fix="restore it (aws secretsmanager restore-secret), or correct the reference",
            )
        if refusal.code == "InvalidRequestException":
            return StoreError("the secret is not in a state to be read", why=refusal.code, fix="look at it in AWS")
        if refusal.code == "DecryptionFailure":
            return Denied(
                f"{self.aws.teller.who} may not decrypt it in {region}",
                why="the key that encrypts it is disabled, deleted, or not allowed to this identity",
                fix="allow kms:Decrypt on that key to this identity, or enable the key",
            )
        return self.aws.teller.refusal(refusal, self.aws.name(region), region, READ)


def _no_secret(wanted: Wanted, region: str) -> NotFound:
    return NotFound(
        f"there is no secret `{wanted.ref}` in {region}",
        why="it may lie in another region, or in another account than that of the identity",
        fix="correct the reference or spec.awssm.region; call a secret of another account by its ARN",
    )


def _no_version(wanted: Wanted, region: str) -> NotFound:
    if not wanted.version:
        return NotFound(f"the secret `{wanted.ref}` in {region} has no value yet", fix="store a value in it")
    return NotFound(
        f"the secret `{wanted.ref}` in {region} has no version `{wanted.version}`",
        why="its staging label has moved, or the version was removed",
        fix="correct the version",
    )


def _answered(entries: Sequence[Mapping[str, Any]], ref: str) -> Outcome | None:
    """The one entry of *ref*; None: there is none, or it is in doubt."""
    fitting = [entry for entry in entries if _is_of(entry, ref)]
    if len(fitting) != 1:
        return None
    try:
        return _record(fitting[0])
    except StoreError as error:
        return error


def _is_of(entry: Mapping[str, Any], ref: str) -> bool:
    if not ref.startswith("arn:"):
        return bool(entry.get("Name") == ref)
    arn = str(entry.get("ARN"))
    return arn == ref or (arn.startswith(ref) and RANDOM_END.fullmatch(arn, len(ref)) is not None)


def _refused(errors: Sequence[Mapping[str, Any]], ref: str) -> Refused | None:
    for error in errors:
        if error.get("SecretId") == ref:
            return Refused(str(error.get("ErrorCode")), message=str(error.get("Message")))
    return None


def _version(about: Mapping[str, Any], wanted: Wanted) -> str | None:
    """The VersionId that a read would give, by what DescribeSecret says.

    It lists versions that have a staging label, those without a value too: a read finds that out, and gives no record
    whose version could be taken for this one. What is in an id never changes.
    """
    if about.get("DeletedDate") or not _is_of(about, wanted.ref):
        return None
    labels = about.get("VersionIdsToStages", {})
    if wanted.version and VERSION_ID.fullmatch(wanted.version):
        return wanted.version if labels.get(wanted.version) else None
    bearers = [version for version, held in labels.items() if (wanted.version or CURRENT) in held]
    return bearers[0] if len(bearers) == 1 else None


def _record(entry: Mapping[str, Any]) -> Record:
    value = entry.get("SecretString", entry.get("SecretBinary"))
    if not isinstance(value, (str, bytes)) or not entry.get("VersionId"):
        raise StoreError("the secret has no value", why="neither text nor bytes came", fix="store a value in it")
    return Record(SecretValue(text(value)), entry["VersionId"])
