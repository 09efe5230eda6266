"""Stop sequences in a text that comes in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from kiro_mcp.api.exchange import StopSequences

LETTERS = st.text("ab", max_size=12)


@given(
    pieces=st.lists(LETTERS, max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_the_text_ends_before_the_first_stop_sequence_however_it_is_cut(
    pieces: list[str], stops: list[str]
) -> None:
    finder = StopSequences(stops)
    said = ""
    for piece in pieces:
        said += finder.feed(piece)
        if finder.found:
            break
    said += finder.rest()
    whole = "".join(pieces)
    # The first that is complete: a longer one may begin before it.
    ends = [at + len(stop) for stop in stops if (at := whole.find(stop)) >= 0]
    if not ends:
        assert (said, finder.found) == (whole, "")
    else:
        assert finder.found in stops
        assert whole.startswith(said + finder.found)
        assert not any(stop in said for stop in stops)
    assert finder.characters == len(said)


@given(text=st.text(max_size=40), stop=st.text(min_size=1, max_size=4))
def test_no_text_is_held_back_that_cannot_become_a_stop_sequence(text: str, stop: str) -> None:
    finder = StopSequences([stop])
    said = finder.feed(text)
    if not finder.found:
        held = text[len(said) :]
        assert stop.startswith(held)
