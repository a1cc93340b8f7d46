import mertools as mt
from mertools.evaluation.score_summary import aligned


def test_the_table():
    book = mt.ScoreBook(["negative", "positive"], selection="inner split")
    for i in range(4):
        book.add([0, i % 2], [0, 1], clips=[f"{i}/a", f"{i}/b"], subjects=f"s{i}")
    low, high = book.interval("uf1")
    assert str(book).splitlines() == [
        "8 clips, 4 subjects, 2 classes",
        "selection: inner split",
        "",
        f"UF1  0.7333  [{low:.4f}, {high:.4f}]",
        "UAR  0.7500  [0.5000, 1.0000]",
        "WAR  0.7500  [0.5000, 1.0000]",
        "95 % intervals over 4 subjects",
        "",
        "class     precision  recall      F1  clips",
        "negative     0.6667  1.0000  0.8000      4",
        "positive     1.0000  0.5000  0.6667      4",
        "",
        "true \\ predicted  negative  positive",
        "negative                 4         0",
        "positive                 2         2",
    ]


def test_a_summary_with_other_settings():
    book = mt.ScoreBook(["a", "b", "c"])
    book.add([0, 1], [0, 1], clips=["x", "y"], subjects=["s1", "s2"])
    summary = book.summary(absent="zero", level=0.5, repeats=10, seed=3)
    assert (summary["uf1"], summary["absent"]) == (book.uf1(absent="zero"), "zero")
    assert {key: summary["intervals"][key] for key in ("over", "units", "level", "repeats", "seed")} == {
        "over": "subject", "units": 2, "level": 0.5, "repeats": 10, "seed": 3,
    }  # fmt: skip


def test_alignment_without_trailing_blanks():
    assert aligned([["a", "b"], ["long", ""]]) == ["a     b", "long"]
