"""Joining the processes that torchrun, SLURM or a single command started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from mertools._checks import check_number

__all__ = ["Processes", "join_processes"]


class Processes(NamedTuple):
    """Where this process stands: its ``rank`` among ``world`` processes, and the ``device`` it computes on.

    Examples:
        >>> Processes(0, 1, torch.device("cpu")).main
        True
    """

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """The one that prints and writes what all have in common."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all have come here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes of ``values`` ``(...)``, on each of them."""
        total = values.clone()
        if self.world > 1:
            dist.all_reduce(total)
        return total


@contextmanager
def join_processes(device: str = "auto", *, timeout_minutes: float = 10.0) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started (gloo on CPUs, nccl on GPUs); a lone process is its own world.

    A process that ends with an error leaves the group at once, and torchrun stops the others; one that hangs makes the
    others fail after the timeout. Where a launcher has joined the processes already (Ray Train), its group is used and
    left to it.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU of this process's own where there is one.
        timeout_minutes: how long to wait for another process in one exchange, in minutes; positive.

    Examples:
        >>> with join_processes("cpu") as here:
        ...     here.rank, here.world
        (0, 1)
    """
    if check_number("timeout_minutes", timeout_minutes, 0) == 0:
        raise ValueError("timeout_minutes must be positive: with 0 no process would wait for another")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    world, rank, local = (_variable(name, value) for name, value in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    if world > 1 and "RANK" not in os.environ:
        raise ValueError("WORLD_SIZE is set and RANK is not: start the script with torchrun")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be 'cpu': there is no GPU here that PyTorch can use")
    place = torch.device("cpu")
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"there are {torch.cuda.device_count()} GPUs for at least {local + 1} processes: "
                "start fewer, or use device='cpu'"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    theirs = dist.is_initialized()
    if theirs:
        world, rank = dist.get_world_size(), dist.get_rank()
    elif world > 1:
        backend = "nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    # Only a run that went well says goodbye: after an error the others may be waiting in an exchange.
    yield Processes(rank, world, place)
    if world > 1 and not theirs:
        dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"the environment's {name} must be a number, got {text!r}")
    return int(text)
