import csv
import io

import pytest
from annotation_tables import CASME2, write_csv

import mertools as mt
from mertools._text import (
    bare_cell,
    csv_line,
    csv_rows,
    csv_text,
    escape_unprintable,
    natural_order,
    plain_cell,
    plain_subject,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sub01/EP02_01f", "sub01/EP02_01f"), ("表情 é 𝟙", "表情 é 𝟙"), ("a\x1b[2Jb", r"a\x1b[2Jb"), ("a\nb", r"a\nb"),
        ("\u202egnp.1", r"\u202egnp.1"), ("\ud800", r"\ud800"), ("\x9b31m", r"\x9b31m"), ("\U000e0041", r"\U000e0041"), ("", ""),
    ],
)  # fmt: skip
def test_what_does_not_print_is_spelt_out(text, expected):
    assert escape_unprintable(text) == expected
    assert escape_unprintable(text).isprintable()


def test_long_names_are_cut_in_the_middle():
    assert escape_unprintable("0123456789", 7) == "012…789"
    assert escape_unprintable("0123456", 7) == "0123456"
    assert len(escape_unprintable("x\n" * 200, 41)) == 41


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


@pytest.mark.parametrize("cells", [["a", "b,c"], ["a\rb", "c"], ['say "hi"', ""], [""], ["", ""], ["a\nb"], [" a "]])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_line_is_read_again_as_it_was(cells, delimiter):
    assert list(csv.reader(io.StringIO(csv_line(cells, delimiter), newline=""), delimiter=delimiter)) == [cells]


def test_names_are_in_the_order_of_their_numbers():
    names = ["s" + "9" * 6000, "s1" + "0" * 6000, "s10", "s9", "s0009"]  # beyond Python's integers
    assert sorted(names, key=natural_order) == ["s0009", "s9", "s10", "s" + "9" * 6000, "s1" + "0" * 6000]
    assert sorted(["s10", "s2", "s", "S2", "2", ""], key=natural_order) == ["", "2", "S2", "s", "s2", "s10"]


def test_subjects_have_one_normal_form():
    spelt = ("1", "01", "001", "sub01", "sub_1", "SUB-01", "s01", "S 1", "Subject 001", "spNO.1", "1.0", "ｓ０１")
    assert {plain_subject(name) for name in spelt} == {"1"}
    assert {plain_subject(name) for name in ("casme2/sub04", "CASME2/04")} == {"casme2/4"}
    apart = ("1", "11", "101", "1 2", "p1", "a1", "s1b", "samm/1", "0", "anna", "anna b")
    assert len({plain_subject(name) for name in apart}) == len(apart)
