"""``python -m benchmarks [NAME ...] [--quick] [--json FILE]``: run and print a table (docs/benchmarks.md)."""

import argparse
import importlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.harness import Row, as_json, machine, table

# In the order in which they run: what needs a quiet machine first.
NAMES = (
    "roundtrip",
    "tasks",
    "map",
    "client",
    "arrays",
    "side_by_side",
    "tcp_route",
    "mpi_route",
    "with_ranks",
    "start",
    "rest",
    "jobs",
    "brain",
    "scale",
    "faults",
)


def main() -> int:
    """Run the benchmarks that were asked for; 1 if one of them could not run, 0 otherwise (a miss is a result)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours against the limits and the peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: half a minute, rougher figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    rows: list[Row] = []
    failed = False
    where = machine()
    with tempfile.TemporaryDirectory(prefix="hpc-bench-") as directory:
        os.environ["HPC_DIR"] = directory
        for name in options.names or NAMES:
            start = time.monotonic()
            try:
                rows += importlib.import_module(f"benchmarks.{name}").measure(options.quick)
            except Exception as error:
                traceback.print_exc()
                rows.append(Row(name, "", None, note=f"could not run: {type(error).__name__}: {first_line(error)}"))
                failed = True
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(where, table(rows), sep="\n\n")
    if options.json:
        options.json.write_text(as_json(rows, where) + "\n")
    return int(failed)


def first_line(error: Exception) -> str:
    """Return enough of an error to know it again."""
    return (str(error).splitlines() or [""])[0][:100]


if __name__ == "__main__":
    raise SystemExit(main())
