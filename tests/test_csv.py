import csv
import io

import pytest
from annotation_tables import CASME2, write_csv

import mertools as mt
from mertools._text import bare_cell, csv_rows, csv_text, plain_cell


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        ("=1+1", False), ("+cmd", False), ("@SUM(A1)", False), ("-2+3", False), ("\t=1", False), ("＝1", False), ("-x", False),
        ("-1", True), ("+1.5e-3", True), ("-.5", True), ("-inf", True), ("-", True), ("a=1", True), ("", True), ("'=1", False), ("'a", True),
    ],
)  # fmt: skip
def test_formulas_get_an_apostrophe_and_numbers_do_not(cell, kept):
    assert plain_cell(cell) == (cell if kept else f"'{cell}")
    assert bare_cell(plain_cell(cell)) == cell
    assert next(csv.reader(io.StringIO(csv_text([(cell, 5, None)]), newline=""))) == [plain_cell(cell), "5", ""]


def test_a_quotation_mark_left_open_swallows_no_rows(tmp_path):
    path = write_csv(tmp_path / "codes.csv", CASME2)
    path.write_text(path.read_text().replace("EP03_02", '"EP03_02'))
    with pytest.raises(ValueError, match=r"codes.csv, row 3: is no csv .*is a quotation mark left open"):
        mt.read_annotations(path, "casme2")


def test_two_quotation_marks_rows_apart_swallow_no_rows(tmp_path):
    path = write_csv(tmp_path / "codes.csv", CASME2)
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("EP03_02", '"EP03_02')
    lines[3] = lines[3].replace("EP12_01f", 'EP12_01f"')
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"row 3, column B \('Filename'\) holds 'EP03_02.*a name on one line"):
        mt.read_annotations(path, "casme2")


def test_a_cell_of_a_megabyte(tmp_path):
    path = write_csv(tmp_path / "codes.csv", CASME2)
    path.write_text(path.read_text().replace("EP03_02", "x" * 100_000))
    with pytest.raises(ValueError, match=r"row 3, column B holds 100000 characters"):
        mt.read_annotations(path, "casme2")
    path.write_text(path.read_text().replace("x" * 100_000, "x" * 200_000))
    with pytest.raises(ValueError, match=r"codes.csv, row 3: is no csv \(field larger than field limit"):
        mt.read_annotations(path, "casme2")


def test_rows_have_the_line_they_begin_in():
    assert [n for n, _ in csv_rows('a\n"b\nc"\n\nd\n', "x")] == [1, 2, 4, 5]
