"""Many clips at once: processes that share a list of tasks, outlive a crash and don't outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from mertools._checks import check_count

T = TypeVar("T")
_AHEAD = 3  # tasks per worker that are handed out: enough to keep it busy, few to lose


def run_tasks(
    function: Callable[[T], dict[str, Any]], tasks: Sequence[T], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run ``function`` on every task, as they come to an end.

    Processes are spawned, not forked: OpenCV and PyTorch hold threads that a fork would cut off. A task that brings its
    process down (out of memory, a decoder that crashes) is tried once more alone, and then reported.

    Args:
        function: importable, of one task with a number ``which``; returns a dict.
        tasks: what to do.
        workers: processes; 0 works in this one.

    Yields:
        Number of the task and its result, ``{"error": ...}`` for a task that killed its process.

    Raises:
        ValueError: workers is negative.
    """
    check_count("workers", workers, least=0)
    if workers == 0:
        for task in tasks:
            yield _index(task), function(task)
        return
    doubtful: list[T] = []
    waiting = list(reversed(tasks))
    while waiting:
        with _pool(min(workers, len(waiting))) as pool:
            running: dict[Future[dict[str, Any]], T] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < workers * _AHEAD:
                        task = waiting.pop()
                        try:
                            running[pool.submit(function, task)] = task
                        except BrokenProcessPool:  # it broke since: the task was not taken on
                            waiting.append(task)
                            raise
                    ended, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        result = future.result()
                        yield _index(running.pop(future)), result
            except BrokenProcessPool:
                doubtful += running.values()
            except BaseException:  # interrupted: what is in hand is finished, what waits is not begun
                pool.shutdown(cancel_futures=True)
                raise
    for task in doubtful:
        with _pool(1) as pool:
            try:
                result = pool.submit(function, task).result()
            except BrokenProcessPool:
                result = {"error": "the process that searched this clip died (out of memory, or a crash in a decoder)"}
        yield _index(task), result


def _index(task: Any) -> int:
    return int(task.which)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


def _start() -> None:
    """In a new process: one thread each, and an end when the parent is gone."""
    import cv2
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent is the one to stop
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])  # a killed parent can't tell its children, and they would wait for work forever
    os._exit(1)
