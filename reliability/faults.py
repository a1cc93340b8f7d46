"""Every writer of the package killed, interrupted and refused by the disk at every step; what it leaves is looked at.

    python -m reliability.faults [--writer NAME ...] [--processes 2] [--out reliability/faults.json]

Method. tests/faults.py has the writers and the faults. A step is a call that reaches the disk, seen before and after
it; for KeyboardInterrupt it is a line of the package, from the first step that writes on. Each trial writes version 1
over version 0 in a process of its own and lets the fault happen at the n-th step, for all n (SIGTERM, EDQUOT, EIO and
ESTALE, which are to the package what SIGKILL and ENOSPC are, at every third). Then it asks

- is every file as it was before, or as it was to become, to the byte;
- does the package read the folder as one of the two (for a model: the weights with their own config);
- if the writer said that it was done: is it all there;
- does a second, undisturbed run end in the same files, with nothing left over (once from each state that was left).

"file size limit" and "killed in a write" stop the system's own write half way (RLIMIT_FSIZE, with and without its
signal); the disks that are full, without inodes or read-only are real ones of 4 MB (tmpfs), which takes root, as does
another user without permission. Run as anybody else, these are left out, and the record says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import faults  # noqa: E402

from mertools._files import atomic_write  # noqa: E402


def tried(name: str, mounts: bool) -> tuple[str, dict[str, Any], float]:
    """One writer through all faults: what was tried, and what did not survive."""
    start = time.perf_counter()
    with faults.benches([name]) as benches:
        found = faults.whole(next(benches), faults.STEPWISE, mounts=mounts)
    return name, found, time.perf_counter() - start


def _tried(job: tuple[str, bool]) -> tuple[str, dict[str, Any], float]:
    return tried(*job)


def table(record: dict[str, Any]) -> str:
    """The record as the table of the page."""
    rows = ["| fault | writers | trials | survived |", "|---|---|---|---|"]
    rows += [
        f"| {kind} | {entry['writers']} | {entry['trials']:,} | {entry['survived']:,} |"
        for kind, entry in record["faults"].items()
    ]
    total = record["total"]
    return "\n".join([*rows, f"| **all** | {record['writers']} | {total['trials']:,} | {total['survived']:,} |"])


def main() -> int:
    """Try everything; exit status 1 when something did not survive."""
    parser = argparse.ArgumentParser(description="Every writer through every fault at every step.")
    parser.add_argument("--writer", nargs="+", default=list(faults.WRITERS), choices=list(faults.WRITERS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where the record goes; reliability/faults.json is the page's")
    args = parser.parse_args()
    mounts = faults.can_mount()
    start = time.perf_counter()
    kinds: dict[str, dict[str, int]] = {}
    wrong: list[str] = []
    by_writer: dict[str, int] = {}
    # Spawned: the trials fork, and a fork of a process with threads would inherit their locks.
    with multiprocessing.get_context("spawn").Pool(args.processes, maxtasksperchild=1) as pool:
        for name, found, seconds in pool.imap_unordered(_tried, [(name, mounts) for name in args.writer]):
            print(f"{name:26s} {sum(count for count, _ in found.values()):5d} trials, {seconds:5.0f} s", flush=True)
            by_writer[name] = sum(count for count, _ in found.values())
            for kind, (count, failures) in found.items():
                entry = kinds.setdefault(kind, {"writers": 0, "trials": 0, "survived": 0})
                entry["writers"] += 1
                entry["trials"] += count
                entry["survived"] += count - len(failures)
                wrong += [f"{name}, {kind}: {failure}" for failure in failures]
    record = {
        "writers": len(args.writer),
        "faults": kinds,
        "total": {key: sum(entry[key] for entry in kinds.values()) for key in ("trials", "survived")},
        "trials by writer": {name: by_writer[name] for name in args.writer},
        "failures": wrong,
        "mounts": mounts,
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    print(table(record), *wrong, sep="\n")
    if args.out is not None:
        atomic_write(args.out, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
