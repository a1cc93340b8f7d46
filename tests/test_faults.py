"""Every writer of the package killed, interrupted and refused by the disk; with ``LONG_RUN=1`` at every step."""

import ast
import os
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("forks, signals and limits are POSIX's", allow_module_level=True)

import faults

# Calls that may write, in the package and the examples.
WRITING = {
    "append_line", "copy2", "copyfile", "copytree", "dump", "export", "atomic_folder", "imwrite", "mkdir", "mkdtemp",
    "mkstemp", "NamedTemporaryFile", "save", "save_file", "savefig", "savetxt", "savez", "SummaryWriter", "symlink_to",
    "TemporaryDirectory", "to_csv", "to_excel", "to_json", "to_parquet", "tofile", "touch", "VideoWriter", "write", "write_bytes",
    "write_image", "write_text", "write_table", "atomic_write",
}  # fmt: skip
IN_MEMORY = {  # to bytes that atomic_write puts on disk
    "audit/report._png", "audit/report._sheet", "audit/plots.write_figure", "audit/corrected_table._saved", "models/onnx._translate",
    "training/checkpoints._pack",
}  # fmt: skip
BY_THEMSELVES = {  # some of these write in memory as well as through _files.py
    "_files.append_line", "_files.atomic_write", "audit/journal.Journal.__enter__", "cli.main",
    "clips/synthetic_dataset._casme2_table", "clips/synthetic_dataset._dfew_lists",
    "clips/synthetic_dataset._write_frames", "cli.cut_out", "models/hub.save_model", "plots.save_figure",
    "training/checkpoints.save_weights", "training/run_folder.FoldFolder.log",
}  # fmt: skip
THROUGH = {  # by way of another
    "clips/synthetic_dataset._dfew_lists": "synthetic_dataset",
    "examples/train_mer.train_fold": "FoldFolder.save",
    "examples/train_dfer.train_fold": "FoldFolder.save",
}
NOT_OURS = {
    "_files.lock": "a lock file holds nothing",
    "cli.main": "opens /dev/null in the place of an output that is gone",
    "examples/made_dataset.make": "frames and a table in an empty folder, for the pages of the docs",
    "examples/train_mer.log_to_tensorboard": "TensorBoard writes its own events, and appends to them",
    "examples/train_dfer.log_to_tensorboard": "as above",
}


@pytest.mark.parametrize("name", faults.WRITERS)
def test_the_old_or_the_new_is_whole(name, tmp_path):
    writer = faults.WRITERS[name]
    bench = faults.Bench(writer, tmp_path)
    for which, fault in enumerate(faults.FAULTS):
        for step in faults.spread(len(bench.steps), 999 if "LONG_RUN" in os.environ else writer.steps, which):
            bench.at(fault, step)
    bench.cut_off()


@pytest.mark.parametrize("fault", ["killed", "disk full"])
def test_a_writer_that_is_not_whole_is_found_out(tmp_path, fault):
    bench = faults.Bench(faults.Writer(faults.naive, ()), tmp_path)
    with pytest.raises(AssertionError, match="a.txt is neither"):
        bench.at(fault, bench.steps.index("write") + 1)
    with pytest.raises(AssertionError, match="a.txt is neither"):
        bench.cut_off()


def test_steps_are_seen_where_they_happen(tmp_path):
    """What the harness counts is what reaches the disk, each before and after: first the data, then the name."""
    steps = faults.Bench(faults.WRITERS["atomic_write"], tmp_path).steps
    order = [name for name in steps if name in ("write", "fsync", "replace")]
    assert order[::2] == order[1::2] == ["write", "fsync", "replace", "fsync"]  # the last is the folder's


def test_every_function_that_writes_goes_through_the_faults():
    listed = {name for writer in faults.WRITERS.values() for name in writer.functions}
    found = set()
    for path in sorted((*(faults.ROOT / "mertools").rglob("*.py"), *(faults.ROOT / "examples").rglob("*.py"))):
        place = path.relative_to(faults.ROOT).with_suffix("").as_posix().removeprefix("mertools/")
        found |= {f"{place}.{name}" for name in writing_functions(ast.parse(path.read_text()))}
    known = IN_MEMORY | set(THROUGH) | set(NOT_OURS)
    assert set(THROUGH.values()) <= set(faults.WRITERS)
    assert found - listed - known == set(), "functions that write and are not in tests/faults.py"
    assert (listed | known) - found == set(), "functions in tests/faults.py that write no more"


def test_what_is_written_goes_through_files_py():
    """So that tests/test_files.py speaks for all: links, pipes, permissions, errors that name the file."""
    found = set()
    for path in (faults.ROOT / "mertools").rglob("*.py"):
        place = path.relative_to(faults.ROOT / "mertools").with_suffix("").as_posix()
        ours = {"atomic_write", "atomic_folder", "append_line", "write_corrected", "mkdir"}
        found |= {f"{place}.{name}" for name in writing_functions(ast.parse(path.read_text()), WRITING - ours)}
    assert found - IN_MEMORY - BY_THEMSELVES == set(), "write a file by themselves"
    assert found >= BY_THEMSELVES


def writing_functions(tree, writing=WRITING):
    """Qualified names of the functions with a call that may write."""

    def visit(node, names):
        for child in ast.iter_child_nodes(node):
            inner = names
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = [*names, child.name]
            if isinstance(child, ast.Call) and may_write(child, writing):
                yield ".".join(names)
            yield from visit(child, inner)

    return set(visit(tree, []))


def may_write(call, writing):
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "open":
        words = [ast.unparse(argument) for argument in (*call.args, *(word.value for word in call.keywords))]
        modes = [word.strip("'\"") for word in words if word.strip("'\"").strip("rwaxbt+U") == ""]
        return any(set(mode) & set("wax+") for mode in modes) or any("O_CREAT" in w or "O_WRONLY" in w for w in words)
    return name in writing


@pytest.mark.parametrize(
    ("code", "writes"),
    [
        ("def f(path): path.open('w')", {"f"}),
        ("class A:\n def f(self, path): open(path, mode='ab')", {"A.f"}),
        ("def f(path): open(path)", set()),
        ("def f(path): path.open('rb')", set()),
        ("def f(path): os.open(path, os.O_RDWR | os.O_CREAT, 0o666)", {"f"}),
        ("def f(x, path): torch.save(x, path)", {"f"}),
        ("def f(figure): figure.savefig('a.png')", {"f"}),
        ("def f(path): path.write_text('x')", {"f"}),
    ],
)
def test_the_scan_sees_writers(code, writes):
    assert writing_functions(ast.parse(code)) == writes
