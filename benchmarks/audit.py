"""Throughput and peak memory of the audit, against one process that reads every frame once with OpenCV.

    python -m benchmarks.audit [--quick] [--clips N] [--workers N] [--folder DIR]

Method: N clips of 100 frames of 128×128 JPEG (quality 92) of a moving drawn face, annotated a little off. The frames
are read once before anything is timed, so all runs find them in the file cache. The baseline calls ``cv2.imread`` on
every frame in one process and keeps nothing; listing the files is not part of its time, but part of the audit's. Each
run is a process of its own, started once, in turn; peak memory is the largest resident set of that process and of its
workers (``ru_maxrss``). Frames per second count every frame of every clip, also those that the annotated search does
not need to read. Ratios are per worker: speed / workers / baseline.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

import mertools as mt

ARGUMENTS = ("--clips", "100", "--robust-clips", "30")
FRAMES = 100
HEADER = ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion"]


def make(folder: Path, clips: int) -> None:
    """Write the dataset; ten different clips, repeated."""
    rows: list[list[object]] = [HEADER]
    encoded = []
    for seed in range(10):
        smile = mt.synthetic_clip(num_frames=FRAMES, onset=24, apex=44, offset=76, noise=2, amplitude=1.5, seed=seed)
        images = smile.frames.permute(0, 2, 3, 1).numpy()[..., ::-1]
        encoded.append([cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes() for image in images])
    for i in range(clips):
        place = folder / f"sub{i % 26 + 1:02d}" / f"EP{i:04d}"
        place.mkdir(parents=True)
        for k, data in enumerate(encoded[i % 10]):
            (place / f"img{k + 1}.jpg").write_bytes(data)
        rows.append([i % 26 + 1, f"EP{i:04d}", 25 + i % 4 - 2, 45 + i % 3 - 1, 77 + i % 11 - 5, "4", "disgust"])
    with (folder / "codes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def run(folder: Path, what: str, workers: int, clips: int) -> None:
    """One measured run in this process: print seconds and peak MiB as JSON."""
    files = [str(path) for path in folder.rglob("*.jpg")] if what == "baseline" else []  # not part of its time
    start = time.perf_counter()
    if what == "baseline":
        cv2.setNumThreads(1)
        for file in files:
            cv2.imread(file)
    else:
        searches = ["annotated"] if what == "annotated" else ["annotated", "robust"]
        table = mt.read_annotations(folder / "codes.csv", "casme2")[:clips]
        audit = mt.audit_annotations(table, folder, searches=searches, workers=workers)
        assert not audit.skipped
    seconds = time.perf_counter() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "own": own, "child": child}))


def measure(folder: Path, clips: int, robust: int, workers: list[int]) -> None:
    """The table."""
    for path in folder.rglob("*.jpg"):
        path.read_bytes()
    plan = [("baseline", 0), *((what, n) for what in ("annotated", "both") for n in workers)]
    speeds: dict[tuple[str, int], float] = {}
    print(f"{clips} clips of {FRAMES} frames of 128x128 JPEG, OpenCV {cv2.__version__}\n")
    print("| run | workers | seconds | frames/s | per worker ÷ baseline | peak MiB, parent | largest worker |")
    print("|---|---|---|---|---|---|---|")
    for what, n in plan:
        count = robust if what == "both" else clips
        command = [sys.executable, "-m", "benchmarks.audit", "--run", what, "--workers", str(n)]
        command += ["--clips", str(count), "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        speeds[what, n] = count * FRAMES / result["seconds"]
        ratio = speeds[what, n] / max(n, 1) / speeds["baseline", 0]
        name = {
            "baseline": "OpenCV reads all",
            "annotated": "annotated search",
            "both": f"annotated + robust ({count} clips)",
        }[what]
        child = f"{result['child']:.0f}" if n else "–"
        print(
            f"| {name} | {n or 'in process'} | {result['seconds']:.1f} | {speeds[what, n]:.0f} | {ratio:.2f} "
            f"| {result['own']:.0f} | {child} |",
            flush=True,
        )


def main() -> None:
    """Make the data, measure."""
    parser = argparse.ArgumentParser(description="Throughput of the audit.")
    parser.add_argument("--quick", action="store_true", help="six clips, to see that it runs")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--robust-clips", type=int, help="do the robust search in fewer clips, it takes longer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to make the data, or find it")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.folder, args.run, args.workers, args.clips)
        return
    clips = 6 if args.quick else args.clips
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "codes.csv").exists():
            make(folder, clips)
        measure(folder, clips, min(args.robust_clips or clips, clips), [1] if args.quick else [0, 1, args.workers])


if __name__ == "__main__":
    main()
