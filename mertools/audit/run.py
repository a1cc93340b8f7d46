"""The whole job: read a table, search its clips near their annotation, write the report and the corrected table.

``search.py`` does the clips, ``journal.py`` remembers what is done, ``results.py`` puts it together, ``report.py`` and
``corrected_table.py`` write what comes out.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mertools._checks import as_integer, check_choice, check_count, check_number
from mertools._files import check_target
from mertools.annotations.annotation import ClipAnnotation, Repair
from mertools.annotations.folders import FrameFolders, Frames
from mertools.annotations.read import Annotations, read_annotations
from mertools.annotations.schemas import AnnotationSchema, dataset_schema
from mertools.audit.corrected_table import Correction, check_output, corrected_table, write_corrected
from mertools.audit.journal import Journal, fingerprint
from mertools.audit.report import REPORT_FILES
from mertools.audit.results import AnnotationAudit, Certainty, ClipAudit, Keys
from mertools.audit.search import SEARCHES, ClipTask, run_tasks, search_clip
from mertools.keyframes.selector import FrameSelector

__all__ = ["AuditedTable", "audit_annotations", "audit_table"]


def audit_annotations(
    table: Any,
    frames: Frames | FrameFolders,
    dataset: str | AnnotationSchema | None = None,
    *,
    searches: Sequence[str] = SEARCHES,
    selector: FrameSelector | None = None,
    margin: float = 0.5,
    longest: int | None = 256,
    threshold: float = 0.1,
    workers: int = 0,
    progress: bool = False,
    work: str | os.PathLike[str] | None = None,
    restart: bool = False,
) -> AnnotationAudit:
    """Search every clip of a table near its annotation, and compare.

    A clip that cannot be searched (frames missing, key frames out of order, an image that can't be decoded, a process
    that died of it) is skipped and listed in ``skipped``.

    Args:
        table: annotations, or a table that :func:`read_annotations` reads (then ``dataset`` says as what).
        frames: the folder with the frames of all clips, or a mapping from dataset to folder.
        dataset: name or schema of the dataset when ``table`` is not read yet.
        searches: ``"annotated"`` (GAMDSS's windowed search), ``"robust"`` (``refine=True``), or both. The annotated one
            alone reads the frames in its windows only.
        selector: the windows of the annotated search; default those of :class:`FrameSelector`.
        margin: how much of the clip's folder to read beyond onset and offset, in lengths of the expression (and at
            least 16 frames), where there is more.
        longest: reduce frames whose longer side has more pixels to this many; None takes them as they are.
        threshold: a shift of more than this share of its phase is uncertain.
        workers: processes to share the clips among; 0 works in this one. Scripts that use workers need
            ``if __name__ == "__main__":``.
        progress: show a progress bar on standard error (tqdm, extra ``data``).
        work: folder for a journal of finished clips. A run that was killed continues where it stopped when it is
            called again with the same table, frames and options; the folder is removed at the end of a full run.
        restart: forget an unfinished run in ``work`` instead of going on from it.

    Examples:
        >>> import tempfile
        >>> from mertools import synthetic_dataset
        >>> made = synthetic_dataset(tempfile.mkdtemp(), subjects=2, clips=1, size=32, num_frames=32)
        >>> audit_annotations(made.table, made.frames, made.dataset, searches=["annotated"])
        AnnotationAudit(6 clips, 0 skipped, searches=('annotated',))

    Source: GAMDSS (arXiv 2603.04766) for the question and the annotated search.
    """
    options = AuditOptions.checked(searches, selector, margin, longest, threshold, workers)
    clips = _annotations(table, dataset)
    folders = frames if isinstance(frames, FrameFolders) else FrameFolders(frames)
    if work is None:
        return audit_clips(clips, folders, options, progress=progress)
    with Journal(Path(work), fingerprint(clips, folders.name, repr(options), _version()), restart=restart) as journal:
        audit = audit_clips(clips, folders, options, progress=progress, journal=journal)
        journal.finish()
    return audit


class AuditedTable(NamedTuple):
    """What :func:`audit_table` did: shifts, repairs, and where things were written.

    ``audit``: shifts of every clip; ``repairs``: what was mended in the table's rows before; ``out``: the corrected
    table; ``report``: the report's folder.

    Examples:
        >>> AuditedTable._fields
        ('audit', 'repairs', 'out', 'report')
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
    """Audit a table and write it corrected: what ``mertools audit`` does.

    Progress is kept in a folder beside ``out`` until everything is written, so a run that was killed continues when it
    is started again, unless ``restart``. The ``table`` itself (xlsx, xls or csv, of ``dataset``) is never written to.

    The corrected table ``out`` (xlsx or csv) has the key frames of the search ``correct``, the annotated ones where
    they lie inside the search's interval or no movement was found; further columns keep the annotation, and what the
    search found itself with its interval and evidence. The report goes into the folder ``report``, default ``out``
    without its suffix, with ``-report``. ``repair`` mends rows before the audit, see :func:`read_annotations`; without
    it rows out of order are skipped.
    :func:`audit_annotations` documents the arguments ``frames`` and ``searches`` to ``progress``.

    Examples:
        >>> import pathlib, tempfile
        >>> from mertools import synthetic_dataset
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> made = synthetic_dataset(root / "made", subjects=2, clips=1, size=32, num_frames=32)
        >>> done = audit_table(made.table, made.dataset, made.frames, root / "corrected.csv", searches=["annotated"],
        ...                    correct="annotated")
        >>> print(*(root / "corrected.csv").read_text().split(",")[9:13], sep=", ")
        OffsetFrame (annotated), OnsetFrame (estimate), OnsetFrame (earliest), OnsetFrame (latest)
    """
    if importlib.util.find_spec("matplotlib") is None:  # before the work, not after it
        raise ImportError("the audit's report needs matplotlib: pip install 'mertools[plot]'")
    source, target = Path(table), Path(out)
    check_output(source, target)
    options = AuditOptions.checked(searches, selector, margin, longest, threshold, workers)
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
    identity = fingerprint(clips, folders.name, f"{options} {correct} {source.resolve()}", _version())
    with Journal(work, identity, restart=restart) as journal:
        audit = audit_clips(clips, folders, options, progress=progress, journal=journal)
        if not audit.searched:
            journal.finish()
            raise ValueError(f"no clip could be searched; the first, {clips[0].place}: {audit.skipped[0].error}")
        audit.write_report(pages, frames=folders, search=correct, title=f"Annotation audit of {source.name}")
        write_corrected(source, schema, [_correction(entry, correct) for entry in audit.searched], target)
        journal.finish()
    return AuditedTable(audit, clips.repairs, target, pages)


def _correction(entry: ClipAudit, search: str) -> Correction:
    """What the table says of a clip; where no movement was found its key frames stay as they are."""
    clip, sure = entry.clip, entry.certainty.get(search)
    if sure is None:
        return Correction(clip.row, clip.expression, entry.found[search])
    if entry.nothing_found(search):
        return Correction(clip.row, clip.expression, None, evidence=sure.evidence)
    return Correction(clip.row, clip.expression, entry.found[search], sure.estimate, sure.intervals, sure.evidence)


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


@dataclass(frozen=True)
class AuditOptions:
    """The options that change what an audit finds; two that print alike find the same."""

    searches: tuple[str, ...] = SEARCHES
    selector: FrameSelector = field(default_factory=FrameSelector)
    margin: float = 0.5
    longest: int | None = 256
    threshold: float = 0.1
    workers: int = field(default=0, repr=False)

    @classmethod
    def checked(
        cls,
        searches: Sequence[str],
        selector: FrameSelector | None,
        margin: float,
        longest: int | None,
        threshold: float,
        workers: int,
    ) -> AuditOptions:
        """Raises as :func:`audit_annotations` does."""
        names = (searches,) if isinstance(searches, str) else tuple(searches)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"searches must be some of {', '.join(SEARCHES)}, each once, got {names}")
        for name in names:
            check_choice("searches", name, SEARCHES)
        selector = FrameSelector() if selector is None else selector
        if not isinstance(selector, FrameSelector):
            raise TypeError(f"selector must be a FrameSelector, got {type(selector).__name__}")
        if not isinstance(selector.distance, str):
            raise ValueError("selector must use the l2 distance: clips are searched in other processes")
        if selector.refine:
            raise ValueError(
                "selector must have refine=False, it gives the windows of the annotated search: leave it out and pass "
                'searches=["robust"] for the robust search'
            )
        size = None if longest is None else as_integer(longest)
        if longest is not None and (size is None or size < 16):
            raise ValueError(f"longest must be at least 16 pixels, or None, got {longest!r}")
        return cls(
            names,
            selector,
            check_number("margin", margin, 0),
            size,
            check_number("threshold", threshold, 0),
            check_count("workers", workers, least=0),
        )


def _annotations(table: Any, dataset: str | AnnotationSchema | None) -> Sequence[ClipAnnotation]:
    """Annotations as they are, or read from a table."""
    if dataset is not None:
        clips: Sequence[ClipAnnotation] = read_annotations(table, dataset)
    elif isinstance(table, (str, os.PathLike)) or hasattr(table, "itertuples"):
        raise ValueError("dataset must be given with a table that is not read yet")
    else:
        clips = table if isinstance(table, Annotations) else list(table)
    if not clips:
        raise ValueError("table holds no annotations to audit")
    if all(clip.onset is None for clip in clips):
        raise ValueError(f"table holds no key frames to audit ({clips[0].dataset} has none)")
    return clips


def _version() -> str:
    """Of the installed package: another release may find other key frames."""
    try:
        return importlib.metadata.version("mertools")
    except importlib.metadata.PackageNotFoundError:  # run from its source
        return ""


def audit_clips(
    clips: Sequence[ClipAnnotation],
    folders: FrameFolders,
    options: AuditOptions,
    *,
    progress: bool = False,
    journal: Journal | None = None,
) -> AnnotationAudit:
    """Do the clips that the journal does not have yet, and put all of them together."""
    entries: dict[int, ClipAudit] = {}
    tasks: dict[int, ClipTask] = {}
    for i, clip in enumerate(clips):
        known = journal.done.get(i) if journal is not None else None
        prepared = prepare(i, clip, folders, options)
        if isinstance(prepared, str):
            entries[i] = ClipAudit(clip, error=prepared)
            continue
        task, keys = prepared
        if known is not None and _is_whole(known, options):  # what went wrong may have been mended since
            entries[i] = _entry(clip, keys, task, known)
        else:
            tasks[i], entries[i] = task, ClipAudit(clip, keys)
    results = run_tasks(search_clip, list(tasks.values()), options.workers)
    for i, found in _with_bar(results, len(clips), len(clips) - len(tasks), progress):
        if journal is not None:
            journal.add(i, found)
        entries[i] = _entry(clips[i], entries[i].keys, tasks[i], found)
    return AnnotationAudit([entries[i] for i in range(len(clips))], options.searches, threshold=options.threshold)


def prepare(
    index: int, clip: ClipAnnotation, folders: FrameFolders, options: AuditOptions
) -> tuple[ClipTask, Keys] | str:
    """What a worker needs to know of a clip, and the key frames as annotated; or why the clip can't be searched."""
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if onset is None or offset is None:
        return f"{'onset' if onset is None else 'offset'} is missing"
    apex = (onset + offset) // 2 if apex is None else apex
    if not onset <= apex <= offset or onset == offset:
        return f"onset {onset}, apex {apex}, offset {offset} are out of order"
    try:
        folder = folders.find(clip)
        first, last = folder.position(onset), folder.position(offset)
        if clip.apex is None:  # halfway between the frames that are there
            apex = folder.numbers[(first + last) // 2]
        peak = folder.position(apex)
    except (OSError, ValueError) as error:
        return str(error)
    more = max(16, round(options.margin * (last - first))) if options.margin else 0
    start, stop = max(first - more, 0), min(last + more + 1, len(folder.numbers))
    selector = options.selector
    task = ClipTask(
        which=index,
        folder=folder.path,
        names=folder.names[start:stop],
        numbers=folder.numbers[start:stop],
        keys=(first - start, peak - start, last - start),
        searches=options.searches,
        windows=(selector.onset_window, selector.apex_window, selector.offset_window),
        longest=options.longest,
        apex_known=clip.apex is not None,
    )
    return task, (onset, apex, offset)


def _is_whole(known: Mapping[str, Any], options: AuditOptions) -> bool:
    """Whether an entry of a journal has all that is asked for, and of the robust search how sure it is."""
    return known.keys() == set(options.searches) and isinstance(known.get("robust", {}), Mapping)


def _entry(clip: ClipAnnotation, keys: Keys | None, task: ClipTask, found: Mapping[str, Any]) -> ClipAudit:
    if "error" in found:
        return ClipAudit(clip, keys, {}, len(task.numbers), str(found["error"]))
    sure = {name: Certainty.of(result) for name, result in found.items() if isinstance(result, Mapping)}
    numbers = {name: _keys(result["keys"] if name in sure else result) for name, result in found.items()}
    return ClipAudit(clip, keys, numbers, len(task.numbers), certainty=sure)


def _keys(numbers: Sequence[int]) -> Keys:
    onset, apex, offset = map(int, numbers)
    return onset, apex, offset


def _with_bar(results: Iterable[Any], total: int, done: int, progress: bool) -> Iterable[Any]:
    if not progress:
        return results
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install 'mertools[data]', or go without") from error
    bar: Iterable[Any] = tqdm(results, total=total, initial=done, unit="clip", desc="audit")
    return bar
