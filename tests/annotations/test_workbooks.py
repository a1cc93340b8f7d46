"""Workbooks that are made to harm; reliability/fuzz.py tries many thousands."""

import io
import zipfile

import pytest
from annotation_tables import CASME2, CASME2_HEADER, write_xls, write_xlsx

import mertools as mt
from mertools.annotations import workbooks
from mertools.annotations.tables import read_sheet

pytest.importorskip("openpyxl")


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


def test_merged_areas_are_counted_before_they_are_made(book):
    merged = '</sheetData><mergeCells count="1"><mergeCell ref="A1:XFD1048576"/></mergeCells>'
    with pytest.raises(ValueError, match=r"codes.xlsx merges more than 100000 cells .*sheet1.xml"):
        mt.read_annotations(changed(book, "</sheetData>", merged), "casme2")


def test_too_many_cells(book, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_CELLS", 20)
    with pytest.raises(ValueError, match=r"holds more than 20 cells .*saved as csv"):
        mt.read_annotations(book, "casme2")


@pytest.mark.parametrize("what", ['<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">', '<!ENTITY a SYSTEM "file:///etc/passwd">'])
def test_entities_are_refused(book, what):
    with pytest.raises(ValueError, match=r"codes.xlsx declares XML entities .*sheet1.xml"):
        mt.read_annotations(changed(book, "<worksheet", f"<!DOCTYPE x [{what}]><worksheet"), "casme2")


def test_entities_in_another_encoding_are_refused(book):
    with zipfile.ZipFile(book, "a") as archive:
        text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "ha">]><x/>'
        archive.writestr("xl/more.xml", text.encode("utf-16"))
    with pytest.raises(ValueError, match=r"declares XML entities .*more.xml"):
        mt.read_annotations(book, "casme2")


@pytest.mark.parametrize("part", ["xl/media/image1.png", "xl/sharedStrings2.xml"])
def test_a_bomb_is_weighed_and_not_unfolded(book, part, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_BYTES", 1 << 25)
    with zipfile.ZipFile(book, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(part, "w") as file:
        file.write(b"<x>" if part.endswith("xml") else b"")
        for _ in range(33):
            file.write(b" " * (1 << 20))
    assert book.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=rf"codes.xlsx unfolds to more than 32 MiB \({part}\)"):
        mt.read_annotations(book, "casme2")


def test_a_text_longer_than_a_cell(tmp_path):
    path = write_xlsx(tmp_path / "codes.xlsx", CASME2)
    long = f'<row r="9"><c r="B9" t="inlineStr"><is><t>{"x" * 40_000}</t></is></c></row></sheetData>'
    with pytest.raises(ValueError, match=r"row 9, column B holds 40000 characters, a cell has at most 32767"):
        mt.read_annotations(changed(path, "</sheetData>", long), "casme2")


def test_a_formula_that_was_never_computed(book):
    changed(book, "</sheetData>", '<row r="7"><c r="B7"><f>A1&amp;"x"</f></c></row></sheetData>')
    with pytest.raises(ValueError, match=r"sheet 'Sheet1', cell B7 holds a formula that was never computed: open"):
        mt.read_annotations(book, "casme2")


def test_a_formula_with_its_value_is_read(book):
    row = ['<row r="7">']
    for column, value in zip("ABDEFHI", ("09", "EP01", "1", "2", "3", "12", "fear"), strict=True):
        row.append(f'<c r="{column}7" t="str"><f>A1</f><v>{value}</v></c>')
    clips = mt.read_annotations(changed(book, "</sheetData>", "".join(row) + "</row></sheetData>"), "casme2")
    assert (clips[-1].clip, clips[-1].offset, clips[-1].label) == ("EP01", 3, "fear")


def test_a_sheet_wide_and_sparse_is_read_sparse(tmp_path, monkeypatch):
    monkeypatch.setattr(workbooks, "MAX_CELLS", 60)
    path = write_xlsx(tmp_path / "t.xlsx", [["a", *[None] * 30, "b"], ["c"], ["d"]])
    assert [len(cells) for _, cells in read_sheet(path).rows] == [32, 1, 1]


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
