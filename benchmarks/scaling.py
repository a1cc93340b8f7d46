"""Training TSFmicro on more than one process: what was measured here, and what larger worlds have to send.

    python -m benchmarks.scaling [--quick] [--image-size N] [--json FILE]

Method, measured: the published network on images of 112×112 (what it sends does not depend on that, but for a position
embedding), float32, cross entropy and AdamW, random images, under ``torchrun`` with the gloo backend, one thread per
process, four clips per process ("weak": the work grows with the world) or four in all ("strong"). One process with two
threads is there too: it has the same cores as two processes. All settings run in turn, in fresh processes, and the
whole turn again; a figure is the median over the steps of all turns after a first one that is left out in each.
"Without all-reduce" is the same step under ``no_sync``, without the optimiser, in the same processes, every other step.
Bytes on the wire are what the loopback device counted, one rank's share, per step; "of a ring" what is expected.

Method, on paper: a ring all-reduce sends, and receives, 2 (N − 1) / N times the gradients on each of N ranks, in
2 (N − 1) messages per bucket. DDP fills buckets of 25 MiB, the first of 1 MiB, and reduces one while the backward pass
works on the next; buffers (batch-norm statistics) are broadcast before every forward pass. Time is bytes ÷ bandwidth +
messages × latency, with the bandwidths and latencies that the table names: assumptions, not measurements.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import mertools as mt

SLOW = True  # its figures are in docs/scale.md
MIB, QUICK = 2**20, 32
WORLDS = (2, 8, 64, 512, 4096)
LINKS = {"10 Gbit/s, 50 µs": (1.25e9, 50e-6), "100 Gbit/s, 10 µs": (12.5e9, 10e-6), "400 Gbit/s, 5 µs": (50e9, 5e-6)}


class Setting(NamedTuple):
    """A world, and the work of each of its processes."""

    name: str
    processes: int
    threads: int
    batch: int


SETTINGS = (
    Setting("1 process, 1 thread", 1, 1, 4),
    Setting("1 process, 2 threads", 1, 2, 4),
    Setting("2 processes, weak", 2, 1, 4),
    Setting("2 processes, strong", 2, 1, 2),
)


def network(image_size: int) -> mt.TSFmicro:
    """The published network, or for the smallest images a small one to see that everything runs."""
    if image_size == QUICK:
        return mt.TSFmicro(5, image_size=QUICK, dims=(8, 16, 24, 32), hidden=48, spatial_depth=1)
    return mt.TSFmicro(5, image_size=image_size)


# --- measured ---------------------------------------------------------------------------------------------------------


def worker(setting: Setting, steps: int, image_size: int) -> None:
    """One process of a world; rank 0 prints."""
    torch.set_num_threads(setting.threads)
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(network(image_size))
    optimiser = torch.optim.AdamW(model.parameters())
    torch.manual_seed(rank)
    onset, apex = torch.randn(2, setting.batch, 3, image_size, image_size)
    target = torch.randint(0, 5, (setting.batch,))

    def step() -> None:
        nn.functional.cross_entropy(model(onset, apex), target).backward()
        optimiser.step()
        optimiser.zero_grad()

    times: dict[str, list[float]] = {"step": [], "without": []}
    wire = []
    for i in range(steps + 1):
        torch.distributed.barrier()
        sent, start = loopback(), time.perf_counter()
        step()
        torch.distributed.barrier()
        middle, after = time.perf_counter(), loopback()
        with model.no_sync():
            nn.functional.cross_entropy(model(onset, apex), target).backward()
        optimiser.zero_grad()  # no step: the gradients of the ranks differ
        torch.distributed.barrier()
        if i:
            times["step"].append(middle - start)
            times["without"].append(time.perf_counter() - middle)
            wire.append((after - sent) / world)
    same = all(_same_everywhere(p.detach()) for p in model.parameters())
    if rank == 0:
        data = model._get_ddp_logging_data()
        buckets = str(data.get("rebuilt_bucket_sizes") or data.get("bucket_sizes"))
        print(json.dumps({**times, "wire": wire, "same": same, "buckets": [int(x) for x in buckets.split(", ")]}))
    torch.distributed.barrier()  # who leaves while another is still talking to it may be ended by gloo's threads
    torch.distributed.destroy_process_group()


def _same_everywhere(value: torch.Tensor) -> bool:
    largest, smallest = value.clone(), value.clone()
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
    return torch.equal(largest, smallest)


def loopback() -> int:
    """Bytes that the loopback device has sent so far; 0 where nobody counts them."""
    path = Path("/sys/class/net/lo/statistics/tx_bytes")
    return int(path.read_text()) if path.exists() else 0


def launch(setting: Setting, steps: int, image_size: int) -> dict[str, Any]:
    """A world of its own, by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={setting.processes}"]
    command += ["-m", "benchmarks.scaling", "--worker", setting.name, "--steps", str(steps)]
    command += ["--image-size", str(image_size)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": str(setting.threads)}
    )
    if done.returncode:
        raise RuntimeError(f"{setting.name} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return result


def measure(turns: int, steps: int, image_size: int) -> dict[str, Any]:
    """The settings in turn, and the table."""
    settings = SETTINGS[::2] if image_size == QUICK else SETTINGS
    found: dict[str, dict[str, Any]] = {}
    for _ in range(turns):
        for setting in settings:
            result = launch(setting, steps, image_size)
            assert result["same"], f"{setting.name}: the ranks have come apart"
            if setting.name in found:
                for part in ("step", "without", "wire"):
                    found[setting.name][part] += result[part]
            else:
                found[setting.name] = result
    print(f"\nA step on {image_size}×{image_size} here, {turns} turns of {steps} steps: median (smallest to largest)\n")
    print(
        "| setting | clips a step | step, ms | without all-reduce, ms | clips/s | ÷ 1 process, 1 thread "
        "| on the wire, MB | of a ring, MB |\n" + "|---" * 8 + "|"
    )
    gradients = 4 * sum(p.numel() for p in network(image_size).parameters())
    rates = {}
    for s in settings:
        result = found[s.name]
        step, without, wire = (statistics.median(result[part]) for part in ("step", "without", "wire"))
        rates[s.name] = s.processes * s.batch / step
        ring = 2 * (s.processes - 1) / s.processes * gradients / 1e6
        print(
            f"| {s.name} | {s.processes * s.batch} "
            f"| {step * 1e3:.0f} ({min(result['step']) * 1e3:.0f} to {max(result['step']) * 1e3:.0f}) "
            f"| {without * 1e3:.0f} | {rates[s.name]:.2f} | {rates[s.name] / rates[SETTINGS[0].name]:.2f} "
            f"| {wire / 1e6 if s.processes > 1 else 0:.1f} | {ring:.1f} |"
        )
    buckets = found[SETTINGS[2].name]["buckets"]
    print(f"\nDDP's buckets, in the order of the backward pass: {', '.join(f'{x / 1e6:.1f}' for x in buckets)} MB")
    assert sum(buckets) == gradients
    return found


# --- on paper ---------------------------------------------------------------------------------------------------------


def ring_bytes(parameters: int, world: int, width: int = 4) -> float:
    """What each rank sends in a step for gradients of ``width`` bytes.

    Examples:
        >>> ring_bytes(1000, 2), ring_bytes(1000, 1)
        (4000.0, 0.0)
    """
    return 2 * (world - 1) / world * parameters * width


def ring_seconds(parameters: int, world: int, bandwidth: float, latency: float, width: int = 4) -> float:
    """Time of a step's all-reduces, none of it hidden behind the backward pass."""
    size = parameters * width
    buckets = 1 + math.ceil(max(size - MIB, 0) / (25 * MIB))
    return ring_bytes(parameters, world, width) / bandwidth + 2 * (world - 1) * buckets * latency


def paper(net: nn.Module) -> dict[str, Any]:
    """Bytes and times for larger worlds."""
    parameters = sum(p.numel() for p in net.parameters())
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    buffers = sum(buffer.numel() * buffer.element_size() for norm in norms for buffer in norm.buffers())
    print(
        f"\nOn paper: {parameters:,} parameters, {parameters * 4 / 1e6:.1f} MB of float32 gradients, "
        f"{buffers / 1e3:.0f} kB of batch-norm statistics\n"
    )
    print("| ranks | a rank sends a step, MB | with bfloat16 gradients, MB |" + "".join(f" {x} |" for x in LINKS))
    print("|---" * (3 + len(LINKS)) + "|")
    for world in WORLDS:
        times = [f"{ring_seconds(parameters, world, *link) * 1e3:,.1f} ms" for link in LINKS.values()]
        sizes = [f"{ring_bytes(parameters, world, width) / 1e6:.1f}" for width in (4, 2)]
        print(f"| {world} | " + " | ".join(sizes + times) + " |")
    return {"parameters": parameters, "buffers": buffers}


def main() -> None:
    """Measure, then multiply."""
    parser = argparse.ArgumentParser(description="TSFmicro on more than one process.")
    parser.add_argument("--quick", action="store_true", help="a small network, to see that it runs")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(next(s for s in SETTINGS if s.name == args.worker), args.steps, args.image_size)
        return
    turns, steps = (1, 2) if args.quick else (args.turns, args.steps)
    print(f"PyTorch {torch.__version__}, {os.cpu_count()} cores, gloo")
    figures = {
        "measured": measure(turns, steps, QUICK if args.quick else args.image_size),
        "paper": paper(network(224)),
    }
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
