import dataclasses
import re

import pytest
from annotation_tables import (
    CASME2,
    CASME3,
    CASME_SQUARED,
    CASME_SQUARED_NAMING,
    MMEW,
    SAMM,
    SMIC,
    TABLES,
    dataframe,
    make_frames,
    write_csv,
    write_table,
    write_xls,
    write_xlsx,
)

import mertools as mt
from mertools.annotations.schemas import SCHEMAS, dataset_schema


def read(tmp_path, dataset, suffix="xlsx", **options):
    table = write_table(tmp_path, dataset_schema(dataset).name, suffix)
    return mt.read_annotations(table, dataset, **options)


def keys(clips):
    return [(clip.onset, clip.apex, clip.offset) for clip in clips]


# --- one dataset after the other ------------------------------------------------------------------------------------


def test_casme2(tmp_path):
    clips = read(tmp_path, "casme2")
    assert [clip.subject for clip in clips] == ["01", "01", "04", "17"]
    assert keys(clips) == [(46, 59, 86), (131, 139, 161), (181, None, 270), (2, 1, 30)]
    assert [clip.label for clip in clips] == ["happiness", "happiness", "disgust", "others"]
    assert clips[2].action_units == ("L1", "R4")
    assert clips[0].folders == ("sub01/EP02_01f",)
    assert {clip.fps for clip in clips} == {200.0}
    assert [clip.row for clip in clips] == [2, 3, 4, 5]
    assert clips[0].sheet == "Sheet1"
    assert clips[0].table.endswith("casme2.xlsx")
    assert [(p.row, p.column, p.kind) for p in clips.problems] == [
        (4, "ApexFrame", "missing key"),
        (5, "ApexFrame", "apex outside"),
    ]


def test_samm_header_on_row_14(tmp_path):
    clips = read(tmp_path, "samm")
    assert [clip.row for clip in clips] == [15, 16, 17]
    assert keys(clips) == [(562, 580, 622), (100, None, 160), (1200, 1300, 1250)]
    assert [clip.subject for clip in clips] == ["006", "007", "011"]
    assert [clip.label for clip in clips] == ["anger", "other", "other"]
    assert clips[0].action_units == ("AU4 or AU7",)
    assert mt.facs_labels(clips[0].action_units, action_units=["AU04", "AU07"]).tolist() == [[0.5, 0.5]]
    assert clips[1].extra["notes"] == "no apex"
    assert clips[0].folders == ("006/006_1_2",)
    assert [p.row for p in clips.problems] == [16, 17]


def test_samm_forks(tmp_path):
    fork = [[{"Onset Frame": "Onset", "Offset Frame": "Offset"}.get(cell, cell) for cell in row] for row in SAMM[13:]]
    clips = mt.read_annotations(write_csv(tmp_path / "fork.csv", fork), "samm")
    assert keys(clips)[0] == (562, 580, 622)
    assert clips[0].row == 2


def test_cas_me_squared_without_header(tmp_path):
    clips = read(tmp_path, "cas(me)2")
    assert keys(clips) == [(557, 564, 572), (600, 605, None), (20, 24, 31)]
    assert [clip.row for clip in clips] == [1, 2, 3]
    assert clips[0].folders[0] == "s15/15_0401*"
    assert clips[2].folders[0] == "s16/16_0502*"
    assert clips[1].extra["type"] == "micro-expression"
    repaired = read(tmp_path, "CAS(ME)^2", repair="offset-from-apex")
    assert repaired[1].offset == 605
    assert [(entry.row, entry.repair) for entry in repaired.repairs] == [(2, "offset-from-apex")]


def test_cas_me_squared_naming_without_a_counting_column(tmp_path):
    naming = {"subjects": [["15", 1], ["16", 2]], "videos": [[401, "anger1"], [1502, "happy1"]]}
    path = write_xlsx(tmp_path / "t.xlsx", CASME_SQUARED, naming, "codes")
    assert [clip.folders[0] for clip in mt.read_annotations(path, "cas(me)2")] == [
        "s15/15_0401*",
        "s15/15_0401*",
        "s16/16_1502*",
    ]


def test_cas_me_three_part_a(tmp_path):
    clips = read(tmp_path, "CAS(ME)^3 part A")
    assert clips.schema.name == "casme3-a"
    assert [clip.label for clip in clips] == ["disgust", "others", "surprise", "sad"]
    assert clips[0].key == ("spNO.1", "b", "175")
    assert clips[3].action_units == ("4", "5")
    assert clips[0].folders[:2] == ("spNO.1_b_175", "spNO.1/b/color")
    assert [(p.row, p.kind) for p in clips.problems] == [
        (3, "apex at onset"), (4, "missing key"), (5, "apex outside"),
    ]  # fmt: skip
    repaired = read(tmp_path, "casme3", repair=["offset-from-apex", "sort-keys"])
    assert keys(repaired)[2:] == [(45, 50, 50), (70, 90, 99)]
    assert read(tmp_path, "casme3-a-v1").schema.sheet is None


def test_cas_me_three_flag_leaves_a_clip_alone(tmp_path):
    rows = [[*row, flag] for row, flag in zip(CASME3, ["flag", 1, 0, None, False], strict=True)]
    clips = mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows, sheet="label"), "casme3-a")
    assert [clip.reselect for clip in clips] == [True, False, True, False]


def test_cas_me_three_part_c_has_no_apex(tmp_path):
    clips = read(tmp_path, "casme3-c")
    assert keys(clips) == [(20, None, 41), (80, None, 99)]
    assert clips[1].action_units == ("4", "10")
    assert clips.problems == []
    assert keys(read(tmp_path, "casme3-c", repair="apex-midpoint")) == [(20, 30, 41), (80, 89, 99)]


def test_smic_has_several_expressions_a_row(tmp_path):
    clips = read(tmp_path, "SMIC-HS")
    assert [clip.name for clip in clips] == [
        "s1/s1_ne_01", "s1/s1_po_02", "s1/s1_po_02#2", "s2/s2_sur_01", "s2/s2_sur_01#2", "s2/s2_sur_01#3",
    ]  # fmt: skip
    assert keys(clips)[1:3] == [(100, None, 120), (140, None, 160)]
    assert [clip.label for clip in clips] == ["negative", "positive", "positive", *["surprise"] * 3]
    assert clips.problems == []
    assert clips[2].key == ("s1", "s1_po_02", "2")


def test_smic_label_against_its_name(tmp_path):
    rows = [SMIC[0], ["s1", "s1_ne_01", None, 3, 8, None, None, None, None, "positive"]]
    clips = mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), "smic")
    assert [(p.row, p.kind) for p in clips.problems] == [(2, "label")]


def test_mmew(tmp_path):
    clips = read(tmp_path, "mmew")
    assert keys(clips) == [(1, 13, 30), (2, 9, 40)]
    assert clips[1].extra == {"remarks": "weak"}
    assert clips[0].fps == 90


def test_4dme_headers_in_apostrophes_and_several_labels(tmp_path):
    clips = read(tmp_path, "4dme")
    assert clips[0].labels == ("surprise", "positive")
    assert clips[0].label == "surprise+positive"
    assert clips[1].extra["eye_blink"] == "1"
    assert keys(clips) == [(10, 16, 33), (5, 9, 20)]


def dfew(tmp_path):
    for split, rows in (("train", ["00001,1", "2,2", "00003,7"]), ("test", ["00004,4"])):
        folder = tmp_path / "EmoLabel_DataSplit" / f"{split}(single-labeled)"
        folder.mkdir(parents=True)
        for fold in range(1, 6):
            (folder / f"set_{fold}.csv").write_text("video_name,label\n" + "\n".join(rows) + "\n")
    return tmp_path / "EmoLabel_DataSplit"


def test_dfew(tmp_path):
    folder = dfew(tmp_path)
    clips = mt.read_annotations(folder / "train(single-labeled)" / "set_3.csv", "dfew")
    assert [(c.clip, c.label, c.split, c.fold) for c in clips] == [
        ("00001", "happy", "train", 3), ("00002", "sad", "train", 3), ("00003", "fear", "train", 3),
    ]  # fmt: skip
    everything = mt.read_annotations(folder, "DFEW")
    assert len(everything) == 20
    assert everything.problems == []


def test_derived_lists_name_their_classes(tmp_path):
    (tmp_path / "list.txt").write_text("/data/DFEW/00001 16 0\n/data/DFEW/00002 24 6\n\n")
    clips = mt.read_annotations(tmp_path / "list.txt", "dfew-list")
    assert [(c.clip, c.num_frames, c.label) for c in clips] == [
        ("/data/DFEW/00001", 16, "happy"), ("/data/DFEW/00002", 24, "fear"),
    ]  # fmt: skip
    alphabetical = mt.read_annotations(tmp_path / "list.txt", mt.frame_list_schema("ferv39k", "FERV39K-alphabetical"))
    assert [c.label for c in alphabetical] == ["angry", "surprise"]


def test_ferv39k(tmp_path):
    (tmp_path / "train_All.csv").write_text("Action/Happy/0267 Happy\nArgue/Sad/1002 Sad\n")
    (tmp_path / "test_All.csv").write_text("Action/Fear/0002 Happy\n")
    clips = mt.read_annotations(tmp_path, "ferv39k")
    assert sorted((c.clip, c.label, c.split) for c in clips) == [
        ("Action/Fear/0002", "happy", "test"), ("Action/Happy/0267", "happy", "train"),
        ("Argue/Sad/1002", "sad", "train"),
    ]  # fmt: skip
    assert [(p.clip, p.kind) for p in clips.problems] == [("Action/Fear/0002", "label")]


# --- what copies of the tables hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "onset", ["Onset", "OnsetFrame", "onset_frame", "Onset Frame", "onset-frame", "ONSET.FRAME", "OnsetF"]
)
@pytest.mark.parametrize("label", ["Label", "emotion", "Emotion", "Estimated Emotion", "estimated_emotion"])
def test_headers_of_copies(tmp_path, onset, label):
    heads = {
        "OnsetFrame": onset,
        "ApexFrame": onset.replace("nset", "pex")
        .replace("NSET", "PEX")
        .replace("O", "A")
        .replace("onset", "apex")
        .replace("oa", "a")
        .replace("opex", "apex"),
        "Estimated Emotion": label,
        "Action Units": "AU",
    }
    rows = [["", *[heads.get(cell, cell) for cell in CASME2[0]]], *[[i, *row] for i, row in enumerate(CASME2[1:])]]
    assert rows[0][5].casefold().startswith("apex")
    clips = mt.read_annotations(write_csv(tmp_path / "t.csv", rows), "casme2")
    assert keys(clips) == [(46, 59, 86), (131, 139, 161), (181, None, 270), (2, 1, 30)]
    assert [clip.label for clip in clips] == ["happiness", "happiness", "disgust", "others"]
    assert clips.columns["onset"] == onset


def test_the_datasets_own_header_counts_where_a_copy_has_both(tmp_path):
    rows = [[*CASME2[0], "Label", "Onset"], *[[*row, "fear", 999] for row in CASME2[1:]]]
    clips = mt.read_annotations(write_csv(tmp_path / "t.csv", rows), "casme2")
    assert (clips[0].onset, clips[0].label) == (46, "happiness")


@pytest.mark.parametrize("missing", ["/", "\\", "-", "-1", "", "N/A", "NaN", "／", "–"])
def test_an_apex_that_nobody_found(tmp_path, missing):
    clips = mt.read_annotations(write_csv(tmp_path / "t.csv", changed(CASME2, 3, 4, missing)), "casme2")
    assert clips[2].apex is None


def test_chinese_csv(tmp_path):
    rows = [[*CASME2[0], "备注"], *[[*row, "眉毛"] for row in CASME2[1:]]]
    rows[3][7] = "4；7"
    path = write_csv(tmp_path / "t.csv", rows, encoding="gb18030")
    clips = mt.read_annotations(path, "casme2")
    assert clips[2].action_units == ("4", "7")
    assert len(clips) == 4


def test_other_words_for_a_label(tmp_path):
    rows = changed(changed(CASME2, 1, 8, "Happy"), 4, 8, "Other")
    clips = mt.read_annotations(write_csv(tmp_path / "t.csv", rows), "casme2")
    assert [clip.label for clip in clips] == ["happiness", "happiness", "disgust", "others"]


def test_action_units_are_parted_outside_brackets_only(tmp_path):
    for cell, units in (
        ("(R6 or R12)+R15", ("(R6 or R12)", "R15")), ("(4+7) or 12", ("(4+7) or 12",)), ("4＋7，12", ("4", "7", "12")),
        ("14+17+soft focus", ("14", "17", "soft focus")), ("1 2", ("1 2",)), ("4)+7", ("4)", "7")),
    ):  # fmt: skip
        clips = mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", changed(CASME2, 1, 7, cell)), "casme2")
        assert clips[0].action_units == units


@pytest.mark.parametrize(
    ("rows", "kind", "other"),
    [
        (CASME2, "samm", "casme2"),
        (CASME2, "mmew", "casme2"),
        ([SAMM[13], ["006", "006_1_2", 1, 562, 580, 622, 61, "Micro", "4", "Anger", 3, None]], "mmew", "samm"),
        ([CASME3[0], ["spNO.1", "b", 175, 180, 190, "4", "II", "disgust"]], "casme2", "casme3-a"),
        ([MMEW[0], ["S03", "S03-01-002", 1, 13, 30, "1+2", "surprise", None]], "casme2", "mmew"),
        ([CASME2[0], ["sub0003", "sub0003_01", None, 1, 13, 30, None, "4", "surprise"]], "casme2", "dfme"),
    ],
)
def test_a_table_of_another_dataset_does_not_pass(tmp_path, rows, kind, other):
    """Its columns and labels fit; its rows are named as those of another set."""
    labels = {"repression": "surprise", "others": "surprise"} if kind != "casme2" else {}
    rows = [[labels.get(cell, cell) for cell in row] for row in rows]
    with pytest.raises(
        ValueError, match=rf"rows are named as those of {re.escape(other)}, and none as those of {kind}"
    ):
        mt.read_annotations(write_csv(tmp_path / "t.csv", rows), kind)
    assert mt.read_annotations(write_csv(tmp_path / "t.csv", rows[:1]), kind) == []


def squared(tmp_path, rows, rule1, rule2=(["0401", "anger1"], ["0502", "happy1"])):
    naming = {"naming rule1": rule1, "naming rule2": list(rule2)}
    return write_xlsx(tmp_path / "t.xlsx", rows, naming, "CASFEcode_final")


def test_naming_sheets_with_repeated_rows(tmp_path):
    rows = [[15, "anger1_1", 557, 564, 572, "4", "negative", "macro-expression", "anger"],
            [1, "happy1_1", 20, 24, 31, "12", "positive", "micro-expression", None]]  # fmt: skip
    rule1 = [[15, "s15", 1], [15, "s15", 1], [32, "s32", 15], [32, "s32", 15]]
    clips = mt.read_annotations(squared(tmp_path, rows, rule1), "cas(me)2")
    assert [clip.folders for clip in clips] == [
        ("s32/32_0401*", "s32/anger1_1"), ("s15/15_0502*", "s15/happy1_1"),
    ]  # fmt: skip
    alone = mt.read_annotations(squared(tmp_path, rows[:1], rule1), "cas(me)2")
    assert alone[0].folders[0] == "s32/32_0401*"  # 15 is a code as well, and a subject: s15 beside it says which
    numbers = mt.read_annotations(squared(tmp_path, rows, rule1, [[401, "anger1"], [502, "happy1"]]), "cas(me)2")
    assert [clip.folders for clip in numbers] == [clip.folders for clip in clips]
    spotting = mt.read_annotations(squared(tmp_path, rows, rule1), "CAS(ME)^2 spotting")
    assert [(clip.label, clip.extra["emotion"], clip.folders) for clip in spotting] == [
        ("macro", "negative", clips[0].folders), ("micro", "positive", clips[1].folders),
    ]  # fmt: skip


def test_a_translation_that_cannot_be_made_is_an_error(tmp_path):
    rows = [[1, "anger1_1", 557, 564, 572, "4", "negative", "macro", "anger"],
            [2, "anger1_1", 57, 64, 72, "4", "negative", "macro", "anger"],
            [3, "sad1_1", 20, 24, 31, "12", "positive", "micro", None]]  # fmt: skip
    rule1 = [[15, "s15", 1], [16, "s16", 2]]
    path = squared(tmp_path, rows, rule1)
    with pytest.raises(
        ValueError, match=r"row 3, column A \('subject'\) holds '3', which the naming sheet does not translate"
    ):
        mt.read_annotations(path, "cas(me)2")
    with pytest.raises(ValueError, match=r"row 3, column B \('clip'\) holds 'sad1', which the naming sheet"):
        mt.read_annotations(squared(tmp_path, rows, [*rule1, [19, "s19", 3]]), "cas(me)2")
    assert [p.kind for p in mt.check_dataset(path, None, "cas(me)2").problems] == ["cell"]
    two = squared(tmp_path, rows[:2], [[1, 15, 40], [2, 16, 41]])
    with pytest.raises(ValueError, match="two columns may hold the codes of 1, 2"):
        mt.read_annotations(two, "cas(me)2")


@pytest.mark.parametrize("kind", ["csv", "DataFrame", "conflict"])
def test_without_a_naming_sheet_nobody_gets_the_frames_of_another(tmp_path, kind):
    rows = [
        [15, "anger1_1", 1, 2, 3, "4", "negative", "macro", "anger"],
        [1, "anger1_1", 1, 2, 3, "4", "negative", "macro", ""],
    ]
    make_frames(tmp_path / "root" / "s15" / "anger1_1", [1, 2, 3])
    table = {
        "csv": lambda: write_csv(tmp_path / "t.csv", rows), "DataFrame": lambda: dataframe(rows, None),
        "conflict": lambda: squared(tmp_path, rows, [[15, "s15", 1], [16, "s16", 1], [17, "s17", 15]]),
    }[kind]()  # fmt: skip
    clips = mt.read_annotations(table, "cas(me)2")
    assert [clip.folders for clip in clips] == [(), ()]
    for clip in clips:
        with pytest.raises(ValueError, match="named by codes, and no sheet of .* translates subject"):
            mt.find_frames(clip, tmp_path / "root")
    report = mt.check_dataset(clips, tmp_path / "root")
    assert report.counts == {"folder": 2, "folder without row": 1}


def test_a_naming_sheet_of_subjects_alone(tmp_path):
    rows = [[15, "anger1_1", 1, 2, 3, "4", "negative", "macro", "anger"]]
    path = write_xlsx(tmp_path / "t.xlsx", rows, {"naming rule1": [[15, "s15", 1], [32, "s32", 15]]})
    (clip,) = mt.read_annotations(path, "cas(me)2")
    assert (clip.folders, clip.unplaced) == (("s32/anger1_1",), "")


def test_samm_long_videos(tmp_path):
    rows = [["SAMM Long Videos"], *[[None]] * 8, ["Subject", "Filename", "Inducement Code", "Onset", "Apex", "Offset", "Duration", "Type", "Action Units", "Notes"],
            ["006", "006_1_1", 1, 100, 400, 1500, 1401, "Macro", "4+7", None], [6, "006_1_2", 1, 562, -1, 622, 61, "Micro - 1/2", "4", "x"]]  # fmt: skip
    clips = mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), "SAMM Long Videos")
    assert [(c.subject, c.label, c.folders[0]) for c in clips] == [("006", "macro", "006_1"), ("006", "micro", "006_1")]
    assert keys(clips) == [(100, 400, 1500), (562, None, 622)]
    make_frames(tmp_path / "SAMM_longvideos" / "006_1", range(560, 565), "006_1_{:04d}.jpg")
    assert mt.find_frames(clips[1], tmp_path).position(562) == 2


def test_smic_with_an_apex(tmp_path):
    rows = [
        ["Subject", "Filename", "OnsetF", "ApexF", "OffsetF", "Emotion"],
        [1, "s1_ne_01", 3, 8, 12, "negative"],
        [2, "s2_po_01", 3, None, 12, "positive"],
    ]
    clips = mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), "smic")
    assert keys(clips) == [(3, 8, 12), (3, None, 12)]
    assert [(p.row, p.column) for p in clips.problems] == [(3, "ApexF")]


@pytest.mark.parametrize(
    "rows",
    [
        [
            ["Subject", "Filename", "OnsetFrame", "OffsetFrame", "Estimated Emotion"],
            ["s01", "s1_ne_01", 3, 12, "negative"],
        ],
        [["data", "subject", "clip", "label", "onset_frame", "offset_frame"], ["smic", "s01", "s1_ne_01", 0, 3, 12]],
        [
            ["data", "subject", "clip", "label", "onset_frame", "offset_frame"],
            ["smic", "s01", "s1_ne_01", "neg", 3, 12],
        ],
    ],
)
def test_derived_layouts_of_smic(tmp_path, rows):
    (clip,) = mt.read_annotations(write_csv(tmp_path / "t.csv", rows), "smic")
    assert (clip.subject, clip.clip, clip.onset, clip.offset, clip.label) == ("s01", "s1_ne_01", 3, 12, "negative")
    make_frames(tmp_path / "HS" / "s01" / "micro" / "s01_ne_01", [3, 12])
    assert mt.find_frames(clip, tmp_path).numbers == (3, 12)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", ["MAFW_set_1_train.txt", "split01/train.csv", "list.txt"])
def test_the_clips_tell_the_order_of_a_list_of_mafw(tmp_path, own, name):
    """Two orders are in use, and nothing else in a list says which is its own."""
    classes = mt.CLASS_SETS["MAFW"]
    order = (
        classes if own else ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", *classes[7:])
    )
    known = SCHEMAS["mafw"].known
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(
        "".join(f"/data/MAFW/{clip}.mp4 {order.index(label)}\n" for clip, label in known.items())
    )
    clips = mt.read_annotations(tmp_path / name, "mafw")
    assert [clip.label for clip in clips] == list(known.values())
    assert clips.problems == []
    wrong = mt.read_annotations(tmp_path / name, mt.frame_list_schema("mafw", (*classes[1:], classes[0])))
    assert len(wrong.problems) == len(known)
    assert "the clip is known as 'happiness': are the classes in another order?" in str(wrong.problems[0])


def test_lists_of_mafw_without_clips_that_are_known(tmp_path):
    for name, label in (("MAFW_set_1_train.txt", "happiness"), ("split01.csv", None), ("names.txt", "anger")):
        (tmp_path / name).write_text("/data/00001 anger\n" if name == "names.txt" else "/data/00001 0\n")
        if label is None:
            with pytest.raises(ValueError, match="Integers say nothing about their order"):
                mt.read_annotations(tmp_path / name, "mafw")
        else:
            assert mt.read_annotations(tmp_path / name, "mafw")[0].label == label


# --- kinds of files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", TABLES)
def test_every_kind_of_file_reads_the_same(tmp_path, dataset):
    expected = read(tmp_path, dataset)
    rows = TABLES[dataset][0]
    kinds = [write_csv(tmp_path / "a.csv", rows), write_csv(tmp_path / "b.csv", rows, ";", "utf-8-sig", "\r\n")]
    if "，" not in str(rows):  # the small writer of old xls files knows Latin letters only
        kinds.append(write_xls(tmp_path / "a.xls", rows))
    kinds.append(dataframe(rows, None))
    if dataset not in ("samm", "cas(me)2"):
        kinds.append(dataframe(rows, 0))
    for table in kinds:
        schema = dataset_schema(dataset)
        clips = mt.read_annotations(
            table, schema if schema.sheet is None or isinstance(table, str) else without_sheet(schema)
        )
        assert [(c.subject, c.clip, c.label, c.row) for c in clips] == [
            (c.subject, c.clip, c.label, c.row) for c in expected
        ]
        assert keys(clips) == keys(expected)
        assert [c.action_units for c in clips] == [c.action_units for c in expected]


def without_sheet(schema):
    return dataclasses.replace(schema, sheet=None)


def test_merged_cells_speak_for_all_they_cover(tmp_path):
    import openpyxl

    path = write_table(tmp_path, "casme2")
    book = openpyxl.load_workbook(path)
    book.active.merge_cells("A2:A3")
    book.save(path)
    assert [c.subject for c in mt.read_annotations(path, "casme2")][:2] == ["01", "01"]


def test_the_result_is_a_list(tmp_path):
    clips = read(tmp_path, "casme2")
    assert isinstance(clips, list)
    assert clips[:1] == [clips[0]]
    assert sorted(clips, key=lambda c: c.onset)[0].onset == 2


# --- errors ---------------------------------------------------------------------------------------------------------


def changed(rows, row, column, value):
    rows = [list(r) for r in rows]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(CASME2, 0, 8, "Feeling"), r"t.xlsx, sheet 'S', row 1: no column 'Estimated Emotion' of casme2 .*'Feeling'"),
        ([[*r[:4], *r[5:]] for r in CASME2], r"sheet 'S', row 1: no column 'ApexFrame'"),
        (changed(CASME2, 2, 8, "joy"), r"sheet 'S', row 3, column I \('Estimated Emotion'\).*'joy' \(row 3\).*Known are others, disgust"),
        (changed(CASME2, 3, 3, "abc"), r"sheet 'S', row 4, column D \('OnsetFrame'\) holds 'abc', a frame number"),
        (changed(CASME2, 3, 3, 17.5), r"row 4, column D .* holds '17.5', a frame number"),
        (changed(CASME2, 3, 1, None), r"row 4, column B \('Filename'\) is empty, every row needs a clip"),
        (changed(CASME2, 3, 0, None), r"row 4, column A \('Subject'\) is empty, every row needs a subject"),
        (changed(CASME2, 0, 2, "Apex Frame"), r"row 1, column \w \('Apex ?Frame'\): there are two columns of this name"),
        ([], r"t.xlsx, sheet 'S' is empty"),
        ([CASME2[0]], None),
    ],
)  # fmt: skip
def test_a_wrong_table_fails_with_path_sheet_row_and_column(tmp_path, rows, message):
    path = write_xlsx(tmp_path / "t.xlsx", rows, sheet="S")
    if message is None:
        assert mt.read_annotations(path, "casme2") == []
        return
    with pytest.raises(ValueError, match=message) as error:
        mt.read_annotations(path, "casme2")
    assert str(path) in str(error.value)


def test_all_unknown_labels_are_listed(tmp_path):
    rows = changed(changed(CASME2, 1, 8, "joy"), 4, 8, "fury")
    with pytest.raises(ValueError, match=r"'joy' \(row 2\); 'fury' \(row 5\)"):
        mt.read_annotations(write_csv(tmp_path / "t.csv", rows), "casme2")


@pytest.mark.parametrize(
    ("table", "dataset", "kind", "message"),
    [
        ("missing.xlsx", "casme2", FileNotFoundError, "there is no file at"),
        ("a.pdf", "casme2", ValueError, "path must be a table"),
        ("a.xlsx", "casme2", ValueError, "is no xlsx workbook"),
        ("a.xls", "casme2", ValueError, "is no xls workbook"),
        ("latin.csv", "casme2", ValueError, "is not UTF-8"),
        ("a.xlsx", "casme9", ValueError, "dataset must be one of casme2, samm"),
        ("a.xlsx", 3, TypeError, "dataset must be a name"),
        (5, "casme2", TypeError, "path must be a table file or a pandas DataFrame, got int"),
        (".", "casme2", ValueError, "is a folder"),
        (".", "dfew", FileNotFoundError, "holds no list of dfew"),
    ],
)
def test_what_is_no_table(tmp_path, table, dataset, kind, message):
    for name in ("a.pdf", "a.xlsx", "a.xls"):
        (tmp_path / name).write_bytes(b"something else")
    (tmp_path / "latin.csv").write_bytes("Überschrift\n".encode("latin-1"))
    with pytest.raises(kind, match=message):
        mt.read_annotations(tmp_path / table if isinstance(table, str) else table, dataset)


def test_a_sheet_that_is_not_there(tmp_path):
    path = write_xlsx(tmp_path / "t.xlsx", CASME3, sheet="Tabelle1")
    with pytest.raises(ValueError, match="has no sheet 'label', it has 'Tabelle1'"):
        mt.read_annotations(path, "casme3-a")
    assert len(mt.read_annotations(path, "casme3-a", sheet=" tabelle1")) == 4


def test_a_sheet_of_a_file_without_sheets(tmp_path):
    with pytest.raises(ValueError, match="has no sheets, got 'label'"):
        mt.read_annotations(write_csv(tmp_path / "t.csv", CASME3), "casme3-a", sheet="label")


def test_a_header_where_none_belongs(tmp_path):
    rows = [["subject", "video", "onset", "apex", "offset", "AU", "emotion", "type", "report"], *CASME_SQUARED]
    with pytest.raises(ValueError, match=r"row 1, column C \('onset'\) holds 'onset'.*no header row"):
        mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows, CASME_SQUARED_NAMING), "cas(me)2")


@pytest.mark.parametrize("first", ["557.0", "-", "nan"])
def test_a_first_row_without_header_is_read_like_the_others(tmp_path, first):
    """A program that saw an empty cell in the column writes the rest of it with a point."""
    path = tmp_path / "codes.csv"
    path.write_text(f"1,anger1_1,{first},564,572,4+7,negative,macro\n1,anger1_2,600.0,605,610,4,negative,micro\n")
    clips = mt.read_annotations(path, "cas(me)2")
    assert [clip.onset for clip in clips] == [557 if first == "557.0" else None, 600]


def test_too_few_columns_by_position(tmp_path):
    rows = [row[:6] for row in CASME_SQUARED]
    with pytest.raises(ValueError, match=r"row 1, column G \('label'\) is missing"):
        mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), "cas(me)2")


def test_duplicate_rows_are_problems(tmp_path):
    clips = mt.read_annotations(write_csv(tmp_path / "t.csv", [*CASME2, CASME2[1]]), "casme2")
    assert [(p.row, p.kind) for p in clips.problems if p.kind == "duplicate"] == [(6, "duplicate")]
    assert re.search("row 2 has the same 01/EP02_01f", str(clips.problems[-1]))
