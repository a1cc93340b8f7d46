"""Everything of the package that writes, and what is done to it: killed, interrupted, refused by the disk, step by step.

A step is a call that reaches the disk (``open``, ``write``, ``fsync``, ``replace``, ...), seen before and after it through
``sys.setprofile``. Each trial forks, lets the fault happen at the n-th step, and looks at what is left: every file must be
as it was or as it was to become, what the package reads there must be one of the two, and a second, undisturbed writing
must end in the same files. tests/test_faults.py tries some steps of every writer, with ``LONG_RUN=1`` all.
"""

import atexit
import contextlib
import errno
import functools
import io
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch

import mertools as mt
from mertools import cli, plots
from mertools._files import append_line, atomic_folder, atomic_write, read_record, write_record
from mertools.annotations.schemas import dataset_schema
from mertools.audit.corrected_table import Correction, write_corrected
from mertools.audit.journal import Journal
from mertools.audit.results import ClipAudit

ROOT = Path(__file__).parents[1]
UNFINISHED = re.compile(r"\..+-[0-9a-f]{16}\.part|\.config\.json\.next|\.?lock|\..+\.audit")
TABLES = Path(tempfile.gettempdir()) / f"faults-tables-{os.getpid()}"  # what the audits read, the same for all trials


class Writer(NamedTuple):
    """One thing that is written: ``write(folder, version)`` writes version 0 or 1 of it, over whatever is there.

    ``functions``: those of the package (or of examples) with a call that writes which it goes through, as
    ``room/file.function``. ``read(folder)``: what the package makes of the folder, for writers of several files or of a
    file that grows. ``grows``: a kill may leave half a line at the end, which ``read`` must pass over. ``steps``: how many
    steps are tried with each fault.
    """

    write: Callable[[Path, int], object]
    functions: tuple[str, ...]
    read: Callable[[Path], object] | None = None
    grows: bool = False
    steps: int = 1


# --- the writers -----------------------------------------------------------------------------------------------------

HEADER = "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion"
CLIPS = [
    mt.ClipAnnotation("casme2", f"0{i}", f"EP0{i}", 110, 120, 136, "disgust", table="codes.csv", row=i + 1)
    for i in (1, 2, 3)
]


def table(suffix):
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


def corrected(source, out):
    def write(folder, version):
        new = [Correction(2, 1, (111 + version, 121, 130))]
        write_corrected(table(source), dataset_schema("casme2"), new, folder / f"out.{out}")

    return write


@functools.cache
def audit(version):
    found = [{"annotated": (111 + i, 121 - version, 130)} for i in range(3)]
    entries = [ClipAudit(clip, (110, 120, 136), keys, 40) for clip, keys in zip(CLIPS, found, strict=True)]
    return mt.AnnotationAudit(entries, ("annotated",))


def report(folder, version):
    """Without its plots and resampling, which take seconds in which nothing is written."""
    numbers = {name: lambda audit: repr(audit.clips) for name in ("_groups_csv", "_tests_csv", "_components_csv")}
    with mock.patch.multiple("mertools.audit.report", _page=lambda *given: f"<h1>{given[3]}</h1>" * 999, **numbers):
        audit(version).write_report(folder / "report", title=f"Version {version}")


def audited(folder, version):
    """The whole job of ``mertools audit``, with the searches and the report made before."""

    def searched(clips, folders, options, *, journal, **_):
        for i, entry in enumerate(audit(version).clips):
            if i not in journal.done:
                journal.add(i, {"annotated": list(entry.found["annotated"])})
        assert all(tuple(journal.done[i]["annotated"]) == audit(version).clips[i].found["annotated"] for i in range(3))
        return audit(version)

    def written(self, out, **_):
        out.mkdir(exist_ok=True)
        self.write_csv(out / "clips.csv")

    with (
        mock.patch.object(sys.modules["mertools.audit.run"], "audit_clips", searched),
        mock.patch.object(mt.AnnotationAudit, "write_report", written),
    ):
        mt.audit_table(
            table("csv"), "casme2", folder, folder / "out.csv", searches=["annotated"], correct="annotated",
            margin=0.5 + version,
        )  # fmt: skip


def journal(folder, version):
    """Clips noted one by one; version 1 goes on from version 0 or from whatever a kill left of itself."""
    with Journal(folder / "work", "run") as held:
        for i in range(2 + 2 * version):
            if i not in held.done:
                held.add(i, {"robust": [i, i + 1, i + 2]})


def read_journal(folder):
    with Journal(folder / "work", "run") as held:
        return held.done == {i: {"robust": [i, i + 1, i + 2]} for i in range(len(held.done))} and len(held.done) >= 2


def problems(folder, version):
    found = [mt.Problem("codes.csv", None, 2 + i, "01/EP01", "ApexFrame", "x", f"kind {version}") for i in range(9)]
    mt.DatasetReport(tuple(found), 3, 3).write_csv(folder / "problems.csv")


@functools.cache
def book(version):
    found = mt.ScoreBook(("a", "b"), selection="last of 3 epochs")
    found.add([version, 1, 1], [0, 1, 0], clips=["x", "y", "z"], subjects=["s1", "s1", "s2"], fold="s1")
    return found


@functools.cache
def model(version):
    torch.manual_seed(version)
    return mt.AUHead(8 + version, 5)


@functools.cache
def rotated(version):
    """The two versions differ in a setting that the weights' shapes do not tell."""
    torch.manual_seed(version)
    return mt.Retention(8, 2, rotary=not version)


def saved_model(folder, version):
    mt.save_model(rotated(version), folder / "model")


def read_model(folder):
    found = mt.load_model(folder / "model")
    sums = [round(float(value.double().sum()), 9) for value in found.state_dict().values() if value.is_floating_point()]
    return repr(found), sums


def onnx(folder, version):
    graph = {
        "_translate": lambda net, *_: bytes(str(net.state_dict()), "utf-8") * 9, "_compare": mock.DEFAULT,
        "_check_installed": mock.DEFAULT,
    }  # fmt: skip
    with mock.patch.multiple("mertools.models.onnx", **graph):  # seconds without a write
        mt.export_onnx(model(version), folder / "head.onnx", torch.zeros(2, 8 + version))


def seeded(version):
    torch.manual_seed(version)
    np.random.seed(version)  # noqa: NPY002
    random.seed(version)


def checkpoint(folder, version):
    weights = model(version).state_dict()
    seeded(version)
    mt.save_checkpoint(folder / "checkpoint.pt", {"epoch": version, "model": weights})


class Drawn:
    """A figure that was drawn before."""

    def __init__(self, version):
        self.version = version
        self.canvas = self

    def get_supported_filetypes(self):
        return {"png": "", "svg": ""}

    def savefig(self, file, **_):
        file.write(bytes([self.version]) * 9000)


def confusion(folder, version):
    drawn = {"_draw_confusion": mock.DEFAULT, "write_figure": lambda _, file, **__: file.write(bytes([version]) * 9000)}
    with mock.patch.multiple("mertools.plots", **drawn):
        mt.plot_confusion(book(version), path=folder / "confusion.png")


def synthetic(folder, version):
    still = mock.Mock(frames=torch.zeros(3, 3, 16, 16, dtype=torch.uint8), onset=3, apex=9, offset=20)
    module = sys.modules["mertools.clips.synthetic_dataset"]  # drawing takes seconds without a write
    with mock.patch.multiple(module, _someone=mock.DEFAULT, _act=lambda *_: still):
        if version and not (folder / "faces").exists():
            mt.synthetic_dataset(folder / "faces", subjects=2, clips=1, size=16, num_frames=32)


def run_begun(folder, version):
    if version:
        mt.RunFolder(folder / "run").begin({"lr": 0.1, "seed": 3}, resume=True)


def run_finished(folder, version):
    run = mt.RunFolder(folder / "run")
    run.begin({"lr": 0.1}, resume=True)
    run.finish(book(version))


def fold_saved(folder, version):
    seeded(version)
    mt.FoldFolder(folder / "fold").save({"epoch": version})


def logged(folder, version):
    fold = mt.FoldFolder(folder / "fold")
    fold.rewind(1)
    for epoch in range(1, 2 + 2 * version):
        fold.log(epoch=epoch, loss=0.5 / epoch)


def read_log(folder):
    """What resumption sees: whole epochs from the first on."""
    mt.FoldFolder(folder / "fold").rewind(99)
    log = folder / "fold" / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return lines == [f'{{"epoch": {e}, "loss": {0.5 / e}}}' for e in range(1, 1 + len(lines))]


def cut_out(folder, version):
    if not (folder / f"clip{version}").exists():
        cli.cut_out(folder / f"clip{version}", {"img1.png": b"x" * (50 + version)})


def fold_finished(folder, version):
    """A fold's predictions take the place of its checkpoint; version 1 is what a resumed run does."""
    run = mt.RunFolder(folder / "run")
    run.begin({"lr": 0.1}, resume=True)
    fold = run.fold("s1")
    seeded(0)
    if not version:
        fold.save({"epoch": 0})
    elif not fold.done:
        fold.finish(book(1))


def read_finished(folder):
    fold = mt.RunFolder(folder / "run").fold("s1")
    return fold.book() == book(1) if fold.done else fold.load() == {"epoch": 0}


def rows(folder, version):
    """The corpus example's rows of a shard, with the searches and Parquet's encoding done before."""
    from examples import corpus

    made = {
        "search": lambda root, clip, memory: {**dict.fromkeys(corpus.COLUMNS), "clip": clip, "seconds": 0.5},
        "write_rows": lambda path, rows: atomic_write(path, repr(rows).encode()),
    }
    if version:
        settings = {"root": "", "out": str(folder / "rows"), "memory": 1, "tries": 9}
        with mock.patch.multiple("examples.corpus", **made):
            corpus.claim(folder / "rows", ["a", "b", "c"], shard=3)
            corpus.search_shard({"name": "00000000", "clips": ["a", "b", "c"]}, settings)


def lines_added(folder, version):
    with (folder / "log").open("ab", buffering=0) as file:
        file.truncate(5)
        append_line(file, "x" * (4 + 9 * version))


def whole_folder(folder, version):
    if version and not (folder / "made").exists():
        with atomic_folder(folder / "made") as building:
            for i in range(3):
                (building / f"{i}.txt").write_text("x" * 99)


WRITERS = {
    "atomic_write": Writer(
        lambda folder, version: atomic_write(folder / "a.txt", b"one two three " * (3 + version)),
        ("_files.atomic_write",), steps=8,
    ),
    "append_line": Writer(lines_added, ("_files.append_line",), read=lambda folder: True, grows=True),
    "atomic_folder": Writer(whole_folder, ("_files.atomic_folder",), steps=3),
    "table csv to csv": Writer(corrected("csv", "csv"), ("audit/corrected_table.write_corrected",)),
    "table csv to xlsx": Writer(corrected("csv", "xlsx"), ("audit/corrected_table.write_corrected",)),
    "table xlsx to xlsx": Writer(corrected("xlsx", "xlsx"), ("audit/corrected_table.write_corrected",)),
    "audit journal": Writer(
        journal, ("audit/journal.Journal.add", "audit/journal.Journal.__enter__"), read=read_journal, grows=True, steps=5
    ),
    "audit report": Writer(report, ("audit/report.write_report", "audit/results.AnnotationAudit.write_csv"), steps=2),
    "mertools audit": Writer(audited, ("audit/results.AnnotationAudit.write_csv",), steps=3),
    "check_dataset csv": Writer(problems, ("annotations/folders.DatasetReport.write_csv",)),
    "schema and protocol": Writer(
        lambda folder, version: write_record(folder / "ours.toml", mt.AnnotationSchema(name=f"ours{version}", columns={"clip": "c"}, labels=["a"])),
        ("_files.write_record",), read=lambda folder: read_record(folder / "ours.toml", mt.AnnotationSchema).name,
    ),
    "ScoreBook json": Writer(
        lambda folder, version: book(version).write_json(folder / "book.json"),
        ("evaluation/score_book.ScoreBook.write_json",), read=lambda folder: mt.ScoreBook.read_json(folder / "book.json").rows,
    ),
    "ScoreBook csv": Writer(
        lambda folder, version: book(version).write_csv(folder / "book.csv"),
        ("evaluation/score_book.ScoreBook.write_csv",),
        read=lambda folder: mt.ScoreBook.read_csv(folder / "book.csv", classes=("a", "b")).rows,
    ),
    "save_checkpoint": Writer(
        checkpoint, ("training/checkpoints.save_checkpoint",),
        read=lambda folder: mt.load_checkpoint(folder / "checkpoint.pt", restore_random=False)["epoch"],
    ),
    "save_weights pt": Writer(
        lambda folder, version: mt.save_weights(folder / "weights.pt", model(version)), ("training/checkpoints.save_weights",),
        read=lambda folder: [v.shape for v in mt.load_weights(folder / "weights.pt").values()],
    ),
    "save_weights safetensors": Writer(
        lambda folder, version: mt.save_weights(folder / "weights.safetensors", model(version)),
        ("training/checkpoints.save_weights",),
        read=lambda folder: sorted(v.shape for v in mt.load_weights(folder / "weights.safetensors").values()),
    ),
    "save_model": Writer(saved_model, ("models/hub.save_model",), read=read_model, steps=5),
    "export_onnx": Writer(onnx, ("models/onnx.export_onnx",)),
    "write_au_labels": Writer(
        lambda folder, version: mt.write_au_labels(folder / "AU.txt", {"1": torch.full((18,), version / 2)}),
        ("action_units/labels.write_au_labels",),
        read=lambda folder: mt.read_au_labels(folder / "AU.txt")["1"].sum().item(),
    ),
    "plot_confusion": Writer(confusion, ("plots._written",)),
    "mertools select --plot": Writer(
        lambda folder, version: plots.save_figure(Drawn(version), folder / "keys.png"), ("plots.save_figure",)
    ),
    "mertools spot --clips": Writer(
        cut_out,
        ("cli.cut_out",),
    ),
    "mertools spot --csv": Writer(
        lambda folder, version: cli.write_intervals(folder / "found.csv", [["a", str(version)]]), ("cli.write_intervals",)
    ),
    "synthetic_dataset": Writer(
        synthetic,
        tuple(f"clips/synthetic_dataset.{name}" for name in ("synthetic_dataset", "_write_frames", "_casme2_table")),
    ),
    "RunFolder.begin": Writer(run_begun, ("training/run_folder.RunFolder.begin",)),
    "RunFolder.finish": Writer(run_finished, ("training/run_folder.RunFolder.finish",), steps=2),
    "FoldFolder.save": Writer(
        fold_saved, ("training/run_folder.FoldFolder.save",), read=lambda folder: mt.FoldFolder(folder / "fold").load()
    ),
    "FoldFolder.log": Writer(
        logged, ("training/run_folder.FoldFolder.log", "training/run_folder.FoldFolder.rewind"), read=read_log,
        grows=True, steps=3,
    ),
    "FoldFolder.finish": Writer(
        fold_finished, ("training/run_folder.FoldFolder.finish",), read=read_finished, steps=3
    ),
    "examples/corpus.py": Writer(
        rows, tuple(f"examples/corpus.{name}" for name in ("claim", "search_shard", "search_shard.note", "write_rows")),
        grows=True, read=lambda folder: True, steps=2,
    ),
}  # fmt: skip


def naive(folder, version):
    """Not whole: what the harness must find out."""
    with (folder / "a.txt").open("wb") as file:
        file.write(b"x" * (9000 + 90000 * version))


# --- the faults ------------------------------------------------------------------------------------------------------

_STEPS = {
    "open", "write", "writelines", "flush", "close", "truncate", "ftruncate", "fsync", "replace", "rename", "unlink", "remove",
    "mkdir", "rmdir", "chmod", "scandir", "__exit__", "write_bytes",
}  # fmt: skip
_STDLIB = tuple(f"{Path(os.__file__).parent}/{name}" for name in ("pathlib.py", "shutil.py", "contextlib.py"))
_PLACES = (f"{ROOT}/mertools/", f"{ROOT}/examples/", __file__, *_STDLIB)


def is_step(function):
    if getattr(function, "__name__", "") not in _STEPS:
        return False
    owner = getattr(function, "__self__", None)
    if type(owner).__module__ == "_io":
        return not isinstance(owner, (io.BytesIO, io.StringIO))
    return getattr(function, "__module__", "") in ("posix", "_io", "io")


@contextlib.contextmanager
def at_step(which, act):
    """``act`` before and after calls that reach the disk are counted: at the ``which``-th time. Gives their names."""
    seen = []

    def see(frame, event, called):
        if event in ("c_call", "c_return") and is_step(called) and frame.f_code.co_filename.startswith(_PLACES):
            seen.append(called.__name__)
            if len(seen) == which:
                act()

    sys.setprofile(see)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number=errno.ENOSPC):
    raise OSError(number, os.strerror(number))


def interrupt():
    raise KeyboardInterrupt


FAULTS = {"killed": kill, "disk full": fail, "Ctrl-C": interrupt}


class Ended(NamedTuple):
    """How a trial ended: ``"done"``, ``"killed 9"``, ``"OSError 28"``, ``"KeyboardInterrupt"`` or another error's text."""

    how: str
    text: str = ""  # of an error


def trial(work, *, before=lambda: None):
    """Do a piece of work in a forked process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        text = ""
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            before()
            try:
                work()
                how = "done"
            except OSError as error:
                how, text = f"OSError {error.errno}", f"{type(error).__name__}: {error}"
            except KeyboardInterrupt:
                how = "KeyboardInterrupt"
            except BaseException as error:
                how = f"{type(error).__name__}: {error}"
            os.write(writer, f"{how}\0{text}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        how, _, text = file.read().decode().partition("\0")
    _, status = os.waitpid(pid, 0)
    return Ended(f"killed {os.WTERMSIG(status)}") if os.WIFSIGNALED(status) else Ended(how, text)


def no_larger_than(size):
    """The system's own write stops half way: files of this process may not grow beyond ``size`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def as_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def files_of(folder):
    """All files with their content, but what is not finished."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(UNFINISHED.fullmatch(part) for part in path.relative_to(folder).parts)
    }


class Bench:
    """One writer, with the folder before (version 0) and after (version 1) at hand."""

    def __init__(self, writer: Writer, root: Path) -> None:
        self.writer, self.root = writer, root
        self.before, self.after, self.folder = root / "before", root / "after", root / "folder"
        for folder in (self.before, self.after):
            folder.mkdir(parents=True)
            writer.write(folder, 0)
        with at_step(0, fail) as seen:
            writer.write(self.after, 1)
        self.steps = list(seen)
        self.old, self.new = files_of(self.before), files_of(self.after)
        assert self.old != self.new
        self.readings = [self._read(self.before), self._read(self.after)]
        self.continued: set[Any] = set()

    def _read(self, folder):
        """What the package makes of a copy of a folder."""
        copy = self.root / "reading"
        shutil.copytree(folder, copy)
        try:
            return self.writer.read and self.writer.read(copy)
        except FileNotFoundError:
            return "nothing there"
        finally:
            shutil.rmtree(copy)

    def attempt(self, what, work, before=lambda: None):
        """One trial over the folder as it was before; what is left must be old or new, and a basis to go on from."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.before, self.folder)
        ended = trial(work, before=before)
        what = f"{what}, {ended}"
        assert ended.how == "done" or ended.how.startswith(("killed", "OSError", "KeyboardInterrupt")), what
        found = files_of(self.folder)
        for name, data in found.items():
            assert self.writer.grows or data in (self.old.get(name), self.new.get(name)), f"{what}: {name} is neither"
        assert not self.old.keys() & self.new.keys() - found.keys(), f"{what}: something is gone"
        if ended.how == "done":
            assert found == self.new, f"{what}: the new files are not there although the writer said so"
        assert self._read(self.folder) in self.readings, f"{what}: is read as neither the old nor the new"
        if (state := tuple(found.items())) not in self.continued:
            self.continued.add(state)
            assert trial(lambda: self.writer.write(self.folder, 1)).how == "done", f"{what}: the next run fails"
            assert files_of(self.folder) == self.new, f"{what}: the next run ends in other files"
        return ended

    def at(self, fault, step):
        def work():
            with at_step(step, FAULTS[fault]):
                self.writer.write(self.folder, 1)

        return self.attempt(f"{fault} at step {step} ({self.steps[step - 1]})", work)

    def cut_off(self):
        """A write that stops half way must be an error, and leave nothing behind."""
        size = max(map(len, self.new.values())) // 2
        write = functools.partial(self.writer.write, self.folder, 1)
        ended = self.attempt(f"at most {size} bytes", write, before=functools.partial(no_larger_than, size))
        assert ended.how in ("done", f"OSError {errno.EFBIG}"), ended
        assert not list(self.folder.rglob(".*.part")), "left over after an error"


def spread(count, most, which):
    """``most`` of the steps 1 to ``count`` for one of three faults, each at other places than the two others."""
    return sorted({1 + (3 * i + which + 1) * count // (3 * most + 1) for i in range(most)})
