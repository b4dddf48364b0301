"""Requests side by side, where the protocol has no order between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run(tasks: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """The results of all tasks in their order, at most ``at_once`` of them under way.

    After an error no task is begun; it is raised when those under way have ended.
    """
    if at_once <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(min(at_once, len(tasks)), "sessionstore-parts") as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            return [each.result() for each in running]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
