import io
import sys
import zipfile

import pytest
from annotation_tables import CASME2, CASME2_HEADER, write_csv, write_xls, write_xlsx

import mertools as mt
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


# --- workbooks --------------------------------------------------------------------------------------------------------


def changed(path, old, new, part="xl/worksheets/sheet1.xml", count=1):
    """The workbook with one of its parts edited as text."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == part:
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode(), count)
            target.writestr(name, content)
    path.write_bytes(out.getvalue())
    return path


@pytest.fixture
def book(tmp_path):
    return write_xlsx(tmp_path / "codes.xlsx", CASME2)


def test_a_cell_in_the_last_corner_costs_nothing(book):
    far = '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t> </t></is></c></row></sheetData>'
    clips = mt.read_annotations(changed(book, "</sheetData>", far), "casme2")
    assert [clip.clip for clip in clips] == ["EP02_01f", "EP03_02", "EP12_01f", "EP05_09"]


def test_a_row_in_the_last_corner_is_seen(book):
    far = '<row r="1048576"><c r="A1048576" t="inlineStr"><is><t>9</t></is></c></row></sheetData>'
    with pytest.raises(ValueError, match=r"row 1048576, column B \('Filename'\) is empty"):
        mt.read_annotations(changed(book, "</sheetData>", far), "casme2")


def test_dimensions_that_lie(book):
    clips = mt.read_annotations(changed(book, "<sheetData>", '<dimension ref="A1:XFD1048576"/><sheetData>'), "casme2")
    assert len(clips) == 4


def test_rows_out_of_order_are_not_lost(book):
    row = '<row r="1"><c r="A1" t="inlineStr"><is><t>Subject</t></is></c></row></sheetData>'
    assert len(mt.read_annotations(changed(book, "</sheetData>", row), "casme2")) == 4


def test_a_text_longer_than_a_cell(tmp_path):
    path = write_xlsx(tmp_path / "codes.xlsx", CASME2)
    long = f'<row r="9"><c r="B9" t="inlineStr"><is><t>{"x" * 40_000}</t></is></c></row></sheetData>'
    with pytest.raises(ValueError, match=r"row 9, column B holds 40000 characters, a cell has at most 32767"):
        mt.read_annotations(changed(path, "</sheetData>", long), "casme2")


def test_a_formula_that_was_never_computed(book):
    changed(book, "</sheetData>", '<row r="7"><c r="B7"><f>A1&amp;"x"</f></c></row></sheetData>')
    with pytest.raises(ValueError, match=r"sheet 'Sheet1', cell B7 holds a formula that was never computed: open"):
        mt.read_annotations(book, "casme2")


def test_a_formula_whose_value_is_an_empty_text_is_an_empty_cell(book):
    row = '<row r="2"><c r="J2" t="str"><f>IF(A1="","",1)</f><v></v></c></row></sheetData>'
    assert len(mt.read_annotations(changed(book, "</sheetData>", row), "casme2")) == 4


def test_a_formula_that_nobody_reads_need_not_be_computed(tmp_path):
    rows = [[*row, "=A1" if i else "Notes"] for i, row in enumerate(CASME2)]
    assert len(mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), "casme2")) == 4
    rows[2][3] = "=D2+85"
    with pytest.raises(ValueError, match=r"cell D3 holds a formula that was never computed: .*onset is read from it"):
        mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), "casme2")


def test_a_formula_with_its_value_is_read(book):
    row = ['<row r="7">']
    for column, value in zip("ABDEFHI", ("09", "EP01", "1", "2", "3", "12", "fear"), strict=True):
        row.append(f'<c r="{column}7" t="str"><f>A1</f><v>{value}</v></c>')
    clips = mt.read_annotations(changed(book, "</sheetData>", "".join(row) + "</row></sheetData>"), "casme2")
    assert (clips[-1].clip, clips[-1].offset, clips[-1].label) == ("EP01", 3, "fear")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_no_workbook(tmp_path, data):
    path = tmp_path / "codes.xlsx"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"codes.xlsx is no xlsx workbook"):
        mt.read_annotations(path, "casme2")


def test_an_old_workbook_of_gigabytes_is_not_read(tmp_path):
    path = write_xls(tmp_path / "codes.xls", [CASME2_HEADER])
    with path.open("ab") as file:
        file.truncate(1 << 33)
    with pytest.raises(ValueError, match=r"codes.xls has 8589934592 bytes"):
        mt.read_annotations(path, "casme2")
