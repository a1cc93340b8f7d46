"""Every writer of the package through every fault, a few steps each; `python -m reliability.faults` tries all of them."""

import ast
import json
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("forks, signals and limits are POSIX's", allow_module_level=True)

import faults

ROOT = faults.ROOT
CLOSELY = {
    "atomic_write": 14,
    "save_model, same shapes": 8,
    "audit journal": 8,
    "FoldFolder.log": 8,
    "FoldFolder.finish": 8,
}
MOUNTS = faults.can_mount()

# Calls that may write, in the package and the examples.
WRITING = {
    "append_line", "copy2", "copyfile", "copytree", "dump", "export", "atomic_folder", "imwrite", "mkdir", "mkdtemp",
    "mkstemp", "NamedTemporaryFile", "save", "save_file", "savefig", "savetxt", "savez", "SummaryWriter", "symlink_to",
    "TemporaryDirectory", "to_csv", "to_excel", "to_json", "to_parquet", "tofile", "touch", "VideoWriter", "write", "write_bytes",
    "write_image", "write_text", "write_table", "atomic_write",
}  # fmt: skip
IN_MEMORY = {  # to bytes that atomic_write puts on disk
    "audit_report._photo", "audit_report._plot", "checkpoints._pack", "checkpoints.save_weights",
    "corrected_table._saved", "onnx_export._translate",
}  # fmt: skip
NO_DATA = {
    "cli.main": "opens /dev/null in the place of an output that is gone",
    "locks.open_own": "opens locks, and the journal, whose lines append_line writes",
}
NOT_OURS = {
    "examples/train_mer.log_to_tensorboard": "TensorBoard writes its own events, and appends to them",
    "examples/train_dfer.log_to_tensorboard": "as above",
}
THROUGH = {"examples/train_mer.train_fold": "FoldFolder.save", "examples/train_dfer.train_fold": "FoldFolder.save"}
THROUGH |= {"synthetic_dataset._dfew_lists": "synthetic_dataset"}
DOCS = {"examples/made_dataset.make": "frames and a table in an empty folder, for the pages of the docs"}


@pytest.fixture(scope="module")
def bench():
    """Benches by name, made when they are first asked for."""
    made = {}
    with faults.benches([*faults.WRITERS, "naive"]) as found:

        def get(name):
            while name not in made:
                new = next(found)
                made[new.name] = new
            return made[name]

        yield get


@pytest.mark.parametrize("name", faults.WRITERS)
def test_what_is_written_survives(bench, name):
    kinds = ("SIGKILL", "disk full (ENOSPC)", "KeyboardInterrupt")
    found = faults.whole(bench(name), kinds, mounts=False, most=CLOSELY.get(name, 2))
    if MOUNTS and name in CLOSELY:
        found["disk full"] = faults.full_disk(bench(name), "pages", rooms=1)
    assert all(tried for tried, _ in found.values())
    assert {kind: wrong for kind, (_, wrong) in found.items() if wrong} == {}


def test_a_writer_that_is_not_whole_is_found_out(bench):
    found = faults.whole(bench("naive"), ("SIGKILL", "disk full (ENOSPC)"), mounts=MOUNTS)
    for kind in ("SIGKILL", "disk full (ENOSPC)", "file size limit", "killed in a write (SIGXFSZ)"):
        assert found[kind][1], kind
    if MOUNTS:
        assert found["disk full"][1]
        assert not found["read-only disk"][1]


def test_steps_are_seen_where_they_happen(tmp_path):
    """What the harness counts is what reaches the disk: each of these before and after."""
    seen = []

    def work():
        names = []
        step = faults._is_step

        def note(function):
            if found := step(function):
                names.append(function.__name__)
            return found

        faults._is_step = note
        with faults.at_step(0, lambda: None):
            faults.WRITERS["atomic_write"].write(tmp_path, 0)
        (tmp_path / "seen").write_text(" ".join(names))

    assert faults.trial(work).how == "done"
    seen = (tmp_path / "seen").read_text().split()
    order = [name for i, name in enumerate(seen) if name in ("flock", "write", "fsync", "replace") and i % 2 == 0]
    assert order == ["flock", "write", "fsync", "replace", "fsync"]  # the last is the folder's: names last as well


def test_every_function_that_writes_goes_through_the_faults():
    listed = {name for writer in faults.WRITERS.values() for name in writer.functions}
    found = set()
    for path in sorted((*(ROOT / "mertools").rglob("*.py"), *(ROOT / "examples").rglob("*.py"))):
        place = path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("mertools/")
        found |= {f"{place}.{name}" for name in writing_functions(ast.parse(path.read_text()))}
    known = IN_MEMORY | set(NO_DATA) | set(NOT_OURS) | set(DOCS) | set(THROUGH)
    assert found - listed - known == set(), "functions that write and are not in tests/faults.py"
    assert (listed | known) - found == set(), "functions in tests/faults.py that write no more"


def writing_functions(tree):
    """Qualified names of the functions with a call that may write."""

    def visit(node, names):
        for child in ast.iter_child_nodes(node):
            inner = names
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = [*names, child.name]
            if isinstance(child, ast.Call) and may_write(child):
                yield ".".join(names)
            yield from visit(child, inner)

    return set(visit(tree, []))


def may_write(call):
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name == "open":
        words = [ast.unparse(argument) for argument in (*call.args, *(word.value for word in call.keywords))]
        modes = [word.strip("'\"") for word in words if word.strip("'\"").strip("rwaxbt+U") == ""]
        return any(set(mode) & set("wax+") for mode in modes) or any("O_CREAT" in w or "O_WRONLY" in w for w in words)
    return name in WRITING


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


def test_the_page_has_the_figures_of_the_record():
    from reliability.faults import table

    record = json.loads((ROOT / "reliability" / "faults.json").read_text())
    assert table(record) in (ROOT / "docs" / "reliability.md").read_text()
    assert record["failures"] == []
    assert record["writers"] == len(faults.WRITERS)
    assert set(record["faults"]) >= set(faults.STEPWISE)
