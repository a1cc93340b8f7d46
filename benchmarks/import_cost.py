"""What `import mertools` costs: time and memory, beside what it imports.

Method: a fresh process for every measurement, candidates in turn, median of the turns. Time is that of the import
statement; memory is the process's peak resident size at its end. The first turn warms the disk's cache and is not
counted. A line is what its import takes altogether, so that the difference of two lines is the price of one.

python -m benchmarks.import_cost [--quick]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys

STATEMENTS = {
    "NumPy": "import numpy",
    "PyTorch": "import torch",
    "PyTorch, NumPy, einops": "import numpy, torch, einops",
    "mertools": "import mertools",
    "mertools, then OpenCV and SciPy": "import mertools, cv2, scipy.stats, scipy.ndimage",
    "mertools, then matplotlib": "import mertools, matplotlib.figure",
}
_SCRIPT = """
import resource, sys, time
start = time.perf_counter()
{statement}
taken = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(taken * 1e3, peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


def measure(statement: str) -> tuple[float, float]:
    """Milliseconds and MiB of an import in a fresh process."""
    script = _SCRIPT.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    taken, peak = map(float, done.stdout.split())
    return taken, peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time and memory of the import.")
    parser.add_argument("--quick", action="store_true", help="one turn, to see that it runs")
    turns = 1 if parser.parse_args().quick else 3
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STATEMENTS}
    for turn in range(turns + (turns > 1)):
        for name, statement in STATEMENTS.items():
            result = measure(statement)
            if turn or turns == 1:
                found[name].append(result)
    print(f"Python {platform.python_version()}, {platform.machine()}, median (min–max) of {turns} turns\n")
    print("| import | ms | peak MiB |")
    print("|---|---|---|")
    for name, results in found.items():
        times, peaks = zip(*results, strict=True)
        spread = f" ({min(times):.0f}–{max(times):.0f})" if turns > 1 else ""
        print(f"| {name} | {statistics.median(times):.0f}{spread} | {statistics.median(peaks):.0f} |")


if __name__ == "__main__":
    main()
