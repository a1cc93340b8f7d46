"""Everything of the package that writes, and what is done to it: killed, interrupted, refused by the disk, at every step.

A step is a call that reaches the disk (``open``, ``write``, ``fsync``, ``rename``, ...), seen before and after it through
``sys.setprofile`` in the package's own frames and those of the standard library that it calls. Each trial forks, lets the
fault happen at the n-th step, and looks at what is left: every file must be as it was or as it was to become, what the
package reads there must be one of the two, and a second, undisturbed writing must end in the same files with nothing
left over. ``python -m reliability.faults`` tries every step of every writer; tests/test_faults.py tries some.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from mertools._locks import Lock

import mertools as mt
from mertools import cli
from mertools._files import append_line, atomic_folder, atomic_write
from mertools.annotations.schemas import dataset_schema
from mertools.audit.corrected_table import Correction, write_corrected
from mertools.audit.journal import Journal
from mertools.audit.run import AuditOptions, ClipAudit

ROOT = Path(__file__).parents[1]
UNFINISHED = re.compile(r"\..+-[0-9a-f]{16}\.part|\.config\.json\.next|\.?lock|\..+\.audit")
MEANT = ("lock", ".next", ".audit")  # after an error these may stay: what comes next goes on from them
NOBODY = 65534
TABLES = Path(tempfile.gettempdir()) / f"faults-tables-{os.getpid()}"  # what the audits read, the same for all trials


class Writer(NamedTuple):
    """One thing that is written: ``write(folder, version)`` writes version 0 or 1 of it, over whatever is there.

    ``functions``: those of the package (or of examples) with a call that writes which it goes through, as
    ``file.function``. ``read(folder)``: what the package makes of the folder, for writers of several files or of a file
    that grows. ``grows``: a kill may leave half a line at the end, which ``read`` must pass over. ``fresh``: there is no
    version 0, the target must not exist.
    """

    write: Callable[[Path, int], object]
    functions: tuple[str, ...]
    read: Callable[[Path], object] | None = None
    grows: bool = False
    fresh: bool = False


# --- the writers -----------------------------------------------------------------------------------------------------

HEADER = "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion"
CLIPS = [
    mt.ClipAnnotation("casme2", f"0{i}", f"EP0{i}", 110, 120, 136, "disgust", table="codes.csv", row=i + 1)
    for i in (1, 2, 3)
]


def table(suffix: str) -> Path:
    """An annotation table outside of the folder that is written to."""
    path = TABLES / f"codes.{suffix}"
    if not path.exists():
        TABLES.mkdir(exist_ok=True)
        atexit.register(shutil.rmtree, TABLES, ignore_errors=True)
        rows = [HEADER.split(","), *([i, f"EP0{i}", 110, 120, 136, "4", "disgust"] for i in (1, 2, 3))]
        if suffix == "csv":
            path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
        else:
            import openpyxl

            workbook = openpyxl.Workbook()
            for row in rows:
                workbook.active.append(row)
            workbook.save(path)
    return path


def corrected(source: str, out: str) -> Callable[[Path, int], None]:
    def write(folder: Path, version: int) -> None:
        new = [Correction(2, 1, (111 + version, 121, 130))]
        write_corrected(table(source), dataset_schema("casme2"), new, folder / f"out.{out}")

    return write


@functools.cache
def audit(version: int) -> mt.AnnotationAudit:
    found = [{"annotated": (111 + i, 121 - version, 130)} for i in range(3)]
    entries = [ClipAudit(clip, (110, 120, 136), keys, 40) for clip, keys in zip(CLIPS, found, strict=True)]
    return mt.AnnotationAudit(entries, ("annotated",))


def report(folder: Path, version: int) -> None:
    with drawn_before():
        audit(version).write_report(folder / "report", title=f"Version {version}")


def drawn_before() -> Any:
    """The report without its plots and resampling, which take seconds in which nothing is written."""
    numbers = {name: lambda audit: repr(audit.clips) for name in ("_groups_csv", "_tests_csv")}
    return mock.patch.multiple("mertools.audit.report", _page=page, **numbers)


def page(audit: mt.AnnotationAudit, search: str, frames: object, title: str, worst: int) -> str:
    return f"<h1>{title}</h1>" + audit.clips[0].clip.name * 999


def audited(folder: Path, version: int) -> None:
    """The whole job of ``mertools audit``, with the searches and plots done before."""
    job = sys.modules["mertools.audit.audit_table"]
    with (
        drawn_before(),
        mock.patch.object(job, "audit_clips", functools.partial(searched, version)),
    ):
        mt.audit_table(
            table("csv"), "casme2", folder, folder / "out.csv", searches=["annotated"], correct="annotated",
            margin=0.5 + version,
        )  # fmt: skip


def searched(
    version: int, clips: Any, folders: object, options: AuditOptions, *, journal: Journal, **_: object
) -> mt.AnnotationAudit:
    for i, entry in enumerate(audit(version).clips):
        if i not in journal.done:
            journal.add(i, {"annotated": list(entry.found["annotated"])})
    assert all(tuple(journal.done[i]["annotated"]) == audit(version).clips[i].found["annotated"] for i in range(3))
    return audit(version)


def journal(folder: Path, version: int) -> None:
    """Clips noted one by one; version 1 goes on from version 0 or from whatever a kill left of itself."""
    with Journal(folder / "work", "run") as held:
        for i in range(2 + 2 * version):
            if i not in held.done:
                held.add(i, {"robust": [i, i + 1, i + 2]})


def read_journal(folder: Path) -> object:
    with Journal(folder / "work", "run") as held:
        return held.done == {i: {"robust": [i, i + 1, i + 2]} for i in range(len(held.done))} and len(held.done) >= 2


def problems(folder: Path, version: int) -> None:
    found = [mt.Problem("codes.csv", None, 2 + i, "01/EP01", "ApexFrame", "x", f"kind {version}") for i in range(9)]
    mt.DatasetReport(tuple(found), 3, 3).write_csv(folder / "problems.csv")


@functools.cache
def book(version: int) -> mt.ScoreBook:
    found = mt.ScoreBook(("a", "b"), selection="last of 3 epochs")
    found.add([version, 1, 1], [0, 1, 0], clips=["x", "y", "z"], subjects=["s1", "s1", "s2"], fold="s1")
    return found


@functools.cache
def model(version: int) -> torch.nn.Module:
    torch.manual_seed(version)
    return mt.AUHead(8 + version, 5)


def saved_model(folder: Path, version: int) -> None:
    mt.save_model(model(version), folder / "model")


def same_size_model(folder: Path, version: int) -> None:
    """The two versions differ in a setting that the weights' shapes do not tell."""
    mt.save_model(scaled(version), folder / "model")


@functools.cache
def scaled(version: int) -> torch.nn.Module:
    torch.manual_seed(version)
    return mt.Retention(8, 2, rotary=not version)


def read_model(folder: Path) -> object:
    found = mt.load_model(folder / "model")
    first = [float(value.double().sum()) for value in found.state_dict().values() if value.is_floating_point()]
    return (repr(found), [round(x, 9) for x in first])


def onnx(folder: Path, version: int) -> None:
    made = {"_translate": graph, "_compare": mock.DEFAULT, "_check_installed": mock.DEFAULT}  # seconds without a write
    with mock.patch.multiple("mertools.models.onnx", **made):
        mt.export_onnx(model(version), folder / "head.onnx", torch.zeros(2, 8 + version))


def graph(net: torch.nn.Module, *_: object) -> bytes:
    return bytes(str(net.state_dict()), "utf-8") * 9


def checkpoint(folder: Path, version: int) -> None:
    weights = model(version).state_dict()
    seeded(version)
    mt.save_checkpoint(folder / "checkpoint.pt", {"epoch": version, "model": weights})


def seeded(version: int) -> None:
    torch.manual_seed(version)
    np.random.seed(version)  # noqa: NPY002
    import random

    random.seed(version)


@functools.cache
def figure(version: int) -> bytes:
    from matplotlib.figure import Figure

    drawn, data = Figure(figsize=(1, 1)), io.BytesIO()
    drawn.subplots().plot([0, version])
    drawn.savefig(data, format="png")
    return data.getvalue()


class Drawn:
    """A figure that was drawn before."""

    def __init__(self, version: int) -> None:
        self.data = figure(version)
        self.canvas = self

    def get_supported_filetypes(self) -> dict[str, str]:
        return {"png": "", "svg": ""}

    def savefig(self, file: io.BytesIO, **_: object) -> None:
        file.write(self.data)


def confusion(folder: Path, version: int) -> None:
    drawn = mock.MagicMock(savefig=Drawn(version).savefig)
    with mock.patch("matplotlib.figure.Figure", return_value=drawn), mock.patch("mertools.plots._draw_confusion"):
        mt.plot_confusion(book(version), path=folder / "confusion.png")


def people(folder: Path, version: int) -> None:
    drawn = mock.Mock(frames=still(), onset=3, apex=9, offset=20)
    module = sys.modules[
        "mertools.clips.synthetic_dataset"
    ]  # by its name it is the function of that name, before Python 3.11
    with mock.patch.multiple(module, _someone=mock.DEFAULT, _act=lambda *_: drawn):
        if not (folder / "people").exists():
            mt.synthetic_dataset(folder / "people", subjects=2, clips=1, size=16, num_frames=32)


@functools.cache
def still() -> torch.Tensor:
    return torch.zeros(3, 3, 16, 16, dtype=torch.uint8)


def begun(folder: Path, version: int) -> None:
    run = mt.RunFolder(folder / "run")
    run.begin({"lr": 0.1, "seed": 3}, resume=True)
    del run


def run_finished(folder: Path, version: int) -> None:
    drawing = mock.patch("mertools.plots.plot_confusion", lambda _, path: atomic_write(path, figure(version)))
    run = mt.RunFolder(folder / "run")
    run.begin({"lr": 0.1}, resume=True)
    with drawing:
        run.finish(book(version))


def fold_saved(folder: Path, version: int) -> None:
    seeded(version)
    mt.FoldFolder(folder / "fold").save({"epoch": version})


def read_fold(folder: Path) -> object:
    torch.manual_seed(7)
    return mt.FoldFolder(folder / "fold").load()


def logged(folder: Path, version: int) -> None:
    fold = mt.FoldFolder(folder / "fold")
    fold.rewind(1)
    for epoch in range(1, 2 + 2 * version):
        fold.log(epoch=epoch, loss=0.5 / epoch)


def read_log(folder: Path) -> object:
    """What resumption sees: whole epochs from the first on."""
    fold = mt.FoldFolder(folder / "fold")
    fold.rewind(99)
    log = folder / "fold" / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return lines == [f'{{"epoch": {e}, "loss": {0.5 / e}}}' for e in range(1, 1 + len(lines))]


def fold_finished(folder: Path, version: int) -> None:
    """A fold's predictions take the place of its checkpoint; version 1 is what a resumed run does."""
    run = mt.RunFolder(folder / "run")
    run.begin({"lr": 0.1}, resume=True)
    fold = run.fold("s1")
    seeded(0)
    if not version:
        fold.save({"epoch": 0})
    elif not fold.done:
        fold.finish(book(1))


def read_finished(folder: Path) -> object:
    fold = mt.RunFolder(folder / "run").fold("s1")
    return fold.book() == book(1) if fold.done else fold.load() == {"epoch": 0}


def rows(folder: Path, version: int) -> None:
    """The corpus example's rows of a shard, with the searches and Parquet's encoding done before."""
    from examples import corpus

    made = {
        "search": lambda root, clip, memory: {**dict.fromkeys(corpus.COLUMNS), "clip": clip, "seconds": 0.5},
        "write_rows": lambda path, rows: atomic_write(path, repr(rows).encode()),
    }
    clips = ["a", "b", "c"]
    out = folder / "rows"
    settings = {"root": "", "out": str(out), "memory": 1, "tries": 9}
    with mock.patch.multiple("examples.corpus", **made):
        corpus.claim(out, clips, shard=3)
        corpus.search_shard({"name": "00000000", "clips": clips}, settings)


def lines_added(folder: Path, version: int) -> None:
    with (folder / "log").open("ab", buffering=0) as file:
        file.truncate(5)
        append_line(file, "x" * (4 + 9 * version))


def whole_folder(folder: Path, version: int) -> None:
    if not (folder / "made").exists():
        with atomic_folder(folder / "made") as building:
            for i in range(3):
                (building / f"{i}.txt").write_text("x" * 99)


def locked(folder: Path, version: int) -> None:
    lock = Lock(folder / "work" / "lock")
    try:
        atomic_write(folder / "work" / "held.txt", b"x" * (9 + version))
    finally:
        lock.release()


WRITERS: dict[str, Writer] = {
    "atomic_write": Writer(
        lambda folder, version: atomic_write(folder / "a.txt", b"one two three " * (3 + version)),
        ("files._replace",),
    ),
    "append_line": Writer(lines_added, ("files.append_line",), read=lambda folder: True, grows=True),
    "atomic_folder": Writer(whole_folder, ("files.atomic_folder",), fresh=True),
    "Lock": Writer(locked, ("locks.Lock.__init__",)),
    "table csv to csv": Writer(corrected("csv", "csv"), ("corrected_table.write_corrected",)),
    "table csv to xlsx": Writer(corrected("csv", "xlsx"), ("corrected_table.write_corrected",)),
    "table xlsx to xlsx": Writer(corrected("xlsx", "xlsx"), ("corrected_table.write_corrected",)),
    "table xlsx to csv": Writer(corrected("xlsx", "csv"), ("corrected_table.write_corrected",)),
    "audit journal": Writer(
        journal, ("audit_journal.Journal.add", "audit_journal.Journal._open"), read=read_journal, grows=True
    ),
    "audit report": Writer(report, ("audit_report.write_report", "audit.AnnotationAudit.write_csv")),
    "audit csv": Writer(
        lambda folder, version: audit(version).write_csv(folder / "clips.csv"), ("audit.AnnotationAudit.write_csv",)
    ),
    "mertools audit": Writer(audited, ()),
    "check_dataset csv": Writer(problems, ("check_dataset.DatasetReport.write_csv",)),
    "ScoreBook json": Writer(
        lambda folder, version: book(version).write_json(folder / "book.json"), ("score_book.ScoreBook.write_json",),
        read=lambda folder: mt.ScoreBook.read_json(folder / "book.json").rows,
    ),
    "ScoreBook csv": Writer(
        lambda folder, version: book(version).write_csv(folder / "book.csv"), ("score_book.ScoreBook.write_csv",),
        read=lambda folder: mt.ScoreBook.read_csv(folder / "book.csv", classes=("a", "b")).rows,
    ),
    "save_checkpoint": Writer(
        checkpoint, ("checkpoints._write",),
        read=lambda folder: mt.load_checkpoint(folder / "checkpoint.pt", restore_random=False)["epoch"],
    ),
    "save_weights pt": Writer(
        lambda folder, version: mt.save_weights(folder / "weights.pt", model(version)), ("checkpoints._write",),
        read=lambda folder: [v.shape for v in mt.load_weights(folder / "weights.pt").values()],
    ),
    "save_weights safetensors": Writer(
        lambda folder, version: mt.save_weights(folder / "weights.safetensors", model(version)),
        ("checkpoints._write",),
        read=lambda folder: sorted(v.shape for v in mt.load_weights(folder / "weights.safetensors").values()),
    ),
    "save_model": Writer(saved_model, ("model_folder.save_model",), read=read_model),
    "save_model, same shapes": Writer(same_size_model, ("model_folder.save_model",), read=read_model),
    "export_onnx": Writer(onnx, ("onnx_export.export_onnx",)),
    "write_au_labels": Writer(
        lambda folder, version: mt.write_au_labels(folder / "AU.txt", {"1": torch.full((18,), version / 2)}),
        ("au_labels.write_au_labels",),
        read=lambda folder: mt.read_au_labels(folder / "AU.txt")["1"].sum().item(),
    ),
    "plot_confusion": Writer(confusion, ("plots.plot_confusion",)),
    "mertools select --plot": Writer(
        lambda folder, version: cli.save_figure(Drawn(version), folder / "keys.png"), ("cli.save_figure",)
    ),
    "synthetic_dataset": Writer(
        people, ("synthetic_dataset.synthetic_dataset", "synthetic_dataset._write_frames", "synthetic_dataset._write_csv"),
        fresh=True,
    ),
    "RunFolder.begin": Writer(begun, ("run_folder._write_json",), fresh=True),
    "RunFolder.finish": Writer(run_finished, ("run_folder._write_csv",)),
    "FoldFolder.save": Writer(fold_saved, ("run_folder.FoldFolder.save",), read=read_fold),
    "FoldFolder.log": Writer(
        logged, ("run_folder.FoldFolder.log", "run_folder.FoldFolder.rewind"), read=read_log, grows=True
    ),
    "FoldFolder.finish": Writer(fold_finished, ("run_folder.FoldFolder.finish",), read=read_finished),
    "examples/corpus.py": Writer(
        rows, ("examples/corpus.claim", "examples/corpus.search_shard", "examples/corpus.search_shard.note", "examples/corpus.write_rows"), grows=True,
        fresh=True, read=lambda folder: True,
    ),
}  # fmt: skip


# Not whole: what the harness must find out.
def naive(folder: Path, version: int) -> None:
    with (folder / "a.txt").open("wb") as file:
        file.write(b"x" * (9000 + 90000 * version))


NAIVE = Writer(naive, ())


# --- the faults ------------------------------------------------------------------------------------------------------

_STEPS = {
    "open", "write", "writelines", "flush", "close", "truncate", "ftruncate", "fsync", "fdatasync", "replace", "rename",
    "unlink", "remove", "mkdir", "rmdir", "chmod", "flock", "scandir", "__exit__", "write_bytes",
}  # fmt: skip
_ALSO_READING = ("open", "close", "__exit__", "flush")
_OURS = (f"{ROOT}/mertools/", f"{ROOT}/examples/", __file__)
_STDLIB = tuple(f"{Path(os.__file__).parent}/{name}" for name in ("pathlib.py", "shutil.py", "contextlib.py"))
_PLACES = (*_OURS, *_STDLIB)


def _is_step(function: Any) -> bool:
    if getattr(function, "__name__", "") not in _STEPS:
        return False
    owner = getattr(function, "__self__", None)
    if type(owner).__module__ == "_io":
        return not isinstance(owner, (io.BytesIO, io.StringIO))
    return getattr(function, "__module__", "") in ("posix", "fcntl", "_io", "io")


@contextlib.contextmanager
def at_step(which: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """``act`` before and after calls that reach the disk are counted: at the ``which``-th time."""
    count = [0]

    def see(frame: Any, event: str, arg: Any) -> None:
        if event in ("c_call", "c_return") and _is_step(arg) and frame.f_code.co_filename.startswith(_PLACES):
            count[0] += 1
            if count[0] == which:
                act()

    sys.setprofile(see)
    try:
        yield count
    finally:
        sys.setprofile(None)


@contextlib.contextmanager
def at_line(which: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """``act`` before the ``which``-th line of the package that is run from the first step that writes."""
    count = [0]
    begun = [False]

    def notice(frame: Any, event: str, arg: Any) -> None:
        if event == "c_call" and _is_step(arg) and arg.__name__ not in _ALSO_READING:
            begun[0] = True
            sys.setprofile(None)

    def line(frame: Any, event: str, arg: Any) -> Any:
        if event == "line" and begun[0]:
            count[0] += 1
            if count[0] == which:
                act()
        return line

    def call(frame: Any, event: str, arg: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_OURS[:2]) else None

    sys.setprofile(notice)
    sys.settrace(call)
    try:
        yield count
    finally:
        sys.settrace(None)
        sys.setprofile(None)


def kill(number: int = signal.SIGKILL) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def fail(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def interrupt() -> None:
    raise KeyboardInterrupt


class Ended(NamedTuple):
    """How a trial ended: ``"done"``, ``"killed"``, ``"OSError 28"``, ``"KeyboardInterrupt"`` or another error's text."""

    how: str
    steps: int
    text: str = ""  # of an error


def trial(work: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> Ended:
    """Do a piece of work in a forked process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        steps, text = [0], ""
        try:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 2)
            before()
            try:
                found = work()
                steps = found if isinstance(found, list) else steps
                how = "done"
            except OSError as error:
                how, text = f"OSError {error.errno}", f"{type(error).__name__}: {error}"
            except KeyboardInterrupt:
                how = "KeyboardInterrupt"
            except BaseException as error:
                how = f"{type(error).__name__}: {error}"
            os.write(writer, f"{steps[0]} {how}\0{text}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Ended(f"killed {os.WTERMSIG(status)}", 0)
    how, _, text = said.partition("\0")
    steps_text, _, how = how.partition(" ")
    return Ended(how, int(steps_text or 0), text)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files with their content, but what is not finished."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(UNFINISHED.fullmatch(part) for part in path.relative_to(folder).parts)
    }


def leftovers(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if UNFINISHED.fullmatch(p.name)]


def _size(path: Path) -> int:
    return path.lstat().st_size if path.is_file() else sum(1 for _ in path.rglob("*"))


class Bench:
    """One writer, with the folder before (version 0) and after (version 1) at hand."""

    def __init__(self, name: str, writer: Writer, root: Path) -> None:
        self.name, self.writer, self.root = name, writer, root
        self.counted: dict[Any, int] = {}
        self.continued: dict[int, str] = {}
        self.before, self.after, self.folder = root / "before", root / "after", root / "folder"
        for folder in (self.before, self.after):
            folder.mkdir(parents=True)
            if not writer.fresh:
                writer.write(folder, 0)
        writer.write(self.after, 1)
        self.old, self.new = files_of(self.before), files_of(self.after)
        assert self.old != self.new, name
        assert not [x for x in leftovers(self.after) if not x.endswith("lock")], leftovers(self.after)
        self.readings = [] if writer.read is None else [self._read(self.before), self._read(self.after)]

    def _read(self, folder: Path) -> object:
        assert self.writer.read is not None
        copy = self.root / "reading"
        shutil.copytree(folder, copy)
        try:
            return self.writer.read(copy)
        except FileNotFoundError:
            return "nothing there"
        finally:
            shutil.rmtree(copy)

    def begin(self) -> Path:
        """The folder as it was before, once more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.before, self.folder)
        return self.folder

    def look(self, *, finished: bool = False, tidy: bool = False) -> str:
        """What is wrong with the folder now; empty when nothing is."""
        found = files_of(self.folder)
        for name, data in found.items():
            if data not in (self.old.get(name), self.new.get(name)) and not self.writer.grows:
                return f"{name} is neither the old nor the new one ({len(data)} bytes)"
        for name in self.old.keys() & self.new.keys() - found.keys():
            return f"{name} is gone"
        if finished and found != self.new:
            return f"the new files are not there although the writer said so: {sorted(found)}"
        if tidy and (left := [name for name in leftovers(self.folder) if not name.endswith(MEANT)]):
            return f"left over: {left}"
        if self.writer.read is not None:
            try:
                if (reading := self._read(self.folder)) not in self.readings:
                    return f"read as {str(reading)[:80]}, which is neither the old nor the new"
            except Exception as error:
                return f"can't be read: {type(error).__name__}: {error}"
        return ""

    def again(self) -> str:
        """The next, undisturbed writing must end as if nothing had been; tried once from each state that is left."""
        left = [(re.sub("[0-9a-f]{16}", "", name), _size(self.folder / name)) for name in leftovers(self.folder)]
        state = hash((tuple(files_of(self.folder).items()), tuple(left)))
        if state not in self.continued:
            self.continued[state] = self._again()
        return self.continued[state]

    def _again(self) -> str:
        ended = trial(lambda: self.writer.write(self.folder, 1))
        if ended.how != "done":
            return f"the next run ends with {ended.how}"
        found = files_of(self.folder)
        if found != self.new:
            return f"the next run ends in other files: {sorted(found)}"
        if left := sorted(set(leftovers(self.folder)) - set(leftovers(self.after))):
            return f"left over after the next run: {left}"
        return ""

    def steps(self, where: Any = at_step) -> int:
        """How many places there are for a fault."""
        if where in self.counted:
            return self.counted[where]
        self.begin()

        def count() -> list[int]:
            with where(0, lambda: None) as steps:
                self.writer.write(self.folder, 1)
            return steps

        ended = trial(count)
        assert ended.how == "done", (self.name, ended.how)
        self.counted[where] = ended.steps
        return ended.steps

    def at(self, which: int, act: Callable[[], None], where: Any = at_step) -> str:
        """One trial with a fault at a step; what is wrong afterwards, or nothing."""
        folder = self.begin()

        def work() -> None:
            with where(which, act):
                self.writer.write(folder, 1)

        ended = trial(work)
        expected = ended.how == "done" or ended.how.startswith(("killed", "OSError", "KeyboardInterrupt"))
        wrong = "" if expected else f"ends with {ended.how}"
        wrong = wrong or self.look(finished=ended.how == "done") or self.again()
        return wrong and f"step {which}, {ended.how}: {wrong}"


def exhaust(bench: Bench, kind: str, most: int | None = None) -> tuple[int, list[str]]:
    """A kind of fault at every step, or at some spread over all; how many were tried and what went wrong."""
    act, where = STEPWISE[kind]
    steps = bench.steps(where)
    places = range(1, steps + 1) if most is None else sorted({1 + i * (steps - 1) // most for i in range(most)})
    return len(places), [wrong for n in places if (wrong := bench.at(n, act, where))]


STEPWISE: dict[str, tuple[Callable[[], None], Any]] = {
    "SIGKILL": (kill(), at_step),
    "SIGTERM": (kill(signal.SIGTERM), at_step),
    "disk full (ENOSPC)": (fail(errno.ENOSPC), at_step),
    "quota (EDQUOT)": (fail(errno.EDQUOT), at_step),
    "disk error (EIO)": (fail(errno.EIO), at_step),
    "stale NFS handle (ESTALE)": (fail(errno.ESTALE), at_step),
    "KeyboardInterrupt": (interrupt, at_line),
}


# To the package the same as SIGKILL and ENOSPC.
ALIKE = ("SIGTERM", "quota (EDQUOT)", "disk error (EIO)", "stale NFS handle (ESTALE)")


def limited(bench: Bench, *, killed: bool, most: int | None = None) -> tuple[int, list[str]]:
    """Files may not grow beyond some size: the write itself stops half way, with an error or with the process's end."""
    largest = max(map(len, bench.new.values()))
    sizes = [0, 1, *(largest * i // 8 for i in range(1, 8)), largest - 1] if most is None else [largest // 2, 0][:most]
    wrong = []
    for size in sizes:
        folder = bench.begin()

        def before(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if killed else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        ended = trial(lambda folder=folder: bench.writer.write(folder, 1), before=before)
        said = ended.how in ("done", f"OSError {errno.EFBIG}", f"killed {signal.SIGXFSZ}")
        bad = "" if said else f"ends with {ended.how}"
        bad = bad or bench.look(finished=ended.how == "done", tidy=not killed) or bench.again()
        if bad:
            wrong.append(f"limit {size}, {ended.how}: {bad}")
    return len(sizes), wrong


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own on ``folder``; raises PermissionError for those who may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(bench: Bench, kind: str, rooms: int = 3) -> tuple[int, list[str]]:
    """A real full disk: no room, no room for another file, or only room for a part; or one that can't be written."""
    tried, wrong = 0, []
    for room in {"pages": (0, 1, 2), "inodes": (0, 1), "read-only": (0,)}[kind][:rooms]:
        shutil.rmtree(bench.folder, ignore_errors=True)
        with small_disk(bench.folder, "size=4m,nr_inodes=400"):
            shutil.copytree(bench.before, bench.folder, dirs_exist_ok=True)
            fill = bench.folder / ".fill"
            if kind == "pages":
                _fill(fill)
                os.truncate(fill, max(fill.stat().st_size - room * os.sysconf("SC_PAGE_SIZE"), 0))
            elif kind == "inodes":
                _fill_inodes(fill, room)
            else:
                subprocess.run(["mount", "-o", "remount,ro", str(bench.folder)], check=True)
            ended = trial(lambda: bench.writer.write(bench.folder, 1))
            if kind == "read-only":
                subprocess.run(["mount", "-o", "remount,rw", str(bench.folder)], check=True)
            shutil.rmtree(fill) if fill.is_dir() else fill.unlink(missing_ok=True)
            numbers = (errno.EROFS,) if kind == "read-only" else (errno.ENOSPC,)
            said = ended.how == "done" or ended.how in [f"OSError {number}" for number in (*numbers, None)]
            bad = "" if said else f"ends with {ended.how}"
            bad = bad or bench.look(finished=ended.how == "done", tidy=True) or bench.again()
            tried += 1
            if bad:
                wrong.append(f"{kind}, room for {room}, {ended.how}: {bad}")
    return tried, wrong


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _fill_inodes(folder: Path, room: int) -> None:
    folder.mkdir()
    count = 0
    with contextlib.suppress(OSError):
        while True:
            (folder / str(count)).touch()
            count += 1
    for i in range(count - room, count):
        (folder / str(i)).unlink()


def denied(bench: Bench) -> tuple[int, list[str]]:
    """Somebody else, who may look but not write."""
    folder = bench.begin()
    ended = trial(lambda: bench.writer.write(folder, 1), before=as_nobody)
    bad = "" if ended.how in (f"OSError {errno.EACCES}", "OSError None") else f"ends with {ended.how}"
    return 1, [bad] if (bad := bad or bench.look(tidy=True) or bench.again()) else []


def as_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def whole(
    bench: Bench, kinds: Iterable[str], *, mounts: bool, most: int | None = None
) -> dict[str, tuple[int, list[str]]]:
    """The faults for one writer; each of ``kinds`` at every step (of ``ALIKE`` every third), or at ``most`` of them."""
    thirds = {kind: max(bench.steps() // 3, 1) for kind in ALIKE}
    found = {kind: exhaust(bench, kind, thirds.get(kind) if most is None else most) for kind in kinds}
    found["file size limit"] = limited(bench, killed=False, most=most and 1)
    found["killed in a write (SIGXFSZ)"] = limited(bench, killed=True, most=most and 1)
    if mounts:
        for kind, words in (("pages", "disk full"), ("inodes", "inodes used up"), ("read-only", "read-only disk")):
            found[words] = full_disk(bench, kind)
    if os.getuid() == 0:
        found["permission denied"] = denied(bench)
    return found


def can_mount() -> bool:
    if os.getuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), "size=64k"):
                return True
        except (PermissionError, FileNotFoundError):
            return False


@contextlib.contextmanager
def benches(names: list[str] | None = None) -> Iterator[Iterator[Bench]]:
    """The writers, each in a folder that others may enter."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="faults-") as root:
        Path(root).chmod(0o755)
        writers = WRITERS | {"naive": NAIVE}
        yield (
            Bench(name, writers[name], Path(root) / str(i))
            for i, name in enumerate(writers if names is None else names)
        )
        shutil.rmtree(TABLES, ignore_errors=True)
