"""AWS regions, and the ARNs of profiles that name one. Pure.

A region becomes part of a host name that a bearer is sent to, so nothing else may pass for one.
The form is that of botocore's list of partitions: regions that AWS adds later fit it, too.
"""

import re
from typing import Final

_AREAS: Final = "us|eu|ap|sa|ca|me|af|il|mx|cn"
_SIDES: Final = "north|south|east|west|central|northeast|northwest|southeast|southwest"
_FORM: Final = rf"(?:{_AREAS})(?:-gov)?-(?:{_SIDES})-[0-9]{{1,2}}"
_REGION: Final = re.compile(_FORM)
_ARN: Final = re.compile(rf"arn:[a-z-]+:codewhisperer:(?P<region>{_FORM}):[0-9]+:profile/[!-~]+")


def is_region(text: str) -> bool:
    """Whether a text may become part of a host name as a region."""
    return _REGION.fullmatch(text) is not None


def is_govcloud(region: str) -> bool:
    """Whether a region is one of AWS GovCloud, which has logins and profiles of its own."""
    return is_region(region) and region.startswith("us-gov-")


def region_of(profile_arn: str) -> str:
    """Return the region in a profile's ARN, or "" where the text is not such an ARN."""
    match = _ARN.fullmatch(profile_arn)
    return match["region"] if match else ""
