"""``mertools audit``: how far are the key frames of a table off, and the table again with better ones."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import mertools as mt
from mertools._text import escape_unprintable
from mertools.annotations.quality import REPAIRS
from mertools.audit.search import SEARCHES


def add_audit(commands: Any) -> None:
    """Register the sub-command."""
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
    for skipped in done.audit.broken:
        words = f"{skipped.clip.place} ({skipped.clip.name}): {skipped.error}"
        print(f"mertools: skipped: {escape_unprintable(words)}", file=sys.stderr)
    _summary(done, args.correct or searches[-1])
    return 0


def _summary(done: mt.AuditedTable, search: str) -> None:
    audit = done.audit
    print(f"{len(audit.done)} clips searched, {len(audit.broken)} skipped")
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


def _fail(message: str) -> int:
    print(f"mertools: error: {escape_unprintable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return 2
