"""A name, refused or accepted, is judged as a string: nothing asks the file system about it.

On Windows already the question whether ``\\\\host\\share`` exists sends the user's credentials to
that host.
"""

from __future__ import annotations

import os
import subprocess
import sys

# An audit hook stays until its process ends, so the calls are watched in a process of their own.
WATCHED = """
import sys
from sessionstore import names
from tests.support.hostile import HOSTILE

events = []
sys.addaudithook(lambda event, args: events.append(event))
refused = 0
for text in HOSTILE:
    for function in (
        names.file_name, names.encode, names.decode, names.session_key, names.fresh_name,
        names.is_sid, lambda owner: names.session_key("id", owner),
    ):
        try:
            function(text)
        except ValueError:
            refused += 1
names.shared_key()
seen = list(events)
open(sys.executable, "rb").close()
print(seen, refused > 0, "open" in events)
"""


def test_no_string_reaches_the_system() -> None:
    child = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stderr == ""
    assert child.stdout.strip() == "[] True True"
