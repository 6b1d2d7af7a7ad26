"""`awsssm`: AWS Systems Manager Parameter Store.

    apiVersion: humanitec.io/v1alpha1
    kind: SecretStore
    metadata: {name: ssm}
    spec:
      awsssm:
        region: eu-west-1        # else AWS_REGION, AWS_DEFAULT_REGION, the profile's
        auth: {}                 # as for `awssm`

`ref` is the name of a parameter, or its ARN, which a parameter shared by another account needs. A name with a `/` in
it must begin with one, says AWS; where yours does not, it is put there: `secret://ssm/shop/db` and
`secret://ssm//shop/db` both mean `/shop/db`, and `secret://ssm/token` means `token`. An ARN's own region is asked. An
`endpoint`, if set, serves every region; without one the SDK's own rules hold, AWS_ENDPOINT_URL_SSM and AWS_ENDPOINT_URL
among them.

`version` is a version number or a label; AWS's own form, `/shop/db:3`, is understood in the ref too. Without one the
latest version is read. The version that was read is told as its number.

String, StringList (as the text that it is) and SecureString (decrypted) are read alike; `#KEY` reads a value as JSON.

The least permission is `ssm:GetParameter` on the parameters, with `kms:Decrypt` where a key of your own encrypts them.
With `ssm:GetParameters` beside it 10 parameters take one request; where that is denied, each is read by itself:
`batch: false` then spares the denied requests.

The Flux controller alone (`secretweave flux controller`) asks for versions, to read only what has changed. That takes
no permission beside the above, and no `kms:Decrypt`: they are the same requests, for 10 parameters or for one, with
decryption left out. AWS has no request for a version alone that can be allowed for single parameters
(`ssm:DescribeParameters` must be on `*`), so what is stored crosses the network, a SecureString encrypted, and is
dropped at once. A key that was disabled since does not show: the value is still the one that was read. A reference to
Secrets Manager (`/aws/reference/secretsmanager/NAME`) has no version, and is read each time. A parameter that is
deleted and created anew counts from 1 again: that is seen at the object's `interval`, at which all is read.

https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
https://docs.aws.amazon.com/systems-manager/latest/userguide/integration-ps-secretsmanager.html
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from secretweave.errors import Denied, NotFound, StoreError
from secretweave.model import Record, SecretValue
from secretweave.sdk import aws
from secretweave.sdk.aws_batches import BatchingStore, Spot, ends_all_asking
from secretweave.sdk.aws_faults import Refused
from secretweave.select import text
from secretweave.stores.base import Context, Outcome, Store, Wanted

SERVICE = aws.Service("awsssm", "ssm", "AWS Parameter Store")
READ = "ssm:GetParameter"
ARN = re.compile(r"(arn:aws[a-z-]*:ssm:([a-z]{2,}(?:-[a-z0-9]+)+):[0-9]{12}:parameter/[^\s:]+)(?::([^\s:]+))?")
NAME = re.compile(r"([^\s:]+)(?::([^\s:]+))?")
ELSEWHERE = "aws/reference/"
"""In the name of what Parameter Store only passes on. Without decryption AWS refuses it, and all that is with it."""


class Settings(NamedTuple):
    region: str | None = None
    """Left out: AWS_REGION, AWS_DEFAULT_REGION or the profile's. The region of an ARN goes before."""
    endpoint: str | None = None
    """A URL. Left out: as the SDK finds it, which is also by AWS_ENDPOINT_URL_SSM and AWS_ENDPOINT_URL."""
    auth: aws.Auth = aws.Auth()
    batch: bool = True
    """Read several parameters with one request, if the identity may call GetParameters."""


class Parameter(NamedTuple):
    region: str
    name: str
    """Or its ARN."""
    selector: str
    """A version number or a label; empty: the latest version."""

    def __str__(self) -> str:
        """As AWS is asked for it."""
        return f"{self.name}:{self.selector}" if self.selector else self.name


def preload() -> None:
    aws.preload(SERVICE)


def connect(settings: Settings, context: Context) -> Store:
    """Logs in. Raises StoreError."""
    login = aws.Aws(SERVICE, context, region=settings.region, endpoint=settings.endpoint, auth=settings.auth)
    return ParameterStore(login, batch=settings.batch)


class ParameterStore(BatchingStore):
    largest_batch = 10

    def spot(self, wanted: Wanted) -> Spot:
        parameter = self._parameter(wanted)
        # Not names together with ARNs: a parameter of another account may have the name of one that is asked for.
        return Spot(parameter.region, parameter.name, "arns" if parameter.name.startswith("arn:") else "names")

    def read(self, wanted: Wanted) -> Record:
        return _record(self._entry(wanted, decrypted=True))

    def read_several(self, batch: Sequence[Wanted]) -> Mapping[Wanted, Outcome]:
        entries, unknown = self._entries(batch, decrypted=True)
        outcomes: dict[Wanted, Outcome] = {}
        for each, entry in entries.items():
            parameter = self._parameter(each)
            if str(parameter) in unknown:
                outcomes[each] = _missing(parameter, is_version=False)
            elif entry is not None:
                try:
                    outcomes[each] = _record(entry)
                except StoreError as error:
                    outcomes[each] = error
        return outcomes

    def version_batches(self, wanted: Sequence[Wanted]) -> Sequence[Sequence[Wanted]]:
        return self.batches(wanted)

    def versions(self, batch: Sequence[Wanted]) -> Sequence[str | None]:
        self.aws.must_be_open()
        asked = [each for each in batch if ELSEWHERE not in each.ref]
        told: Mapping[Wanted, str | StoreError | None]
        try:
            told = self.asked(asked, self._versions_of, self._version_of)
        except StoreError as error:
            told = dict.fromkeys(asked, error)
        for outcome in told.values():
            if isinstance(outcome, StoreError) and ends_all_asking(outcome):
                raise outcome
        return [version if isinstance(version := told.get(each), str) else None for each in batch]

    def _version_of(self, wanted: Wanted) -> str | None:
        """Raises StoreError."""
        return _version(self._entry(wanted, decrypted=False))

    def _versions_of(self, batch: Sequence[Wanted]) -> Mapping[Wanted, str | StoreError | None]:
        entries, _ = self._entries(batch, decrypted=False)
        return {each: _version(entry) if entry is not None else None for each, entry in entries.items()}

    def _entry(self, wanted: Wanted, *, decrypted: bool) -> Mapping[str, Any]:
        """What AWS says of one. Raises StoreError."""
        parameter = self._parameter(wanted)
        try:
            answer = self.aws.call(parameter.region, "get_parameter", Name=str(parameter), WithDecryption=decrypted)
        except Refused as refusal:
            raise self._fault(refusal, parameter) from None
        found: Mapping[str, Any] = answer.get("Parameter", {})
        return found

    def _entries(
        self, batch: Sequence[Wanted], *, decrypted: bool
    ) -> tuple[Mapping[Wanted, Mapping[str, Any] | None], Sequence[str]]:
        """What AWS says of each, None where that is nothing or in doubt; and the names that it does not know."""
        parameters = {each: self._parameter(each) for each in batch}
        region = parameters[batch[0]].region
        names = [str(parameter) for parameter in parameters.values()]
        answer = self.aws.call(region, "get_parameters", Names=names, WithDecryption=decrypted)
        entries: dict[Wanted, Mapping[str, Any] | None] = {}
        for each, parameter in parameters.items():
            fitting = [entry for entry in answer.get("Parameters", ()) if _is_of(entry, parameter)]
            entries[each] = fitting[0] if len(fitting) == 1 else None
        return entries, answer.get("InvalidParameters", ())

    def _parameter(self, wanted: Wanted) -> Parameter:
        is_arn = wanted.ref.startswith("arn:")
        match = (ARN if is_arn else NAME).fullmatch(wanted.ref)
        if not match:
            raise StoreError(
                "it is not the name or the ARN of a parameter",
                fix="write /NAME, or arn:aws:ssm:REGION:ACCOUNT:parameter/NAME",
            )
        name, selector = match[1], match[match.re.groups] or ""
        if selector and wanted.version:
            raise StoreError("it names two versions", fix="keep `version`, or what stands behind the colon")
        region = match[2] if is_arn else self.aws.home()
        if "/" in name and not is_arn and not name.startswith("/"):
            name = f"/{name}"
        return Parameter(region, name, wanted.version or selector)

    def _fault(self, refusal: Refused, parameter: Parameter) -> StoreError:
        if refusal.code == "ParameterNotFound":
            return _missing(parameter, is_version=False)
        if refusal.code in {"ParameterVersionNotFound", "ParameterVersionLabelNotFound"}:
            return _missing(parameter, is_version=True)
        if refusal.code == "InvalidKeyId":
            return Denied(
                f"{self.aws.teller.who} may not decrypt it in {parameter.region}",
                why="the key that encrypts it is disabled, deleted, or not allowed to this identity",
                fix="allow kms:Decrypt on that key to this identity, or enable the key",
            )
        return self.aws.teller.refusal(refusal, self.aws.name(parameter.region), parameter.region, READ)


def _missing(parameter: Parameter, *, is_version: bool) -> NotFound:
    region, name, selector = parameter
    if is_version:
        return NotFound(
            f"`{name}` has no version `{selector}` in {region}",
            why="AWS keeps the last 100 versions; a label may have been removed",
            fix="correct the version",
        )
    return NotFound(
        f"there is no parameter `{name}`" + (f" in version `{selector}`" if selector else "") + f" in {region}",
        why="it may lie in another region, or in another account than that of the identity",
        fix="correct the reference or spec.awsssm.region; call a parameter of another account by its ARN",
    )


def _is_of(entry: Mapping[str, Any], parameter: Parameter) -> bool:
    if parameter.name not in {entry.get("Name"), entry.get("ARN")}:
        return False
    return not parameter.selector.isdecimal() or parameter.selector == str(entry.get("Version"))


def _version(entry: Mapping[str, Any]) -> str | None:
    """None: its number does not stand for one value."""
    version = entry.get("Version")
    return str(version) if isinstance(version, int) and version >= 1 and not entry.get("SourceResult") else None


def _record(entry: Mapping[str, Any]) -> Record:
    value, version = entry.get("Value"), entry.get("Version")
    if not isinstance(value, str) or not isinstance(version, int):
        raise StoreError("the parameter has no value", why="AWS gave none", fix="look at it in AWS")
    return Record(SecretValue(text(value)), str(version))
