"""The command line: ``mertools select CLIP`` finds the key frames of a video or a folder of frames.

What can go wrong with an input is one line on standard error and exit status 2; other clips of the same call are still
done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mertools as mt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; default those of the process.

    Returns:
        Exit status: 0, or 2 when an input could not be used.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    silence_decoders()
    return int(args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mertools", description="Tools for micro-expression and dynamic facial expression recognition."
    )
    parser.add_argument("--version", action="version", version=f"mertools {mt.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    select = commands.add_parser(
        "select",
        help="find onset, apex and offset of a clip",
        description="Find the key frames of clips: video files, or folders of numbered frames. "
        "Frames are counted from 0 (in a folder, from its first image).",
    )
    select.add_argument("clips", nargs="+", metavar="CLIP", help="a video file or a folder of frames")
    select.add_argument("--onset", type=int, metavar="N", help="annotated onset (with --apex): search near it")
    select.add_argument("--apex", type=int, metavar="N", help="annotated apex")
    select.add_argument("--offset", type=int, metavar="N", help="annotated offset; default the last frame")
    select.add_argument(
        "--preset", choices=("full", "short", "late-apex", "wide"), default="full", help="windows around the annotation"
    )
    select.add_argument("--size", type=int, metavar="PIXELS", help="resize frames to a square first")
    select.add_argument("--json", action="store_true", help="print one JSON object per clip and line")
    select.add_argument("--plot", type=Path, metavar="FILE", help="write a figure (one clip; needs matplotlib)")
    select.set_defaults(run=_select)
    return parser


def _select(args: argparse.Namespace) -> int:
    if args.plot is not None and len(args.clips) > 1:
        return _fail("--plot takes one clip at a time")
    if args.plot is not None and not args.plot.absolute().parent.is_dir():
        return _fail(f"--plot: there is no folder {args.plot.absolute().parent}")
    status = 0
    selector = mt.FrameSelector.preset(args.preset)
    for clip in args.clips:
        try:
            frames = mt.read_clip(clip, size=args.size)
            if len(frames) < 2:
                raise ValueError(f"a clip needs at least 2 frames, there is {len(frames)}")
            keys = selector(frames[None], args.onset, args.apex, args.offset)
            found = {name: int(value) for name, value in zip(keys._fields[:3], keys[:3], strict=True)}
            if args.plot is not None:
                annotated = args.onset is not None and args.offset is not None
                truth = (args.onset, args.apex, args.offset) if annotated else None
                figure = mt.plot_keyframes(frames, keys, truth=truth, truth_name="annotated", title=Path(clip).name)
                save_figure(figure, args.plot)
        except (OSError, ValueError, ImportError) as error:
            status = _fail(f"{clip}: {' '.join(str(error).split())}")
            continue
        result: dict[str, Any] = {"clip": clip, "frames": len(frames), **found, "score": float(keys.score)}
        if args.json:
            print(json.dumps(result), flush=True)
        else:
            marks = "  ".join(f"{name} {frame}" for name, frame in found.items())
            print(f"{clip}: {marks}  ({len(frames)} frames)", flush=True)
    return status


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure whole or not at all: to a temporary file beside ``path``, then moved into place."""
    suffix = path.suffix or ".png"
    handle, name = tempfile.mkstemp(suffix=suffix, prefix=f".{path.stem}-", dir=path.absolute().parent)
    os.close(handle)
    temporary = Path(name)
    try:
        figure.savefig(temporary, format=suffix[1:])
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def silence_decoders() -> None:
    """Keep OpenCV and its FFmpeg from printing about what is reported here in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is not None:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)


def _fail(message: str) -> int:
    print(f"mertools: error: {message}", file=sys.stderr, flush=True)
    return 2
