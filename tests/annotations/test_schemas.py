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


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("CASME II", "casme2"), ("CASME2", "casme2"), ("SAMM", "samm"), ("CAS(ME)²", "cas(me)2"),
        ("CAS(ME)^2", "cas(me)2"), ("CASME-squared", "cas(me)2"), ("CAS(ME)³", "casme3-a"), ("CASME3", "casme3-a"),
        ("CAS(ME)^3 part C", "casme3-c"), ("smic-hs-e", "smic"), ("SMIC_HS", "smic"), ("4DME", "4dme"),
        ("FERV39k", "ferv39k"), ("MMEW", "mmew"), ("casme3-a-v1", "casme3-a-v1"),
    ],
)  # fmt: skip
def test_spellings_of_datasets(spelling, name):
    assert dataset_schema(spelling).name == name


def test_every_schema_labels_in_lower_case_and_knows_its_key():
    for schema in SCHEMAS.values():
        assert all(label == label.lower() for label in schema.label_names.values())
        assert set(schema.key) <= set(schema.columns) | {"expression"}
