import pytest
from annotation_tables import CASME2_HEADER, CASME3_HEADER, SAMM, SMIC_HEADER, write_csv

import mertools as mt

CASME2_COUNTS = {
    "others": 99,
    "disgust": 63,
    "happiness": 32,
    "repression": 27,
    "surprise": 25,
    "sadness": 7,
    "fear": 2,
}
SAMM_COUNTS = {
    "Anger": 57, "Contempt": 12, "Happiness": 26, "Surprise": 15, "Other": 26, "Disgust": 9, "Fear": 8, "Sadness": 6,
}  # fmt: skip
CASME3_COUNTS = {
    "disgust": 250, "surprise": 187, "others": 158, "Others": 3, "fear": 86, "anger": 64, "sad": 57, "happy": 55,
}  # fmt: skip
SMIC_COUNTS = {"negative": 70, "positive": 51, "surprise": 43}


def spread(counts):
    return [label for label, count in counts.items() for _ in range(count)]


def casme2(tmp_path):
    # two of the clips that MEGC 2019 leaves out have a label that it would keep
    special = {("disgust", 0): (4, "EP12_01f"), ("disgust", 1): (5, "EP12_03f"), ("others", 0): (24, "EP02_07")}
    rows, seen = [CASME2_HEADER], {}
    for i, label in enumerate(spread(CASME2_COUNTS)):
        number = seen[label] = seen.get(label, -1) + 1
        subject, clip = special.get((label, number), (i % 26 + 1, f"EP{i:03d}"))
        rows.append([subject, clip, None, 10 + i, 20 + i, 40 + i, None, "4", label])
    return mt.read_annotations(write_csv(tmp_path / "casme2.csv", rows), "casme2")


def samm(tmp_path):
    rows = list(SAMM[:14])
    for i, label in enumerate(spread(SAMM_COUNTS)):
        rows.append([i % 29 + 6, f"{i}_1", 1, 10, 20, 40, 31, "Micro", "4", label, 1, None])
    return mt.read_annotations(write_csv(tmp_path / "samm.csv", rows), "samm")


def smic(tmp_path):
    rows = [SMIC_HEADER]
    codes = {"negative": "ne", "positive": "po", "surprise": "sur"}
    for i, label in enumerate(spread(SMIC_COUNTS)):
        rows.append([f"s{i % 16 + 1}", f"s{i % 16 + 1}_{codes[label]}_{i}", None, 3, 40, None, None, None, None, label])
    return mt.read_annotations(write_csv(tmp_path / "smic.csv", rows), "smic")


def casme3(tmp_path):
    rows = [CASME3_HEADER]
    for i, label in enumerate(spread(CASME3_COUNTS)):
        rows.append([f"spNO.{i % 94 + 1}", "b", 10 + i, 20 + i, 40 + i, "4", "I", label])
    return mt.read_annotations(write_csv(tmp_path / "casme3.csv", rows), "casme3-a")


def test_casme2_5(tmp_path):
    clips = casme2(tmp_path)
    assert len(clips) == 255
    found = mt.apply_protocol(clips, "casme2-5")
    assert len(found.clips) == len(found.targets) == 246
    assert found.counts == {"happiness": 32, "repression": 27, "disgust": 63, "surprise": 25, "others": 99}
    assert sorted({reason for _, reason in found.dropped}) == ["label fear", "label sadness"]
    assert all(found.classes[target] == clip.label for clip, target in zip(found.clips, found.targets, strict=True))


def test_samm_5(tmp_path):
    found = mt.apply_protocol(samm(tmp_path), "samm-5")
    assert found.counts == {"anger": 57, "contempt": 12, "happiness": 26, "surprise": 15, "other": 26}
    assert len(found.clips) == 136


def test_casme3_7_and_4(tmp_path):
    clips = casme3(tmp_path)
    seven = mt.apply_protocol(clips, "casme3-7")
    assert seven.counts == {
        "anger": 64,
        "disgust": 250,
        "fear": 86,
        "happy": 55,
        "sad": 57,
        "surprise": 187,
        "others": 161,
    }
    assert len(seven.clips) == 860
    assert len(set(seven.subjects)) == 94
    four = mt.apply_protocol(clips, "CASME3-4")
    assert four.counts == {"positive": 55, "surprise": 187, "others": 161, "negative": 457}


def test_megc2019(tmp_path):
    parts = {"casme2": casme2(tmp_path), "samm": samm(tmp_path), "smic": smic(tmp_path)}
    expected = {"casme2": (88, 32, 25), "samm": (92, 26, 15), "smic": (70, 51, 43)}
    for name, clips in parts.items():
        assert tuple(mt.apply_protocol(clips, "megc2019").counts.values()) == expected[name]
    everything = mt.apply_protocol([clip for clips in parts.values() for clip in clips], "megc2019")
    assert len(everything.clips) == 442
    assert everything.classes == ("negative", "positive", "surprise")
    assert everything.subjects[0].startswith("casme2/")
    left = [(clip.subject, clip.clip) for clip, reason in everything.dropped if reason == "left out by the protocol"]
    assert sorted(left) == [("04", "EP12_01f"), ("05", "EP12_03f"), ("24", "EP02_07")]


def test_smic_3(tmp_path):
    assert mt.apply_protocol(smic(tmp_path), "smic-3").counts == {"negative": 70, "positive": 51, "surprise": 43}


def test_dfew_has_five_folds(tmp_path):
    for split, count in (("train", 9356), ("test", 2341)):
        folder = tmp_path / f"{split}(single-labeled)"
        folder.mkdir()
        for fold in range(1, 6):
            start = 1 if split == "train" else 9357
            lines = [f"{i:05d},{i % 7 + 1}" for i in range(start, start + count)]
            (folder / f"set_{fold}.csv").write_text("video_name,label\n" + "\n".join(lines))
    found = mt.apply_protocol(mt.read_annotations(tmp_path, "dfew"), "dfew")
    train, test = found.split(fold=1)
    assert (len(train.clips), len(test.clips)) == (9356, 2341)
    assert train.classes == mt.EXPRESSIONS
    assert train.targets[6] == 0  # label 1 is happy
    assert train.clips[6].label == "happy"
    with pytest.raises(ValueError, match=r"fold must be one of \[1, 2, 3, 4, 5\], got None"):
        found.split()


def test_ferv39k_has_one_split(tmp_path):
    for split, count in (("train", 31088), ("test", 7847)):
        lines = [f"Action/Happy/{i:05d} Happy" for i in range(count)]
        (tmp_path / f"{split}_All.csv").write_text("\n".join(lines))
    train, test = mt.apply_protocol(mt.read_annotations(tmp_path, "ferv39k"), "ferv39k").split()
    assert (len(train.clips), len(test.clips)) == (31088, 7847)


def test_a_protocol_of_your_own():
    clips = [mt.ClipAnnotation("ours", "1", "a", label="smile"), mt.ClipAnnotation("ours", "2", "b", label="frown")]
    rule = mt.Protocol(name="two", classes=("up", "down"), labels={"*": {"smile": "up"}}, without=frozenset())
    found = mt.apply_protocol(clips, rule)
    assert found.targets == [0]
    assert [reason for _, reason in found.dropped] == ["label frown"]


@pytest.mark.parametrize(
    ("clips", "protocol", "kind", "message"),
    [
        ([], "casme2-3", ValueError, "protocol must be one of casme2-5, samm-5"),
        ([], 3, ValueError, "protocol must be one of"),
        ([mt.ClipAnnotation("samm", "1", "a", table="t", row=3)], "casme2-5", ValueError, r"is for casme2, got a clip of 'samm' \(t, row 3\)"),
        ([("a", 1)], "casme2-5", TypeError, "clips must be ClipAnnotations, got tuple"),
        ([], mt.Protocol(name="x", classes=("a",), labels={"*": {"b": "c"}}), ValueError, r"maps labels to \['c'\]"),
    ],
)  # fmt: skip
def test_bad_protocols(clips, protocol, kind, message):
    with pytest.raises(kind, match=message):
        mt.apply_protocol(clips, protocol)


def test_clips_without_a_split():
    found = mt.apply_protocol([mt.ClipAnnotation("smic", "1", "a", label="negative")], "smic-3")
    with pytest.raises(ValueError, match="know no split"):
        found.split()


def test_taking_some_of_the_clips():
    clips = [mt.ClipAnnotation("smic", f"s{i}", f"c{i}", label=label) for i, label in enumerate(SMIC_COUNTS)]
    found = mt.apply_protocol(clips, "smic-3")
    part = found.take(range(2, 0, -1))
    assert [clip.clip for clip in part.clips] == ["c2", "c1"]
    assert part.targets == [2, 1]
    assert (part.classes, part.name, part.dropped) == (found.classes, "smic-3", [])
    for wrong, kind in ((-1, IndexError), (3, IndexError), (0.0, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="indices must"):
            found.take([0, wrong])


def test_names_are_unique(tmp_path):
    for clips, protocol in (
        (casme3(tmp_path), "casme3-7"),  # one video holds several expressions
        ([*casme2(tmp_path), *samm(tmp_path), *smic(tmp_path)], "megc2019"),
    ):
        found = mt.apply_protocol(clips, protocol)
        assert len(set(found.names)) == len(found.clips)
    assert found.names[0] == f"casme2/{found.clips[0].subject}/{found.clips[0].clip}"
    plain = mt.apply_protocol([mt.ClipAnnotation("smic", "s1", "a", label="negative", expression=2)], "smic-3")
    assert plain.names == ["smic/s1/a#2"]
