r"""Text with halves of surrogate pairs into text that encodes to UTF-8.

JSON may write a character beyond U+FFFF as two escapes, `\ud83d\ude00`. Where the service cuts
its text between them, each event carries half a character, which Python keeps as it is and
no encoding takes. Halves that meet again are joined; a half that stays alone becomes U+FFFD.
"""

import re
from typing import Final

_ESCAPE: Final = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""An escape in JSON: of a whole pair, of a half that stands alone, or any other."""

_WINDOW_CHARACTERS: Final = 1024 * 1024
"""How much is searched at once: a search holds up every other thread of the process."""

_FIRST_HIGH, _LAST_HIGH = "\ud800", "\udbff"


def mend_surrogates(text: str) -> str:
    """Return `text` with adjacent halves joined and lone ones replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mend_escaped_surrogates(json_text: str) -> str:
    """Return JSON in which no escape stands for a lone half: strict parsers refuse all of it.

    JavaScript writes such escapes for text that was cut in the middle of a character.
    """
    start = json_text.find("\\")  # In a line of images there is none, and that is found at once.
    while start >= 0:
        window = json_text[start : start + _WINDOW_CHARACTERS]
        if "\\ud" in window or "\\uD" in window:
            break
        # The next window begins with the last two letters of this one.
        after = start + _WINDOW_CHARACTERS - 2
        start = json_text.find("\\", after) if after < len(json_text) else -1
    if start < 0:
        return json_text
    return _ESCAPE.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], json_text)


class SurrogateJoiner:
    """Makes each piece of one running text encodable, joining halves across pieces."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return all that is certain: a first half at the end waits for its second."""
        if not self._half and text.isascii():
            return text
        text = self._half + text
        self._half = ""
        if text and _FIRST_HIGH <= text[-1] <= _LAST_HIGH:
            text, self._half = text[:-1], text[-1]
        return mend_surrogates(text)

    def close(self) -> str:
        """Return U+FFFD if a first half is still waiting; the text may then go on."""
        half, self._half = self._half, ""
        return mend_surrogates(half)
