"""The whole job: read a table, audit it, write the report and the corrected table; resumed where it was stopped."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mertools._checks import check_choice
from mertools._files import check_target
from mertools.annotations.annotation import ClipAnnotation, Repair
from mertools.annotations.folders import FrameFolders
from mertools.annotations.read import read_annotations
from mertools.annotations.schemas import AnnotationSchema, dataset_schema
from mertools.audit.corrected_table import Correction, check_output, corrected_table, write_corrected
from mertools.audit.journal import Journal, fingerprint
from mertools.audit.report import REPORT_FILES
from mertools.audit.run import AnnotationAudit, AuditOptions, audit_clips
from mertools.audit.search import SEARCHES
from mertools.keyframes.selector import FrameSelector

__all__ = ["AuditedTable", "audit_table"]


class AuditedTable(NamedTuple):
    """What :func:`audit_table` did: the audit, the repairs before it, and where things were written.

    Args:
        audit: shifts of every clip.
        repairs: what was mended in the table's rows before.
        out: the corrected table.
        report: the report's folder.

    Examples:
        >>> AuditedTable._fields
        ('audit', 'repairs', 'out', 'report')

    Source: ours.
    """

    audit: AnnotationAudit
    repairs: list[Repair]
    out: Path
    report: Path


def audit_table(
    table: str | os.PathLike[str],
    dataset: str | AnnotationSchema,
    frames: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    report: str | os.PathLike[str] | None = None,
    correct: str = "robust",
    repair: Any = (),
    searches: Sequence[str] = SEARCHES,
    selector: FrameSelector | None = None,
    margin: float = 0.5,
    longest: int | None = 256,
    threshold: float = 0.1,
    workers: int = 0,
    progress: bool = False,
    restart: bool = False,
) -> AuditedTable:
    r"""Audit a table and write it corrected: what ``mertools audit`` does.

    Progress is kept in a folder beside ``out`` until everything is written, so a run that was killed continues when it
    is started again. The table itself is never written to.

    Args:
        table: xlsx, xls or csv.
        dataset: name or schema.
        frames: the folder with the frames of all clips.
        out: the corrected table, xlsx or csv.
        report: folder for the report; default ``out`` without its suffix, with ``-report``.
        correct: the search whose key frames go into the table.
        repair: repairs before the audit, see :func:`read_annotations`; without them rows out of order are skipped.
        searches: see :func:`audit_annotations`, as for the rest.
        selector: windows of the annotated search.
        margin: what to read beyond the annotation, as a fraction of the expression's length.
        longest: reduce larger frames to this many pixels.
        threshold: of an uncertain key frame, a fraction of its phase.
        workers: processes; 0 works in this one.
        progress: show a progress bar.
        restart: forget an unfinished run on this output instead of going on from it.

    Returns:
        The audit and where it was written.

    Raises:
        FileNotFoundError: table, frames or the folder of ``out`` do not exist.
        ImportError: matplotlib is missing (extra ``plot``), or tqdm with ``progress`` (extra ``data``).
        RuntimeError: another run is writing to ``out``.
        ValueError: a wrong table or option, no clip that could be searched, or an unfinished run with other options is
            waiting beside ``out``.

    Examples:
        >>> import cv2, pathlib, tempfile
        >>> from mertools import synthetic_clip
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "sub01" / "EP01").mkdir(parents=True)
        >>> made = synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=48)
        >>> for number, image in enumerate(made.frames.permute(0, 2, 3, 1).numpy(), start=1):
        ...     _ = cv2.imwrite(str(root / "sub01" / "EP01" / f"img{number}.png"), image)
        >>> header = "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion"
        >>> _ = (root / "codes.csv").write_text(f"{header}\n1,EP01,11,19,37,12,happiness\n")
        >>> done = audit_table(
        ...     root / "codes.csv", "casme2", root, root / "corrected.csv", searches=["annotated"], correct="annotated"
        ... )
        >>> print((root / "corrected.csv").read_text().splitlines()[0].split(",", 7)[-1])
        OnsetFrame (annotated),ApexFrame (annotated),OffsetFrame (annotated)

    Source: :func:`audit_annotations`, with a journal and the table's own layout, which are ours.
    """
    if importlib.util.find_spec("matplotlib") is None:  # before the work, not after it
        raise ImportError("the audit's report needs matplotlib: pip install 'mertools[plot]'")
    source, target = Path(table), Path(out)
    check_output(source, target)
    options = AuditOptions(tuple(searches), selector or FrameSelector(), margin, longest, threshold)
    check_choice("correct", correct, options.searches)
    schema = dataset_schema(dataset)
    clips = read_annotations(source, schema, repair=repair)
    if not clips or all(clip.onset is None for clip in clips):
        raise ValueError(f"table holds no key frames to audit: {source}")
    corrected_table(source, schema, [], target)  # what can't be written is said before the work, not after it
    folders = FrameFolders(frames)
    pages = Path(report) if report is not None else target.with_name(f"{target.stem}-report")
    _check_pages(pages, source, target)
    work = target.with_name(f".{target.name}.audit")
    identity = fingerprint(clips, folders.name, f"{options.words} {correct} {source.resolve()}")
    with Journal(work, identity, restart=restart) as journal:
        audit = audit_clips(clips, folders, options, workers=workers, progress=progress, journal=journal)
        if not audit.done:
            journal.finish()
            raise ValueError(f"no clip could be searched; the first, {clips[0].place}: {audit.broken[0].error}")
        audit.write_report(pages, frames=folders, search=correct, title=f"Annotation audit of {source.name}")
        write_corrected(source, schema, corrections(clips, audit, correct), target)
        journal.finish()
    return AuditedTable(audit, clips.repairs, target, pages)


def _check_pages(pages: Path, source: Path, target: Path) -> None:
    """Refuse a report that could not be written, before hours of work, or would be written over a table."""
    if pages.is_symlink() and not pages.exists():
        raise FileNotFoundError(f"report must be a folder, {pages} is a link to {pages.readlink()}, which is not there")
    if pages.exists() and not pages.is_dir():
        raise NotADirectoryError(f"report must be a folder, {pages} is a file")
    there = next(folder for folder in (pages, *pages.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"report must be a folder that can be written to, {there} can't")
    for name in REPORT_FILES if pages.exists() else ():
        check_target(pages / name)
        for kind, table in (("table", source), ("out", target)):
            if os.path.realpath(pages / name) == os.path.realpath(table):
                raise ValueError(f"report must be another folder: its {name} would be written over {kind} {table}")


def corrections(clips: Sequence[ClipAnnotation], audit: AnnotationAudit, search: str) -> list[Correction]:
    """The new frame numbers of the clips that were searched, by row of the table."""
    return [
        Correction(clip.row, clip.expression, entry.found[search])
        for clip, entry in zip(clips, audit.clips, strict=True)
        if not entry.error
    ]
