"""Findings, as errors."""

from kiro_mcp.chat import Finding


def test_a_finding_becomes_an_error_that_names_place_cause_and_cure() -> None:
    """Whoever meets it can act on it."""
    finding = Finding(
        rule="image_size", location="images[1]", cause="is too large", cure="Shrink it."
    )
    error = finding.as_error()
    assert str(error) == "images[1] is too large (image_size). Shrink it."
    assert (error.code, error.next_step) == ("invalid_request", "Shrink it.")
