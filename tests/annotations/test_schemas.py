import numpy as np
import pytest
from annotation_tables import write_csv, write_xlsx

import mertools as mt
from mertools.annotations.schemas import SCHEMAS, dataset_schema


def test_your_own_dataset_in_ten_lines(tmp_path):
    schema = mt.AnnotationSchema(
        name="ours",
        columns={
            "subject": "Who",
            "clip": "Video",
            "onset": "Start",
            "apex": "Peak",
            "offset": "End",
            "label": "Class",
        },
        labels={"pos": "positive", "neg": "negative"},
        folder="person{subject}/{clip}",
        fps=120,
        subject_width=3,
    )
    rows = [["Video", "Who", "Start", "Peak", "End", "Class"], ["smile", 7, 10, 20, 30, "POS"]]
    (clip,) = mt.read_annotations(write_xlsx(tmp_path / "t.xlsx", rows), schema)
    assert (clip.subject, clip.label, clip.folders, clip.fps) == ("007", "positive", ("person007/smile",), 120)
    protocol = mt.Protocol(name="two", classes=("negative", "positive"), labels={"ours": {"positive": "positive"}})
    assert mt.apply_protocol([clip], protocol).targets == [1]


def test_further_columns_and_rates_of_their_own(tmp_path):
    schema = mt.AnnotationSchema(
        name="ours",
        columns={"clip": "Video", "label": "Class", "fps": "Rate", "camera": "Camera", "num_frames": "Frames"},
        labels=["a"],
        optional=["camera"],
        key=("clip",),
    )
    path = write_csv(tmp_path / "t.csv", [["Video", "Class", "Rate", "Frames"], ["v1", "a", 59.94, 33]])
    (clip,) = mt.read_annotations(path, schema)
    assert (clip.fps, clip.extra, clip.subject, clip.num_frames) == (59.94, {}, "", 33)
    bad = write_csv(tmp_path / "bad.csv", [["Video", "Class", "Rate", "Frames"], ["v1", "a", "fast", 33]])
    with pytest.raises(ValueError, match=r"row 2, column C \('Rate'\) holds 'fast', a positive number was expected"):
        mt.read_annotations(bad, schema)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"subject": "a"}}, "columns must say which column holds the clip"),
        ({"columns": {"clip": 0, "label": "b"}}, "columns must all be positions when header is None"),
        ({"columns": {"clip": 0}, "header": 3}, "columns must all be positions when header is None"),
        ({"columns": {"clip": "a"}, "header": None}, "columns must all be positions when header is None"),
        ({"labels": ()}, "labels must be the dataset's labels"),
        ({"labels": "happy"}, "labels must be the dataset's labels"),
        ({"name": ""}, "name must be the dataset's name"),
    ],
)
def test_a_schema_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        mt.AnnotationSchema(**{"name": "x", "columns": {"clip": "a"}, "labels": ["b"], **changes})


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_goes_through_toml(tmp_path, name):
    SCHEMAS[name].to_toml(tmp_path / "schema.toml")
    assert mt.AnnotationSchema.from_toml(tmp_path / "schema.toml") == SCHEMAS[name]


def test_a_lab_shares_its_schema(tmp_path):
    (tmp_path / "ours.toml").write_text(
        'name = "ours"\nfolder = "person{subject}/{clip}"\nfps = 120\n[columns]\nsubject = "Who"\nclip = "Video"\n'
        'onset = ["Start", "von"]\noffset = "End"\nlabel = "Class"\n[labels]\npos = "positive"\nneg = "negative"\n'
    )
    table = write_csv(tmp_path / "t.csv", [["Who", "Video", "von", "End", "Class"], ["7", "a b", 3, 9, "POS"]])
    for schema in (
        tmp_path / "ours.toml",
        str(tmp_path / "ours.toml"),
        mt.AnnotationSchema.from_toml(tmp_path / "ours.toml"),
    ):
        (clip,) = mt.read_annotations(table, schema)
        assert (clip.dataset, clip.label, clip.onset, clip.folders) == ("ours", "positive", 3, ("person7/a b",))
    assert bool(mt.check_dataset(table, None, tmp_path / "ours.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "can't be read as TOML"),
        ('name = "x"\ncolour = 3\n', "holds colour, known are name, columns, labels"),
        ('name = "x"\n', "missing 2 required"),
        ('name = "x"\nlabels = ["a"]\n[columns]\nsubject = "s"\n', "columns must say which column holds the clip"),
        ('name = "x"\nlabels = ["a"]\nfps = "fast"\n[columns]\nclip = "s"\n', "fps must be a number, got 'fast'"),
        ('name = "x"\nlabels = ["a"]\ncolumns = 3\n', "columns"),
    ],
)
def test_a_file_that_is_no_schema_is_named(tmp_path, text, message):
    (tmp_path / "ours.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"ours.toml.*{message}"):
        mt.read_annotations(tmp_path / "t.csv", tmp_path / "ours.toml")
    with pytest.raises(FileNotFoundError):
        mt.AnnotationSchema.from_toml(tmp_path / "gone.toml")


def test_odd_texts_go_through_toml(tmp_path):
    odd = {'a "b"': "c\\d", "ü\n\t": "\x7f\x01", "=": "😀", "": "[x]"}
    schema = mt.AnnotationSchema(
        name="a'b", columns={"clip": ("x", 'y"')}, labels=odd, sheet="s=1", fps=29.97, missing=()
    )
    schema.to_toml(tmp_path / "odd.toml")
    assert mt.AnnotationSchema.from_toml(tmp_path / "odd.toml") == schema


def test_numbers_of_numpy():
    schema = mt.AnnotationSchema(
        name="x", columns={"clip": np.int64(0), "label": np.int16(1)}, labels=["a"], header=None,
        fps=np.float32(25), clip_width=np.int32(5),
    )  # fmt: skip
    assert (schema.columns, schema.fps, schema.clip_width) == ({"clip": 0, "label": 1}, 25.0, 5)
    assert {type(column) for column in schema.columns.values()} == {int}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("CASME II", "casme2"), ("CASME2", "casme2"), ("SAMM", "samm"), ("CAS(ME)²", "cas(me)2"),
        ("CAS(ME)^2", "cas(me)2"), ("CASME-squared", "cas(me)2"), ("CAS(ME)³", "casme3-a"), ("CASME3", "casme3-a"),
        ("CAS(ME)^3 part C", "casme3-c"), ("smic-hs-e", "smic"), ("SMIC_HS", "smic"), ("4DME", "4dme"),
        ("SAMM Long Videos", "samm-lv"), ("SAMM_LV", "samm-lv"), ("CAS(ME)² spotting", "cas(me)2-spotting"),
        ("DFME", "dfme"), ("MEGC2019", "megc2019"), ("MEGC 2019", "megc2019"), ("MAFW", "mafw"), ("AFEW", "afew"),
        ("FERV39k", "ferv39k"), ("MMEW", "mmew"), ("casme3-a-v1", "casme3-a-v1"),
    ],
)  # fmt: skip
def test_spellings_of_datasets(spelling, name):
    assert dataset_schema(spelling).name == name


def test_every_schema_labels_in_lower_case_and_knows_its_key():
    for schema in SCHEMAS.values():
        assert all(label == label.lower() for label in schema.label_names.values())
        assert set(schema.key) <= set(schema.columns) | {"expression"}
