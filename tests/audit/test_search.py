import multiprocessing
import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from mertools.audit.search import run_tasks


class Task(NamedTuple):
    which: int
    deadly: bool = False


def square(task):
    if task.deadly and task.which == 7:  # as the system does when the memory is full
        os.kill(os.getpid(), signal.SIGKILL)
    if task.deadly:
        os._exit(3)
    if task.which == 3 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGINT)  # as a terminal does to all processes: it is for the parent to stop
    return {"square": task.which**2, "process": os.getpid()}


def fails(task):
    raise ValueError("no")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_task_once(workers):
    done = dict(run_tasks(square, [Task(i) for i in range(17)], workers))
    assert {i: result["square"] for i, result in done.items()} == {i: i**2 for i in range(17)}
    processes = {result["process"] for result in done.values()}
    assert (processes == {os.getpid()}) == (workers == 0)
    assert len(processes) <= max(workers, 1)


def test_a_task_that_kills_its_process_is_reported_and_the_rest_is_done():
    done = dict(run_tasks(square, [Task(i, i in (2, 7)) for i in range(11)], 2))
    assert sorted(done) == list(range(11))
    for i, result in done.items():
        if i in (2, 7):
            assert "process that searched this clip died" in result["error"]
        else:
            assert result["square"] == i**2


class Noted(NamedTuple):
    which: int
    folder: str


def leave_a_note(task):
    Path(task.folder, str(task.which)).touch()
    return {}


def test_who_is_interrupted_waits_for_what_is_in_hand_only(tmp_path):
    found = run_tasks(leave_a_note, [Noted(i, str(tmp_path)) for i in range(40)], 1)
    next(found)
    found.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_no_tasks():
    assert list(run_tasks(square, [], 2)) == []


def test_an_error_of_the_function_is_raised():
    with pytest.raises(ValueError, match="no"):
        list(run_tasks(fails, [Task(0)], 1))
