"""Print the coverage of the core and of the backends, and fail under 95 % of their branches.

python scripts/branches.py      after a run of `pytest --cov`, see `make coverage`
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST = 95.0
PARTS = {
    "core": "sessionstore/*.py,sessionstore/_os/*.py,sessionstore/settings/*.py",
    "backends": "backends/*",
}


def main() -> None:
    """Print a line for each part. Exit with 1 if one has too few branches covered."""
    failed = False
    for part, include in PARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "coverage.json")
            command = [sys.executable, "-m", "coverage", "json", "-q", "-o", report]
            subprocess.run([*command, f"--include={include}"], check=True)
            totals = json.loads(report.read_text())["totals"]
        branches = 100 * totals["covered_branches"] / totals["num_branches"]
        lines = 100 * totals["covered_lines"] / totals["num_statements"]
        failed |= branches < LEAST
        sys.stdout.write(f"{part:9} {branches:.1f} % of branches, {lines:.1f} % of lines\n")
    if failed:
        raise SystemExit(f"At least {LEAST:.0f} % of the branches of each part must be covered.")


main()
