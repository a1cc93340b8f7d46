"""Key frames of a corpus with Ray Data (``examples/corpus.py``): one row per clip whatever dies, and what it costs.

    python -m benchmarks.corpus [--quick] [--clips N] [--no-ray] [--json FILE]

Method, rows: N clips of 40 frames of 64×64 (MPEG-4 files, every tenth a folder of JPEG, every hundredth unreadable in
one of four ways), two workers. One run is left alone. In a second a worker is killed (SIGKILL) once a fifth of the
clips is done. In a third the driver is, once half of them are, and the run is started again with the same arguments.
The rows of all have to be the same in everything but the seconds.

Method, cost: CPU time of one process, all its threads together, files in the cache and no disk part of it; three turns
over all kinds of clips, medians. "Decode" reads all frames and keeps none; "a row" is decode and search. Frames are a
drawn face that moves, with noise of 2 grey levels; MPEG-4 at OpenCV's settings, JPEG of quality 92. The model
multiplies: CPU hours are the time of a row times the number of clips.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import mertools as mt
from mertools.clips.read import clip_frames

SLOW = True  # its figures are in docs/scale.md
SCRIPT = Path(__file__).parents[1] / "examples" / "corpus.py"
BROKEN = {"empty.mp4": b"", "text.mp4": b"no video", "cut.mp4": None, "one": None}  # None: made from a good one
KINDS: dict[str, tuple[int, int, int, bool]] = {  # frames, height, width, video?
    "16 JPEG of 224×224 (a DFEW clip)": (16, 224, 224, False),
    "68 JPEG of 280×340 (a CASME II clip)": (68, 340, 280, False),
    "2 s of 224×224, MPEG-4": (60, 224, 224, True),
    "10 s of 640×360, MPEG-4": (300, 360, 640, True),
    "10 s of 1920×1080, MPEG-4": (300, 1080, 1920, True),
}


# --- clips ------------------------------------------------------------------------------------------------------------


def pictures(frames: int, height: int, width: int, seed: int = 0) -> Iterator[np.ndarray]:
    """A face that moves once, BGR, as large as wanted."""
    made = mt.synthetic_clip(
        num_frames=40, onset=8 + seed % 4, apex=18 + seed % 3, offset=32 + seed % 5, size=64 if height == 64 else 256,
        amplitude=3.0, seed=seed,
    )  # fmt: skip
    noise = 2 * np.random.default_rng(seed).standard_normal((5, height, width, 3), dtype=np.float32)
    for i in range(frames):
        image = made.frames[i * 40 // frames].permute(1, 2, 0).numpy()[..., ::-1]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        yield np.clip(image + noise[i % 5], 0, 255).round().astype(np.uint8)


def write_clip(path: Path, frames: int, height: int, width: int, *, video: bool, seed: int = 0) -> None:
    """A video file, or a folder of JPEG."""
    if video:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (width, height))
        for image in pictures(frames, height, width, seed):
            writer.write(image)
        writer.release()
        return
    path.mkdir(parents=True)
    for i, image in enumerate(pictures(frames, height, width, seed)):
        path.joinpath(f"img{i + 1}.jpg").write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def write_corpus(folder: Path, clips: int) -> Path:
    """``clips`` clips and a list of them; ten different ones, copied."""
    master = folder / "master"
    master.mkdir(parents=True)
    for seed in range(10):
        write_clip(master / f"{seed}.mp4", 40, 64, 64, video=True, seed=seed)
        write_clip(master / f"{seed}", 40, 64, 64, video=False, seed=seed)
    names = []
    for i in range(clips):
        kind = list(BROKEN)[i // 100 % 4] if i % 100 == 57 else "folder" if i % 10 == 0 else "video"
        name = f"part{i // 500}/{i:05d}" + ("" if kind in ("folder", "one") else ".mp4")
        path, source = folder / name, master / str(i % 10)
        path.parent.mkdir(exist_ok=True)
        if kind == "folder":
            shutil.copytree(source, path)
        elif kind == "one":
            path.mkdir()
            shutil.copy(source / "img1.jpg", path)
        else:
            whole = source.with_suffix(".mp4").read_bytes()
            path.write_bytes({"video": whole, "cut.mp4": whole[: len(whole) // 3]}.get(kind, BROKEN.get(kind) or b""))
        names.append(name)
    listing = folder / "clips.txt"
    listing.write_text("\n".join(names) + "\n")
    return listing


# --- runs -------------------------------------------------------------------------------------------------------------


def start(listing: Path, out: Path, shard: int) -> subprocess.Popen[str]:
    """The example, under way."""
    command = [sys.executable, str(SCRIPT), str(listing), "--out", str(out), "--workers", "2", "--shard", str(shard)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Its last line."""
    out, error = process.communicate(timeout=900)
    if process.returncode:
        raise RuntimeError(f"the run failed: {error}")
    return out.strip().splitlines()[-1]


def progress(out: Path) -> tuple[int, int | None]:
    """Clips that are done, and a process that is searching one."""
    import pyarrow.parquet as pq

    done, process = sum(pq.read_metadata(path).num_rows for path in out.glob("*.parquet")), None
    for path in out.glob("_unfinished/*.jsonl"):
        try:
            entries = [json.loads(line) for line in path.read_text().splitlines()[:-1] if line]
        except OSError:  # finished this moment
            continue
        done += sum("row" in entry for entry in entries)
        process = next((entry["process"] for entry in reversed(entries) if "begun" in entry), process)
    return done, process


def wait_for(share: float, process: subprocess.Popen[str], out: Path, clips: int) -> tuple[int, int]:
    """Clips that are done, once it is a share of them, and a worker that is searching one."""
    while process.poll() is None:
        done, worker = progress(out) if out.exists() else (0, None)
        if done >= share * clips and worker is not None:
            return done, worker
        time.sleep(0.02)
    raise RuntimeError(f"the run was over before anything could be killed: {process.communicate()[1]}")


def worker_killed(listing: Path, out: Path, shard: int, clips: int) -> str:
    """A run that loses a worker; what happened."""
    process = start(listing, out, shard)
    done, worker = wait_for(0.2, process, out, clips)
    os.kill(worker, signal.SIGKILL)
    return f"a worker killed after {done} clips; {finish(process)}"


def driver_killed(listing: Path, out: Path, shard: int, clips: int) -> str:
    """A run that is killed, and started again; what happened."""
    process = start(listing, out, shard)
    done, _ = wait_for(0.5, process, out, clips)
    process.kill()
    process.communicate()
    time.sleep(2)  # Ray takes the workers of a dead driver down
    return f"the driver killed after {done} clips; started again: {finish(start(listing, out, shard))}"


def compare(listing: Path, first: Path, second: Path) -> tuple[int, int, int]:
    """Rows, distinct clips and rows that differ."""
    import pandas as pd

    tables = [pd.read_parquet(out).drop(columns="seconds") for out in (first, second)]
    wanted = listing.read_text().splitlines()
    for table in tables:
        assert table["clip"].tolist() == wanted, "not the clips that were listed, in their order"
    a, b = tables
    same = ((a == b) | (a.isna() & b.isna())).all(axis=1)
    return len(b), b["clip"].nunique(), int((~same).sum())


def rows(clips: int) -> dict[str, Any]:
    """The table of the runs."""
    import pandas as pd

    shard = max(clips // 40, 5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listing = write_corpus(folder / "clips", clips)
        start_time = time.perf_counter()
        summary = finish(start(listing, folder / "whole", shard))
        wall = time.perf_counter() - start_time
        disturbed = {}
        for run in (worker_killed, driver_killed):
            out = folder / run.__name__
            what = run(listing, out, shard, clips)
            disturbed[what] = compare(listing, folder / "whole", out)
        table = pd.read_parquet(folder / "whole")
        errors = int(table["error"].notna().sum())
        busy = float(table["seconds"].sum())
    print(f"\n{clips} clips of 40 frames of 64×64, shards of {shard}, two workers\n")
    print("| run | rows | distinct clips | rows unlike the first run's |\n|---|---|---|---|")
    print(f"| left alone: {summary}; {wall:.1f} s, two workers searching {busy:.1f} s in sum | {clips} | {clips} | |")
    for what, (count, distinct, differ) in disturbed.items():
        print(f"| {what} | {count} | {distinct} | {differ} |", flush=True)
    assert set(disturbed.values()) == {(clips, clips, 0)}
    assert errors
    return {"clips": clips, "wall": wall, "busy": busy, "errors": errors, "disturbed": disturbed}


# --- cost -------------------------------------------------------------------------------------------------------------


def cost(turns: int, quick: bool) -> dict[str, dict[str, float]]:
    """CPU seconds and bytes of a clip of each kind."""
    kinds = dict(list(KINDS.items())[: 4 if quick else None])  # making the largest takes longest
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        paths = {}
        for i, (kind, (frames, height, width, video)) in enumerate(kinds.items()):
            paths[kind] = Path(temporary, f"{i}.mp4" if video else f"{i}")
            write_clip(paths[kind], frames // 10 + 6 if quick else frames, height, width, video=video)
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for turn in range(turns + 1):
            for kind, path in paths.items():
                begin = time.process_time()
                for _ in clip_frames(path):
                    pass
                middle = time.process_time()
                mt.select_keyframes(path)
                if turn:
                    times[kind].append((middle - begin, time.process_time() - middle))
        for kind, path in paths.items():
            files = path.iterdir() if path.is_dir() else [path]
            decode, clip = (statistics.median(column) for column in zip(*times[kind], strict=True))
            result[kind] = {"decode": decode, "clip": clip, "bytes": sum(file.stat().st_size for file in files)}
    return result


def table(costs: dict[str, dict[str, float]]) -> None:
    """What was measured, and what follows for a million and for a billion clips."""
    print("\nOne clip, CPU time:\n")
    print("| clip | MB | decode, ms | a row, ms | a core takes in, MB/s |\n|---|---|---|---|---|")
    for kind, value in costs.items():
        size = value["bytes"] / 1e6
        print(
            f"| {kind} | {size:.2f} | {value['decode'] * 1e3:.1f} | {value['clip'] * 1e3:.1f} "
            f"| {size / value['clip']:.1f} |"
        )
    print("\nThe model, multiplied and not measured:\n")
    print("| clip | 10⁶ clips, CPU hours | decode alone | 10⁹ clips, CPU hours | decode alone | cores for 30 days |")
    print("|---" * 6 + "|")
    for kind, value in costs.items():
        row, decode = (1e6 * value[part] / 3600 for part in ("clip", "decode"))
        print(
            f"| {kind} | {row:,.1f} | {decode:,.1f} | {1e3 * row:,.0f} | {1e3 * decode:,.0f} | {1e3 * row / 720:,.0f} |"
        )


def main() -> None:
    """Rows, then cost."""
    parser = argparse.ArgumentParser(description="Key frames of a corpus: one row per clip, and the cost of it.")
    parser.add_argument("--quick", action="store_true", help="the cost alone, of short clips, to see that it runs")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--no-ray", action="store_true", help="the cost alone")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    if args.quick or args.no_ray:
        print("the runs with Ray are left out (tests/test_corpus.py has small ones)")
    elif importlib.util.find_spec("ray") is None:
        print("the runs with Ray are left out: pip install 'mertools[ray]'")
    else:
        figures["rows"] = rows(args.clips)
    figures["cost"] = cost(1 if args.quick else 3, args.quick)
    table(figures["cost"])
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
