"""``python -m benchmarks [--rounds 5] [--directory DIR]`` prints a Markdown table.

The directory decides which file system is measured; it is a temporary one otherwise.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import writes
from benchmarks.harness import measure, table
from sessionstore import SessionStore


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to write (a temporary directory)")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=asked.directory) as folder,
        SessionStore.open(Path(folder, "store")) as store,
    ):
        rows = writes.rows(store, Path(folder, "cache"))
        results = measure(rows, asked.rounds)
    peer = f"Gradio {version('gradio')} save_bytes_to_cache"
    print(table(results, peer))
    print(
        f"\nCPU time an operation, medians of {asked.rounds} interleaved rounds; "
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}."
    )


if __name__ == "__main__":
    main()
