"""Fuzz every parser of mertools: ``python -m reliability.fuzz [--inputs N] [--seed S] [TARGET...]``.

Inputs are valid ones, broken with knowledge of what they are (``mutate.py``); ``fuzz_targets.py`` has a function for
each parser. A target runs in a child process, which is started again when it dies. What counts as a break:

- an exception that no docstring names (``ALLOWED``), or one of a file that does not name it,
- the process dies, takes more than ``SECONDS`` for an input, or more than ``MEBIBYTES`` on top of what it had,
- a file outside the input's own folder is opened, a process started, a socket made,
- rows are lost, or what was read can't be written and read again (assertions of the target).

The record goes to ``reliability/fuzz.json``, the inputs that broke something to the folder of ``--breaks``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ALLOWED = (ValueError, TypeError, OSError, ImportError)
SECONDS, MEBIBYTES, ADDRESS_SPACE = 20.0, 1024.0, 6 << 30
RECORD = Path(__file__).with_name("fuzz.json")
_NAMELESS = {"facs", "names", "published", "command_line"}  # no file, or the message is the command line's own
_TYPE_ERRORS = {"names", "published"}  # arguments of a wrong type; of a file's content it would be a break


def run(name: str, seed: int, start: int, stop: int, folder: Path, breaks: Path | None = None) -> dict[str, Any]:
    """Fuzz one target in this process.

    Args:
        name: of the target.
        seed: the same seed and number make the same input.
        start: number of the first input.
        stop: of the first one not wanted.
        folder: an empty folder for the inputs.
        breaks: where to keep inputs that break something.

    Returns:
        Counts by outcome, worst time and memory, and the breaks in words.
    """
    from reliability.fuzz_targets import TARGETS
    from reliability.watch import watch

    make = TARGETS[name][0]
    seen = watch([Path(tempfile.gettempdir())])
    random_input(make, name, seed, -1, folder / "warm")  # caches of seeds are filled before anything is looked at
    found: dict[str, Any] = {"inputs": 0, "accepted": 0, "refused": {}, "worst_ms": 0.0, "peak_mib": 0.0, "breaks": []}
    for number in range(start, stop):
        print(json.dumps({"at": number}), flush=True)
        place = folder / str(number)
        call = random_input(make, name, seed, number, place)
        base = _reset_peak()
        began = time.perf_counter()
        with seen:
            outcome, trouble = _outcome(call, name, place)
        spent, grown = time.perf_counter() - began, _peak() - base
        if seen.found:
            trouble = trouble or f"touches what is not its own: {seen.found[0]}"
        if spent > SECONDS or grown > MEBIBYTES:
            trouble = trouble or f"takes {spent:.1f} s and {grown:.0f} MiB"
        found["inputs"] += 1
        if trouble:
            found["breaks"].append(f"{name} {number}: {trouble}")
            if breaks is not None:
                shutil.copytree(place, breaks / name / str(number), dirs_exist_ok=True, symlinks=True)
        elif outcome == "accepted":
            found["accepted"] += 1
        else:
            found["refused"][outcome] = found["refused"].get(outcome, 0) + 1
        found["worst_ms"] = max(found["worst_ms"], round(1000 * spent, 1))
        found["peak_mib"] = max(found["peak_mib"], round(grown, 1))
        shutil.rmtree(place)
    return found


def random_input(make: Any, name: str, seed: int, number: int, place: Path) -> Any:
    """Make the input of a number in a folder of its own; what comes back is the call to make on it."""
    place.mkdir(parents=True)
    return make(random.Random(f"{seed}/{name}/{number}"), place)


def _outcome(call: Any, name: str, place: Path) -> tuple[str, str]:
    """How it ended, and what is wrong with that."""
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except ALLOWED as error:
            kind = type(error).__name__
            if isinstance(error, TypeError) and name not in _TYPE_ERRORS:
                return kind, _told(error)
            if isinstance(error, UnicodeError) or not str(error):
                return kind, _told(error)
            if name not in _NAMELESS and place.name not in str(error) and "DataFrame" not in str(error):
                return kind, "does not name the file: " + _told(error)
            return kind, ""
        except Exception as error:
            return type(error).__name__, _told(error)
    return "accepted", ""


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "mertools" in frame.filename or "reliability" in frame.filename]
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {where}: {error}"[:400]


def _reset_peak() -> float:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is that of the whole process then
        Path("/proc/self/clear_refs").write_text("5")
    return _peak("VmRSS")


def _peak(field: str = "VmHWM") -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(names: list[str], seed: int, start: int, stop: int, breaks: Path | None) -> None:
    """What a child process does: limits first, then the inputs; a line of results for each target.

    ``stop`` is multiplied by a target's weight when there are several.
    """
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    from mertools.cli import silence_decoders

    silence_decoders()
    if {"command_line", "run_folder"} & {*names}:  # the first time, matplotlib asks fc-list for the fonts
        import matplotlib.font_manager  # noqa: F401
    from reliability.fuzz_targets import TARGETS

    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, size + ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["MPLCONFIGDIR"] = folder  # what a call makes for itself goes there, too
        for name in names:
            last = stop if len(names) == 1 else stop * TARGETS[name][1]
            found = run(name, seed, start, last, Path(folder) / name, breaks)
            print(json.dumps({"target": name, **found}), flush=True)


def fuzz(name: str, inputs: int, seed: int, breaks: Path | None = None) -> dict[str, Any]:
    """Fuzz one target in a child process, started again behind an input that it dies of."""
    whole: dict[str, Any] = {"inputs": 0, "accepted": 0, "refused": {}, "worst_ms": 0.0, "peak_mib": 0.0, "breaks": []}
    start = 0
    while start < inputs:
        stop = min(start + 2000, inputs)
        arguments = [sys.executable, "-m", "reliability.fuzz", "--child", name, "--seed", str(seed)]
        arguments += ["--start", str(start), "--stop", str(stop), *(["--breaks", str(breaks)] if breaks else [])]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environ.pop("MPLCONFIGDIR", None)
        with tempfile.TemporaryFile("w+") as complaints:  # decoders write a lot there; a pipe would fill up
            process = subprocess.Popen(
                arguments, stdout=subprocess.PIPE, stderr=complaints, text=True, cwd=RECORD.parents[1], env=environ
            )
            at, result = _follow(process, start)
            complaints.seek(0)
            errors = complaints.read()[-300:]
        if result is None:
            whole["inputs"] += at - start + 1
            why = (
                f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}: {errors}"
            )
            whole["breaks"].append(f"{name} {at}: the process died or hung, {why}")
            start = at + 1
            continue
        for key in ("inputs", "accepted"):
            whole[key] += result[key]
        for kind, count in result["refused"].items():
            whole["refused"][kind] = whole["refused"].get(kind, 0) + count
        for key in ("worst_ms", "peak_mib"):
            whole[key] = max(whole[key], result[key])
        whole["breaks"] += result["breaks"]
        start = stop
    return whole


def _follow(process: subprocess.Popen[str], at: int) -> tuple[int, dict[str, Any] | None]:
    """Read a child's lines; kill it when one input takes too long."""
    assert process.stdout is not None
    result = None
    heard = time.monotonic()
    over = threading.Event()

    def guard() -> None:
        while not over.wait(1):
            if time.monotonic() - heard > 8 * SECONDS:  # starting PyTorch on a busy machine takes long, too
                process.kill()

    threading.Thread(target=guard, daemon=True).start()
    for line in process.stdout:
        heard = time.monotonic()
        found = json.loads(line) if line.startswith("{") else {}
        if "at" in found:
            at = found["at"]
        elif "inputs" in found:
            result = found
    over.set()
    process.wait()
    return at, result


def page(record: dict[str, Any]) -> str:
    """The record as the table of docs/reliability.md."""
    head = "| target | inputs | accepted | refused | worst, ms | most memory, MiB |\n|---|---|---|---|---|---|\n"
    rows = []
    for name, found in record["targets"].items():
        numbers = (found["inputs"], found["accepted"], sum(found["refused"].values()))
        cells = (f"`{name}`", *numbers, f"{found['worst_ms']:.0f}", f"{found['peak_mib']:.0f}")
        rows.append(f"| {' | '.join(map(str, cells))} |\n")
    return head + "".join(rows)


def main() -> None:
    """Run what was asked for, print a line per target, write the record of a full run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets, by their weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--breaks", type=Path, help="folder for inputs that break something")
    parser.add_argument("--table", action="store_true", help="print the record as it stands on the page, and no more")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child.split(","), args.seed, args.start, args.stop, args.breaks)
        return
    if args.table:
        print(page(json.loads(RECORD.read_text())), end="")
        return
    from mertools._files import atomic_write
    from reliability.fuzz_targets import TARGETS

    unknown = [name for name in args.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = args.targets or list(TARGETS)
    weights = sum(TARGETS[name][1] for name in names)
    # A run of some targets takes their place in the record of the last.
    record = json.loads(RECORD.read_text()) if args.targets and RECORD.is_file() else {"targets": {}}
    record |= {"seconds": SECONDS, "mebibytes": MEBIBYTES}

    def one(name: str) -> None:
        found = fuzz(name, -(-args.inputs * TARGETS[name][1] // weights), args.seed, args.breaks)
        record["targets"][name] = {"seed": args.seed, **found}
        refused = ", ".join(f"{kind} {count}" for kind, count in sorted(found["refused"].items()))
        told = (
            f"{name:>24}: {found['inputs']:6d} inputs, {found['accepted']:6d} accepted, refused {refused or 'none'}; "
        )
        told += f"{found['worst_ms']:.0f} ms, {found['peak_mib']:.0f} MiB, {len(found['breaks'])} breaks"
        print("\n    ".join([told, *found["breaks"][:20]]), flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, names))
    record["targets"] = {name: record["targets"][name] for name in TARGETS if name in record["targets"]}
    record["inputs"] = sum(found["inputs"] for found in record["targets"].values())
    record["breaks"] = sum(len(found["breaks"]) for found in record["targets"].values())
    atomic_write(RECORD, (json.dumps(record, indent=1) + "\n").encode())
    print(f"{record['inputs']} inputs, {record['breaks']} breaks in the record")


if __name__ == "__main__":
    main()
