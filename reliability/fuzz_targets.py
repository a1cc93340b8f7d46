"""The parsers of mertools, one function each: make an input in a folder, return what is to be called on it."""

from __future__ import annotations

import csv
import functools
import io
import json
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import mertools as mt
from mertools.action_units.expressions import class_names
from mertools.annotations.quality import REPAIRS
from mertools.annotations.schemas import SCHEMAS, dataset_schema
from mertools.audit.corrected_table import Correction, write_corrected
from mertools.audit.journal import Journal
from mertools.cli import main
from reliability.mutate import broken_bytes, broken_cells, broken_json, broken_zip, json_bytes, token
from tests import annotation_tables as tables

Input = Callable[[random.Random, Path], Callable[[], object]]
TARGETS: dict[str, tuple[Input, int]] = {}
_TABLES = {"casme2": tables.CASME2, "samm": tables.SAMM, "cas(me)2": tables.CASME_SQUARED, "smic": tables.SMIC,
           "mmew": tables.MMEW, "4dme": tables.FOURDME}  # fmt: skip
_DFEW = [["video_name", "label"], ["1", "1"], ["00002", "7"], ["3", "3"]]
_LISTS = {
    "ferv39k": "Action/Happy/0267 Happy\nDaily/Fear/0001 Fear\n",
    "dfew-list": "/data/DFEW/00001 16 0\n00002 9 6\n",
}


def target(weight: int) -> Callable[[Input], Input]:
    """Register a parser; of all inputs it gets a share in proportion to ``weight``."""

    def register(function: Input) -> Input:
        TARGETS[function.__name__] = (function, weight)
        return function

    return register


# --- annotation tables -----------------------------------------------------------------------------------------------


def _all_rows(path: Path, dataset: Any, **options: Any) -> Callable[[], object]:
    """Read a table; every row that holds something must come out of it, or the table be refused."""

    def read() -> object:
        from mertools.annotations.read import locate_columns
        from mertools.annotations.tables import read_sheet

        clips = mt.read_annotations(path, dataset, **options)
        schema = dataset_schema(dataset)
        page = read_sheet(path, sheet=schema.sheet, whitespace=schema.whitespace)
        start = locate_columns(page, schema)[0]
        rows = {number for number, _ in page.rows if number >= start}
        assert "drop" in options.get("repair", ()) or {clip.row for clip in clips} == rows, "rows were dropped"
        _ = clips.problems, str(mt.check_dataset(clips))
        return clips

    return read


def _repair(rng: random.Random) -> dict[str, Any]:
    return {"repair": rng.sample(REPAIRS, rng.randrange(len(REPAIRS) + 1))} if rng.random() < 0.3 else {}


def _text(rng: random.Random, rows: list[list[Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    if sys.version_info < (3, 11):  # whose csv module can't write NUL
        rows = [[str(cell).replace("\0", "") for cell in row] for row in rows]
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")), "surrogatepass")


@target(14)
def annotations_csv(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Tables of every dataset as csv, cells and bytes broken."""
    dataset = rng.choice([*_TABLES, "dfew"])
    rows = broken_cells(rng, _TABLES.get(dataset, _DFEW))
    data = _text(rng, rows, rng.choice(",;\t"))
    path = folder / rng.choice(("table.csv", "table.tsv", "table.txt"))
    path.write_bytes(broken_bytes(rng, data) if rng.random() < 0.5 else data)
    return _all_rows(path, dataset, **_repair(rng))


@target(6)
def annotation_lists(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Lists of paths and labels separated by blanks, and folders of lists."""
    dataset = rng.choice(list(_LISTS))
    rows = [line.split() for line in _LISTS[dataset].splitlines()]
    text = "\n".join(" ".join(map(str, row)) for row in (broken_cells(rng, rows) if rng.random() < 0.7 else rows))
    data = text.encode("utf-8", "surrogatepass")
    path = folder / rng.choice(("train_All.csv", "test_All.csv", "list.txt"))
    path.write_bytes(broken_bytes(rng, data) if rng.random() < 0.6 else data)
    if dataset == "ferv39k" and path.suffix == ".csv" and rng.random() < 0.2:
        return lambda: mt.read_annotations(folder, dataset)
    return _all_rows(path, dataset)


@target(6)
def annotations_own_schema(rng: random.Random, folder: Path) -> Callable[[], object]:
    """A schema of one's own with patterns, key frames, rates, and a DataFrame now and then."""
    schema = mt.AnnotationSchema(
        name="ours", labels={"happy": "happy", "sad": "sad"}, folder=("{subject}/*/{clip}", "**/{clip}"),
        columns={"subject": "who", "clip": "file", "onset": "on", "apex": "top", "offset": "off", "label": "emotion",
                 "fps": "fps", "num_frames": "n", "reselect": "flag", "notes": "notes", "onset2": "on2",
                 "offset2": "off2"},
        optional=("notes", "on2", "onset2", "offset2", "flag"), separator="+",
    )  # fmt: skip
    rows = broken_cells(rng, [
        ["who", "file", "on", "top", "off", "emotion", "fps", "n", "flag", "notes", "on2", "off2"],
        ["1", "a", 1, 5, 9, "happy", 120, 20, "1", "a note", "", ""],
        ["2", "b", 3, "/", 8, "sad+happy", "29.97", 12, "0", "", 10, 12],
    ])  # fmt: skip
    if rng.random() < 0.1:
        import pandas as pd

        width = max(map(len, rows))
        titles = [str(x) for x in rows[0] + [""] * (width - len(rows[0]))]
        frame = pd.DataFrame(
            [row + [None] * (width - len(row)) for row in rows[1:]] or [[None] * width], columns=titles
        )
        return lambda: mt.read_annotations(frame, schema)
    path = folder / "table.csv"
    path.write_bytes(_text(rng, rows))
    return _all_rows(path, schema, **_repair(rng))


@functools.cache
def _workbook(dataset: str) -> bytes:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "t.xlsx"
    others = tables.CASME_SQUARED_NAMING if dataset == "cas(me)2" else None
    tables.write_xlsx(path, _TABLES.get(dataset, _DFEW), others)
    return path.read_bytes()


@target(8)
def annotations_xlsx(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Workbooks with broken cells, broken XML, broken archives, declared bombs."""
    dataset = rng.choice([*_TABLES, "dfew"])
    path = folder / rng.choice(("table.xlsx", "table.xlsm"))
    how = rng.random()
    if how < 0.3:
        rows = [[_sheet_cell(x) for x in row] for row in broken_cells(rng, _TABLES.get(dataset, _DFEW))]
        tables.write_xlsx(path, rows)
    elif how < 0.6:
        path.write_bytes(_bomb(rng, _workbook(dataset)))
    else:
        data = _workbook(dataset)
        path.write_bytes(broken_zip(rng, data) if how < 0.9 else broken_bytes(rng, data))
    return _all_rows(path, dataset, **_repair(rng))


def _sheet_cell(value: Any) -> Any:
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return ILLEGAL_CHARACTERS_RE.sub("", value).encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _bomb(rng: random.Random, data: bytes) -> bytes:
    """A small file that asks for a lot: cells far away, merged areas, entities, long texts, many rows."""
    merge = rng.choice(("A1:XFD1048576", "A1:A1048576", "B2:C3", "XFD1048576:A1", "A0:B9999999", "A1", "ZZZZ1:A1"))
    far = rng.choice(("XFD1048576", "XFD1", "A1048576", "A0", "ZZZ99999999", "A1", "", "1", "AA"))
    number, text = rng.choice(("1", "0", "-1", "x", "9" * 30)), "x" * rng.choice((100, 40_000))
    entity = rng.choice(('<!DOCTYPE x [<!ENTITY a "' + "ha" * 50 + '"><!ENTITY b "&a;&a;&a;&a;">]>',
                         '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'))  # fmt: skip
    changes = rng.choice((
        ("</sheetData>", f'</sheetData><mergeCells count="1"><mergeCell ref="{merge}"/></mergeCells>'),
        ("</sheetData>", f'<row r="1048576"><c r="{far}" t="inlineStr"><is><t>x</t></is></c></row></sheetData>'),
        ("<sheetData>", f'<dimension ref="A1:XFD1048576"/><sheetData><row r="{number}"/>'),
        ("<worksheet", entity + "<worksheet"),
        ("</sheetData>", "<row>" + "<c/>" * rng.choice((10, 3000)) + "</row></sheetData>"),
        ("<v>", f"<v>{rng.choice(('1e999', 'nan', '9' * 5000, '', 'x', '-1'))}", ),
        ("</sheetData>", '<row r="2"><c r="A2"><f>1+1</f></c></row></sheetData>'),
        ('t="s"', rng.choice(('t="e"', 't="d"', 't="b"', 't="str"', 't="z"', 't="n"'))),
        ("</sheetData>", f'<row r="30"><c r="A30" t="inlineStr"><is><t>{text}</t></is></c></row></sheetData>'),
        ("</sheetData>", "</sheetData>" + " " * rng.choice((1000, 3_000_000))),
    ))  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if "worksheets/sheet" in name:
                content = content.decode().replace(changes[0], changes[1], rng.choice((1, 1, -1))).encode()
            new.writestr(name, content)
    return out.getvalue()


@functools.cache
def _xls() -> bytes:
    import tempfile

    return Path(tables.write_xls(Path(tempfile.mkdtemp()) / "t.xls", tables.CASME2)).read_bytes()


@target(6)
def annotations_xls(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Old workbooks, their bytes broken."""
    path = folder / "table.xls"
    path.write_bytes(broken_bytes(rng, _xls(), others=(_workbook("casme2"),)))
    return _all_rows(path, "casme2")


@target(3)
def corrected(rng: random.Random, folder: Path) -> Callable[[], object]:
    """A hostile table read and written corrected, into each kind of file."""
    path = folder / rng.choice(("table.csv", "table.xlsx"))
    rows = broken_cells(rng, tables.CASME2)
    if path.suffix == ".xlsx":
        tables.write_xlsx(path, [[_sheet_cell(x) for x in row] for row in rows])
    else:
        path.write_bytes(_text(rng, rows))
    out = folder / rng.choice(("out.csv", "out.xlsx"))

    def correct() -> object:
        clips = mt.read_annotations(path, "casme2")
        schema = dataset_schema("casme2")
        write_corrected(path, schema, [Correction(c.row, c.expression, (1, 2, 3)) for c in clips], out)
        again = mt.read_annotations(out, "casme2")
        assert [(c.subject, c.clip, c.label) for c in again] == [(c.subject, c.clip, c.label) for c in clips], "unlike"
        return again

    return correct


# --- AU labels and names ---------------------------------------------------------------------------------------------

_UNITS = [f"{u}_r" for u in mt.ACTION_UNITS if u != "AU28"] + [f"{u}_c" for u in mt.ACTION_UNITS]


@target(8)
def openface(rng: random.Random, folder: Path) -> Callable[[], object]:
    """OpenFace tables."""
    rows = [["frame", "face_id", "timestamp", "confidence", "success", *_UNITS]]
    rows += [[str(i), "0", f"{i / 30:.3f}", "0.98", "1", *["1.00"] * 17, *["0"] * 18] for i in range(1, 4)]
    data = "\n".join(", ".join(map(str, row)) for row in broken_cells(rng, rows)).encode("utf-8", "surrogatepass")
    path = folder / "clip.csv"
    path.write_bytes(broken_bytes(rng, data) if rng.random() < 0.5 else data)
    face = rng.choice((None, None, 0, 1, -1))
    return lambda: mt.read_openface(path, face=face)


@target(8)
def au_labels(rng: random.Random, folder: Path) -> Callable[[], object]:
    """The cache of clip labels; what is read must be written and read again as it was."""
    rows = [[f"{i:05d}.csv/1", *rng.choices(("0", "1", "0.5", "nan"), k=18)] for i in range(3)]
    data = "\n".join(" " + " ".join(map(str, row)) for row in broken_cells(rng, rows)).encode("utf-8", "surrogatepass")
    path = folder / "AU.txt"
    path.write_bytes(broken_bytes(rng, data) if rng.random() < 0.5 else data)

    def read() -> object:
        labels = mt.read_au_labels(path)
        mt.write_au_labels(folder / "again.txt", labels)
        again = mt.read_au_labels(folder / "again.txt")
        assert list(again) == list(labels), "unlike"
        return labels

    return read


@target(10)
def facs(rng: random.Random, folder: Path) -> Callable[[], object]:
    """FACS codes."""
    parts = ["L1", "R4", "12B", "or", "and", "+", ",", "，", " ", "12", "?", "AU", "99", "0", "/", token(rng)[:50]]
    codes = ["".join(rng.choices(parts, k=rng.randrange(8))) for _ in range(rng.randrange(4))]
    return lambda: mt.facs_labels(codes)


@target(6)
def names(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Names of classes, datasets, protocols and presets."""
    words = [rng.choice(("happy", "Happiness", "anger", "others", "CASME II", "cas(me)^2", "MEGC2019", token(rng)))]
    words += [token(rng) for _ in range(rng.randrange(3))]
    clip = mt.ClipAnnotation(words[0], words[-1], words[0], label=words[-1])
    return rng.choice((
        lambda: class_names(words), lambda: class_names(words[0]), lambda: dataset_schema(words[0]),
        lambda: mt.au_prior(words), lambda: mt.apply_protocol([clip], words[0]),
        lambda: mt.apply_protocol([clip], "dfew"),
        lambda: mt.FrameSelector.preset(words[0]), lambda: mt.frame_list_schema(words[0], words),
        lambda: mt.ScoreBook(words).add([0], [0], clips=words[:1], subjects=words[:1]),
    ))  # fmt: skip


# --- frames and videos -----------------------------------------------------------------------------------------------


@functools.cache
def _images() -> dict[str, bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    found = {suffix: bytes(cv2.imencode(suffix, picture)[1]) for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp")}
    found[".gif"] = bytes(cv2.imencode(".gif", picture)[1]) if cv2.haveImageWriter(".gif") else found[".png"]
    return found


def huge_image(kind: str, width: int, height: int) -> bytes:
    """A small file whose header promises ``width`` x ``height`` pixels."""
    if kind == ".png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(64)), b"IEND")
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
        )
    data = bytearray(_images()[kind])
    if kind == ".jpg":
        at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
        struct.pack_into(">HH", data, at + 5, height & 0xFFFF, width & 0xFFFF)
    elif kind == ".bmp":
        struct.pack_into("<ii", data, 18, width, height)
    elif kind == ".tif":
        start = struct.unpack_from("<I", data, 4)[0]
        for i in range(struct.unpack_from("<H", data, start)[0]):
            at = start + 2 + 12 * i
            tag = struct.unpack_from("<H", data, at)[0]
            if tag in (256, 257):
                struct.pack_into("<HII", data, at + 2, 4, 1, width if tag == 256 else height)
    elif kind == ".gif":
        struct.pack_into("<HH", data, 6, width & 0xFFFF, height & 0xFFFF)
    elif data[12:16] == b"VP8 ":
        struct.pack_into("<HH", data, 26, width & 0x3FFF, height & 0x3FFF)
    else:
        struct.pack_into("<I", data, 21, (width - 1 & 0x3FFF) | (height - 1 & 0x3FFF) << 14)
    return bytes(data)


@target(10)
def images(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Folders of frames, one of them broken or with a header that promises too much."""
    kind = rng.choice(list(_images()))
    if rng.random() < 0.3:
        side = (1, 13, 8192, 16_383, 30_000, 65_535, 100_000, 2**31 - 1)
        data = huge_image(kind, rng.choice(side), rng.choice(side))
    else:
        data = broken_bytes(rng, _images()[kind], others=tuple(_images().values()))
    suffix = rng.choice((kind, ".png", ".jpg")).replace(".gif", ".png")
    (folder / f"img1{suffix}").write_bytes(_images()[".png"])
    (folder / f"img2{suffix}").write_bytes(data)
    size = rng.choice((None, 16, (5, 7)))
    return lambda: mt.read_clip(folder, size=size)


@target(8)
def frame_folders(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Hostile names of folders, files and clips; what is found must lie below the root."""
    root = folder / "root"
    for _ in range(rng.randrange(1, 4)):
        words = [rng.choice(("sub01", "EP01", "a", token(rng)))[:60].replace("\0", "").strip("/") for _ in range(2)]
        place = root / Path(
            *[word.replace("/", "_").replace("..", "_").encode("utf-8", "replace").decode() or "x" for word in words]
        )
        place.mkdir(parents=True, exist_ok=True)
        for number in range(rng.randrange(4)):
            name = rng.choice(
                (f"img{number}", f"reg_{number:05d}", "cover", "9" * 200, token(rng)[:50].replace("/", "_"))
            )
            name = name.replace("\0", "").encode("utf-8", "replace").decode()
            (place / f"{name}{rng.choice(('.png', '.JPG', '.txt'))}").write_bytes(_images()[".png"])
    (folder / "secret").mkdir()
    (folder / "secret" / "img1.png").write_bytes(_images()[".png"])
    words = [rng.choice(("sub01", "EP01", "../secret", str(folder / "secret"), token(rng))) for _ in range(2)]
    patterns = rng.choice(((), (f"{words[0]}/{words[1]}",), (f"**/{words[0]}/{words[1]}", words[1]), (words[1],)))
    clip = mt.ClipAnnotation("casme2", words[0], words[1], 1, 2, 3, folders=patterns)

    def find() -> object:
        found = mt.find_frames(clip, root)
        assert Path(found.path).is_relative_to(root), f"outside the root: {found.path}"
        return found.read(0, 1)

    return find


@functools.cache
def _videos() -> dict[str, bytes]:
    import tempfile

    folder, found = Path(tempfile.mkdtemp()), {}
    frames = mt.synthetic_clip(num_frames=12, onset=2, apex=4, offset=10, hold=1, size=48).frames
    for suffix, code in ((".mp4", "mp4v"), (".avi", "MJPG"), (".avi", "XVID"), (".mkv", "MJPG")):
        path = folder / f"{code}{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25, (48, 48))
        for frame in frames.permute(0, 2, 3, 1).numpy():
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        if path.is_file() and path.stat().st_size:
            found[path.name] = path.read_bytes()
    return found


_LISTS_OF_FILES = (b"ffconcat version 1.0\nfile other.mp4\n", b"#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
                   b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n")  # fmt: skip


@target(4)
def videos(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Video files cut off and corrupted."""
    name = rng.choice(list(_videos()))
    data = broken_bytes(rng, _videos()[name], others=(*_videos().values(), *_LISTS_OF_FILES))
    if rng.random() < 0.05:
        data = rng.choice(_LISTS_OF_FILES)
    path = folder / f"clip{Path(name).suffix}"
    path.write_bytes(data)
    (folder / "other.mp4").write_bytes(_videos()[name])
    if rng.random() < 0.2:
        return lambda: mt.select_keyframes(path)
    return lambda: mt.read_clip(path, size=rng.choice((None, 16)), stop=rng.choice((None, 5)))


@target(4)
def clip_dataset(rng: random.Random, folder: Path) -> Callable[[], object]:
    """A dataset with a hostile table and images that may be broken."""
    place = folder / "sub01" / "EP01"
    place.mkdir(parents=True)
    kind = rng.choice((".png", ".jpg"))
    for i in range(1, 13):
        (place / f"img{i}{kind}").write_bytes(_images()[kind])
    if rng.random() < 0.5:
        (place / f"img{rng.randrange(1, 13)}{kind}").write_bytes(broken_bytes(rng, _images()[kind]))
    rows = [tables.CASME2_HEADER, ["01", "EP01", None, 2, 5, 9, None, "12", "happiness"]]
    path = folder / "codes.csv"
    path.write_bytes(_text(rng, broken_cells(rng, rows) if rng.random() < 0.5 else rows))
    frames = rng.choice((None, 4))

    def load() -> object:
        clips = mt.apply_protocol(mt.read_annotations(path, "casme2"), "casme2-5")
        dataset = mt.ClipDataset(clips, folder, training=True, size=16, num_frames=frames, augment=None)
        return [dataset[i] for i in range(len(dataset))]

    return load


# --- scores, runs, journals ------------------------------------------------------------------------------------------


def _book() -> mt.ScoreBook:
    book = mt.ScoreBook(["negative", "positive"], selection="last epoch")
    book.add([0, 1, 1], [0, 1, 0], clips=["s1/a", "s1/b", "s2/a"], subjects=["s1", "s1", "s2"], fold="s1")
    return book


@functools.cache
def _book_files() -> tuple[Any, bytes]:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    _book().write_json(folder / "book.json")
    _book().write_csv(folder / "book.csv")
    return json.loads((folder / "book.json").read_bytes()), (folder / "book.csv").read_bytes()


@target(8)
def scores_json(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Score books as JSON; what is read must be usable."""
    path = folder / "scores.json"
    path.write_bytes(json_bytes(rng, _book_files()[0]))

    def read() -> object:
        book = mt.ScoreBook.read_json(path)
        return book.summary(repeats=2), str(book.rows)

    return read


@target(8)
def scores_csv(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Score books as CSV."""
    path = folder / "scores.csv"
    rows = [line.split(",") for line in _book_files()[1].decode().splitlines()]
    data = _text(rng, broken_cells(rng, rows))
    path.write_bytes(broken_bytes(rng, data) if rng.random() < 0.5 else data)

    def read() -> object:
        book = mt.ScoreBook.read_csv(path, classes=["negative", "positive"])
        book.write_csv(folder / "again.csv")
        assert mt.ScoreBook.read_csv(folder / "again.csv", classes=["negative", "positive"]) == book, "unlike"
        return book

    return read


@target(5)
def run_folder(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Settings, logs, predictions and names of folds of a training run."""
    run = mt.RunFolder(folder / "run")
    run.begin({"seed": 0, "epochs": 3})
    how = rng.randrange(4)
    if how == 0:
        (run.path / "settings.json").write_bytes(json_bytes(rng, {"seed": 0, "epochs": 3, "names": ["a"]}))
        return lambda: run.begin({"seed": 0, "epochs": 3}, resume=True)
    fold = run.fold("sub01")
    fold.path.mkdir(parents=True)
    if how == 1:
        lines = b"".join(json.dumps({"epoch": i, "loss": 1.0}).encode() + b"\n" for i in range(3))
        (fold.path / "log.jsonl").write_bytes(broken_bytes(rng, lines) + json_bytes(rng, {"epoch": 4}))
        return lambda: fold.rewind(2)
    if how == 2:
        (fold.path / "predictions.json").write_bytes(json_bytes(rng, _book_files()[0]))
        return lambda: run.finish(fold.book()) if fold.done else None
    word = token(rng) or "x"

    def name() -> object:
        place = run.fold(word)
        place.log(epoch=0)
        assert place.path.resolve().parent == (run.path / "folds").resolve(), f"outside the run: {place.path}"
        return place

    return name


@target(5)
def journal(rng: random.Random, folder: Path) -> Callable[[], object]:
    """The journal of an audit that was killed."""
    lines = [{"run": "x"}, {"clip": 0, "robust": [1, 2, 3], "annotated": [1, 2, 3]}, {"clip": 1, "error": "no"}]
    at = rng.randrange(len(lines))
    data = b"".join((json_bytes(rng, e) if i == at else json.dumps(e).encode()) + b"\n" for i, e in enumerate(lines))
    work = folder / ".out.audit"
    work.mkdir()
    (work / "journal.jsonl").write_bytes(broken_bytes(rng, data) if rng.random() < 0.3 else data)

    def resume() -> object:
        with Journal(work, "x") as held:
            for found in held.done.values():
                assert "error" in found or all(len(keys) == 3 for keys in found.values()), "not a result"
        return held

    return resume


# --- weights ---------------------------------------------------------------------------------------------------------


@functools.cache
def _states() -> dict[str, bytes]:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    mt.save_checkpoint(folder / "checkpoint.pt", {"model": model.state_dict(), "epoch": 7, "names": ["a", (1, None)]})
    mt.save_weights(folder / "weights.pt", model)
    mt.save_weights(folder / "weights.safetensors", model)
    torch.save(model.state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@target(8)
def checkpoints(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Checkpoints and weights: zip archives, old pickles, safetensors."""
    name = rng.choice(list(_states()))
    data = _states()[name]
    is_zip = data[:2] == b"PK"
    data = (
        broken_zip(rng, data)
        if is_zip and rng.random() < 0.5
        else broken_bytes(rng, data, others=tuple(_states().values()))
    )
    path = folder / name
    path.write_bytes(data)
    if name == "checkpoint.pt":
        return lambda: mt.load_checkpoint(path, restore_random=rng.random() < 0.7)
    return lambda: mt.load_weights(path)


_SMALL = {"image_size": 32, "dims": [4, 8, 12, 16], "hidden": 11, "spatial_depth": 1}
_CONFIGS = {
    "AUHead": {"in_features": 7, "num_aus": 5},
    "FramePool": {"how": "attention", "dim": 7},
    "Retention": {"dim": 14, "num_heads": 7, "learnable_decay": True},
    "RetNetTemporal": {"dim": 14, "depth": 2, "num_heads": 7, "drop_path": 0.2, "causal": False},
    "ManhattanRetention": {"dim": 14, "num_heads": 7, "decomposed": True},
    "SpatialTransformer": {"dim": 14, "num_heads": 7, "grid": 5},
    "ParallelFusion": {"dim": 7, "hidden": 11, "num_classes": 13},
    "TwoBranch": {"net": {"class": "TSFmicro", "num_classes": 5, **_SMALL}},
}


@functools.cache
def _model(name: str) -> dict[str, bytes]:
    import tempfile

    config = _CONFIGS[name]
    net = mt.TSFmicro(num_classes=5, **_SMALL) if name == "TwoBranch" else None  # type: ignore[arg-type]
    model = mt.TwoBranch(net) if net is not None else getattr(mt, name)(**config)
    folder = mt.save_model(model, tempfile.mkdtemp())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@target(4)
def model_folder(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Folders of models with a hostile config or weights."""
    files = dict(_model(rng.choice(list(_CONFIGS))))
    if rng.random() < 0.8:
        files["config.json"] = json_bytes(rng, json.loads(files["config.json"]))
    else:
        files["model.safetensors"] = broken_bytes(rng, files["model.safetensors"])
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return lambda: mt.load_model(folder)


@functools.cache
def _published() -> tuple[mt.TSFmicro, mt.Retention]:
    return mt.TSFmicro(5, image_size=32), mt.Retention(8, 2)


@target(2)
def published(rng: random.Random, folder: Path) -> Callable[[], object]:
    """State dicts with hostile keys and values."""
    net, layer = _published()
    theirs: Any = {f"{name}_proj.weight": torch.eye(8) for name in ("q", "k", "v", "g", "out")}
    square = torch.ones(8, 8)
    values: tuple[Any, ...] = (None, 1, "x", torch.zeros(0), square.to(torch.complex64), square.int(), square[0],
                               square[0, 0].expand(10**9), square * float("nan"), [1.0])  # fmt: skip
    for _ in range(rng.randrange(1, 3)):
        theirs[rng.choice([*theirs, token(rng)])] = rng.choice(values)
    if rng.random() < 0.2:
        theirs = broken_json(rng, {"a": [1]})
    if rng.random() < 0.5:
        return lambda: mt.load_published(net, theirs)
    return lambda: mt.load_torchscale(layer, theirs, prefix=rng.choice(("", "", "a.")))


# --- the command line ------------------------------------------------------------------------------------------------


@target(3)
def command_line(rng: random.Random, folder: Path) -> Callable[[], object]:
    """Hostile arguments of ``mertools``: one line on standard error and exit status 2, never a trace."""
    clip = folder / "clip"
    clip.mkdir()
    for i in range(4):
        (clip / f"img{i}.png").write_bytes(_images()[".png"])
    word = token(rng)[:2000].replace("etc/passwd", "etc/no")  # what the user names is read, wherever it is
    number = rng.choice(("0", "1", "2", "3", "-1", "99", "9" * 25, "x", word))
    place = str(folder / "out.png") if rng.random() < 0.5 else str(folder / (word.replace("/", "_") or "x"))
    arguments = rng.choice((
        ["select", str(clip), "--onset", number, "--apex", "2"],
        ["select", str(clip), "--onset", "0", "--apex", "2", "--offset", number, *rng.choice(([], ["--refine"]))],
        ["select", str(clip), "--size", number], ["select", str(clip), "--json"],
        ["select", str(folder / word.strip("/"))],
        ["select", word], ["select", str(clip), "--plot", place], [word], ["select", str(clip), word],
        ["audit", str(folder / "t.csv"), "--dataset", word, "--frames", str(folder), "--out", place],
        ["audit", str(folder / "t.csv"), "--dataset", "casme2", "--frames", str(folder / "no"), "--out", place,
         "--workers", number, "--longest", number],
    ))  # fmt: skip
    (folder / "t.csv").write_bytes(
        _text(rng, [tables.CASME2_HEADER, ["01", "clip", None, 0, 1, 3, None, "12", "happiness"]])
    )

    def run() -> object:
        import contextlib

        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            try:
                status = main(arguments)
            except SystemExit as end:  # argparse's own
                status = int(end.code or 0)
        words = said.getvalue() + complained.getvalue()
        assert status in (0, 2), f"status {status}"
        assert "\x1b" not in words or any("\x1b" in a for a in arguments if status == 2 and "usage:" in words), (
            "escapes"
        )
        if status == 2:
            raise ValueError(words)
        return words

    return run


ABSENT = {name for name in SCHEMAS if name not in {*_TABLES, *_LISTS, "dfew"}}  # alike to one of the others
