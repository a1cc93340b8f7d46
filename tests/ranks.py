"""Processes for tests of what is exchanged between them, and of what a kill leaves."""

import os
import socket
import subprocess
import sys
import traceback

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _enter(rank, work, world, port, results, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        results[rank] = work(rank, world, *args)
    except BaseException:
        results[rank] = traceback.format_exc()
        raise
    dist.destroy_process_group()


def on_ranks(work, *args, world=2):
    """What ``work(rank, world, *args)`` returns on each of the ranks."""
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_enter, (work, world, free_port(), results, args), nprocs=world)
        return [results[rank] for rank in range(world)]


def torchrun(script, *args, processes=2):
    """A script on several processes, to its end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*command, str(script), *map(str, args)], capture_output=True, text=True)


_KILLED = """
import os, runpy, signal, sys
left, fsync = int(sys.argv[1]), os.fsync
def counted(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = counted
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(script, *args, kill_at=0):
    """A script in a process of its own with one thread, as torchrun's have; killed in its so many-th ``fsync``."""
    words = [sys.executable, "-c", _KILLED, kill_at, script, *args]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True)
