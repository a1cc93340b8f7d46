import sys

import pytest
from annotation_tables import CASME2, write_csv, write_xls, write_xlsx

from mertools.annotations.tables import cell_text, column_letter, guess_delimiter, normal, read_sheet


def test_rows_keep_the_numbers_a_spreadsheet_shows(tmp_path):
    rows = [["title"], [], [None, None], ["a", 1], [], ["b", 2.5]]
    xlsx = read_sheet(write_xlsx(tmp_path / "t.xlsx", rows))
    assert [number for number, _ in xlsx.rows] == [1, 4, 6]
    assert xlsx.rows[2][1] == ["b", 2.5]
    (tmp_path / "t.csv").write_text('title,\n\n,\n"a\nb",1\nc,2\n')
    text = read_sheet(tmp_path / "t.csv")
    assert text.rows == [(1, ["title", ""]), (4, ["a\nb", "1"]), (6, ["c", "2"])]


def test_where_things_are(tmp_path):
    sheet = read_sheet(write_xlsx(tmp_path / "t.xlsx", CASME2, sheet="S"))
    assert sheet.place(3, 27, "Notes") == f"{tmp_path / 't.xlsx'}, sheet 'S', row 3, column AB ('Notes')"
    assert read_sheet(write_csv(tmp_path / "t.csv", CASME2)).place(3) == f"{tmp_path / 't.csv'}, row 3"


def test_other_sheets_are_kept(tmp_path):
    path = write_xlsx(tmp_path / "t.xlsx", CASME2, {"codes": [[1, 15], ["x", None]]}, "main")
    sheet = read_sheet(path, sheet=" MAIN")
    assert sheet.name == "main"
    assert sheet.others == {"codes": [[1, 15], ["x", None]]}


def test_utf_16_from_a_spreadsheet_program(tmp_path):
    write_csv(tmp_path / "t.csv", [["a", "ü"], [1, "é"]], "\t", "utf-16")
    assert read_sheet(tmp_path / "t.csv").rows == [(1, ["a", "ü"]), (2, ["1", "é"])]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (1.5, "1.5"), (None, ""), (float("nan"), ""), (" a ", "a"), (True, "True"), (0, "0")],
)
def test_cells_as_text(value, text):
    assert cell_text(value) == text


def test_missing_cells_of_pandas():
    pandas = pytest.importorskip("pandas")
    assert [cell_text(value) for value in (pandas.NA, pandas.NaT)] == ["", ""]


def test_headers_as_they_are_compared():
    assert {normal(h) for h in ("OnsetFrame", "Onset Frame", " onset_frame'", "ONSET\nFRAME’", "Onset\xa0Frame")} == {
        "onsetframe"
    }


def test_letters_of_columns():
    assert [column_letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


@pytest.mark.parametrize(
    ("text", "mark"), [("a,b\n1,2\n", ","), ("a;b\n1,5;2\n1;2\n", ";"), ("a\tb\n", "\t"), ("", ",")]
)
def test_separators(text, mark):
    assert guess_delimiter(text) == mark


@pytest.mark.parametrize(
    ("module", "write", "name"), [("openpyxl", write_xlsx, "t.xlsx"), ("xlrd", write_xls, "t.xls")]
)
def test_readers_that_are_not_installed(tmp_path, monkeypatch, module, write, name):
    path = write(tmp_path / name, CASME2)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"reading {name} needs {module}: pip install 'mertools\[data\]'"):
        read_sheet(path)
