"""Laws of tables and labels: what is written down comes back, whatever the spelling of the table."""

import json
import re
from dataclasses import asdict, replace

import pytest
import torch
from annotation_tables import write_csv, write_xlsx
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import mertools as mt
from mertools.annotations.protocols import PROTOCOLS
from mertools.annotations.read import load_annotations
from mertools.annotations.schemas import SCHEMAS
from mertools.audit.corrected_table import Correction, write_corrected
from mertools.clips.read import frame_number

NUMBERED = [name for name, schema in SCHEMAS.items() if "onset" in schema.columns]
WORDS = st.text("abcXYZ019_-.é", min_size=1, max_size=8).filter(lambda word: word not in SCHEMAS["smic"].missing)
UNITS = st.lists(st.sampled_from(["4", "12", "L1", "R4", "AU6", "25B"]), min_size=1, max_size=3)


def title(column):
    return column if isinstance(column, (str, int)) else column[0]


def key_names(schema):
    """Fields of each expression of a row: the first, and those that SMIC adds."""
    first = [name for name in ("onset", "apex", "offset") if name in schema.columns]
    more = sorted(int(name[5:]) for name in schema.columns if name.startswith("onset") and name != "onset")
    return [first, *([f"{name}{i}" for name in first] for i in more)]


@st.composite
def rows(draw, schema):
    """One row by field, as it is meant, and the cells that say so."""
    subject = draw(st.integers(1, 999).map(str) | WORDS)
    clip = draw(WORDS)
    subject = re.sub(r"^(\d+)\.0+$", r"\1", subject)  # a number that a program wrote with a point
    meant = {
        "subject": subject.zfill(schema.subject_width) if subject.isdigit() else subject,
        "clip": clip.zfill(schema.clip_width) if clip.isdigit() else clip,
    }
    cells = {"subject": subject, "clip": clip}
    if "label" in schema.columns:
        spelling = draw(st.sampled_from(sorted(schema.label_names)))
        meant["label"] = schema.label_names[spelling]
        cells["label"] = draw(st.sampled_from([spelling, spelling.upper(), f" {spelling.title()} "]))
    if "action_units" in schema.columns:
        meant["action_units"] = tuple(draw(UNITS))
        cells["action_units"] = "+".join(meant["action_units"])
    meant["keys"] = []
    for names in key_names(schema):
        there = not meant["keys"] or (len(meant["keys"][-1]) > 1 and draw(st.booleans()))
        if not there:
            cells |= dict.fromkeys(names)
            continue
        keys = sorted(draw(st.lists(st.integers(1, 10**9 - 1), min_size=len(names), max_size=len(names))))
        found = dict(zip(names, keys, strict=True))
        if len(names) == 3 and draw(st.integers(0, 4)) == 0:
            found[names[1]] = None  # an apex that nobody found
        meant["keys"].append([found.get(names[0]), found.get(names[1]) if len(names) == 3 else None, found[names[-1]]])
        for name, key in found.items():
            missing = st.sampled_from([None, "/", "-1", "-"])
            spelt = st.sampled_from([key, str(key), f" {key} ", *([float(key), f"{key}.0"] if key else [])])
            cells[name] = draw(missing if key is None else spelt)
    for name in schema.columns:
        if name not in cells:
            cells[name] = {"reselect": 1, "fps": None, "num_frames": 9}.get(name, draw(WORDS))
    return meant, cells


@st.composite
def tables(draw, names=NUMBERED):
    """A dataset, what its table means, and the grid of cells: columns in any order among others, blank rows between."""
    schema = SCHEMAS[draw(st.sampled_from(names))]
    drawn = draw(st.lists(rows(schema), min_size=1, max_size=4))
    fields = list(schema.columns)
    if schema.header is None:
        order = sorted(fields, key=lambda name: schema.columns[name])
        return schema, [m for m, _ in drawn], [[cells[name] for name in order] for _, cells in drawn]
    order = draw(st.permutations([*fields, None]))
    head = [None if name is None else title(schema.columns[name]) for name in order]
    grid = [[None] * len(order) for _ in range(draw(st.sampled_from([schema.header, 0, 3])))]
    grid.append(head)
    for _, cells in drawn:
        grid += [[None] * len(order)] * draw(st.integers(0, 1))
        grid.append([None if name is None else cells[name] for name in order])
    return schema, [m for m, _ in drawn], grid


def meaning(clips):
    """Rows of what was read, in the words of ``rows``; several expressions of a row joined again."""
    found = {}
    for clip in clips:
        row = found.setdefault(clip.row, {"subject": clip.subject, "clip": clip.clip, "keys": []})
        row["label"], row["action_units"] = clip.label, clip.action_units
        row["keys"].append([clip.onset, clip.apex, clip.offset])
    return list(found.values())


def same(clips, meant):
    for row, expected in zip(meaning(clips), meant, strict=True):
        assert {name: row[name] for name in expected} == expected


def as_file(folder, schema, grid, kind):
    if kind == "xlsx":
        return write_xlsx(folder / "table.xlsx", grid, sheet=schema.sheet or "Sheet1")
    return write_csv(folder / "table.csv", grid, delimiter={"csv": ",", "semicolon": ";", "tab": "\t"}[kind])


KINDS = st.sampled_from(["xlsx", "csv", "semicolon", "tab"])


@settings(max_examples=2 * settings.default.max_examples)
@given(tables(), KINDS)
def test_a_table_says_what_was_put_into_it(tmp_path_factory, drawn, kind):
    schema, meant, grid = drawn
    path = as_file(tmp_path_factory.mktemp("table"), schema, grid, kind)
    same(mt.read_annotations(path, schema.name), meant)


@given(tables())
def test_a_dataframe_reads_like_its_file(drawn):
    import pandas

    schema, meant, grid = drawn
    same(mt.read_annotations(pandas.DataFrame(grid, dtype=object), schema.name), meant)


@given(tables([name for name in NUMBERED if "apex" in SCHEMAS[name].columns]), KINDS, st.sampled_from(["xlsx", "csv"]),
       st.data())  # fmt: skip
def test_corrected_key_frames_come_back_and_nothing_else_changes(tmp_path_factory, drawn, kind, out, data):
    schema, _, grid = drawn
    folder = tmp_path_factory.mktemp("table")
    path = as_file(folder, schema, grid, kind)
    before = path.read_bytes()
    clips = load_annotations(path, schema)
    keys = [tuple(sorted(data.draw(st.tuples(*[st.integers(0, 99_999)] * 3)))) for _ in clips]
    assume(all(onset and offset for onset, _, offset in keys))  # 0 stands for no frame in some tables
    chosen = [data.draw(st.booleans()) for _ in clips]
    some = [Correction(c.row, c.expression, k) for c, k, take in zip(clips, keys, chosen, strict=True) if take]
    write_corrected(path, schema, some, folder / f"corrected.{out}")
    assert path.read_bytes() == before
    after = load_annotations(folder / f"corrected.{out}", schema)
    assert len(after) == len(clips)
    for old, new, (onset, apex, offset), take in zip(clips, after, keys, chosen, strict=True):
        # The key of CAS(ME)³ holds the onset, and so may its folders.
        expected = replace(old, onset=onset, apex=apex, offset=offset) if take else old
        if take and schema.name == "cas(me)2" and apex == 0:
            expected = replace(expected, apex=None)
        same_as = {"table": new.table, "sheet": new.sheet, "row": new.row, "key": new.key, "folders": new.folders}
        same_as["unplaced"] = old.unplaced and old.unplaced.replace(path.name, f"corrected.{out}")  # it names the file
        assert replace(expected, **same_as) == new


@given(st.lists(st.tuples(WORDS, st.integers(1, 10**6), st.integers(0, 6)), min_size=1, max_size=5))
def test_lists_of_clips_say_what_was_put_into_them(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("lists")
    (folder / "list.txt").write_text("".join(f"{clip} {n} {i}\n" for clip, n, i in entries), encoding="utf-8")
    clips = mt.read_annotations(folder / "list.txt", "dfew-list")
    assert [(c.clip, c.num_frames, mt.EXPRESSIONS.index(c.label)) for c in clips] == entries
    (folder / "train_All.csv").write_text("".join(f"{c} {mt.EXPRESSIONS[i].title()}\n" for c, _, i in entries))
    clips = mt.read_annotations(folder, "ferv39k")
    assert [(c.clip, c.split, mt.EXPRESSIONS.index(c.label)) for c in clips] == [(c, "train", i) for c, _, i in entries]
    (folder / "dfew.csv").write_text("video_name,label\n" + "".join(f"{n},{i + 1}\n" for _, n, i in entries))
    clips = mt.read_annotations(folder / "dfew.csv", "dfew")
    assert [(c.clip, c.label) for c in clips] == [(f"{n:05d}", mt.EXPRESSIONS[i]) for _, n, i in entries]


# --- repairs and protocols ------------------------------------------------------------------------------------------

KEYS = st.none() | st.integers(0, 50)


@given(st.lists(st.tuples(KEYS, KEYS, KEYS), max_size=6), st.permutations(["offset-from-apex", "apex-midpoint",
       "sort-keys"]))  # fmt: skip
def test_repairs_leave_what_is_fine_and_log_what_is_not(annotated, order):
    clips = [mt.ClipAnnotation("samm", "006", f"c{i}", *keys, "anger", row=i) for i, keys in enumerate(annotated)]
    repaired, log = mt.repair_annotations(clips, order)
    assert [clip.row for clip in repaired] == [clip.row for clip in clips]
    for old, new in zip(clips, repaired, strict=True):
        keys = (old.onset, old.apex, old.offset)
        if None not in keys and keys == tuple(sorted(keys)):
            assert new == old
        assert (new != old) <= any(entry.row == old.row for entry in log)
        assert replace(new, onset=None, apex=None, offset=None) == replace(old, onset=None, apex=None, offset=None)
    kept, log = mt.repair_annotations(repaired, "drop")
    assert len(kept) + len(log) == len(clips)
    for clip in kept:
        assert clip.onset <= clip.apex <= clip.offset
    assert mt.repair_annotations(kept, [*order, "drop"]) == (kept, [])


@given(st.sampled_from(sorted(PROTOCOLS)), st.data())
def test_a_protocol_parts_the_clips(name, data):
    rule = PROTOCOLS[name]
    dataset = st.sampled_from(sorted(rule.labels))
    drawn = data.draw(st.lists(st.tuples(dataset, st.integers(0, 99), WORDS), max_size=8))
    clips = [
        mt.ClipAnnotation(d, "01", word, label=sorted({*rule.labels[d], "strange"})[i % (len(rule.labels[d]) + 1)])
        for d, i, word in drawn
    ]
    found = mt.apply_protocol(clips, name)
    assert len(found.clips) + len(found.dropped) == len(clips)
    assert [clip for clip in clips if clip in found.clips] == found.clips
    assert sum(found.counts.values()) == len(found.targets) == len(found.clips)
    for clip, target in zip(found.clips, found.targets, strict=True):
        assert found.classes[target] == rule.labels[clip.dataset][clip.label]
    order = data.draw(st.permutations(range(len(found.clips))))
    taken = found.take(order)
    assert [taken.clips[i] for i in range(len(order))] == [found.clips[i] for i in order]
    assert taken.targets == [found.targets[i] for i in order]


@given(tables())
def test_an_annotation_goes_through_json(tmp_path_factory, drawn):
    schema, _, grid = drawn
    path = as_file(tmp_path_factory.mktemp("table"), schema, grid, "csv")
    for clip in mt.read_annotations(path, schema.name):
        fields = json.loads(json.dumps(asdict(clip)))
        fields |= {name: tuple(fields[name]) for name in ("labels", "action_units", "key", "folders")}
        assert mt.ClipAnnotation(**fields) == clip


# --- frames ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from(["img", "reg_img", "006_1_2_", "", "frame-"]), st.integers(0, 10**9), st.integers(0, 12),
       st.sampled_from([".jpg", ".png", ".JPEG"]))  # fmt: skip
def test_a_frame_is_known_by_its_number(prefix, number, width, suffix):
    assert frame_number(f"{prefix}{number:0{width}d}{suffix}") == number
    assert frame_number(f"12/{prefix}{number:0{width}d}{suffix}") == number


@settings(max_examples=settings.default.max_examples // 2)
@given(st.sets(st.integers(0, 300), min_size=1, max_size=8), st.sampled_from(["img{}.jpg", "s01_{:05d}.png"]),
       st.sampled_from(["sub01/EP02", "Cropped/SUB01/ep02", "deep/er/sub01/EP02"]), st.data())  # fmt: skip
def test_positions_are_the_inverse_of_numbers(tmp_path_factory, numbers, pattern, place, data):
    root = tmp_path_factory.mktemp("frames")
    (root / place).mkdir(parents=True)
    for number in numbers:
        (root / place / pattern.format(number)).write_bytes(b"")
    clip = mt.ClipAnnotation("casme2", "01", "EP02", min(numbers), None, max(numbers), folders=("sub01/EP02",))
    folder = mt.FrameFolders(root).find(clip)
    assert folder.numbers == tuple(sorted(numbers))
    for position, number in enumerate(folder.numbers):
        assert folder.position(number) == position
        assert folder.names[position] == pattern.format(number)
    other = data.draw(st.integers(0, 400).filter(lambda number: number not in numbers))
    with pytest.raises(ValueError, match=f"frame {other} is not in"):
        folder.position(other)


# --- action units ---------------------------------------------------------------------------------------------------


@st.composite
def codes(draw):
    """A FACS code of many spellings, and the units it names with their certainty."""
    parts, certain = [], {}
    for _ in range(draw(st.integers(1, 4))):
        choices = draw(st.lists(st.sampled_from([int(unit[2:]) for unit in mt.ACTION_UNITS]), min_size=1, max_size=2))
        spelt = []
        for unit in choices:
            side, intensity = draw(st.sampled_from(["", "L", "R", "u"])), draw(st.sampled_from(["", "A", "e", "?"]))
            spelt.append(side + draw(st.sampled_from(["", "AU", "au"])) + draw(st.sampled_from([f"{unit}", f"{unit:02d}"]))
                         + intensity)  # fmt: skip
            certain[unit] = max(certain.get(unit, 0), 1 / len(choices))
        parts.append(draw(st.sampled_from([" or ", " OR "])).join(spelt))
    return draw(st.sampled_from(["+", " + ", ",", "，", ";", " and "])).join(parts), certain


@given(st.lists(codes(), min_size=1, max_size=4), st.permutations(mt.ACTION_UNITS))
def test_facs_codes_mean_their_units(drawn, order):
    labels = mt.facs_labels([code for code, _ in drawn], action_units=order)
    for row, (_, certain) in zip(labels, drawn, strict=True):
        assert row.tolist() == [certain.get(int(unit[2:]), 0) for unit in order]


@given(st.lists(st.sets(st.sampled_from(mt.ACTION_UNITS)), min_size=1, max_size=5), st.sampled_from(["+", ",", " , "]))
def test_units_go_through_their_codes(units, separator):
    written = [separator.join(sorted(some)) for some in units]
    assert mt.facs_labels(written).tolist() == [[float(unit in some) for unit in mt.ACTION_UNITS] for some in units]


CLIP_NAMES = st.text(min_size=1, max_size=12).filter(lambda n: n.split() == [n] and n.isprintable())


@given(st.dictionaries(CLIP_NAMES, st.lists(st.floats(0, 1, width=32, allow_subnormal=False) | st.just(float("nan")), min_size=18,
       max_size=18), max_size=4), st.sampled_from([torch.float32, torch.float64]))  # fmt: skip
@example({"00001.csv/1": [0.1] * 18}, torch.float64)
@example({"\ufeffclip": [1.0] * 18}, torch.float32)
def test_a_label_cache_comes_back(tmp_path_factory, labels, dtype):
    path = tmp_path_factory.mktemp("cache") / "AU.txt"
    mt.write_au_labels(path, {name: torch.tensor(row, dtype=dtype) for name, row in labels.items()})
    found = mt.read_au_labels(path)
    assert list(found) == list(labels)
    for name, row in labels.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], torch.tensor(row), rtol=0, atol=0, equal_nan=True)
    assert [file.name for file in path.parent.iterdir()] == ["AU.txt"]


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.permutations(range(5)), st.sampled_from([",", ", "]))
def test_an_openface_table_comes_back(tmp_path_factory, t, seed, order, separator):
    """Columns are known by their names, in whatever order, with others between."""
    random = torch.Generator().manual_seed(seed)
    presence = torch.randint(0, 2, (t, 18), generator=random).float()
    intensity = torch.randint(0, 501, (t, 17), generator=random) / 100
    confidence = torch.randint(0, 101, (t,), generator=random) / 100
    success = torch.randint(0, 2, (t,), generator=random).bool()
    parts = {
        "frame": [[i + 1] for i in range(t)], "rest": [["x", 0.5] for _ in range(t)],
        "meta": [[f"{c:.2f}", int(s)] for c, s in zip(confidence, success, strict=True)],
        "r": [[f"{x:.2f}" for x in row] for row in intensity.tolist()],
        "c": [[f"{x:.2f}" for x in row] for row in presence.tolist()],
    }  # fmt: skip
    heads = {
        "frame": ["frame"], "rest": ["gaze", "p_rx"], "meta": ["confidence", "success"],
        "r": [f"{u}_r" for u in mt.ACTION_UNITS if u != "AU28"], "c": [f"{u}_c" for u in mt.ACTION_UNITS],
    }  # fmt: skip
    names = [list(parts)[i] for i in order]
    lines = [separator.join(title for name in names for title in heads[name])]
    lines += [separator.join(str(cell) for name in names for cell in parts[name][i]) for i in range(t)]
    path = tmp_path_factory.mktemp("openface") / "clip.csv"
    path.write_text("\n".join(lines) + "\n")
    found = mt.read_openface(path)
    assert found.frame.tolist() == list(range(1, t + 1))
    assert found.success.tolist() == success.tolist()
    torch.testing.assert_close(found.confidence, confidence)
    torch.testing.assert_close(found.presence[success], presence[success])
    torch.testing.assert_close(found.intensity[success], intensity[success])
    assert bool(found.presence[~success].isnan().all())
    assert bool(found.intensity[~success].isnan().all())
