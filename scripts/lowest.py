"""Print the lowest version that pyproject.toml allows for each requirement of EXTRAS, for pip.

python scripts/lowest.py EXTRA...       as constraints: name==version
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print a line for each requirement of the extras named on the command line."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    for extra in sys.argv[1:]:
        for requirement in project["optional-dependencies"][extra]:
            name, lowest = re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement).groups()
            sys.stdout.write(f"{name}=={lowest}\n")


main()
