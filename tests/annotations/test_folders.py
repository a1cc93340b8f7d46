import csv
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from annotation_tables import CASME2, CASME2_HEADER, make_frames, write_csv, write_table

import mertools as mt
from mertools.clips.read import decode_frames

LAYOUTS = {
    "casme2": ("sub01/EP02_01f", "img{}.jpg", [46, 86, 100]),
    "samm": ("006/006_1_2", "006_{:05d}.jpg", [562, 622]),
    "cas(me)2": ("rawpic/s15/15_0401disgust_teeth", "img{}.jpg", [557, 572]),
    "casme3-a": ("part_A/spNO.1/b/color", "{}.jpg", [175, 190]),
    "casme3-c": ("part_C/spNO.143/1/color", "{}.jpg", [20, 41]),
    "smic": ("SMIC_all_cropped/HS/s1/micro/negative/s1_ne_01", "reg_image{:06d}.bmp", [3453, 3482]),
    "mmew": ("Micro_Expression/surprise/S03-01-002", "{}.jpg", [1, 30]),
    "4dme": ("gray/s01_clip3", "Frame_{:09d}.jpg", [10, 33]),
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_the_frames_of_every_dataset_are_found(tmp_path, dataset):
    folder, pattern, numbers = LAYOUTS[dataset]
    frames = range(numbers[0], numbers[-1] + 1)
    make_frames(tmp_path / "root" / folder, frames, pattern)
    clip = mt.read_annotations(write_table(tmp_path, dataset), dataset)[0]
    found = mt.find_frames(clip, tmp_path / "root")
    assert found.path == str(tmp_path / "root" / folder)
    assert found.numbers == tuple(frames)
    assert found.position(clip.onset) == clip.onset - numbers[0]
    assert found.read(0, 3).shape == (3, 11, 13, 3)
    assert abs(int(found.read(2, 3)[0, 0, 0, 0]) - (numbers[0] + 2) % 256) <= 2


def test_cropped_clips_and_the_case_of_names(tmp_path):
    clip = mt.ClipAnnotation("casme3-a", "spNO.1", "a", 355, 360, 380, folders=("spNO.1_a_355", "spNO.1/a/color"))
    make_frames(tmp_path / "Part_A_ME_clip" / "frame" / "spNo.1_A_355", [355, 360, 380], "{}.jpg")
    assert mt.find_frames(clip, tmp_path).numbers == (355, 360, 380)
    make_frames(tmp_path / "Part_A_ME_clip" / "frame" / "spNO.1_a_355", [355, 356], "{}.jpg")
    assert mt.find_frames(clip, tmp_path).numbers == (355, 356)  # the exact name wins


def test_numbers_not_text_order_the_frames(tmp_path):
    make_frames(tmp_path / "a", [9, 10, 100], "img{}.jpg")
    folder = mt.find_frames(mt.ClipAnnotation("x", "", "a"), tmp_path)
    assert folder.names == ("img9.jpg", "img10.jpg", "img100.jpg")
    with pytest.raises(ValueError, match=r"frame 11 is not in .*/a, which holds 3 frames numbered 9 to 100"):
        folder.position(11)


def test_two_versions_of_the_frames_are_refused(tmp_path):
    for version in ("Cropped", "raw"):
        make_frames(tmp_path / version / "sub01" / "EP02_01f", [46])
    clip = mt.ClipAnnotation("casme2", "01", "EP02_01f", 46, row=2, table="t.csv", folders=("sub01/EP02_01f",))
    with pytest.raises(ValueError, match=r"t.csv, row 2: 2 folders fit clip 01/EP02_01f .*Cropped.*raw"):
        mt.find_frames(clip, tmp_path)
    assert mt.find_frames(clip, tmp_path / "raw").path.endswith("raw/sub01/EP02_01f")
    assert mt.find_frames(clip, tmp_path / "raw" / "sub01").numbers == (46,)


def test_a_linked_dataset_and_a_loop(tmp_path):
    make_frames(tmp_path / "disk" / "sub01" / "EP02_01f", [46])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "casme2").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "root")
    clip = mt.ClipAnnotation("casme2", "01", "EP02_01f", 46, folders=("sub01/EP02_01f",))
    assert mt.find_frames(clip, tmp_path / "root").numbers == (46,)


def test_odd_names_are_no_patterns(tmp_path):
    clip_name = "a[1]*?"
    make_frames(tmp_path / clip_name, [3])
    make_frames(tmp_path / "a1xx", [4])
    path = tmp_path / "t.csv"
    path.write_text(f"v,l\n{clip_name},x\n")
    schema = mt.AnnotationSchema(name="o", columns={"clip": "v", "label": "l"}, labels=["x"], key=["clip"])
    (clip,) = mt.read_annotations(path, schema)
    assert mt.find_frames(clip, tmp_path).numbers == (3,)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["img3.jpg", "reg_img3.png"], "holds two images of frame 3"),
        (["cover.jpg"], "cover.jpg is an image without a frame number"),
    ],
)
def test_folders_that_cannot_be_numbered(tmp_path, names, message):
    (tmp_path / "a").mkdir()
    for name in names:
        (tmp_path / "a" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        mt.find_frames(mt.ClipAnnotation("x", "", "a"), tmp_path)


def test_lists_with_the_paths_of_another_machine(tmp_path):
    for scene in ("Action", "Argue"):
        make_frames(tmp_path / scene / "Happy" / "0267", [1, 2], "{}.jpg")
    make_frames(tmp_path / "Argue" / "Sad" / "0003", [1], "{}.jpg")
    (tmp_path / "list.txt").write_text("/data/FERV/Action/Happy/0267 2 3\nC/Argue/Sad/0003 1 5\n/x/Happy/0267 2 3\n")
    clips = mt.read_annotations(tmp_path / "list.txt", mt.frame_list_schema("ferv39k", "FERV39K-alphabetical"))
    folders = mt.FrameFolders(tmp_path)
    assert folders.find(clips[0]).path == str(tmp_path / "Action" / "Happy" / "0267")
    assert folders.find(clips[1]).path == str(tmp_path / "Argue" / "Sad" / "0003")
    with pytest.raises(ValueError, match="2 folders fit"):
        folders.find(clips[2])


def test_several_datasets_have_a_root_each(tmp_path):
    make_frames(tmp_path / "one" / "s1" / "a", [1, 2])
    make_frames(tmp_path / "two" / "s1" / "a", [7, 8, 9])
    folders = mt.FrameFolders({"CASME II": tmp_path / "one", "samm": tmp_path / "two"})
    clips = [mt.ClipAnnotation(name, "1", "a", folders=("s1/a",)) for name in ("casme2", "samm", "smic")]
    assert [folders.find(clip).numbers for clip in clips[:2]] == [(1, 2), (7, 8, 9)]
    assert len(folders.paths) == 2
    with pytest.raises(ValueError, match="frames has no root for 'smic', it has casme2, samm"):
        folders.find(clips[2])


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="frames must be the folder"):
        mt.FrameFolders(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"row 7: no folder of frames for clip 1/a below .* looked for s1/a, a"):
        mt.find_frames(mt.ClipAnnotation("x", "1", "a", row=7, folders=("s1/a", "a")), tmp_path)


def test_decoding(tmp_path):
    make_frames(tmp_path / "a", [1, 2], "{}.png", (20, 30))
    files = [str(tmp_path / "a" / f"{i}.png") for i in (1, 2)]
    assert decode_frames(files, size=(7, 11)).shape == (2, 7, 11, 3)
    assert decode_frames(files, longest=15).shape == (2, 10, 15, 3)
    assert decode_frames(files, longest=40).shape == (2, 20, 30, 3)
    assert (decode_frames(files)[1] == 2).all()
    make_frames(tmp_path / "a", [3], "{}.png", (10, 30))
    with pytest.raises(ValueError, match="3.png is 10x30 and the frames before it are 20x30"):
        decode_frames([*files, str(tmp_path / "a" / "3.png")])
    for data in (b"", b"no image"):
        (tmp_path / "a" / "4.png").write_bytes(data)
        with pytest.raises(ValueError, match="4.png can't be decoded"):
            decode_frames([str(tmp_path / "a" / "4.png")])
    with pytest.raises(ValueError, match="at least one image"):
        decode_frames([])


def test_colours_are_opencvs(tmp_path):
    image = np.zeros((5, 7, 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(tmp_path / "1.png"), image)
    assert (decode_frames([str(tmp_path / "1.png")])[0] == image).all()


# --- does the table fit the disk? -------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path):
    """A CASME II of four rows, each wrong in its own way, and folders to match."""
    rows = [
        CASME2_HEADER,
        ["01", "fine", None, 10, 15, 20, None, "4", "disgust"],
        ["01", "short", None, 10, 15, 20, None, "4", "disgust"],
        ["01", "gap", None, 10, 15, 20, None, "4", "disgust"],
        ["02", "nofolder", None, 10, 15, 20, None, "4", "disgust"],
        ["02", "fine", None, 20, 15, 10, None, "4", "joy"],
        ["02", "outside", None, 10, 25, 20, None, "4", "fear"],
        ["01", "fine", None, 10, "x", 20, None, "4", "disgust"],
        ["01", "bad", None, 10, 15, 20, None, "4", "disgust"],
    ]
    path = write_csv(tmp_path / "codes.csv", rows)
    root = tmp_path / "frames"
    make_frames(root / "sub01" / "fine", range(10, 21))
    make_frames(root / "sub01" / "short", range(10, 19))
    make_frames(root / "sub01" / "gap", [10, *range(14, 21)])
    make_frames(root / "sub02" / "fine", range(5, 31))
    make_frames(root / "sub02" / "outside", range(5, 31))
    make_frames(root / "sub03" / "alone", range(3))
    make_frames(root / "sub01" / "bad", [10], "cover.jpg")
    return path, root


def test_every_kind_of_finding_names_its_row(dataset):
    path, root = dataset
    report = mt.check_dataset(path, root, "casme2")
    assert not report
    assert {(p.kind, p.row) for p in report.problems} == {
        ("missing frame", 3),
        ("missing frame", 4),
        ("no folder", 5),
        ("order", 6),
        ("label", 6),
        ("apex outside", 7),
        ("cell", 8),
        ("missing key", 8),
        ("duplicate", 8),
        ("folder", 9),
        ("folder without row", 0),
    }
    texts = {(p.kind, p.row): str(p) for p in report.problems}
    assert "row 3 (01/short): offset 20 has no image" in texts["missing frame", 3]
    assert "3 of the 11 frames 10..20 have no image" in texts["missing frame", 4]
    assert "ApexFrame holds 'x', a frame number was expected" in texts["cell", 8]
    assert "Estimated Emotion holds 'joy', known are others" in texts["label", 6]
    assert "sub03/alone" in texts["folder without row", 0]
    text = str(report)
    assert "8 rows, 7 folders of frames: 11 findings" in text
    assert "missing frame: 2" in text


def test_csv_has_them_all(dataset, tmp_path):
    path, root = dataset
    report = mt.check_dataset(path, root, "casme2")
    report.write_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert rows[0]["row"] == "3"
    assert rows[0]["table"] == str(path)


def test_nothing_wrong(tmp_path):
    root = tmp_path / "frames"
    make_frames(root / "sub01" / "EP02_01f", range(46, 87), "reg_img{}.jpg")
    path = write_csv(tmp_path / "codes.csv", CASME2[:2])
    report = mt.check_dataset(path, root, "casme2")
    assert report
    assert str(report) == "1 rows, 1 folders of frames: nothing wrong"


def test_annotations_and_the_table_alone(tmp_path):
    clips = mt.read_annotations(write_table(tmp_path, "casme2"), "casme2")
    assert mt.check_dataset(clips).counts == {"missing key": 1, "apex outside": 1}
    assert mt.check_dataset(clips).problems == tuple(clips.problems)


def test_promised_counts_of_frames(tmp_path):
    make_frames(tmp_path / "frames" / "00001", range(1, 8), "{}.jpg")
    (tmp_path / "list.txt").write_text("00001 16 3\n")
    report = mt.check_dataset(tmp_path / "list.txt", tmp_path / "frames", "dfew-list")
    assert [(p.kind, p.row) for p in report.problems] == [("frame count", 1)]


def test_a_folder_whose_path_begins_another_one_is_no_row_of_its_own(tmp_path):
    """Both versions of sub01/EP1 fit the row; sub01/EP, whose path is the beginning of theirs, has no row."""
    for version in ("Cropped", "raw"):
        make_frames(tmp_path / version / "sub01" / "EP1", [46, 47, 48])
        make_frames(tmp_path / version / "sub01" / "EP", [46])
    clip = mt.ClipAnnotation("casme2", "01", "EP1", 46, 47, 48, row=2, folders=("sub01/EP1",))
    found = [(p.kind, p.problem) for p in mt.check_dataset([clip], tmp_path).problems]
    assert [kind for kind, _ in found] == ["folder", "folder without row", "folder without row"]
    assert [text.endswith("sub01/EP") for _, text in found[1:]] == [True, True]


def test_the_apex_is_searched_where_it_is_wrong(tmp_path):
    """A movement that is largest in frame 120 of 100..140, numbered from 100."""
    made = mt.synthetic_clip(num_frames=41, onset=4, apex=20, offset=36, size=48, noise=1, hold=0)
    folder = make_frames(tmp_path / "spNO.1" / "b" / "color", [])
    for number, image in enumerate(made.frames.permute(0, 2, 3, 1).numpy()[..., ::-1], start=100):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    keys = [
        (100, 100, 140),
        (100, None, 140),
        (100, 150, 140),
        (100, 110, 140),
        (140, 120, 100),
        (100, 100, None),
        (100, 100, 100),
    ]
    clips = [
        mt.ClipAnnotation("casme3-a", "spNO.1", "b", *k, row=i, folders=("spNO.1/b/color",)) for i, k in enumerate(keys)
    ]
    repaired, log = mt.repair_annotations(clips, mt.search_apex(tmp_path))
    assert [abs(clip.apex - 120) <= 3 for clip in repaired[:3]] == [True] * 3
    assert [(clip.onset, clip.apex, clip.offset) for clip in repaired[3:]] == keys[3:]
    assert [(entry.row, entry.repair) for entry in log] == [(i, "search-apex") for i in range(3)]
    assert re.fullmatch(
        r"apex 100 -> 1\d\d \(search-apex: the frames from onset to offset were searched\)", log[0].reason
    )
    assert mt.check_dataset(repaired[:1]).counts == {}
    with pytest.raises(ValueError, match=r", row 9 \(spNO.1/b\): frame 160 is not in"):
        mt.repair_annotations([replace(clips[0], offset=160, row=9)], mt.search_apex(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder of frames"):
        mt.repair_annotations([replace(clips[0], folders=("x",))], mt.search_apex({"CAS(ME)^3": tmp_path}))


def test_a_long_report_is_cut_and_says_so(tmp_path):
    clips = [mt.ClipAnnotation("x", "1", str(i), 5, 9, 7, row=i) for i in range(30)]
    assert "... and 10 more" in str(mt.check_dataset(clips))


def test_a_path_needs_a_dataset(tmp_path):
    with pytest.raises(ValueError, match="dataset must be given"):
        mt.check_dataset(tmp_path / "codes.csv", tmp_path)
