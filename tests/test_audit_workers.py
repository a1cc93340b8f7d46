import os
from typing import NamedTuple

import pytest

from mertools.audit_workers import run_tasks


class Task(NamedTuple):
    which: int
    deadly: bool = False


def square(task):
    if task.deadly:
        os._exit(3)
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


def test_no_tasks():
    assert list(run_tasks(square, [], 2)) == []


def test_an_error_of_the_function_is_raised():
    with pytest.raises(ValueError, match="no"):
        list(run_tasks(fails, [Task(0)], 1))
