"""Whether, when and how often a failed attempt is made again: pure arithmetic and decisions."""
