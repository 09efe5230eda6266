"""AWS regions, and the ARNs of profiles that name one. Pure.

A region becomes part of a host name that a bearer is sent to, so nothing else may pass for one.
"""

import re
from typing import Final

_FORM: Final = r"[a-z]{2}(-gov)?-[a-z]+-\d"
_REGION: Final = re.compile(_FORM)
_ARN: Final = re.compile(rf"arn:[a-z-]+:codewhisperer:(?P<region>{_FORM}):\d+:profile/[!-~]+")


def is_region(text: str) -> bool:
    """Whether a text may become part of a host name as a region."""
    return _REGION.fullmatch(text) is not None


def region_of(profile_arn: str) -> str:
    """Return the region in a profile's ARN, or "" where the text is not such an ARN."""
    match = _ARN.fullmatch(profile_arn)
    return match["region"] if match else ""
