"""Two processes for tests of what is exchanged between them."""

import socket
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
