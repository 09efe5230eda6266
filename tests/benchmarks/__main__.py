"""Every comparison with a rival, in one run and one table.

Run it with `python -m tests.benchmarks`, on a machine that does nothing else. What has no rival
has commands of its own: `tests.benchmarks.crowd`, `ends`, `faults`, `mutations`, `payload`,
`refresh`, `soak` and `walk`. Exits with 1 when a bar is missed.
"""

import sys

import anyio

from tests.benchmarks import api, calls, start, stream
from tests.benchmarks.table import print_table

if __name__ == "__main__":
    rows = [*anyio.run(start.rows), *anyio.run(calls.rows), *anyio.run(api.rows), *stream.rows()]
    sys.exit(0 if print_table(rows) else 1)
