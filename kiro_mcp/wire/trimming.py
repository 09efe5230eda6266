"""A conversation that is too large -> the same without its oldest turns.

Off unless a limit is set: what a model has been told should not vanish unasked. Turns go in
pairs of user and assistant, so that the first one left is the user's; results whose tool use
went become text.
"""

from collections.abc import Sequence

from kiro_mcp.wire.findings import Repair
from kiro_mcp.wire.history import Repaired, Turns
from kiro_mcp.wire.tool_pairing import orphans_to_text


def trim_oldest(turns: Turns, sizes: Sequence[int], *, excess_bytes: int) -> Repaired:
    """Leave out the oldest pairs of turns, as few as will do; the last turn always stays.

    Args:
        turns: The repaired turns, the user's first and last.
        sizes: How many bytes each turn but the last takes.
        excess_bytes: By how many bytes all of it is too large.
    """
    count = 0
    while excess_bytes > 0 and count < len(sizes):
        excess_bytes -= sizes[count] + sizes[count + 1]
        count += 2
    kept, repairs = orphans_to_text(turns[count:])
    detail = f"{count} oldest turns were left out to keep the request under the set limit."
    return kept, [Repair(rule="trimmed_history", detail=detail), *repairs]
