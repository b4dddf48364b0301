"""Check a deployment of app.py: ``python check.py URL`` sends 10 events, each as a new visitor.

Each event makes a file, which is then downloaded. Without sticky sessions some events fail; without
a shared store some downloads do.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from gradio_client import Client  # type: ignore[import-untyped] # has no types

EVENTS = 10


def main(url: str) -> int:
    """Send the events, and print how many gave the right file, and from which replicas."""
    replicas: Counter[str] = Counter()
    for number in range(EVENTS):
        try:
            path, replica = Client(url, verbose=False).predict(f"hello {number}", api_name="/shout")
            if Path(path).read_text() == f"HELLO {number}":
                replicas[replica] += 1
        except Exception as error:  # noqa: BLE001 - the client raises many kinds; count them all
            print(f"event {number}: {error!r}")
    print(f"{replicas.total()} of {EVENTS} events, by replica: {dict(replicas)}")
    return 0 if replicas.total() == EVENTS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
