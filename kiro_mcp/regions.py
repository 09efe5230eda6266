"""AWS regions, and the ARNs of profiles, which contain one. Pure.

A region becomes part of a host name that receives a bearer, so no other text may be accepted.
The pattern is that of botocore's partitions. It also matches regions that AWS will add.
"""

import re
from typing import Final

DEFAULT_REGION: Final = "us-east-1"
"""The region of the service, unless the profile's ARN or a setting names another one."""

_AREAS: Final = "us|eu|ap|sa|ca|me|af|il|mx|cn"
_SIDES: Final = "north|south|east|west|central|northeast|northwest|southeast|southwest"
REGION_FORM: Final = rf"(?:{_AREAS})(?:-gov)?-(?:{_SIDES})-[0-9]{{1,2}}"
_REGION: Final = re.compile(REGION_FORM)
_ARN: Final = re.compile(
    rf"arn:[a-z-]+:codewhisperer:(?P<region>{REGION_FORM}):[0-9]+:profile/[!-~]+"
)


def is_region(text: str) -> bool:
    """Whether a text has the form of a region, so that it may become part of a host name."""
    return _REGION.fullmatch(text) is not None


def is_govcloud(region: str) -> bool:
    """Whether a region belongs to AWS GovCloud, which has separate logins and profiles."""
    return is_region(region) and region.startswith("us-gov-")


def region_of(profile_arn: str) -> str:
    """Return the region in a profile's ARN; "" if the text is not the ARN of a profile."""
    match = _ARN.fullmatch(profile_arn)
    return match["region"] if match else ""
