from dataclasses import replace

import pytest
from annotation_tables import CASME2_HEADER, CASME3_HEADER, SAMM, SMIC_HEADER, make_frames, write_csv

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


def casme2(tmp_path, edition="2014", spelling="{:02d}"):
    special = {
        ("disgust", 0): (4, "EP12_01f"), ("disgust", 1): (5, "EP09_05f"), ("surprise", 0): (5, "EP12_03f"),
        ("sadness", 0): (24, "EP07_01"), ("sadness", 1): (24, "EP07_04f"), ("sadness", 2): (24, "EP10_03"),
    }  # fmt: skip
    rows, seen = [CASME2_HEADER], {}
    for i, label in enumerate(spread(CASME2_COUNTS)):
        number = seen[label] = seen.get(label, -1) + 1
        subject, clip = special.get((label, number), (i % 26 + 1, f"EP{i:03d}"))
        if edition == "2019" and (label, number) in special and label == "sadness":
            label = "surprise"
        rows.append([spelling.format(subject), clip, None, 10 + i, 20 + i, 40 + i, None, "4", label])
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
    assert sorted(left) == [("04", "EP12_01f"), ("05", "EP09_05f")]
    assert ("05", "EP12_03f", 2) in {
        (c.subject, c.clip, t) for c, t in zip(everything.clips, everything.targets, strict=True)
    }


@pytest.mark.parametrize("spelling", ["{}", "{:02d}", "sub{:02d}", "s{:02d}", "S{}", "Sub {:02d}"])
def test_subjects_however_they_are_spelt(tmp_path, spelling):
    clips = casme2(tmp_path, spelling=spelling)
    assert clips[0].folders == (f"sub{clips[0].subject}/{clips[0].clip}",)
    assert {len(clip.subject) for clip in clips} == {2}
    assert tuple(mt.apply_protocol(clips, "megc2019").counts.values()) == (88, 32, 25)
    by_hand = [replace(clip, subject=spelling.format(int(clip.subject))) for clip in clips]
    assert tuple(mt.apply_protocol(by_hand, "megc2019").counts.values()) == (88, 32, 25)


def test_editions_of_casme2(tmp_path):
    old, new = casme2(tmp_path), casme2(tmp_path, "2019")
    assert (old.edition, new.edition) == ("2014", "2019")
    assert {clip.edition for clip in new} == {"2019"}
    for clips in (old, new):
        assert len(mt.apply_protocol(clips, "casme2-5").clips) == 246
        assert len(mt.apply_protocol(clips, "megc2019").clips) == 145
        assert mt.apply_protocol(clips, "casme2-7").counts["sadness"] == 7
        assert len(mt.apply_protocol(clips, "casme2-5", editions={"casme2": "2019"}).clips) == 249
        found = mt.apply_protocol(clips, "megc2019", editions={"casme2": "2019"})
        assert len(found.clips) == 148
        assert all(
            found.classes[t] == "surprise"
            for c, t in zip(found.clips, found.targets, strict=True)
            if c.label == "surprise"
        )
    reasons = [reason for _, reason in mt.apply_protocol(new, "casme2-5").dropped]
    assert reasons.count("label sadness in the edition of 2014, here surprise") == 3
    report = mt.check_dataset(new)
    assert report.edition == "2019"
    assert str(report).startswith("255 rows of the edition of 2019, 0 folders")
    with pytest.raises(ValueError, match="editions of casme2 must be one of 2014, 2019, got '2020'"):
        mt.apply_protocol(old, "casme2-5", editions={"casme2": "2020"})


def test_editions_of_your_own_are_checked():
    rule = mt.Protocol(name="x", classes=("a",), labels={"ours": {"a": "a"}}, editions={"ours": "2"})
    clips = [mt.ClipAnnotation("ours", "1", "c", label="a", edition=edition) for edition in ("2", None)]
    assert len(mt.apply_protocol(clips, rule).clips) == 2
    with pytest.raises(ValueError, match=r"protocol 'x' wants the edition of 2, got a clip of that of 1 \(t, row 3\)"):
        mt.apply_protocol([replace(clips[0], edition="1", table="t", row=3)], rule)


def combined(tmp_path):
    """The challenge's own list, whose labels are integers."""
    rows = [["dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename"]]
    for name, counts in {"casme2": (88, 32, 25), "smic": (70, 51, 43), "samm": (92, 26, 15)}.items():
        for i, label in enumerate(label for label, count in enumerate(counts) for _ in range(count)):
            subject = {"casme2": f"sub{i % 26 + 1:02d}", "smic": f"s{i % 16 + 1:02d}", "samm": f"{i % 28 + 6:03d}"}[
                name
            ]
            clip = {
                "casme2": f"EP01_{i}",
                "smic": f"{subject}_{('ne', 'po', 'sur')[label]}_{i:02d}",
                "samm": f"{subject}_1_{i}",
            }
            rows.append([name, subject, clip[name], label, None, f"{subject}_{clip[name]}.jpg", None])
    return mt.read_annotations(write_csv(tmp_path / "combined_3_class.csv", rows), "MEGC 2019")


def test_the_combined_list_of_megc2019_and_mixes_of_it(tmp_path):
    clips = combined(tmp_path)
    found = mt.apply_protocol(clips, "megc2019")
    assert found.counts == {"negative": 250, "positive": 109, "surprise": 83}
    assert len(set(found.names)) == len(found.clips) == 442
    assert len(set(found.subjects)) == 26 + 16 + 28
    assert (clips[0].dataset, clips[0].subject, clips[0].folders, clips[0].fps) == (
        "casme2", "01", ("sub01/EP01_0",), 200.0,
    )  # fmt: skip
    assert clips.problems == []
    bare = [line.split(",")[:4] for line in (tmp_path / "combined_3_class.csv").read_text().splitlines()[1:]]
    without = mt.read_annotations(write_csv(tmp_path / "gt.csv", bare), "megc2019")
    assert [(c.dataset, c.key, c.label, c.row + 1) for c in without] == [
        (c.dataset, c.key, c.label, c.row) for c in clips
    ]
    with pytest.raises(ValueError, match=r"row 3, column A \('dataset'\) holds 'casme9'"):
        mt.read_annotations(write_csv(tmp_path / "gt.csv", [*bare[:2], ["casme9", *bare[2][1:]]]), "megc2019")
    (one,) = (clip for clip in clips if clip.clip == "s01_ne_00")
    assert (one.dataset, one.folders) == ("smic", ("s01_ne_00", "s1_ne_00", "s01_ne_00"))
    mixed = [*(clip for clip in clips if clip.dataset == "samm"), *casme2(tmp_path), *smic(tmp_path)]
    assert len(mt.apply_protocol(mixed, "megc2019").clips) == 442
    two = [clip for clip in mixed if clip.dataset != "smic"]
    assert len(mt.apply_protocol(two, "megc2019").clips) == 278


def test_more_sets_of_classes(tmp_path):
    found = mt.apply_protocol(casme2(tmp_path), "casme2-7")
    assert len(found.clips) == 255
    rows = [["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Emotion", "AU", "Fps"]]
    labels = ["Happiness", "anger", "Contempt", "disgust", "fear", "sadness", "surprise", "Others"]
    rows += [[f"sub{i:04d}", f"sub{i:04d}_01", 3, 9, 20, label, "4+7", 500] for i, label in enumerate(labels)]
    clips = mt.read_annotations(write_csv(tmp_path / "dfme.csv", rows), "DFME")
    assert (clips[3].folders, clips[3].fps) == (("sub0003_01",), 500.0)
    seven = mt.apply_protocol(clips, "dfme-7")
    assert list(seven.counts.values()) == [1] * 7
    assert [seven.classes[target] for target in seven.targets] == [label.casefold() for label in labels[:7]]
    assert list(seven.classes) == sorted(seven.classes)  # as the table numbers them


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


def test_derived_lists_have_their_folds(tmp_path):
    lists = tmp_path / "annotation"
    lists.mkdir()
    for name in ("DFEW", "MAFW"):
        for fold in range(1, 6):
            for split, count in (("train", 8), ("test", 3)):
                lines = [f"/data/{name}/{split}/{i:05d} 16 {i % 7}" for i in range(count)]
                (lists / f"{name}_set_{fold}_{split}{'_faces' * (name == 'MAFW')}.txt").write_text("\n".join(lines))
    for split, count in (("train", 5), ("test", 2)):
        lines = [f"/data/FERV39k/{split}/Action/Happy/{i:04d} 30 {i}" for i in range(count)]
        (lists / f"FERV39K_{split}.txt").write_text("\n".join(lines))
    for dataset, protocol in (("dfew-list", "dfew"), ("mafw", "mafw-11")):
        found = mt.apply_protocol(mt.read_annotations(lists, dataset), protocol)
        assert len(found.clips) == 55
        train, test = found.split(4)
        assert (len(train.clips), len(test.clips), train.clips[0].fold) == (8, 3, 4)
        assert list(mt.fixed_folds(found)) == ["1", "2", "3", "4", "5"]
    third = {found.classes[t] for c, t in zip(found.clips, found.targets, strict=True) if c.clip.endswith("/00003")}
    assert third == {"anger"}  # these lists begin in DFEW's order, see test_read
    clips = mt.read_annotations(lists, mt.frame_list_schema("ferv39k", "FERV39K-alphabetical"))
    train, test = mt.apply_protocol(clips, "ferv39k").split(1)
    assert (len(train.clips), len(test.clips)) == (5, 2)
    assert [clip.label for clip in train.clips[:3]] == ["angry", "disgust", "fear"]
    assert {clip.label for clip in mt.read_annotations(lists, "ferv39k")} == {"happy"}  # as the paths say
    (lists / "FERV39K_test.txt").write_text("/data/0001 30 2\n")
    with pytest.raises(ValueError, match=r"Integers say nothing about their order: .*frame_list_schema\('ferv39k', "):
        mt.read_annotations(lists, "ferv39k")
    one = mt.read_annotations(lists / "DFEW_set_2_test.txt", "dfew-list")
    both = mt.apply_protocol([*one, *mt.read_annotations(lists / "DFEW_set_2_train.txt", "dfew-list")], "dfew")
    assert len(both.split(2)[0].clips) == 8


def test_lists_of_two_columns(tmp_path):
    for fold in (1, 2):
        folder = tmp_path / "dfew" / f"split0{fold}"
        folder.mkdir(parents=True)
        (folder / "train.csv").write_text("/data/dfew/00001.mp4 0\n/data/dfew/00002.mp4 6\n")
        (folder / "test.csv").write_text("/data/dfew/00003.mp4 3\n")
        (folder / "val.csv").write_text("/data/dfew/00003.mp4 3\n")
    clips = mt.read_annotations(tmp_path / "dfew", "dfew-list")
    assert [(c.label, c.num_frames, c.split, c.fold) for c in clips][:3] == [
        ("angry", None, "test", 1), ("happy", None, "train", 1), ("fear", None, "train", 1),
    ]  # fmt: skip
    make_frames(tmp_path / "frames" / "00002", [1, 2], "{}.jpg")
    assert mt.find_frames(clips[2], tmp_path / "frames").numbers == (1, 2)
    train, test = mt.apply_protocol(clips, "dfew").split(2)
    assert (len(train.clips), len(test.clips)) == (2, 1)


def test_afew_is_tested_on_its_validation_set(tmp_path):
    (tmp_path / "AFEW_train.txt").write_text(
        "Train_AFEW/Angry/000046280 40 Angry\nTrain_AFEW/Happy/000046281 40 Happy\n"
    )
    (tmp_path / "AFEW_val.txt").write_text("Val_AFEW/Happy/000246654 61 Happy\nVal_AFEW/Sad/000246655 61\n")
    clips = mt.read_annotations(tmp_path, "AFEW")
    found = mt.apply_protocol(clips, "afew")
    train, test = found.split()
    assert [clip.label for clip in train.clips] == ["angry", "happy"]
    assert [(clip.label, clip.split) for clip in test.clips] == [("happy", "val"), ("sad", "val")]
    with pytest.raises(ValueError, match="training has no clip of class 'sad'"):
        mt.fixed_folds(found)
    fold = mt.fixed_folds(found.take([0, 1, 2]))["1"]
    assert (fold.train, fold.test) == ([0, 1], [2])


def test_protocols_go_through_toml(tmp_path):
    for name, rule in mt.PROTOCOLS.items():
        rule.to_toml(tmp_path / f"{name}.toml")
        assert mt.Protocol.from_toml(tmp_path / f"{name}.toml") == rule
    clips = casme2(tmp_path)
    for path in (tmp_path / "megc2019.toml", str(tmp_path / "megc2019.toml")):
        assert mt.apply_protocol(clips, path).targets == mt.apply_protocol(clips, "megc2019").targets


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
