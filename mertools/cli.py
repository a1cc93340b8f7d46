"""The command line: ``mertools select CLIP`` finds key frames, ``mertools audit TABLE`` asks how far a table's are off.

What can go wrong with an input is one line on standard error and exit status 2; other clips of the same call are still
done.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import mertools as mt
from mertools._text import escape_unprintable
from mertools.annotations.quality import REPAIRS
from mertools.audit.search import SEARCHES
from mertools.clips.read import IMAGES, clip_frames
from mertools.plots import check_figure_path, save_figure

_PATIENCE = 2.0  # seconds before what is being done is told
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; default those of the process.

    Returns:
        Exit status: 0, or 2 when an input could not be used.
    """
    args = _parser().parse_args(argv)
    silence_decoders()
    for stream in (sys.stdout, sys.stderr):  # a clip's name may hold what the terminal's encoding does not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(args.run(args))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # what went wrong with a clip or a file is caught where it is known by name
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"the output could not be written: {error.strerror or error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mertools", description="Tools for micro-expression and dynamic facial expression recognition."
    )
    parser.add_argument("--version", action="version", version=f"mertools {mt.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    select = commands.add_parser(
        "select",
        help="find onset, apex and offset of a clip",
        description="Find the key frames of clips: video files, or folders of numbered frames. Near an annotation "
        "(--onset, --apex, --offset), or without one in the whole clip. "
        "Frames are counted from 0 (in a folder, from its first image).",
    )
    select.add_argument("clips", nargs="+", metavar="CLIP", help="a video file or a folder of frames")
    select.add_argument("--onset", type=int, metavar="N", help="annotated onset (with --apex): search near it")
    select.add_argument("--apex", type=int, metavar="N", help="annotated apex")
    select.add_argument("--offset", type=int, metavar="N", help="annotated offset; default the last frame")
    select.add_argument(
        "--preset", choices=("full", "short", "late-apex", "wide"), help="windows around the annotation; default full"
    )
    select.add_argument(
        "--refine",
        action="store_true",
        help="search robustly around the annotation instead of in the published windows",
    )
    select.add_argument("--size", type=int, metavar="PIXELS", help="resize frames to a square first")
    select.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per clip and line; score is the distance of apex and onset",
    )
    select.add_argument("--plot", type=Path, metavar="FILE", help="write a figure (one clip; needs matplotlib)")
    select.set_defaults(run=_select)

    audit = commands.add_parser(
        "audit",
        help="compare a table's key frames with re-selected ones, write it corrected",
        description="Search every clip of an annotation table near its annotation, report how far onset, apex and "
        "offset move, and write a copy of the table with the key frames found. The table itself is not changed. A run "
        "that was stopped goes on where it was when the same command is given again.",
    )
    audit.add_argument("table", metavar="TABLE", help="the annotation table: xlsx, xls or csv")
    audit.add_argument(
        "--dataset", required=True, metavar="NAME", help="casme2, samm, cas(me)2, casme3-a, smic, mmew, ..."
    )
    audit.add_argument("--frames", required=True, metavar="ROOT", help="folder below which the clips' frames lie")
    audit.add_argument("--out", required=True, type=Path, metavar="FILE", help="the corrected table: xlsx or csv")
    audit.add_argument("--report", type=Path, metavar="DIR", help="folder of the report; default FILE-report")
    audit.add_argument(
        "--correct", choices=SEARCHES, help="search whose key frames go into the table; default robust, if it is run"
    )
    audit.add_argument(
        "--search", choices=("both", *SEARCHES), default="both", help="what to run; default both searches"
    )
    audit.add_argument(
        "--preset", choices=("full", "short", "late-apex", "wide"), help="windows of the annotated search"
    )
    audit.add_argument(
        "--repair", action="append", choices=REPAIRS, default=[], help="mend rows before the audit; may be given again"
    )
    audit.add_argument("--workers", type=int, metavar="N", help="processes; default one per processor, 0 for none")
    audit.add_argument("--longest", type=int, default=256, metavar="PIXELS", help="reduce larger frames; default 256")
    audit.add_argument("--restart", action="store_true", help="start anew instead of going on from an unfinished run")
    audit.set_defaults(run=_audit)
    return parser


def _select(args: argparse.Namespace) -> int:
    if args.plot is not None and len(args.clips) > 1:
        return _fail("--plot takes one clip at a time")
    if (args.onset is None) != (args.apex is None) or (args.offset is not None and args.onset is None):
        return _fail("--onset and --apex go together (--offset is optional); leave all out to search the whole clip")
    if args.preset is not None and args.onset is None:
        return _fail("--preset sets the windows around an annotation: give --onset and --apex, or leave it out")
    if args.refine and (args.onset is None or args.preset is not None):
        return _fail("--refine searches around an annotation: give --onset and --apex, and no --preset")
    if args.plot is not None and (message := _in_the_way(args.plot, Path(args.clips[0]))):
        return _fail(f"--plot {args.plot}: {message}")
    selector = mt.FrameSelector(refine=True) if args.refine else mt.FrameSelector.preset(args.preset or "full")
    status = 0
    for clip in args.clips:
        try:
            frames = _read(clip, args.size)
            with telling(f"searching {len(frames)} frames"):
                keys = selector(frames[None], args.onset, args.apex, args.offset)
        except (OSError, ValueError, TypeError) as error:
            status = _fail(f"{clip}: {error}")
            continue
        found = {name: int(value) for name, value in zip(keys._fields[:3], keys[:3], strict=True)}
        if args.json:
            print(json.dumps({"clip": clip, "frames": len(frames), **found, "score": float(keys.score)}), flush=True)
        else:
            words = "  ".join(f"{name} {frame}" for name, frame in found.items())
            print(f"{escape_unprintable(clip)}: {words}  ({len(frames)} frames)", flush=True)
        if args.plot is not None:
            annotated = args.onset is not None and args.offset is not None
            truth = (args.onset, args.apex, args.offset) if annotated else None
            try:
                with telling("drawing"):
                    figure = mt.plot_keyframes(frames, keys, truth=truth, truth_name="annotated", title=Path(clip).name)
                    save_figure(figure, args.plot)
            except (OSError, ValueError, ImportError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                status = _fail(f"--plot {args.plot}: {reason}")
    return status


def _in_the_way(plot: Path, clip: Path) -> str:
    """Why a figure can't or must not be written there; said before the clip is searched."""
    if clip.is_file() and plot.exists() and plot.samefile(clip):
        return "it is the clip itself, which is never written to"
    if clip.is_dir() and plot.parent.is_dir() and plot.parent.samefile(clip):
        return "it would lie among the frames of the clip: name a file in another folder"
    try:
        check_figure_path(plot)
    except ImportError:
        return "it needs matplotlib: pip install 'mertools[plot]'"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _read(clip: str, size: int | None) -> Tensor:
    """The clip's frames; what the reader warns about becomes a line on standard error."""
    if clip and (videos := _videos(Path(clip))):
        raise ValueError(f"it is a folder of videos, name the files: mertools select {escape_unprintable(videos)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = []
        with telling("reading") as tell:
            for frame in clip_frames(clip, size=size):
                frames.append(frame)
                tell(f"reading, frame {len(frames)}")
    for warning in caught:
        print(f"mertools: warning: {_one_line(str(warning.message))}", file=sys.stderr, flush=True)
    if len(frames) < 2:
        raise ValueError(f"a clip needs at least 2 frames, there is {len(frames)}")
    return torch.stack(frames)


def _videos(folder: Path) -> str:
    """The videos of a folder that holds no images, as they would be named."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    videos = [name for name in names if Path(name).suffix.lower() in VIDEOS]
    images = any(name.lower().endswith(IMAGES) for name in names)
    if images or not videos:
        return ""
    kinds = {Path(name).suffix for name in videos}
    return f"{folder}/*{kinds.pop()}" if len(kinds) == 1 else f"{folder / videos[0]} ..."


@contextmanager
def telling(what: str) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is being done, and since when, if it takes longer than two seconds.

    Yields a function that says it in other words.
    """
    over, words, since = threading.Event(), [what], time.monotonic()

    def tell() -> None:
        pause, longest = _PATIENCE, 0
        while not over.wait(pause):
            line = f"mertools: {words[0]} ({time.monotonic() - since:.0f} s)"
            print(f"\r{line:<{longest}}", end="", file=sys.stderr, flush=True)
            pause, longest = 1.0, max(longest, len(line))
        print("\r" + " " * longest + "\r" if longest else "", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    if sys.stderr.isatty():
        thread.start()
    try:
        yield lambda text: words.__setitem__(0, text)
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def _audit(args: argparse.Namespace) -> int:
    searches = SEARCHES if args.search == "both" else (args.search,)
    try:
        done = mt.audit_table(
            args.table,
            args.dataset,
            args.frames,
            args.out,
            report=args.report,
            correct=args.correct or searches[-1],
            repair=args.repair,
            searches=searches,
            selector=mt.FrameSelector.preset(args.preset or "full"),
            longest=args.longest,
            workers=_processors() if args.workers is None else args.workers,
            progress=_can_show_progress(),
            restart=args.restart,
        )
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("mertools: stopped; the same command goes on from here", file=sys.stderr, flush=True)
        return 130
    for entry in done.repairs:
        print(escape_unprintable(f"repaired: {entry}"), file=sys.stderr)
    for skipped in done.audit.skipped:
        words = f"{skipped.clip.place} ({skipped.clip.name}): {skipped.error}"
        print(f"mertools: skipped: {escape_unprintable(words)}", file=sys.stderr)
    _summary(done, args.correct or searches[-1])
    return 0


def _summary(done: mt.AuditedTable, search: str) -> None:
    audit = done.audit
    print(f"{len(audit.searched)} clips searched, {len(audit.skipped)} skipped")
    for group in audit.groups("all", search):
        for name in ("onset", "apex", "offset"):
            found = getattr(group, name)
            if found.n:
                print(
                    f"{name:>6}: mean |shift| {found.mean_abs:.1f} frames, median {found.median:+.1f}; uncertain in "
                    f"{100 * found.share:.0f} % of {found.n} clips ({100 * found.low:.0f}-{100 * found.high:.0f} %)"
                )
    print(f"corrected table ({search} search): {escape_unprintable(str(done.out))}")
    print(f"report: {escape_unprintable(str(done.report / 'index.html'))}", flush=True)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _can_show_progress() -> bool:
    if importlib.util.find_spec("tqdm") is not None:
        return True
    print("mertools: no progress bar without tqdm: pip install 'mertools[data]'", file=sys.stderr)
    return False


def silence_decoders() -> None:
    """Keep OpenCV and its FFmpeg from printing about what is reported here in one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    logging = getattr(cv2.utils, "logging", None)
    set_level = getattr(logging, "setLogLevel", None) or getattr(cv2, "setLogLevel", None)  # OpenCV 4.9 on, and 4.8
    if set_level is not None:
        set_level(0)  # silent


def _fail(message: str) -> int:
    print(f"mertools: error: {_one_line(message)}", file=sys.stderr, flush=True)
    return 2


def _one_line(message: str) -> str:
    return escape_unprintable(" ".join(message.split()))
