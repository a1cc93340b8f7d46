"""How the scripts of this folder measure: candidates in turn, ratios within a turn, peaks of fresh processes.

The method, which the page repeats: one process, two threads on a CPU, the candidates one after the other and again
(A B C A B C ...), the first turn left out as warm-up. A figure is the median over the turns, a ratio the median of the
ratios within a turn, so that a machine that slows down slows both. On a GPU the time is that between two CUDA events.
Memory is what the peak of a fresh process grows by beyond what it held with weights and input in place.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

__all__ = ["fresh_process", "in_turn", "machine", "ratio", "table"]

Step = Callable[[], object]


def in_turn(
    steps: Mapping[str, Step], turns: int, once: Sequence[str] = (), device: str = "cpu"
) -> dict[str, list[float]]:
    """Milliseconds of each step in each turn after the first; those in ``once`` run in the last turn only."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            if name in once and turn < turns:
                continue
            took = milliseconds(step, device)
            if turn:
                times[name].append(took)
    return times


def milliseconds(step: Step, device: str = "cpu") -> float:
    """One call, waited for."""
    if device.startswith("cuda"):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    step()
    return (time.perf_counter() - begin) * 1e3


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median of a ÷ b within a turn."""
    return statistics.median(x / y for x, y in zip(a[-len(b) :], b[-len(a) :], strict=True))


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def fresh_process(script: str, *args: object) -> str:
    """The last line that a Python script prints in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"a measured process failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def machine() -> dict[str, str]:
    """What the figures were measured on, and with."""
    import cv2
    import numpy as np

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
    }
