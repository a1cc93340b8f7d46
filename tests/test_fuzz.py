"""Tables, codes, labels and journals that hypothesis breaks, and every input that ever broke something.

``LONG_RUN=1`` tries new ones; ``python -m reliability.fuzz`` those that the code's coverage leads to.
"""

import json
import sys

import numpy as np
import pytest
import torch
from annotation_tables import CASME2, CASME2_HEADER, SMIC, make_frames, write_csv, write_xlsx
from hypothesis import given
from hypothesis import strategies as st

import mertools as mt
from mertools.annotations.folders import FrameFolders
from mertools.annotations.schemas import dataset_schema
from mertools.audit.corrected_table import Correction, write_corrected
from mertools.models import hub
from reliability.fuzz import PARSERS, SCHEMA, parse

# --- broken at random -------------------------------------------------------------------------------------------------

CELLS = st.sampled_from(
    ["", " ", "/", "-1", "0", "1e999", "nan", "inf", "9" * 30, "1_0", "٣", "1.5", '"', "'", "=1+1", "\0", "\x1b[2J", "\u202e", "../x",
     "C:\\x", "x" * 5000, "happy", "sad+happy", "é", "\u2028", "[", "{}", "null", "true", "[1, 2]", "12B", "L1+R4", "?"]
) | st.text(max_size=12)  # fmt: skip


@st.composite
def broken(draw, text):
    """A file that was fine: some cells, rows and bytes of it are not any more."""
    mark = next((mark for mark in (",", " ") if mark in text.split("\n")[0]), "\n")
    rows = [line.split(mark) for line in text.splitlines()]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.integers(0, len(rows) - 1))
        how = draw(st.sampled_from(["cell", "cell", "double", "short", "long", "gone"]))
        if how == "cell":
            rows[row][draw(st.integers(0, len(rows[row]) - 1))] = draw(CELLS)
        elif how == "double":
            rows.insert(row, list(rows[draw(st.integers(0, len(rows) - 1))]))
        elif how == "short":
            rows[row] = rows[row][: draw(st.integers(1, len(rows[row])))]
        elif how == "long":
            rows[row] = rows[row] + [draw(CELLS)] * 3
        elif len(rows) > 1:
            del rows[row]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    data = "\n".join(mark.join(row) for row in rows).encode(encoding, "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_read_or_refused_by_name(name, data, tmp_path_factory):
    parse(name, data.draw(broken(PARSERS[name][2])), tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_not_broken_is_read(name, tmp_path):
    assert parse(name, PARSERS[name][2].encode(), tmp_path)


@given(data=st.data())
def test_workbooks_of_any_cells(data, tmp_path_factory):
    """What openpyxl can write of broken cells is read with all its rows, or refused by name."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE as ILLEGAL

    rows = [line.split(",") for line in PARSERS["annotations"][2].splitlines()]
    cells = CELLS.filter(lambda text: not ILLEGAL.search(text) and text.isprintable()) | st.integers() | st.none()
    for _ in range(data.draw(st.integers(1, 3))):
        rows[data.draw(st.integers(1, 2))][data.draw(st.integers(0, 6))] = data.draw(cells)
    folder = tmp_path_factory.mktemp("fuzz")
    if parse("annotations", write_xlsx(folder / "a.xlsx", rows).read_bytes(), folder, "t.xlsx"):
        assert [clip.row for clip in mt.read_annotations(folder / "t.xlsx", SCHEMA)] == [2, 3]


@pytest.mark.parametrize(
    "error", [IndexError("out"), ValueError("no file named"), UnicodeDecodeError("utf-8", b"", 0, 1, "t.csv")]
)
def test_a_break_is_seen(tmp_path, monkeypatch, error):
    def read(path):
        raise error

    monkeypatch.setitem(PARSERS, "made", ("t.csv", read, ""))
    with pytest.raises((IndexError, AssertionError)):
        parse("made", b"", tmp_path)


# --- what broke something: tables -------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path / "codes.csv", CASME2)


def with_cell(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))
    return path


@pytest.mark.parametrize("number", ["9" * 400, "9" * 20, "1_0", "٣٤", "1e2", "46.5", "-5", "inf"])
def test_a_frame_number_that_is_none(table, number):
    with pytest.raises(ValueError, match=r"row 2, column D \('OnsetFrame'\) holds .* a frame number was expected"):
        mt.read_annotations(with_cell(table, "46", number), "casme2")


@pytest.mark.parametrize("name", ["a\x0bb", "EP\x00", "\x1b[2J", "EP\u202e01", "n" * 5000])
def test_a_name_that_is_none(table, name):
    no_nul = "|row 2: is no csv .line contains NUL" if sys.version_info < (3, 11) else ""  # the csv module's own
    with pytest.raises(
        ValueError, match=rf"row 2, column B \('Filename'\) holds .*on one line of at most 4096{no_nul}"
    ):
        mt.read_annotations(with_cell(table, "EP02_01f", name), "casme2")


@pytest.mark.parametrize("fps", ["0", "nan", "inf", "-5", "1e999", "x"])
def test_a_rate_that_is_none_is_not_replaced_by_the_schemas(tmp_path, fps):
    schema = mt.AnnotationSchema(
        name="ours", columns={"clip": "clip", "label": "label", "fps": "fps"}, labels=["a"], fps=30.0
    )
    (tmp_path / "t.csv").write_text(f"clip,label,fps\n1,a,{fps}\n")
    with pytest.raises(ValueError, match=rf"row 2, column C \('fps'\) holds '{fps}', a positive number was expected"):
        mt.read_annotations(tmp_path / "t.csv", schema)


def test_blanks_in_a_list_shift_no_cells(tmp_path):
    (tmp_path / "list.txt").write_text("00001 16 0\nmy clip 3 16 0\n")
    schema = mt.frame_list_schema("ours", ["a", "b"])
    with pytest.raises(ValueError, match="row 2"):
        mt.read_annotations(tmp_path / "list.txt", schema)
    (tmp_path / "list.txt").write_text("00001 16 0\nclips 3 1 16 0\n")
    with pytest.raises(ValueError, match=r"row 2, column A .*are there blanks in a name\?"):
        mt.read_annotations(tmp_path / "list.txt", schema)


def test_a_line_separator_within_a_name_makes_no_row(tmp_path):
    (tmp_path / "list.txt").write_text("00001 16 0\nab\u2028c 16 0\n\x0c00002 16 0\n")
    with pytest.raises(ValueError, match="row 2"):  # U+2028 is a blank, not the end of a line
        mt.read_annotations(tmp_path / "list.txt", mt.frame_list_schema("ours", ["a"]))


def test_a_naming_sheet_wide_and_sparse_is_quick(tmp_path):
    import openpyxl

    book = openpyxl.load_workbook(
        write_xlsx(tmp_path / "t.xlsx", [[1, "anger1_1", 1, 2, 3, "4", "negative", "macro-expression"]])
    )
    other = book.create_sheet("naming")
    for row in range(1, 3000):
        other.cell(row, 1, row)
    other.cell(1, 16_384, "far")
    book.save(tmp_path / "t.xlsx")
    assert mt.read_annotations(tmp_path / "t.xlsx", "cas(me)2")[0].clip == "anger1_1"


@pytest.mark.parametrize(
    "name", ["../secret", "..\\secret", "/etc", "C:\\secret", "a" * 4096, "sub01/../secret", "ｓｅｃｒｅｔ", "CON"]
)
def test_no_name_leads_out_of_the_root(tmp_path, name):
    make_frames(tmp_path / "root" / "sub01" / "EP01", [1, 2, 3])
    make_frames(tmp_path / "secret", [1, 2, 3])
    clip = mt.ClipAnnotation("casme2", "01", name, 1, 2, 3, folders=(f"sub01/{name}", name, f"**/{name}"))
    with pytest.raises(FileNotFoundError, match="no folder of frames for clip"):
        mt.find_frames(clip, tmp_path / "root")


def test_a_name_of_a_thousand_slashes_is_quick(tmp_path):
    make_frames(tmp_path / "sub01" / "EP01", [1])
    folders = FrameFolders(tmp_path)
    clip = mt.ClipAnnotation("ours", "1", "x", folders=("**/" + "a/" * 2000,))
    with pytest.raises(FileNotFoundError):
        folders.find(clip)
    assert max(folders._by_tail, default=0) <= len((tmp_path / "sub01" / "EP01").parts)


def test_a_text_cell_is_a_formula_in_no_copy(tmp_path):
    import openpyxl

    rows = [CASME2_HEADER, ["=A1", "EP01", None, 2, 5, 9, None, "12", "happiness"]]
    for source in ("t.csv", "t.xlsx"):
        path = write_csv(tmp_path / source, rows) if source.endswith("csv") else write_xlsx(tmp_path / source, rows)
        if source == "t.xlsx":  # as text, which is how a spreadsheet program keeps what was pasted
            book = openpyxl.load_workbook(path)
            book.active["A2"].data_type = "s"
            book.active["D2"].value = "2"
            book.save(path)
        for suffix in (".csv", ".xlsx"):
            out = tmp_path / f"{source}-out{suffix}"
            write_corrected(path, dataset_schema("casme2"), [Correction(2, 1, (2, 5, 8))], out)
            assert mt.read_annotations(out, "casme2")[0].subject == "=A1"
            if suffix == ".xlsx":
                cells = [cell for row in openpyxl.load_workbook(out).active.iter_rows() for cell in row]
                assert "f" not in {cell.data_type for cell in cells}
            elif source == "t.xlsx":
                assert out.read_text("utf-8-sig").splitlines()[1].startswith("'=A1,")


def test_what_xlsx_can_not_hold_is_said_before_the_audit(tmp_path):
    rows = [[*CASME2_HEADER, "note"], ["01", "EP01", None, 2, 5, 9, None, "12", "happiness", "a\x0bb"]]
    path = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(ValueError, match=r"row 2, column J holds 'a\\x0bb', which xlsx can't: write csv"):
        mt.audit_table(path, "casme2", tmp_path, tmp_path / "out.xlsx")


# --- AU labels, scores, runs ------------------------------------------------------------------------------------------


def openface(path, row, header=()):
    units = [f"{u}_r" for u in mt.ACTION_UNITS if u != "AU28"] + [f"{u}_c" for u in mt.ACTION_UNITS]
    path.write_text(",".join(["frame", "face_id", "confidence", "success", *units, *header]) + "\n" + row + "\n")
    return path


@pytest.mark.parametrize("frame", ["inf", "nan", "1e400", "1e300", "1.5", "1_0", "9" * 400])
def test_an_openface_frame_that_is_none(tmp_path, frame):
    path = openface(tmp_path / "clip.csv", f"{frame},0,0.9,1," + ",".join(["1"] * 35))
    with pytest.raises(ValueError, match=r"in column frame of line 2, a (whole )?number was expected: .*clip.csv"):
        mt.read_openface(path)


def test_an_openface_column_twice_or_latin(tmp_path):
    path = openface(tmp_path / "clip.csv", "1,0,0.9,1," + ",".join(["1"] * 36), header=["AU01_c"])
    with pytest.raises(ValueError, match=r"each column once, .*clip.csv has AU01_c more than once"):
        mt.read_openface(path)
    path.write_bytes(path.read_bytes() + b"\xe9")
    with pytest.raises(ValueError, match=r"clip.csv is not UTF-8 \(row 3\)"):
        mt.read_openface(path)


def test_label_caches_of_another_encoding(tmp_path):
    (tmp_path / "AU.txt").write_bytes(b"caf\xe9 " + b"1 " * 18)
    with pytest.raises(ValueError, match=r"AU.txt is not UTF-8 \(row 1\)"):
        mt.read_au_labels(tmp_path / "AU.txt")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1' + "0" * 5000 + "}", '{"a":' * 100_000])
def test_json_without_end(tmp_path, text):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({"seed": 0})
    fold = run.fold("a")
    fold.log(epoch=0)
    for path, read in (
        (tmp_path / "scores.json", mt.ScoreBook.read_json),
        (run.path / "settings.json", lambda _: run.begin({"seed": 0}, resume=True)),
        (fold.path / "log.jsonl", lambda _: fold.rewind(1)),
    ):
        path.write_text(text + "\n")
        with pytest.raises(ValueError, match=path.name):
            read(path)


@pytest.mark.parametrize("line", ["[1]", "7", '{"epoch": "x"}', '{"epoch": null}', "\x00\x00"])
def test_a_log_with_something_else_in_it(tmp_path, line):
    fold = mt.FoldFolder(tmp_path)
    fold.log(epoch=0)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(f'{line}\n{{"epoch": 1}}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 2"):
        fold.rewind(1)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3  # as it was


def test_selection_with_control_characters_names_the_file(tmp_path):
    book = mt.ScoreBook(["a", "b"], selection="last")
    book.add([0], [1], clips=["x"], subjects=None)
    book.write_json(tmp_path / "book.json")
    with_cell(tmp_path / "book.json", '"last"', '"la\\u0087st"')
    with pytest.raises(ValueError, match=r"book.json: selection must be text without control characters"):
        mt.ScoreBook.read_json(tmp_path / "book.json")


# --- weights ----------------------------------------------------------------------------------------------------------


def test_a_damaged_random_state_sets_nothing(tmp_path):
    path = tmp_path / "checkpoint.pt"
    mt.save_checkpoint(path, {"epoch": 7})
    state = torch.load(path, weights_only=True)
    state["random_state"]["python"] = [3, [1, 2], None]
    torch.save(state, path)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.manual_seed(99)
    now = torch.get_rng_state()
    with pytest.raises(
        ValueError, match=r"checkpoint.pt holds a random state that can't be set .*restore_random=False"
    ):
        mt.load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), now)
    assert not torch.equal(before[0], now)
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert mt.load_checkpoint(path, restore_random=False) == {"epoch": 7}


def test_a_checkpoint_that_unfolds_is_refused(tmp_path):
    import zipfile

    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"bomb.pt can't be read, .*is compressed, which torch.save never does"):
        mt.load_weights(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 10**12}, "holds 1000000000000, sizes of a model"),
        ({"spatial_depth": 10**6}, "builds more than 500 modules"),
        ({"hidden": 10**6, "num_classes": 10**6}, "of another shape"),
        ({"hidden": 1e308}, "holds 1e\\+308"),
        ({"fusion": {"class": "os.system"}}, "none of AUHead"),
        ({"num_classes": 0}, "does not fit TSFmicro"),
    ],
)
def test_a_config_that_asks_for_too_much_takes_no_memory(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(hub, "_MODULES", 500)
    pytest.importorskip("safetensors")
    config = {"num_classes": 5, "image_size": 32, "dims": [4, 8, 12, 16], "hidden": 11, "spatial_depth": 1}
    folder = mt.save_model(mt.TSFmicro(**config), tmp_path)
    (folder / "config.json").write_text(json.dumps({**config, "class": "TSFmicro", **change}))
    with pytest.raises(ValueError, match=rf"(config.json|model.safetensors).*{message}"):
        mt.load_model(folder)


def test_weights_of_whole_numbers_are_no_weights(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    config = {"in_features": 3, "num_aus": 2}
    folder = mt.save_model(mt.AUHead(**config), tmp_path)
    weights = {name: value.int() for name, value in mt.AUHead(**config).state_dict().items()}
    safetensors.save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="or kind of number"):
        mt.load_model(folder)


@pytest.mark.parametrize(
    "theirs", [5, "x", None, {1: torch.zeros(1)}, {"q_proj.weight": [1.0]}, {"q_proj.weight": torch.eye(8).int()}]
)
def test_torchscale_weights_that_are_none(theirs):
    whole = {f"{name}_proj.weight": torch.eye(8) for name in ("q", "k", "v", "g", "out")}
    if isinstance(theirs, dict):
        theirs = whole | theirs
    with pytest.raises(TypeError, match=r"must map names to tensors|must be a floating tensor"):
        mt.load_torchscale(mt.Retention(8, 2), theirs)


# --- videos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXTINF:1,\nother.mp4\n", "\n #EXTM3U\n",
                                  '<?xml version="1.0"?><MPD></MPD>', "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"])  # fmt: skip
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
def test_a_list_of_other_files_is_no_video(tmp_path, text, suffix):
    path = tmp_path / f"clip{suffix}"
    path.write_text(text)
    for read in (mt.read_clip, mt.select_keyframes):
        with pytest.raises(ValueError, match=rf"path is a list of other files, not a video: .*clip\{suffix}"):
            read(path)


def test_a_video_of_one_frame_is_named(tmp_path):
    import cv2

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()
    with pytest.raises(ValueError, match=r"at least 2 frames, there is 1 in .*clip.avi"):
        mt.select_keyframes(path)


# --- files that are written -------------------------------------------------------------------------------------------


def test_smic_rows_are_all_there(tmp_path):
    path = write_csv(tmp_path / "t.csv", SMIC)
    assert {clip.row for clip in mt.read_annotations(path, "smic")} == set(range(2, len(SMIC) + 1))
