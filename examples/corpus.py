"""Key frames of a whole corpus, with Ray Data: every clip gets one row, also the clips that can't be read.

    python examples/corpus.py CLIPS --out ROWS               a folder with videos and folders of frames
    python examples/corpus.py list.txt --out ROWS            or a list of paths, one a line
    python examples/corpus.py list.txt --out ROWS --address auto --workers 256     on a running Ray cluster

Needs the extra ``ray``: pip install 'mertools[ray]'. The clips are cut into shards, which Ray hands to the workers;
each becomes one Parquet file in ROWS with the columns of ``COLUMNS`` (``pandas.read_parquet(ROWS)`` reads them all).

Run it again after whatever stopped it, with the same arguments: shards that are there are not done again, and one that
was under way goes on after the last clip that was finished. A worker that is killed costs the clip it had in hand,
which is searched once more; a clip at which workers die ``--tries`` times gets a row that says so. On a cluster, ROWS
and the clips have to be on a file system that all machines see.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import mertools as mt
from mertools._files import atomic_write
from mertools.cli import VIDEOS
from mertools.clips.read import IMAGES

Row: TypeAlias = dict[str, Any]

COLUMNS = {
    "clip": "string",  # as listed, or relative to the folder
    "onset": "int32",
    "apex": "int32",
    "offset": "int32",
    "score": "float64",
    "seconds": "float32",  # what the clip took, reading included
    "remark": "string",  # warnings, such as a video that ends early
    "error": "string",  # why there are no key frames
}
# Readers of Parquet folders pass over names that begin so.
IDENTITY = "_corpus.json"  # what ROWS holds
WORK = "_unfinished"  # journals of shards under way


class Shard(TypedDict):
    """Some clips that one worker searches in a row."""

    name: str
    clips: list[str]


class Settings(TypedDict):
    """What all shards share."""

    root: str
    out: str
    memory: int
    tries: int


def find_clips(source: Path) -> tuple[Path, list[str]]:
    """The clips of a folder or list, in an order that does not depend on the disk, and where their paths start."""
    if source.is_dir():
        clips = sorted(path.relative_to(source).as_posix() for path in _below(source))
        if not clips:
            raise ValueError(f"{source} holds neither videos ({', '.join(VIDEOS)}) nor folders of images")
        return source, clips
    clips = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    twice = [clip for clip, times in Counter(clips).items() if times > 1]
    if twice:
        raise ValueError(f"{source} must list every clip once, got {twice[0]!r} ({len(twice)} are there more often)")
    if not clips:
        raise ValueError(f"{source} lists no clip: a path per line is needed")
    return source.parent, clips


def _below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        suffixes = {name: Path(name).suffix.lower() for name in names if not name.startswith(".")}
        yield from (Path(place, name) for name, suffix in suffixes.items() if suffix in VIDEOS)
        if {*IMAGES}.intersection(suffixes.values()):
            yield Path(place)


def cut(clips: Sequence[str], size: int) -> list[Shard]:
    """Shards of ``size`` clips.

    Examples:
        >>> [shard["name"] for shard in cut(["a", "b", "c"], 2)]
        ['00000000', '00000001']
    """
    return [{"name": f"{k:08d}", "clips": list(clips[i : i + size])} for k, i in enumerate(range(0, len(clips), size))]


def search(root: str, clip: str, memory: int) -> Row:
    """The row of one clip; whatever is wrong with it ends up in the row."""
    row: Row = dict.fromkeys(COLUMNS)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            keys = mt.select_keyframes(os.path.join(root, clip), memory=memory)  # noqa: PTH118
            row["onset"], row["apex"], row["offset"] = (int(key) for key in keys[:3])
            row["score"] = float(keys.score)
        except (OSError, ValueError, MemoryError) as error:
            row["error"] = f"{type(error).__name__}: {error}"
        except Exception as error:  # a bug of ours, or a decoder's: the other clips should not pay for it
            row["error"] = f"unexpected {type(error).__name__}: {error}"
    row["remark"] = "; ".join(str(warning.message) for warning in raised) or None
    return row | {"clip": clip, "seconds": time.perf_counter() - start}


def search_shard(shard: Shard, settings: Settings) -> dict[str, int]:
    """Search a shard's clips and write its file; what an earlier try has done already is taken over."""
    work = Path(settings["out"], WORK)
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{shard['name']}.jsonl"
    done, begun = _read_journal(path)
    with path.open("a", encoding="utf-8") as journal:

        def note(**entry: object) -> None:
            journal.write("\n" + json.dumps(entry))  # the line break first: a killed worker may leave half a line
            journal.flush()

        for i, clip in enumerate(shard["clips"]):
            if i in done:
                continue
            if begun[i] >= settings["tries"]:
                reason = f"the process died {begun[i]} times while it searched this clip (memory, or a decoder's crash)"
                done[i] = {**dict.fromkeys(COLUMNS), "clip": clip, "error": reason}
            else:
                note(begun=i, process=os.getpid())
                done[i] = search(settings["root"], clip, settings["memory"])
            note(clip=i, row=done[i])
    rows = [done[i] for i in range(len(shard["clips"]))]
    write_rows(Path(settings["out"], f"{shard['name']}.parquet"), rows)
    path.unlink(missing_ok=True)  # a second worker may have thought this one dead, and finished the same shard
    return {"clips": len(rows), "again": sum(begun.values())}


def _read_journal(path: Path) -> tuple[dict[int, Row], Counter[int]]:
    """Rows that are done, and how often a worker began each of the other clips and did not come to an end."""
    done: dict[int, Row] = {}
    begun: Counter[int] = Counter()
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "row" in entry:
                done[entry["clip"]] = entry["row"]
            else:
                begun[entry["begun"]] += 1
    return done, Counter({clip: times for clip, times in begun.items() if clip not in done})


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """One Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer)
    atomic_write(path, buffer.getvalue().to_pybytes())


def claim(out: Path, clips: Sequence[str], **options: object) -> None:
    """Say in ROWS what it holds, or make sure that it holds just that."""
    names = hashlib.sha256("\n".join(clips).encode("utf-8", "surrogateescape")).hexdigest()
    identity = {"clips": len(clips), "names": names, "version": mt.__version__, **options}
    path = out / IDENTITY
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there != identity:
            changed = [key for key in identity | there if identity.get(key) != there.get(key)]
            raise ValueError(f"{out} holds another run (other {', '.join(changed)}): repeat that, or use another --out")
        return
    if out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):  # a kill may leave such a one
        raise ValueError(f"{out} holds something else already: use another --out")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(identity, indent=1).encode())


def run(shards: Sequence[Shard], settings: Settings, workers: int, address: str | None) -> Iterator[dict[str, int]]:
    """Search shards on Ray's workers, as they come to an end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("Ray Data is not installed: pip install 'mertools[ray]'") from error
    here = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 128 * 2**20}
    ray.init(address=address, log_to_driver=False, logging_level="error", **({} if address else here))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False

    def task(item: Row) -> Row:
        import cv2
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        return {**search_shard({"name": item["name"], "clips": list(item["clips"])}, settings)}

    items = ray.data.from_items([dict(shard) for shard in shards], override_num_blocks=len(shards))
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # here: Ray sets up its logging late
    yield from items.map(task, compute=ray.data.TaskPoolStrategy(size=workers), num_cpus=1).iter_rows()
    ray.shutdown()


def main() -> int:
    """Search what is not there yet; exit status 2 when the arguments don't fit, 1 when the run failed."""
    parser = argparse.ArgumentParser(description="Key frames of a whole corpus, one row per clip.")
    parser.add_argument("source", type=Path, help="a folder of clips, or a text file with a path per line")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="clips searched at a time")
    parser.add_argument("--shard", type=int, default=100, help="clips per file of rows")
    parser.add_argument("--memory", type=int, default=512, help="MiB that one clip's frames may take")
    parser.add_argument("--tries", type=int, default=3, help="how often a clip may take its worker along")
    parser.add_argument("--address", help="of a running Ray cluster; default: one of its own on this machine")
    args = parser.parse_args()
    try:
        for name in ("workers", "shard", "memory", "tries"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
        root, clips = find_clips(args.source)
        claim(args.out, clips, shard=args.shard, memory=args.memory)
    except (OSError, ValueError) as error:
        print(f"corpus: error: {error}", file=sys.stderr)
        return 2
    shards = cut(clips, args.shard)
    missing = [shard for shard in shards if not (args.out / f"{shard['name']}.parquet").exists()]
    print(f"{len(clips)} clips in {len(shards)} shards, {len(missing)} to do")
    shown = len(clips) - sum(len(shard["clips"]) for shard in missing)
    settings: Settings = {
        "root": str(root.absolute()), "out": str(args.out.absolute()), "memory": args.memory * 2**20,
        "tries": args.tries,
    }  # fmt: skip
    again = 0
    try:
        for result in run(missing, settings, args.workers, args.address) if missing else ():
            again += result["again"]
            shown += result["clips"]
            if sys.stderr.isatty():
                print(f"\r{shown} clips done", end="", file=sys.stderr, flush=True)
        count, errors = tally(args.out, shards)
    except Exception as error:
        print(f"corpus: error: {error}", file=sys.stderr)
        return 1
    print(f"{count} rows, {errors} of them with an error; {again} clips were begun again")
    return 0


def tally(out: Path, shards: Sequence[Shard]) -> tuple[int, int]:
    """Rows and errors of all files; every clip is there once and in its place, or this raises."""
    import pyarrow.parquet as pq

    count = errors = 0
    for shard in shards:
        table = pq.read_table(out / f"{shard['name']}.parquet", columns=["clip", "error"])
        if table["clip"].to_pylist() != shard["clips"]:
            raise RuntimeError(
                f"{out / shard['name']}.parquet does not hold the rows of its clips: delete it, run again"
            )
        count, errors = count + len(table), errors + len(table) - table["error"].null_count
    return count, errors


if __name__ == "__main__":
    sys.exit(main())
