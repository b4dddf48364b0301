"""The FastAPI example, served."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.gradio.test_browser import START, answers, eventually
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def file_box(**environment: str) -> Iterator[str]:
    """Context manager: its address. It has to end in order."""
    port = free_port()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(port), **environment}
    program = [sys.executable, str(ROOT / "examples" / "fastapi_files.py")]
    with subprocess.Popen(
        program, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            eventually(START, lambda: answers(f"http://127.0.0.1:{port}"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(START)
            finally:
                process.kill()  # one that does not end in order is a failure, and no hang
