import numpy as np
import pytest
from annotation_tables import make_frames, write_table

import mertools as mt
from mertools.annotations.folders import decode_frames

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
    folders = mt.FrameFolders({"casme2": tmp_path / "one", "samm": tmp_path / "two"})
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
    import cv2

    image = np.zeros((5, 7, 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(tmp_path / "1.png"), image)
    assert (decode_frames([str(tmp_path / "1.png")])[0] == image).all()
