"""Coverage-guided fuzzing of the parsers in pure Python: ``python -m reliability.guided [--seconds S] [TARGET...]``.

Needs atheris (extra ``reliability``). libFuzzer changes inputs towards code that none has reached yet; each target has
a process of its own, and any exception but those that docstrings name ends it. The record is
``reliability/guided.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("guided.json")
SEEDS: dict[str, list[bytes]] = {
    "annotations_csv": [b"video_name,label\n1,1\n00002,7\n"],
    "annotations_rows": [b"who,file,on,top,off,emotion,fps\n1,a,1,5,9,happy,30\n2,b,3,/,8,sad+happy,29.97\n"],
    "annotation_lists": [b"Action/Happy/0267 Happy\nDaily/Fear/0001 Fear\n"],
    "openface": [],
    "au_labels": [b" 00001.csv/1 " + b"1 0 " * 9 + b"\n", b"a " + b"nan " * 18],
    "facs": [b"L1+R4", b"12 or 14", b"4+7+10", b"AU12A?"],
    "scores_json": [],
    "scores_csv": [b"clip,subject,dataset,fold,target,predicted,selection\ns1/a,s1,,s1,a,b,last\n"],
    "config": [b'{"class": "AUHead", "in_features": 3, "num_aus": 2}'],
    "journal": [b'{"run": "x"}\n{"clip": 0, "robust": [1, 2, 3]}\n{"clip": 1, "error": "no"}\n'],
    "image_size": [],
}


def seeds(name: str) -> list[bytes]:
    """Valid inputs of a target."""
    import cv2
    import numpy as np

    import mertools as mt

    found = list(SEEDS[name])
    if name == "openface":
        units = [f"{u}_r" for u in mt.ACTION_UNITS if u != "AU28"] + [f"{u}_c" for u in mt.ACTION_UNITS]
        header = ", ".join(["frame", "face_id", "confidence", "success", *units])
        found = [f"{header}\n1, 0, 0.9, 1, {', '.join(['1'] * 35)}\n".encode()]
    if name == "scores_json":
        book = mt.ScoreBook(["a", "b"], selection="last")
        book.add([0, 1], [0, 0], clips=["s/x", "s/y"], subjects=["s", "s"], fold="s")
        with tempfile.TemporaryDirectory() as folder:
            book.write_json(Path(folder) / "b.json")
            found = [(Path(folder) / "b.json").read_bytes()]
    if name == "image_size":
        picture = np.zeros((5, 7, 3), np.uint8)
        found = [bytes(cv2.imencode(kind, picture)[1]) for kind in (".png", ".jpg", ".bmp", ".tif", ".webp")]
    return found


def target(name: str, folder: Path) -> Callable[[bytes], Any]:
    """What is called on each input."""
    import struct

    from mertools.clips.images import image_size

    import mertools as mt
    from mertools._files import json_object
    from mertools.audit.journal import Journal
    from mertools.models.hub import _build, _check_sizes

    schema = mt.AnnotationSchema(
        name="ours", labels=["happy", "sad"], separator="+", folder="{subject}/{clip}", optional=("fps",),
        columns={"subject": "who", "clip": "file", "onset": "on", "apex": "top", "offset": "off", "label": "emotion",
                 "fps": "fps"},
    )  # fmt: skip

    def at(path: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def call(data: bytes) -> Any:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(data)
            return read(folder / path)

        return call

    def resume(path: Path) -> None:
        with Journal(path.parent, "x"):
            pass

    def size(data: bytes) -> None:
        with contextlib.suppress(IndexError, struct.error):  # what it says it raises: the header ends early
            image_size(data)

    def config(data: bytes) -> None:
        import torch

        found = json_object(data, "config.json")
        _check_sizes(found)
        with torch.device("meta"):
            _build(None, found)

    return {
        "annotations_csv": at("t.csv", lambda path: mt.read_annotations(path, "dfew").problems),
        "annotations_rows": at(
            "t.csv", lambda path: mt.read_annotations(path, schema, repair="apex-midpoint").problems
        ),
        "annotation_lists": at("All.csv", lambda path: mt.read_annotations(path, "ferv39k").problems),
        "openface": at("o.csv", mt.read_openface),
        "au_labels": at("a.txt", mt.read_au_labels),
        "facs": lambda data: mt.facs_labels([data.decode("utf-8", "replace")]),
        "scores_json": at("s.json", lambda path: mt.ScoreBook.read_json(path).rows),
        "scores_csv": at("s.csv", lambda path: mt.ScoreBook.read_csv(path, classes=["a", "b"]).rows),
        "config": config,
        "journal": at("work/journal.jsonl", resume),
        "image_size": size,
    }[name]


def child(name: str, corpus: Path, seconds: int) -> None:
    """Fuzz one target until the time is over; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["mertools"]):
        import mertools  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        call = target(name, Path(folder))

        def once(data: bytes) -> None:
            try:
                call(data)
            except (ValueError, OSError) as error:
                if isinstance(error, UnicodeError):
                    raise

        atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=4096", "-print_final_stats=1",
                       "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={corpus.parent}/"], once)  # fmt: skip
        atheris.Fuzz()


def guided(name: str, seconds: int) -> dict[str, Any]:
    """Run a target's process; how many inputs it took, what it covered, and what it died of."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for i, data in enumerate(seeds(name)):
            (corpus / f"seed{i}").write_bytes(data)
        command = [sys.executable, "-m", "reliability.guided", "--child", name, "--corpus", str(corpus)]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--seconds", str(seconds)], capture_output=True, text=True, cwd=RECORD.parents[1], env=environ
        )
        text = done.stdout + done.stderr
        runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", text)
        covered = re.findall(r" cov: (\d+) ", text)
        broken = [] if done.returncode == 0 else [done.stdout[-2000:] + done.stderr[-500:]]
        return {"inputs": int(runs[1]) if runs else 0, "edges": int(covered[-1]) if covered else 0, "breaks": broken}


def main() -> None:
    """Run what was asked for; a full run is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.corpus, args.seconds)
        return
    from mertools._files import atomic_write

    # A run of some targets takes their place in the record of the last.
    record = json.loads(RECORD.read_text()) if args.targets and RECORD.is_file() else {"targets": {}}
    for name in args.targets or SEEDS:
        found = guided(name, args.seconds)
        record["targets"][name] = {"seconds": args.seconds, **found}
        told = f"{found['inputs']:8d} inputs, {found['edges']:5d} edges, {len(found['breaks'])} breaks"
        print(f"{name:>20}: {told}", flush=True)
        for text in found["breaks"]:
            print(text)
    record["inputs"] = sum(found["inputs"] for found in record["targets"].values())
    atomic_write(RECORD, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
