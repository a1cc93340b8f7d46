"""The command line: ``mertools select`` for key frames, ``spot`` for long videos, ``audit`` for annotation tables.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import mertools as mt
from mertools._files import atomic_folder, atomic_write, check_target
from mertools._text import csv_text, escape_unprintable
from mertools.annotations.quality import REPAIRS
from mertools.audit.search import SEARCHES
from mertools.clips.read import IMAGES, clip_frames
from mertools.movement.motion import find_cuts
from mertools.movement.pictures import is_picture, small_frames
from mertools.plots import check_figure_path, save_figure
from mertools.spotting.spot import video_fps, video_frames
from mertools.spotting.timeline import MotionCurve, plot_timeline, thumbnail, wanted_frames

_PATIENCE = 2.0  # seconds before what is being done is told
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with the arguments ``argv`` (default those of the process); returns the exit status.

    It is 0, or 2 when an input could not be used.
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

    _add_box(select)

    spot = commands.add_parser(
        "spot",
        help="find every expression of a long video",
        description="Find the expressions of videos of any length: every movement of the face that rises, holds and "
        "falls, with its key frames. Frames are counted from 0 (in a folder, from its first image). A folder of "
        "videos stands for the videos in it.",
    )
    spot.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="a video file, a folder of frames or of videos, a csv of landmarks"
    )
    spot.add_argument("--json", action="store_true", help="print one JSON object per video and line")
    spot.add_argument(
        "--csv", type=Path, metavar="FILE", help="write a table of all videos: video, onset, offset (as for MEGC)"
    )
    spot.add_argument("--plot", type=Path, metavar="FILE", help="write a time line (one video; needs matplotlib)")
    spot.add_argument("--clips", type=Path, metavar="DIR", help="cut each expression out, a folder of PNG frames each")
    spot.add_argument("--fps", type=float, metavar="N", help="frames per second; default what the file says")
    spot.add_argument("--shortest", type=float, metavar="SECONDS", help="only expressions that last at least so long")
    spot.add_argument(
        "--longest", type=float, metavar="SECONDS", help="only those that last at most so long (0.5: micro-expressions)"
    )
    _add_box(spot)
    spot.set_defaults(run=_spot)

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
            frames = _read(clip, args.size, _box_of(args, clip))
            with telling(f"searching {len(frames)} frames"):
                keys = selector(frames[None], args.onset, args.apex, args.offset)
        except (OSError, ValueError, TypeError) as error:
            status = _fail(f"{clip}: {error}")
            continue
        found = {name: int(value) for name, value in zip(keys._fields[:3], keys[:3], strict=True)}
        if args.json:
            print(json.dumps({"clip": clip, "frames": len(frames), **found, **_how_sure(keys)}), flush=True)
        else:
            print(_in_words(clip, frames, keys), flush=True)
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


def _how_sure(keys: mt.KeyFrames) -> dict[str, object]:
    """What of the key frames is no position, for JSON."""
    sure: dict[str, object] = {"score": float(keys.score)}
    if keys.evidence is not None and keys.spread is not None:
        sure["evidence"] = round(float(keys.evidence), 4)
        sure["spread"] = [round(width, 2) for width in keys.spread[0].tolist()]
    return sure


def _in_words(clip: str, frames: Tensor, keys: mt.KeyFrames) -> str:
    """A line with the key frames, and one for whatever should make the reader look again."""
    positions = [int(key) for key in keys[:3]]
    named = zip(keys._fields[:3], positions, strict=True)
    start = f"{escape_unprintable(clip)}: "
    if keys.evidence is None or keys.spread is None:
        return start + "  ".join(f"{name} {frame}" for name, frame in named) + f"  ({len(frames)} frames)"
    evidence = float(keys.evidence)
    widths = keys.spread[0].tolist()
    parts = [f"{name} {frame} ± {width:.0f}" for (name, frame), width in zip(named, widths, strict=True)]
    lines = [start + "  ".join(parts) + f"  evidence {evidence:.2f}  ({len(frames)} frames)"]
    onset, _, offset = positions
    if evidence < 0.5:
        lines.append("  nothing found: below an evidence of 0.5 these frames are no more than a guess")
    elif onset == 0 or offset == len(frames) - 1:
        ends = [end for end, reached in (("first", onset == 0), ("last", offset == len(frames) - 1)) if reached]
        lines.append(f"  the movement reaches the {' and the '.join(ends)} frame: the clip may cut it off")
    cuts = find_cuts(small_frames(frames)) if is_picture(frames.shape[1:]) else []
    if cuts:
        where = ", ".join(map(str, cuts))
        lines.append(f"  the clip is cut (a new picture at frame {where}): the search stays between cuts")
    return "\n".join(lines)


def _add_box(command: argparse.ArgumentParser) -> None:
    command.add_argument("--box", type=_box, metavar="X,Y,W,H", help="where the face is in the picture, in pixels")
    command.add_argument("--detector", metavar="FILE", help="a YuNet ONNX file: the box is found with it")


def _box(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, w, h = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"four whole numbers X,Y,W,H are needed, got {text!r}") from None
    return x, y, w, h


def _box_of(args: argparse.Namespace, video: str) -> tuple[int, int, int, int] | None:
    """The box that was given, or that the detector finds in the video."""
    if args.detector is None:
        given: tuple[int, int, int, int] | None = args.box
        return given
    if args.box is not None:
        raise ValueError("--box says where the face is, and --detector would look for it: give one of them")
    return mt.face_box(video, args.detector)


def _spot(args: argparse.Namespace) -> int:
    videos: list[str] = []
    for name in args.videos:
        inside = _videos_inside(Path(name))
        videos += [str(path) for path in inside] if inside else [name]
    if args.plot is not None and len(videos) > 1:
        return _fail("--plot takes one video at a time")
    if args.plot is not None and (message := _in_the_way(args.plot, Path(videos[0]))):
        return _fail(f"--plot {args.plot}: {message}")
    try:
        if args.csv is not None:
            check_target(args.csv)
    except OSError as error:
        return _fail(f"--csv {args.csv}: {error.strerror or error}")
    status, rows = 0, [["video", "onset", "offset"]]
    for video in videos:
        try:
            found = _spot_one(args, video, rows)
        except (OSError, ValueError, TypeError, ImportError) as error:
            status = _fail(f"{video}: {error}")
            continue
        except KeyboardInterrupt:
            print("mertools: stopped", file=sys.stderr, flush=True)
            return 130
        status = max(status, found)
    if args.csv is not None:
        try:
            write_intervals(args.csv, rows)
        except OSError as error:
            status = _fail(f"--csv {args.csv}: {error.strerror or error}")
    return status


def _spot_one(args: argparse.Namespace, video: str, rows: list[list[str]]) -> int:
    """Spot one video, print what was found, write what was asked for."""
    fps = args.fps if args.fps is not None or not Path(video).exists() else video_fps(video)
    curve, start = MotionCurve(), time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with telling("looking for the face" if args.detector else "reading") as tell:
            box = _box_of(args, video)

            def frames() -> Iterator[Tensor]:
                for i, frame in enumerate(curve.noting(video_frames(video, box))):
                    if i % 30 == 29:
                        tell(f"spotting, frame {i + 1}, {(i + 1) / (time.monotonic() - start):.0f} frames/s")
                    yield frame

            # A box that was given is cut out already, and nothing need be said about it.
            whole = None if box is None else (0, 0, *box[2:])
            found = mt.spot_expressions(frames(), fps=fps, shortest=args.shortest, longest=args.longest, box=whole)
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"mertools: warning: {escape_unprintable(video)}: {_one_line(text)}", file=sys.stderr, flush=True)
    name = Path(video).name if Path(video).is_dir() else Path(video).stem
    rows += [[name, str(one.onset), str(one.offset)] for one in found]
    _print_found(args, video, found, len(curve.values), fps)
    if args.plot is None and args.clips is None:
        return 0
    pictures: dict[int, Tensor] = {}
    wanted = wanted_frames(found) if args.plot is not None else set()
    with telling("cutting" if args.clips is not None else "drawing"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the first pass said
        cut = [] if args.clips is None else found
        pieces = {one: _Piece(args.clips / f"{name}_{one.onset}-{one.offset}") for one in cut}
        for i, frame in enumerate(video_frames(video, box)):
            if i in wanted:
                pictures[i] = thumbnail(frame)
            for one, piece in pieces.items():
                if one.onset <= i <= one.offset:
                    piece.add(i, frame, last=i == one.offset)
        if args.plot is not None:
            figure = plot_timeline(curve.values, found, pictures, fps=fps, title=Path(video).name)
            save_figure(figure, args.plot)
    return 0


class _Piece:
    """The frames of an expression on their way into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: dict[str, bytes] = {}
        if folder.exists():
            raise ValueError(f"--clips would write into {folder}, which is there already: name another folder")

    def add(self, number: int, frame: Tensor, *, last: bool) -> None:
        import cv2

        if frame.ndim != 3:
            raise ValueError("--clips needs pictures, landmarks have none")
        image = np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[..., ::-1])
        self.images[f"img{number:06d}.png"] = cv2.imencode(".png", image)[1].tobytes()
        if last:
            cut_out(self.folder, self.images)
            self.images = {}


def cut_out(folder: Path, images: Mapping[str, bytes]) -> None:
    """Write image files into a new folder, which is there with all of them or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as place:
        for name, data in images.items():
            (place / name).write_bytes(data)


def write_intervals(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write the table of spotted intervals, whole or not at all."""
    atomic_write(path, csv_text(rows).encode())


def _print_found(
    args: argparse.Namespace, video: str, found: Sequence[mt.Expression], frames: int, fps: float | None
) -> None:
    if args.json:
        rows = [{**one._asdict(), "spread": list(one.spread)} for one in found]
        print(json.dumps({"video": video, "frames": frames, "fps": fps, "expressions": rows}), flush=True)
        return
    long = f"{frames} frames" + (f", {frames / fps:.1f} s" if fps else "")
    count = "no expression" if not found else "1 expression" if len(found) == 1 else f"{len(found)} expressions"
    print(f"{escape_unprintable(video)}: {count} in {long}", flush=True)
    for i, one in enumerate(found):
        line = f"  {i + 1:>3}  onset {one.onset:>6}  apex {one.apex:>6}  offset {one.offset:>6}"
        if fps:
            seconds = (one.offset - one.onset + 1) / fps
            line += f"  {one.onset / fps:8.2f} s, lasts {seconds:.2f} s ({'micro' if seconds <= 0.5 else 'macro'})"
        spread = "/".join(f"{width:.0f}" for width in one.spread)
        print(f"{line}  evidence {one.evidence:.2f}  ± {spread} frames", flush=True)


def _videos_inside(folder: Path) -> list[Path]:
    """The videos of a folder that holds no images."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    if any(path.name.lower().endswith(IMAGES) for path in inside):
        return []
    return [path for path in inside if path.suffix.lower() in VIDEOS]


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


def _read(clip: str, size: int | None, box: Sequence[int] | None = None) -> Tensor:
    """The clip's frames; what the reader warns about becomes a line on standard error."""
    if clip and (videos := _videos(Path(clip))):
        raise ValueError(f"it is a folder of videos, name the files: mertools select {escape_unprintable(videos)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = []
        with telling("reading") as tell:
            for frame in clip_frames(clip, size=size, box=box):
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
    if nothing := audit.nothing_found(search):
        print(f"no movement found in {len(nothing)} clips: their annotation stays, and they do not count below")
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
