"""What a request needs from each kind of credential."""

import pytest

from kiro_mcp.auth.tokens import Credential, access_token, region_of

ARN = "arn:aws:codewhisperer:eu-central-1:111122223333:profile/EXAMPLE"


def test_an_api_key_goes_with_its_header_and_without_a_profile() -> None:
    """Observed: with another identity's profile the service answers 403."""
    key = Credential(kind="api_key", secret="ksk_x", source="KIRO_API_KEY", profile_arn=ARN)
    token = access_token(key, api_region="")
    assert (token.value, token.token_type, token.profile_arn) == ("ksk_x", "API_KEY", "")
    assert token.region == "us-east-1"


def test_the_region_of_the_service_is_the_profiles() -> None:
    """Observed: a region other than the profile's gives "Improperly formed request"."""
    credential = Credential(kind="access_token", secret="x", source="env", profile_arn=ARN)
    assert access_token(credential, api_region="").region == "eu-central-1"
    assert access_token(credential, api_region="us-east-1").region == "us-east-1"


def test_a_secret_does_not_show_when_its_credential_is_printed() -> None:
    """Ours: values end up in logs."""
    credential = Credential(kind="api_key", secret="ksk_secret", source="env")
    assert "secret" not in repr(credential).replace("secret=", "")
    assert "ksk" not in repr(access_token(credential, api_region=""))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "us-east-1",
        "arn:aws:iam::1:role/x",
        "arn:aws:codewhisperer:../evil:1:profile/x",
        "arn:aws:codewhisperer:us-east-1:1:profile/",
    ],
)
def test_only_a_profiles_arn_names_a_region(text: str) -> None:
    """Ours: the region becomes part of a host name, so nothing else may pass."""
    assert region_of(text) == ""


def test_the_arns_of_other_partitions_are_read_too() -> None:
    """The vendor's list of regions includes GovCloud."""
    arn = "arn:aws-us-gov:codewhisperer:us-gov-west-1:111122223333:profile/X"
    assert region_of(arn) == "us-gov-west-1"
