"""One row of a benchmark, and the table of them: ours, the rival, their ratio, the bar."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison of figures that were measured side by side."""

    name: str
    ours: float
    rival: float
    unit: str
    bar: float
    is_ceiling: bool
    """Whether the ratio may be the bar at most; else it must be the bar at least."""
    more_is_better: bool = False
    """Whether the figures count what gets done, and not what it costs."""

    @property
    def ratio(self) -> float:
        """For a ceiling, ours by the rival's; for a floor, how many times better ours is."""
        is_direct = self.is_ceiling or self.more_is_better
        return self.ours / self.rival if is_direct else self.rival / self.ours

    @property
    def is_met(self) -> bool:
        """Whether the ratio is on the right side of the bar."""
        return self.ratio <= self.bar if self.is_ceiling else self.ratio >= self.bar


def print_table(rows: Sequence[Row]) -> bool:
    """Print the rows; return whether all bars are met."""
    print(f"{'':44}{'ours':>14}{'rival':>14}{'ratio':>8}  bar")
    for row in rows:
        bar = f"{'<=' if row.is_ceiling else '>='} {row.bar:g}"
        ours, rival = (f"{figure:.4g} {row.unit}" for figure in (row.ours, row.rival))
        verdict = "" if row.is_met else "  MISSED"
        print(f"{row.name:44}{ours:>14}{rival:>14}{row.ratio:8.2f}  {bar}{verdict}", flush=True)
    return all(row.is_met for row in rows)
