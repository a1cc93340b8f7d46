import csv

import openpyxl
import pytest
from annotation_tables import CASME2, CASME_SQUARED, SMIC, TABLES, write_csv, write_table, write_xls, write_xlsx

import mertools as mt
from mertools.annotations.schemas import SCHEMAS
from mertools.audit.corrected_table import Correction, write_corrected


def cells(path, sheet=None):
    book = openpyxl.load_workbook(path)
    page = book[sheet] if sheet else book.active
    return [list(row) for row in page.iter_rows(values_only=True)]


@pytest.mark.parametrize("dataset", [name for name in TABLES if name not in ("smic", "casme3-c")])
@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_the_three_columns_are_replaced_and_kept(tmp_path, dataset, suffix):
    source = write_table(tmp_path, dataset, suffix)
    before = source.read_bytes()
    clips = mt.read_annotations(source, dataset)
    new = [Correction(clip.row, 1, (7, 8, 9)) for clip in clips[1:]]
    write_corrected(source, SCHEMAS[dataset], new, tmp_path / f"out.{suffix}")
    after = mt.read_annotations(tmp_path / f"out.{suffix}", dataset)
    assert [(c.onset, c.apex, c.offset) for c in after[1:]] == [(7, 8, 9)] * len(new)
    assert (after[0].onset, after[0].apex, after[0].offset) == (clips[0].onset, clips[0].apex, clips[0].offset)
    for old, fresh in zip(clips, after, strict=True):
        assert (old.subject, old.clip, old.label, old.action_units, old.row) == (
            fresh.subject, fresh.clip, fresh.label, fresh.action_units, fresh.row,
        )  # fmt: skip
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, f"out.{suffix}"])


def test_an_xlsx_keeps_its_layout(tmp_path):
    source = write_table(tmp_path, "samm")
    book = openpyxl.load_workbook(source)
    page = book.active
    page["D15"].number_format = "0.00"
    page["G15"] = "=F15-D15+1"
    page.column_dimensions["B"].width = 33
    page["A1"].font = openpyxl.styles.Font(bold=True)
    page.freeze_panes = "A15"
    book.create_sheet("notes").append(["keep me"])
    book.save(source)
    write_corrected(source, SCHEMAS["samm"], [Correction(15, 1, (1, 2, 3))], tmp_path / "out.xlsx")
    out = openpyxl.load_workbook(tmp_path / "out.xlsx")
    page = out["MICRO_ONLY"]
    assert out.sheetnames == ["MICRO_ONLY", "notes"]
    assert (page["D15"].value, page["E15"].value, page["F15"].value) == (1, 2, 3)
    assert page["D15"].number_format == "0.00"
    assert page["G15"].value == "=F15-D15+1"
    assert page.column_dimensions["B"].width == 33
    assert page["A1"].font.bold
    assert page.freeze_panes == "A15"
    assert [page.cell(14, c).value for c in (13, 14, 15)] == [
        "Onset Frame (annotated)", "Apex Frame (annotated)", "Offset Frame (annotated)",
    ]  # fmt: skip
    assert [page.cell(15, c).value for c in (13, 14, 15)] == [562, 580, 622]


def test_a_missing_apex_keeps_its_sign(tmp_path):
    source = write_table(tmp_path, "casme2")
    write_corrected(source, SCHEMAS["casme2"], [Correction(4, 1, (181, 200, 260))], tmp_path / "out.xlsx")
    rows = cells(tmp_path / "out.xlsx")
    assert rows[3][:9] == ["04", "EP12_01f", None, 181, 200, 260, None, "L1+R4", "disgust"]
    assert rows[3][9:12] == [181, "/", 270]
    assert rows[3][12:] == [None] * 10
    assert rows[4][:9] == CASME2[4]


def test_a_table_without_header(tmp_path):
    source = write_xlsx(tmp_path / "t.xlsx", CASME_SQUARED, {"naming": [[1, 2]]})
    write_corrected(source, SCHEMAS["cas(me)2"], [Correction(2, 1, (601, 606, 610))], tmp_path / "out.xlsx")
    rows = cells(tmp_path / "out.xlsx")
    assert rows[1] == [1, "anger1_2", 601, 606, 610, "4", "negative", "micro-expression", "anger", 600, 605, 0]
    assert cells(tmp_path / "out.xlsx", "naming") == [[1, 2]]


def test_tables_without_apex_get_a_column_for_it(tmp_path):
    source = write_xlsx(tmp_path / "t.xlsx", SMIC)
    new = [Correction(4, 1, (11, 20, 29)), Correction(4, 3, (61, 66, 70))]
    write_corrected(source, SCHEMAS["smic"], new, tmp_path / "out.xlsx")
    rows = cells(tmp_path / "out.xlsx")
    header, row = rows[0], rows[3]
    found = dict(zip(header, row, strict=True))
    assert (found["OnsetF"], found["OffsetF"], found["OnsetF (annotated)"], found["Apex (found)"]) == (11, 29, 10, 20)
    assert (found["Onset3F"], found["Offset3F"], found["Offset3F (annotated)"], found["Apex 3 (found)"]) == (
        61,
        70,
        77,
        66,
    )
    assert found["Onset2F"] == 40


@pytest.mark.parametrize(
    ("delimiter", "encoding", "newline"), [(",", "utf-8", "\n"), (";", "utf-8-sig", "\r\n"), ("\t", "utf-8", "\n")]
)
def test_a_csv_keeps_its_ways(tmp_path, delimiter, encoding, newline):
    source = write_csv(tmp_path / "t.csv", CASME2, delimiter, encoding, newline)
    write_corrected(source, SCHEMAS["casme2"], [Correction(2, 1, (47, 60, 80))], tmp_path / "out.csv")
    old, new = source.read_bytes(), (tmp_path / "out.csv").read_bytes()
    assert new.startswith(b"\xef\xbb\xbf") == old.startswith(b"\xef\xbb\xbf")
    assert new.count(newline.encode()) == len(CASME2)
    lines = new.decode(encoding).split(newline)
    assert lines[1].split(delimiter) == [
        "01",
        "EP02_01f",
        "",
        "47",
        "60",
        "80",
        "",
        "12",
        "happiness",
        "46",
        "59",
        "86",
        *[""] * 10,
    ]
    assert lines[4].split(delimiter)[:9] == old.decode(encoding).split(newline)[4].split(delimiter)


SURE = {"estimate": (47, 61, 80), "intervals": ((45, 49), (58, 64), (78, 85)), "evidence": 0.87654}


@pytest.mark.parametrize("dataset", TABLES)
@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_how_sure_the_search_is_stands_at_the_right_edge_and_hinders_no_reader(tmp_path, dataset, suffix):
    source = write_table(tmp_path, dataset, suffix)
    clips = mt.read_annotations(source, dataset)
    write_corrected(
        source, SCHEMAS[dataset], [Correction(clips[0].row, 1, (46, 60, 80), **SURE)], tmp_path / f"o.{suffix}"
    )
    after = mt.read_annotations(tmp_path / f"o.{suffix}", dataset)
    assert (after[0].onset, after[0].offset, after[0].label, after[0].row) == (46, 80, clips[0].label, clips[0].row)
    assert [(c.onset, c.apex, c.offset, c.label, c.action_units) for c in after[1:]] == [
        (c.onset, c.apex, c.offset, c.label, c.action_units) for c in clips[1:]
    ]
    if suffix == "xlsx" and SCHEMAS[dataset].header is not None:
        rows = cells(tmp_path / "o.xlsx", SCHEMAS[dataset].sheet)
        header = rows[clips[0].row - 2]
        titles = [
            str(title) for title in header if title and str(title).endswith(("(estimate)", "(earliest)", "(latest)"))
        ]
        first = [rows[clips[0].row - 1][header.index(title)] for title in titles[:9]]
        assert first == [47, 45, 49, 61, 58, 64, 80, 78, 85]
        assert rows[clips[0].row - 1][header.index("Evidence (search)")] == 0.8765
        assert all(rows[clips[1].row - 1][header.index(title)] is None for title in titles)


def test_columns_of_certainty_are_named_after_the_table_s_own(tmp_path):
    source = write_csv(tmp_path / "t.csv", CASME2)
    write_corrected(source, SCHEMAS["casme2"], [Correction(2, 1, (46, 60, 80), **SURE)], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[9:] == [
        "OnsetFrame (annotated)", "ApexFrame (annotated)", "OffsetFrame (annotated)",
        "OnsetFrame (estimate)", "OnsetFrame (earliest)", "OnsetFrame (latest)",
        "ApexFrame (estimate)", "ApexFrame (earliest)", "ApexFrame (latest)",
        "OffsetFrame (estimate)", "OffsetFrame (earliest)", "OffsetFrame (latest)", "Evidence (search)",
    ]  # fmt: skip
    assert rows[0][9:] == [
        "46",
        "59",
        "86",
        "47",
        "45",
        "49",
        "61",
        "58",
        "64",
        "80",
        "78",
        "85",
        "0.8765",
    ]
    assert {len(row) for row in rows} == {len(header)}


def test_where_nothing_was_found_the_row_stays_and_the_evidence_is_told(tmp_path):
    source = write_xlsx(tmp_path / "t.xlsx", CASME2)
    write_corrected(source, SCHEMAS["casme2"], [Correction(4, 1, None, evidence=0.25)], tmp_path / "out.xlsx")
    row = cells(tmp_path / "out.xlsx")[3]
    assert row[:12] == [*CASME2[3], 181, "/", 270]
    assert row[12:] == [*[None] * 9, 0.25]


def test_every_expression_of_a_row_has_columns_of_its_own(tmp_path):
    source = write_xlsx(tmp_path / "t.xlsx", SMIC)
    new = [
        Correction(4, 1, (11, 20, 29), **SURE),
        Correction(4, 3, (61, 66, 70), (62, 66, 71), ((60, 64), (64, 68), (69, 73)), 0.75),
    ]
    write_corrected(source, SCHEMAS["smic"], new, tmp_path / "out.xlsx")
    header, *rows = cells(tmp_path / "out.xlsx")
    assert len(set(filter(None, header))) == len(list(filter(None, header)))
    found = dict(zip(header, rows[2], strict=True))
    wanted = {
        "Apex (found)": 20, "OnsetF (latest)": 49, "Apex (estimate)": 61, "Evidence (search)": 0.8765,
        "Onset2F (estimate)": None, "Apex 2 (earliest)": None, "Evidence 2 (search)": None, "Apex 3 (found)": 66,
        "Onset3F (estimate)": 62, "Apex 3 (latest)": 68, "Offset3F (earliest)": 69, "Evidence 3 (search)": 0.75,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    clips = [clip for clip in mt.read_annotations(tmp_path / "out.xlsx", "smic") if clip.row == 4]
    assert [(clip.expression, clip.onset, clip.offset) for clip in clips] == [(1, 11, 29), (2, 40, 52), (3, 61, 70)]


def test_a_corrected_table_is_corrected_again(tmp_path):
    source = write_csv(tmp_path / "t.csv", CASME2)
    write_corrected(source, SCHEMAS["casme2"], [Correction(2, 1, (46, 60, 80), **SURE)], tmp_path / "a.csv")
    write_corrected(tmp_path / "a.csv", SCHEMAS["casme2"], [Correction(2, 1, (48, 62, 82), **SURE)], tmp_path / "b.csv")
    clip = mt.read_annotations(tmp_path / "b.csv", "casme2")[0]
    assert (clip.onset, clip.apex, clip.offset) == (48, 62, 82)


def test_other_kinds_of_files(tmp_path):
    xls = write_xls(tmp_path / "t.xls", CASME2)
    xlsx = write_xlsx(tmp_path / "t.xlsx", CASME2)
    for source, out in (
        (xls, "a.xlsx"),
        (xls, "a.csv"),
        (xlsx, "b.csv"),
        (write_csv(tmp_path / "t.csv", CASME2), "c.xlsx"),
    ):
        write_corrected(source, SCHEMAS["casme2"], [Correction(2, 1, (47, 60, 80))], tmp_path / out)
        clips = mt.read_annotations(tmp_path / out, "casme2")
        assert (clips[0].onset, clips[0].apex, clips[0].offset, clips[1].onset) == (47, 60, 80, 131)


def test_a_csv_becomes_the_sheet_its_dataset_is_read_from(tmp_path):
    path, schema = write_table(tmp_path, "casme3-a", "csv"), SCHEMAS["casme3-a"]
    clip = mt.read_annotations(path, schema)[0]
    write_corrected(path, schema, [Correction(clip.row, 1, (176, 181, 191))], tmp_path / "out.xlsx")
    found = mt.read_annotations(tmp_path / "out.xlsx", "casme3-a")[0]
    assert (found.onset, found.apex, found.offset) == (176, 181, 191)


def test_the_same_bytes_every_time(tmp_path):
    source = write_table(tmp_path, "casme3-a")
    written = []
    for name in ("a.xlsx", "b.xlsx"):
        write_corrected(source, SCHEMAS["casme3-a"], [Correction(2, 1, (1, 2, 3))], tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("out", "kind", "message"),
    [
        ("t.xlsx", ValueError, "is never written to"),
        ("out.xls", ValueError, r"out must be an .xlsx or .csv file"),
        ("nowhere/out.xlsx", FileNotFoundError, "existing folder"),
    ],
)
def test_outputs_that_cannot_be(tmp_path, out, kind, message):
    source = write_xlsx(tmp_path / "t.xlsx", CASME2)
    with pytest.raises(kind, match=message):
        write_corrected(source, SCHEMAS["casme2"], [], tmp_path / out)
