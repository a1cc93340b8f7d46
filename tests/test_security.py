"""What SECURITY.md promises: nothing of a file is run, nothing is opened elsewhere, and names stay names."""

import ast
import contextlib
import csv
import importlib.util
import io
import json
import os
import pickle
import pkgutil
import re
import site
import socket
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from audit_data import make_dataset

import mertools as mt
from mertools._files import atomic_write
from mertools.audit.journal import Journal
from mertools.cli import main

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "mertools").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style></td><iframe src=//evil>",
    "$\\frac{$",
    "$x^2$",
    "\x1b]0;owned\x07\x1b[2J",
    "\u202egnp.1",
    "=cmd|' /C calc'!A0",
    "&lt;b&gt; &amp; \x00\x9b",
)


# --- the source -------------------------------------------------------------------------------------------------------

_FORBIDDEN_MODULES = {
    "pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "subprocess", "socket", "socketserver", "ssl",
    "urllib.request", "http", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "yaml", "ctypes", "pty", "xmlrpc", "code",
}  # fmt: skip
_FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
_FORBIDDEN_ATTRIBUTES = {
    ("os", "system"), ("os", "popen"), ("os", "execv"), ("os", "execvp"), ("os", "spawnv"), ("os", "posix_spawn"), ("pickle", "load"),
    ("pickle", "loads"), ("marshal", "loads"), ("np", "load"), ("numpy", "load"), ("tempfile", "mktemp"), ("torch.hub", "load"),
    ("pd", "read_pickle"), ("yaml", "load"), ("builtins", "eval"), ("os", "tempnam"),
}  # fmt: skip
# What the two files use of such a module: the name of an error; torchrun's address.
_ALLOWED = {("checkpoints.py", "pickle"), ("made_clips.py", "subprocess")}


def findings(path, source):
    """What is forbidden in a source, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                if {name, name.split(".")[0]} & _FORBIDDEN_MODULES and (path.name, name) not in _ALLOWED:
                    yield f"imports {name}"
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in _FORBIDDEN_CALLS:
            yield f"calls {node.func.id}"
        if isinstance(node.func, ast.Attribute):
            place = (ast.unparse(node.func.value), node.func.attr)
            if place in _FORBIDDEN_ATTRIBUTES:
                yield f"calls {'.'.join(place)}"
            if place == ("torch", "load"):
                safe = [
                    k
                    for k in node.keywords
                    if k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                ]
                if not safe:
                    yield "torch.load without weights_only=True"
        if any(k.arg == "shell" for k in node.keywords):
            yield "a shell"
        if any(
            k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in node.keywords
        ):
            yield "allow_pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_from_data_no_shell_no_network_in_the_source(path):
    assert list(findings(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("line", ["eval(x)", "import pickle", "from urllib.request import urlopen", "torch.load(f)", "os.system('x')",
                                  "torch.load(f, weights_only=False)", "run(x, shell=True)", "np.load(f)", "np.loadtxt(f, allow_pickle=flag)",
                                  "tempfile.mktemp()", "import requests.api", "torch.load(f, weights_only=safe)"])  # fmt: skip
def test_the_check_of_the_source_finds(line):
    assert list(findings(Path("x.py"), line))


def test_pages_load_weights_only():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *(ROOT / "notebooks").glob("*.ipynb")]:
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", page.read_text(encoding="utf-8")):
            assert "weights_only=True" in call, (page.name, call)


# --- weights that run code --------------------------------------------------------------------------------------------


class Evil:
    """Unpickled the careless way, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def write_evil(path, marker, how):
    state = {"weight": torch.zeros(2), "epoch": 1, "random_state": Evil(marker), "more": Evil(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "zip")


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("loader", ["load_checkpoint", "load_weights", "safetensors", "fold", "model"])
def test_a_pickle_that_makes_a_file_is_refused_by_every_loader(tmp_path, how, loader):
    marker = tmp_path / "owned"
    folder = tmp_path / "folder"
    folder.mkdir()
    names = {"safetensors": "w.safetensors", "fold": "checkpoint.pt", "model": "model.safetensors"}
    path = folder / names.get(loader, "w.pt")
    write_evil(path, marker, how)
    (folder / "config.json").write_text('{"class": "AUHead", "in_features": 2, "num_aus": 1}')
    load = {
        "load_checkpoint": lambda: mt.load_checkpoint(path),
        "load_weights": lambda: mt.load_weights(path),
        "safetensors": lambda: mt.load_weights(path),
        "fold": lambda: mt.FoldFolder(folder).load(),
        "model": lambda: mt.load_model(folder),
    }[loader]
    with pytest.raises(ValueError, match=path.name):
        load()
    assert not marker.exists()
    if loader == "load_weights":  # the file does what it is feared for, or the test would prove nothing
        _ = pickle.loads(path.read_bytes()) if how == "pickle" else torch.load(path, weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "torch.hub.load", "nn.Module", "Path", "mertools.models.tsfmicro.TSFmicro"]
)
def test_a_config_names_no_class_by_its_path(tmp_path, name):
    folder = mt.save_model(mt.AUHead(3, 2), tmp_path)
    (folder / "config.json").write_text(json.dumps({"class": name, "command": "touch owned"}))
    with pytest.raises(ValueError, match=rf"config names the class '{name}', which is none of"):
        mt.load_model(folder)


# --- the network, processes, files elsewhere --------------------------------------------------------------------------

FORBIDDEN = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "subprocess.", "os.system", "os.exec", "os.posix_spawn",
             "os.spawn", "os.startfile", "pty.", "pickle.find_class")  # fmt: skip
CHANGES = ("os.remove", "os.mkdir", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
           "os.utime", "shutil.rmtree", "shutil.move")  # fmt: skip
READABLE = (
    "/proc",
    "/sys",
    "/dev/urandom",
    "/usr",
    "/lib",
    "/etc",
    str(ROOT),
    sys.prefix,
    sys.base_prefix,
    *site.getsitepackages(),
)


def watch(folder):
    """What this process does, from here to its end, that it may not: sockets, programs, pickles, files elsewhere."""
    found, writable = set(), (os.path.realpath(folder), "/dev/null")
    readable = (*writable, *map(os.path.realpath, READABLE))

    def hook(event, arguments):
        if event.startswith(FORBIDDEN):
            found.add(f"{event} {arguments!r}"[:300])
        elif event == "open" or event in CHANGES:
            writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            below = (
                event != "open" and isinstance(arguments[-1], int) and arguments[-1] >= 0
            )  # an open folder: seen before
            for path in arguments[: 2 if event in ("os.rename", "os.link", "shutil.move") else 1]:
                if isinstance(path, (str, bytes, os.PathLike)) and not below and "\0" not in os.fsdecode(path):
                    real = os.path.realpath(os.fsdecode(path))
                    if not f"{real}/".startswith(tuple(f"{root}/" for root in (writable if writes else readable))):
                        found.add(f"{event}{' for writing' if writes else ''} {real}"[:300])

    sys.addaudithook(hook)
    return found


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_everything(folder):
    """The main jobs of the package below a folder, in a process of its own; prints what it may not have done."""
    import matplotlib.font_manager  # noqa: F401 (asks fc-list for the fonts, once after its installation)

    tempfile.tempdir = str(folder)
    for cache in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[cache] = str(folder)
    found = watch(folder)
    for module in pkgutil.walk_packages(mt.__path__, "mertools."):
        if module.name != "mertools.__main__":
            importlib.import_module(module.name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        make_dataset(folder, 2, size=32)
        assert main(["select", str(folder / "sub01" / "EP00"), "--plot", str(folder / "keys.png")]) == 0
        audit = ["audit", str(folder / "codes.csv"), "--dataset", "casme2", "--frames", str(folder), "--workers", "0"]
        assert main([*audit, "--out", str(folder / "corrected.csv")]) == 0
        made = mt.synthetic_dataset(folder / "made", subjects=2, clips=2, size=32, num_frames=32)
        words = f"--table {made.table} --frames {made.frames} --protocol megc2019 --out {folder / 'run'} --size 32 "
        words += "--dims 4 8 12 16 --hidden 16 --epochs 1 --device cpu"
        example("train_mer").main(words.split())
    model = mt.AUHead(3, 2)
    mt.load_model(mt.save_model(model, folder / "model"))
    mt.save_checkpoint(folder / "checkpoint.pt", {"model": model.state_dict()})
    mt.load_checkpoint(folder / "checkpoint.pt")
    mt.save_weights(folder / "weights.pt", model)
    mt.load_weights(folder / "weights.pt")
    if importlib.util.find_spec("onnxscript") is not None:  # an extra that needs a newer PyTorch than the rest
        mt.export_onnx(mt.FramePool("mean"), folder / "pool.onnx", torch.randn(2, 5, 7))
    print(json.dumps(sorted(found)))


def do_what_is_forbidden(folder):
    found = watch(folder / "in")
    socket.socket().close()
    with contextlib.suppress(OSError):
        socket.getaddrinfo("localhost", 9)
    subprocess.run([sys.executable, "-c", ""], check=True)
    os.system("true")
    pickle.loads(pickle.dumps(folder))
    (folder / "out.txt").write_text("x")
    (folder / "out.txt").read_text()
    (folder / "out.txt").rename(folder / "moved.txt")
    (folder / "in" / "fine.txt").write_text("x")
    tempfile.TemporaryDirectory(dir=folder / "in").cleanup()
    print(json.dumps(sorted(found)))


def watched(function, folder):
    """What a process of its own found, since a hook stays until its process ends."""
    code = f"import sys; from pathlib import Path; import test_security as t; t.{function.__name__}(Path(sys.argv[1]))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=ROOT, env=environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_no_socket_no_process_no_file_elsewhere(tmp_path):
    found = watched(run_everything, tmp_path)
    assert [what for what in found if "lscpu" not in what] == []  # how older releases of joblib count cores


def test_the_watch_sees_what_it_should(tmp_path):
    (tmp_path / "in").mkdir()
    found = "\n".join(watched(do_what_is_forbidden, tmp_path))
    for event in ("socket.__new__", "socket.getaddrinfo", "subprocess.Popen", "os.system", "pickle.find_class",
                  f"open for writing {tmp_path}/out.txt", f"open {tmp_path}/out.txt", f"os.rename for writing {tmp_path}/moved.txt"):  # fmt: skip
        assert event in found, (event, found)
    assert f"{tmp_path}/in" not in found


# --- names in reports, figures, tables, terminals ----------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def hostile_audit(root, names=HOSTILE):
    """An audit of clips whose every name is hostile, with frames for the contact sheets."""
    clips = []
    folder = root / "frames" / "clip"
    folder.mkdir(parents=True)
    for i in range(60):
        cv2.imwrite(str(folder / f"img{i}.png"), np.full((24, 24, 3), i, np.uint8))
    for i, name in enumerate(names):
        clip = mt.ClipAnnotation(
            name, name, name, 10, 20, 40, name, (name,), table=name, sheet=name, row=i, folders=("clip",), fps=30.0
        )
        clips.append(mt.ClipAudit(clip, (10, 20, 40), {"robust": (10 + i % 5, 21, 40 - i % 7)}))
        clips.append(mt.ClipAudit(clip, error=name))
    return mt.AnnotationAudit(clips, ("robust",))


def test_a_report_of_hostile_names_holds_them_as_text(tmp_path):
    audit = hostile_audit(tmp_path)
    audit.write_report(tmp_path / "report", frames=tmp_path / "frames", title=HOSTILE[0] + HOSTILE[1], worst=3)
    text = (tmp_path / "report" / "index.html").read_text()
    page = Page(text)
    known = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "b", "br", "small", "table", "thead", "tr", "th",
             "td", "figure", "figcaption", "img", "ul", "li"}  # fmt: skip
    assert {tag for tag, _ in page.tags} <= known
    for tag, attributes in page.tags:
        assert set(attributes) <= {"lang", "charset", "name", "content", "class", "alt", "src"}, (tag, attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
    assert sum(tag == "img" for tag, _ in page.tags) >= 6
    shown = "".join(page.text)
    for name in HOSTILE[:7]:
        assert name in shown  # as it is written in the table, and nothing else
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "\\x1b]0;owned" in shown
    assert "\\u202egnp.1" in shown
    assert "nan" not in "".join(page.text)


@pytest.mark.parametrize("name", ["$\\frac{$", "\x1b]0;owned\x07$x^2$", "a" * 5000, "x\n" * 200])
def test_figures_take_any_name_as_it_is(tmp_path, name):
    book = mt.ScoreBook(["a", "b"])
    book.add([0, 1], [0, 1], clips=["x", "y"], subjects=None)
    frames = mt.synthetic_clip(num_frames=12, onset=2, apex=4, offset=10, hold=1, size=24).frames
    names = [name.strip(), "other"]
    figures = [
        mt.plot_confusion(book, names, title=name.split("\n")[0][:50]),
        mt.plot_keyframes(frames, (2, 4, 10), truth=(1, 4, 9), truth_name=name, title=name.split("\n")[0][:50]),
        mt.plot_au_prior(
            mt.au_prior(["happy", "sad"]), classes=names, compare=tuple(names), title=name.split("\n")[0][:50]
        ),
    ]
    for i, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{i}.png", dpi=60)
        assert (tmp_path / f"{i}.png").stat().st_size < 1_000_000
        texts = [
            text for axes in figure.axes for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts]
        ]
        assert not any("owned" in text.get_text() and "\x1b" in text.get_text() for text in texts)


def test_no_cell_that_we_write_is_a_formula(tmp_path):
    names = ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1")
    audit = hostile_audit(tmp_path, names)
    audit.write_report(tmp_path / "report")
    audit.write_csv(tmp_path / "report" / "more.csv")
    mt.check_dataset([entry.clip for entry in audit.clips]).write_csv(tmp_path / "report" / "problems.csv")
    book = mt.ScoreBook(["=a", "+b"], selection="@now")
    subjects = [name.strip() for name in names]
    book.add([0] * 6, [1] * 6, clips=[f"{s}{i}" for i, s in enumerate(subjects)], subjects=subjects, fold="=f")
    run = mt.RunFolder(tmp_path / "run")
    run.begin({})
    run.finish(book)
    written = [*(tmp_path / "report").glob("*.csv"), *run.path.glob("*.csv")]
    assert len(written) == 8
    for path in written:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                for cell in row:
                    assert not cell.startswith(("=", "@", "\t", "\r")), (path.name, cell)
                    assert not cell.startswith(("+", "-")) or float(cell) is not None, (path.name, cell)
    assert mt.ScoreBook.read_csv(run.path / "predictions.csv", classes=["=a", "+b"]) == book


@pytest.mark.parametrize("bad", ["\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\u202e", "\r"])
def test_no_name_steers_the_terminal(tmp_path, bad, capsys):
    folder = tmp_path / f"clip{bad}"
    folder.mkdir()
    frames = mt.synthetic_clip(num_frames=12, onset=2, apex=4, offset=10, hold=1, size=24).frames
    for i, image in enumerate(frames.permute(0, 2, 3, 1).numpy()):
        cv2.imwrite(str(tmp_path / "x.png"), image)
        (folder / f"img{i}.png").write_bytes((tmp_path / "x.png").read_bytes())
    assert main(["select", str(folder)]) == 0
    assert main(["select", str(tmp_path / f"no{bad}.mp4")]) == 2
    (folder / f"img{bad}.png").write_bytes(b"x")
    assert main(["select", str(folder)]) == 2
    assert main(["select", "--json", str(folder)]) == 2
    said = capsys.readouterr()
    assert bad not in said.out.replace("\n", "")
    assert bad not in said.err.replace("\n", "")
    assert len(said.err.splitlines()) == 3


def test_no_name_of_a_table_steers_the_terminal(tmp_path, capsys):
    make_dataset(tmp_path, 3)
    table = tmp_path / "codes.csv"
    rows = list(csv.reader(io.StringIO(table.read_text(), newline="")))
    rows[2][3] = "/"  # repaired
    rows[3][2] = "/"  # skipped
    with (tmp_path / "c\x1b[2Jodes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    command = [
        "audit",
        str(tmp_path / "c\x1b[2Jodes.csv"),
        "--dataset",
        "casme2",
        "--frames",
        str(tmp_path),
        "--workers",
        "0",
    ]
    assert (
        main(
            [*command, "--out", str(tmp_path / "o\x1b[2Jut.csv"), "--repair", "apex-midpoint", "--search", "annotated"]
        )
        == 0
    )
    said = capsys.readouterr()
    assert "\\x1b[2J" in said.out
    assert said.err.count("\\x1b[2J") >= 2
    assert "\x1b[2J" not in said.out + said.err


# --- files that are written -------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_are_followed_but_for_those_that_others_left_where_everybody_writes(tmp_path):
    real, shared = tmp_path / "real.txt", tmp_path / "shared"
    real.write_text("old")
    shared.mkdir()
    (shared / "out.txt").symlink_to(real)
    shared.chmod(0o1777)
    atomic_write(shared / "out.txt", b"new")
    assert real.read_text() == "new"
    if os.geteuid() != 0:
        pytest.skip("only root can make a link of another user")
    os.lchown(shared / "out.txt", 65534, 65534)
    with pytest.raises(PermissionError, match=r"out.txt is a link of another user in a folder of everybody's"):
        atomic_write(shared / "out.txt", b"newer")
    assert real.read_text() == "new"
    assert len(list(shared.iterdir())) == 1


def test_temporary_names_differ_and_must_be_new(tmp_path, monkeypatch):
    opened = []
    real = os.open

    def note(path, flags, *args, **kwargs):
        opened.append((Path(path).name, flags))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", note)
    for _ in range(2):
        atomic_write(tmp_path / "out.txt", b"x")
    made = [(name, flags) for name, flags in opened if flags & os.O_CREAT]
    assert len({name for name, _ in made}) == len(made) == 2
    assert all(flags & os.O_EXCL for _, flags in made)
    assert all(re.fullmatch(r"\.out\.txt-[0-9a-f]{16}\.part", name) for name, _ in made)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("name", ["lock", "journal.jsonl"])
def test_a_link_planted_in_the_work_folder_is_not_followed(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    work = tmp_path / ".out.audit"
    work.mkdir()
    (work / name).symlink_to(victim)
    with pytest.raises((ValueError, OSError), match=rf"{name}"), Journal(work, "x", restart=True):
        pass
    assert victim.read_text() == "precious"


def test_what_others_keep_in_the_work_folder_stays(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with Journal(tmp_path, "x") as journal:
        journal.add(0, {"error": "no"})
        journal.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "name", ["..", ".", "../..", "/etc", "a/../../b", "CON", "\0", "~", "C:\\x", "." * 3, "x/\x1b"]
)
def test_the_folder_of_a_fold_lies_in_the_run(tmp_path, name):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({})
    run.fold(name).log(epoch=0)
    (made,) = (run.path / "folds").iterdir()
    assert made.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
