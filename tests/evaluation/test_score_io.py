import csv
import json

import pytest

import mertools as mt
from mertools.evaluation.score_io import _aligned

CLASSES = ("négatif", "=1+1", "surprise")


@pytest.fixture
def book():
    book = mt.ScoreBook(CLASSES, selection="-inner split, 20 %")
    clips = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "'quoted'", 'a "b", c', "s1/EP02 01f", "＝1", "ünïcode/脸"]
    book.add([i % 3 for i in range(9)], [i % 2 for i in range(9)], clips=clips,
             subjects=["s1", "-s2", " s3 "] * 3, datasets=["a", "", "=b"] * 3, fold="@1")  # fmt: skip
    return book


def test_round_trip_is_exact(book, tmp_path):
    for path, read in (
        (tmp_path / "book.json", mt.ScoreBook.read_json),
        (tmp_path / "book.csv", lambda path: mt.ScoreBook.read_csv(path, classes=CLASSES)),
    ):
        write = book.write_json if path.suffix == ".json" else book.write_csv
        write(path)
        first = path.read_bytes()
        found = read(path)
        assert found == book
        assert (found.classes, found.selection, list(found)) == (book.classes, book.selection, list(book))
        write = found.write_json if path.suffix == ".json" else found.write_csv
        write(str(path))
        assert path.read_bytes() == first
        assert b"\r" not in first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["book.csv", "book.json"]


def test_json_is_readable_by_anyone(book, tmp_path):
    book.write_json(tmp_path / "book.json")
    data = json.loads((tmp_path / "book.json").read_text(encoding="utf-8"))
    assert data["summary"] == json.loads(json.dumps(book.summary()))
    assert data["summary"]["uf1"] == book.uf1()
    for found, row in zip(data["predictions"], book, strict=True):
        assert list(found) == list(mt.Prediction._fields)
        names = {"target": CLASSES[row.target], "predicted": CLASSES[row.predicted]}
        assert found == row._asdict() | names


def test_no_cell_is_a_formula(book, tmp_path):
    book.write_csv(tmp_path / "book.csv")
    with (tmp_path / "book.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["clip", "subject", "dataset", "fold", "target", "predicted", "selection"]
    assert [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "＝")] == ["+1", "-1"]  # numbers
    assert {row[6] for row in rows[1:]} == {"'-inner split, 20 %"}


def test_a_spreadsheet_program_may_have_saved_it(book, tmp_path):
    book.write_csv(tmp_path / "book.csv")
    text = (tmp_path / "book.csv").read_text(encoding="utf-8")
    (tmp_path / "saved.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert mt.ScoreBook.read_csv(tmp_path / "saved.csv", classes=CLASSES) == book


def test_classes_by_a_synonym(tmp_path):
    book = mt.ScoreBook(["happy", "contempt"])
    book.add([0, 1, 1], [0, 0, 1], clips=list("abc"), subjects="s")
    book.write_csv(tmp_path / "book.csv")
    found = mt.ScoreBook.read_csv(tmp_path / "book.csv", classes=["Contempt", "happiness"])
    assert found.confusion.flip(0, 1).equal(book.confusion)


def test_an_apostrophe_that_was_there_and_blanks_stay(tmp_path):
    book = mt.ScoreBook(CLASSES, selection=" ")
    clips = ["'=1", "''=1", "'tis", " a", "'", "=1", "'+1", "\u00a0b "]
    book.add([0] * 8, [0] * 8, clips=clips, subjects=None)
    book.write_csv(tmp_path / "book.csv")
    assert mt.ScoreBook.read_csv(tmp_path / "book.csv", classes=CLASSES) == book


def test_classes_in_another_order(book, tmp_path):
    book.write_csv(tmp_path / "book.csv")
    found = mt.ScoreBook.read_csv(tmp_path / "book.csv", classes=CLASSES[::-1])
    assert found.confusion.flip(0, 1).equal(book.confusion)


HEAD = "clip,subject,dataset,fold,target,predicted,selection\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: the columns must be clip, subject"),
        ("clip,subject\n", "row 1: the columns must be clip, subject"),
        (HEAD, "holds no predictions"),
        (HEAD + "a,s,,,x,y,\nb,s,,,x\n", "row 3: 7 cells were expected, got 5"),
        (HEAD + "a,s,,,x,z,\n", "row 2: predicted is 'z', which is none of x, y"),
        (HEAD + "a,s,,,0,x,\n", "row 2: target is '0', which is none of x, y"),
        (HEAD + ",s,,,x,x,\n", "row 2: clip must be names, got an empty one"),
        (HEAD + "a,s,,,x,y,\na,t,,,x,y,\n", "row 3: clip 'a' is already in row 2"),
        (HEAD + "a,s,,,x,y,one\nb,s,,,x,y,two\n", "row 3: selection is 'two', in the rows before it was 'one'"),
        (HEAD + 'a,"s,,,x,y,\n', "row 2: is no csv"),
        (HEAD + 'a,"s\n1",,,x,y,\n', "subject must be text without control characters"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    path = tmp_path / "book.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"book.csv.*{message}"):
        mt.ScoreBook.read_csv(path, classes=["x", "y"])


def edited(book, tmp_path, change):
    path = tmp_path / "book.json"
    book.write_json(path)
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "holds no scores: 'mertools scores 1' was expected"),
        (lambda d: d.update(classes="abc"), "classes must be a list of names"),
        (lambda d: d.update(classes=["a", "b", "a"]), "book.json: classes must name each expression once"),
        (lambda d: d.update(classes=["a", 3, "b"]), "book.json: classes must be a sequence of names"),
        (lambda d: d.update(selection=None), "selection must be text, got None"),
        (lambda d: d.update(predictions={}), "predictions must be a list"),
        (lambda d: d.pop("summary"), "predictions must be a list, and summary an object"),
        (lambda d: d["predictions"][4].pop("fold"), "prediction 5: must have clip, subject"),
        (lambda d: d["predictions"][1].update(target="fear"), "prediction 2: target is 'fear'"),
        (lambda d: d["predictions"][1].update(target=["fear"]), "prediction 2: target is"),
        (lambda d: d["predictions"][1].update(subject=7), "prediction 2: subject must be strings, got 7"),
        (lambda d: d["predictions"][1].update(clip=d["predictions"][0]["clip"]), "prediction 2: clip .* already in prediction 1"),
        (lambda d: d["predictions"].pop(), "the confusion matrix of the summary is not that of the predictions"),
    ],
)  # fmt: skip
def test_malformed_json(book, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        mt.ScoreBook.read_json(edited(book, tmp_path, change))


def test_no_json_at_all(book, tmp_path):
    path = tmp_path / "cut.json"
    book.write_json(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"cut.json can't be read as JSON: .*\(line \d+\)"):
        mt.ScoreBook.read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="can't be read as JSON: 'utf-8' codec"):
        mt.ScoreBook.read_json(path)
    with pytest.raises(ValueError, match="row 1: the columns must be clip"):
        mt.ScoreBook.read_csv(path, classes=CLASSES)
    path.write_bytes(b"clip\xff")
    with pytest.raises(ValueError, match=r"cut.json is not UTF-8 \(row 1\)"):
        mt.ScoreBook.read_csv(path, classes=CLASSES)
    path.write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object, it holds list"):
        mt.ScoreBook.read_json(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no scores"):
        mt.ScoreBook.read_json(path)
    with pytest.raises(FileNotFoundError, match="path must be a file of scores, there is none"):
        mt.ScoreBook.read_csv(tmp_path, classes=CLASSES)


def test_a_failed_write_leaves_the_old_file(book, tmp_path, monkeypatch):
    path = tmp_path / "book.json"
    book.write_json(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mertools._files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        (book + mt.ScoreBook(CLASSES, selection=book.selection)).write_json(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["book.json"]


def test_alignment_without_trailing_blanks():
    assert _aligned([["a", "b"], ["long", ""]]) == ["a     b", "long"]
