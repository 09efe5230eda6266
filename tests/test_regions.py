"""What may become part of a host name as a region."""

import pytest

from kiro_mcp.regions import is_region, region_of


@pytest.mark.parametrize(
    "text",
    [
        "",
        "us-east-1",
        "arn:aws:iam::1:role/x",
        "arn:aws:codewhisperer:../evil:1:profile/x",
        "arn:aws:codewhisperer:us-east-1:1:profile/",
        "arn:aws:codewhisperer:us-east-1:1:profile/…",
        "arn:aws:codewhisperer:us-east-\u0661:1:profile/x",
        "arn:aws:codewhisperer:us-east-1:\u0661:profile/x",
    ],
)
def test_only_a_profiles_arn_names_a_region(text: str) -> None:
    """The region becomes part of a host name, so nothing else may pass."""
    assert region_of(text) == ""


def test_the_arns_of_other_partitions_are_read_too() -> None:
    """The vendor's list of regions includes GovCloud."""
    arn = "arn:aws-us-gov:codewhisperer:us-gov-west-1:111122223333:profile/X"
    assert region_of(arn) == "us-gov-west-1"


@pytest.mark.parametrize(
    "region",
    [
        "us-east-1",
        "eu-central-2",
        "ap-southeast-7",
        "mx-central-1",
        "us-gov-east-1",
        "il-central-1",
    ],
)
def test_regions_are_known_by_their_form(region: str) -> None:
    """AWS adds regions; a list of them would be out of date."""
    assert is_region(region)
