"""The searches of one clip, and of many at once in processes that outlive a crash but not their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from mertools._checks import check_count
from mertools.clips.read import decode_frames
from mertools.keyframes.robust import Found, find_key_frames
from mertools.keyframes.windows import Fractions, search_window_frames, window_frames

SEARCHES = ("annotated", "robust")
FOUND = 0.5  # evidence from which a movement is found, as KeyFrames has it


class ClipTask(NamedTuple):
    """What it takes to search one clip: its frames by name and number, and its annotation as positions among them."""

    which: int
    folder: str
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    keys: tuple[int, int, int]
    searches: tuple[str, ...]
    windows: Fractions
    longest: int | None
    apex_known: bool = True  # False: the apex of ``keys`` is halfway because the table has none


def search_clip(task: ClipTask) -> dict[str, Any]:
    """What each search finds, as the journal keeps it; ``{"error": ...}`` when the clip can't be used.

    The annotated search gives file numbers of onset, apex and offset, the robust one an object: those ``keys``, and how
    sure it is, the fields of :class:`Certainty`.
    """
    try:
        return _search(task)
    except Exception as error:
        # One clip among a thousand must not end the run, whatever is the matter with it.
        known = isinstance(error, (ValueError, OSError))
        return {"error": str(error) if known else f"{type(error).__name__}: {error}"}


def _search(task: ClipTask) -> dict[str, Any]:
    inside = window_frames(task.keys, task.windows)
    # The windowed search alone needs no other frames than those of its windows.
    wanted = list(range(len(task.names))) if "robust" in task.searches else inside
    pixels = decode_frames([f"{task.folder}/{task.names[i]}" for i in wanted], longest=task.longest)
    frames = torch.from_numpy(pixels)
    found: dict[str, Any] = {}
    for name in task.searches:
        if name == "annotated":
            chosen = frames[[wanted.index(i) for i in inside]]
            keys = search_window_frames(chosen, inside, task.keys, task.windows)[:3]
            found[name] = [task.numbers[int(key)] for key in keys]
        else:
            # Laid out as read_clip does: sums round alike, and the same frames give the same key frames.
            clip = frames.flip(-1).permute(0, 3, 1, 2).contiguous()
            found[name] = _numbered(find_key_frames(clip, task.keys), task)
    return found


def _numbered(found: Found, task: ClipTask) -> dict[str, Any]:
    """What the robust search found, in file numbers; intervals end where the frames that were looked at do."""
    # An annotation inside the interval of what is found is right, as far as the clip can tell.
    keys, last = found.beside(task.keys), len(task.numbers) - 1
    if not task.apex_known and found.evidence >= FOUND and keys[0] < found.apex <= keys[2]:
        keys = (keys[0], found.apex, keys[2])
    return {
        "keys": [task.numbers[key] for key in keys],
        "estimate": [task.numbers[key] for key in found[:3]],
        "evidence": found.evidence,
        "spread": list(found.spread),
        "intervals": [[task.numbers[max(a, 0)], task.numbers[min(b, last)]] for a, b in found.intervals()],
        "plateau": [task.numbers[key] for key in found.plateau],
    }


class _Numbered(Protocol):
    @property
    def which(self) -> int: ...


T = TypeVar("T", bound=_Numbered)


def run_tasks(
    function: Callable[[T], dict[str, Any]], tasks: Sequence[T], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run ``function`` on every task, as they come to an end: the number ``which`` of each, and its result.

    Each worker is a pool of one process with one task in hand, so that a process that dies (out of memory, a decoder
    that crashes) takes down that task alone, ``{"error": ...}``. Processes are spawned, not forked: OpenCV and PyTorch
    hold threads that a fork would cut off. With 0 ``workers`` tasks run in this one.
    """
    if check_count("workers", workers, least=0) == 0:
        for task in tasks:
            yield task.which, function(task)
        return
    waiting = iter(tasks)
    running: dict[Future[dict[str, Any]], tuple[T, ProcessPoolExecutor]] = {}
    with contextlib.ExitStack() as pools:

        def begin(pool: ProcessPoolExecutor) -> None:
            if (task := next(waiting, None)) is not None:
                try:
                    future = pool.submit(function, task)
                except BrokenProcessPool:  # its process died with nothing in hand
                    pool = pools.enter_context(_pool())
                    future = pool.submit(function, task)
                running[future] = task, pool

        for _ in range(min(workers, len(tasks))):
            begin(pools.enter_context(_pool()))
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, pool = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = {"error": "the process that searched this clip died (out of memory, or a decoder crashed)"}
                begin(pool)
                yield task.which, result


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


def _start() -> None:
    """In a new process: one thread each, and an end when the parent is gone."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent is the one to stop
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])  # a killed parent can't tell its children, and they would wait for work forever
    os._exit(1)
