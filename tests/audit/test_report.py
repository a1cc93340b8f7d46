import csv
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import mertools as mt
from mertools.audit.plots import plot_contact_sheet, plot_shifts, plot_uncertain
from mertools.audit.results import Certainty


def entry(i, offset, **fields):
    clip = mt.ClipAnnotation(
        "casme2",
        fields.pop("subject", f"{i % 5:02d}"),
        f"EP{i}",
        10,
        20,
        40,
        "fear",
        row=i + 2,
        table="t.csv",
        **fields,
    )
    return mt.ClipAudit(clip, (10, 20, 40), {"robust": (10 + i % 3 - 1, 20 + i % 2, offset)})


def page(tmp_path, entries, **options):
    mt.AnnotationAudit(entries, ("robust",)).write_report(tmp_path / "report", **options)
    return (tmp_path / "report" / "index.html").read_text()


def test_the_verdict_says_which_scatters(tmp_path):
    random = np.random.default_rng(0)
    wide = [entry(i, 40 + int(random.integers(-15, 15))) for i in range(40)]
    assert "Offsets scatter more than onsets" in page(tmp_path, wide)
    alike = [entry(i, 40 + (i // 3) % 3 * 2 - 2) for i in range(40)]
    assert "no difference in spread of offsets and onsets is shown" in page(tmp_path, alike).replace("No ", "no ")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_clips(tmp_path, count):
    text = page(tmp_path, [entry(i, 40) for i in range(count)])
    assert f"{count} clips, 0 skipped" in text
    assert "nan" not in text.split("base64")[0]


def test_names_from_the_table_are_text_not_html(tmp_path):
    bad = mt.ClipAudit(mt.ClipAnnotation("casme2", "01", "<script>x</script>", row=3), error="a < b")
    text = page(tmp_path, [entry(0, 40, subject="<b>"), entry(1, 40), bad], title="<i>")
    assert "<script>" not in text
    assert "<b>" not in text.replace("<b>", "", 3) or "&lt;b&gt;" in text
    assert "&lt;script&gt;" in text
    assert "a &lt; b" in text
    assert "<h1>&lt;i&gt;</h1>" in text


def test_only_skipped_clips(tmp_path):
    text = page(tmp_path, [mt.ClipAudit(mt.ClipAnnotation("casme2", "01", "a", row=3), error="gone")])
    assert "Skipped clips" in text
    assert "<img" not in text


def test_many_subjects_are_cut_and_the_csv_has_all(tmp_path):
    text = page(tmp_path, [entry(i, 40, subject=f"{i:03d}") for i in range(60)])
    assert "The 25 largest of 60; groups.csv has all." in text
    lines = (tmp_path / "report" / "groups.csv").read_text().splitlines()
    assert sum(",subject," in line for line in lines) == 60 * 3


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "notes.txt").write_text("mine")
    page(tmp_path, [entry(0, 40)])
    assert (tmp_path / "report" / "notes.txt").read_text() == "mine"


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'mertools\[plot\]'"):
        page(tmp_path, [entry(0, 40)])
    assert not (tmp_path / "report").exists()


def sure_entry(i, found, evidence=0.9, spread=1.0, **fields):
    clip = mt.ClipAnnotation("casme2", f"{i % 5:02d}", f"EP{i}", 10, 20, 40, "fear", row=i + 2, table="t.csv", **fields)
    ends = tuple((key - 2, key + 2) for key in found)
    keys = (10, 20, 40) if evidence < 0.5 else found
    sure = {"robust": Certainty(found, evidence, (spread,) * 3, ends, (found[1], found[1]))}
    return mt.ClipAudit(clip, (10, 20, 40), {"robust": keys}, certainty=sure)


def test_the_report_says_how_sure_the_search_is(tmp_path):
    entries = [sure_entry(i, (13 - i, 20, 50 + i)) for i in range(9)]
    text = page(tmp_path, entries)
    assert "10 → <b>13 (11–15)</b>" in text
    assert "20 → 20 (18–22)" in text
    assert "No movement" not in text
    assert "How far annotators scatter" in text
    with (tmp_path / "report" / "components.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["search"], row["name"], row["key"], row["n"]) for row in rows] == [
        ("robust", "all", key, "9") for key in ("onset", "apex", "offset")
    ]
    assert float(rows[0]["total"]) == pytest.approx(np.std(range(9), ddof=1), rel=1e-5)
    assert float(rows[0]["annotators"]) == pytest.approx((np.var(range(9), ddof=1) - 1.645**-2) ** 0.5, rel=1e-5)
    assert float(rows[1]["annotators"]) == 0


def test_clips_without_a_movement_are_counted_and_listed(tmp_path):
    entries = [sure_entry(0, (13, 20, 50)), sure_entry(1, (17, 22, 39), 0.2), sure_entry(2, (17, 22, 39), 0.49)]
    text = page(tmp_path, entries)
    assert "No movement was found in 2 of 3 clips" in text
    listed = text.split("<h2>No movement found</h2>")[1]
    assert "t.csv, row 3 (01/EP1): evidence 0.20" in listed
    assert "t.csv, row 4 (02/EP2): evidence 0.49" in listed
    assert "EP0" not in listed
    assert "EP1" not in text.split("<h2>The clips that move most</h2>")[1].split("<h2>No movement found</h2>")[0]
    assert "nan" not in text.split("base64")[0]


def test_a_report_of_clips_without_any_movement(tmp_path):
    text = page(tmp_path, [sure_entry(i, (17, 22, 39), 0.2) for i in range(4)])
    assert "No movement was found in 4 of 4 clips" in text
    assert "move most" not in text
    assert "nan" not in text.split("base64")[0]


def test_a_search_without_intervals_has_no_components(tmp_path):
    text = page(tmp_path, [entry(i, 40 + i) for i in range(5)])
    assert "How far annotators scatter" not in text
    assert "inside the interval" not in text
    assert len((tmp_path / "report" / "components.csv").read_text().splitlines()) == 1


def test_every_clip_is_in_the_histograms():
    shifts = {key: np.array([-90.0, -1, 0, 0, 2, 90, np.nan]) for key in ("onset", "apex", "offset")}
    figure = plot_shifts({"annotated": shifts, "robust": shifts})
    for axes in figure.axes:
        assert sum(patch.get_height() for patch in axes.patches) == 6
    centres = [patch.get_x() + patch.get_width() / 2 for patch in figure.axes[0].patches]
    assert min(abs(centre) for centre in centres) < 1e-9


def test_clips_are_counted_in_whole_numbers():
    shifts = {key: np.array([0.0, 1.0]) for key in ("onset", "apex", "offset")}
    figure = plot_shifts({"robust": shifts})
    FigureCanvasAgg(figure).draw()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_yticks())


def test_shares_and_contact_sheets():
    audit = mt.AnnotationAudit([entry(i, 40 + 9 * (i % 2)) for i in range(10)], ("robust",))
    axes = plot_uncertain(audit.groups("subject"), "subject").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{i:02d} (2)" for i in range(5)]
    images = np.zeros((6, 40, 30, 3), np.uint8)
    figure = plot_contact_sheet(images, (10, 60), (10, 20, 40), (11, 20, 49))
    assert [axes.get_title() for axes in figure.axes][3:6] == ["onset 11 (+1)", "apex 20 (+0)", "offset 49 (+9)"]
    ends = [(9, 13), (18, 22), (45, 53)]
    figure = plot_contact_sheet(images, (9, 60), (10, 20, 40), (11, 20, 49), ends)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["onset 10", "apex 20", "offset 40"]
    assert titles[3:6] == ["onset 11 (9–13), +1", "apex 20 (18–22), +0", "offset 49 (45–53), +9"]
    assert [list(line.get_xdata()) for line in figure.axes[-1].lines][1:4] == [list(pair) for pair in ends]
