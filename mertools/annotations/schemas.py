"""What the annotation table of each dataset looks like, as data: columns, labels, quirks, frame folders.

A schema says by which headers (or positions) a table names its fields, which labels it may hold, and where the frames
of a row lie. :func:`read_annotations` does the rest, so a dataset of your own is one :class:`AnnotationSchema`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

from mertools._checks import as_integer, check_count, check_number
from mertools._files import read_record, write_record
from mertools._text import plain_subject
from mertools.action_units.expressions import CLASS_SETS, class_names
from mertools.annotations.tables import normal

__all__ = ["AnnotationSchema", "frame_list_schema"]

Column: TypeAlias = str | int | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class AnnotationSchema:
    """How to read one dataset's annotation table.

    Args:
        name: the dataset, as it stands in each annotation.
        columns: field to header, several headers (forks of a table, the first that is there counts), or a 0-based
            position. Fields are ``subject``, ``clip``, ``onset``, ``apex``, ``offset``, ``label``, ``action_units``,
            ``reselect`` (0: leave this clip alone), ``fps``, ``num_frames`` and ``dataset`` (of lists that mix some);
            ``onset2``, ``apex2``, ``offset2``, ... for further expressions in the same row; any other name ends up in
            the annotation's ``extra``.
        labels: the label of each spelling, or the labels if each is spelt as it is; compared without case and blanks.
        folder: where a row's frames lie below the root you give: a pattern of fields in braces such as
            ``"sub{subject}/{clip}"``, with ``*`` for what the table does not say; several are tried in order.
            ``**/`` in front: leading folders of the table's path may be missing here (another machine's). Beside the
            fields there are ``{number}``, the subject's, ``{stem}``, the clip without a file's suffix, and ``{video}``.
        optional: fields whose column may be absent.
        header: 0-based row of the header; None for a table without one (columns are positions then). The header is
            looked for in the rows around when it is not there.
        sheet: name of the sheet; default the first.
        fps: frames per second of the recordings.
        key: the fields that name a row uniquely.
        missing: what a frame's cell holds when there is no number.
        subject_width: zero-pad subjects that are numbers to this width; ``sub01`` and ``s01`` count as numbers then.
        clip_width: the same for clips.
        separator: what stands between several labels in one cell.
        label_in_clip: regular expression whose first group is the label within the clip's name, for tables whose
            label column is absent, empty, or holds integers.
        whitespace: the cells of a text file are separated by blanks.
        naming: fields that other sheets of the workbook translate to codes, ``{subject_code}`` in ``folder``, and a
            regular expression whose first group is what they translate.
        video: regular expression whose first group is the recording within the clip's name.
        path_fields: regular expression on the table's own path whose named groups are ``split`` and ``fold``
            (``fold2`` where it may stand in two places).
        files: patterns of the tables below a folder, for sets that come in several files: of a file's name, or of its
            path where there is a ``/`` in the pattern.
        longest: seconds that no expression lasts; longer ones are reported.
        row_names: regular expression that the dataset's rows are known by, as ``subject/clip``: a table whose rows are
            named as those of another dataset, and not so, is refused.
        editions: where editions of the table differ: edition to ``"subject/clip"`` to label.
        positions: field to 0-based position, for copies that have lost their header.
        orders: orders in which lists with integers number the classes, by a regular expression on the list's path.
        known: label of some clips by the last part of their names: they tell which of the orders a list has, whatever
            its name, and a list that says otherwise is reported.

    Examples:
        >>> schema = AnnotationSchema(
        ...     name="ours",
        ...     columns={"subject": "who", "clip": "file", "onset": "on", "offset": "off", "label": "emotion"},
        ...     labels=["happy", "sad"], folder="{subject}/{clip}", fps=120,
        ... )
        >>> schema.label_names["happy"]
        'happy'
    """

    name: str
    columns: Mapping[str, Column]
    labels: Mapping[str, str] | Sequence[str]
    folder: str | Sequence[str] = "{clip}"
    optional: Sequence[str] = ()
    header: int | None = 0
    sheet: str | None = None
    fps: float | None = None
    key: Sequence[str] = ("subject", "clip")
    missing: Sequence[str] = ("", "/", "\\", "-1", "-", "nan", "none", "null", "na", "n/a", "／", "＼", "–", "—")
    subject_width: int = 0
    clip_width: int = 0
    separator: str | None = None
    label_in_clip: str | None = None
    whitespace: bool = False
    naming: Mapping[str, str] = field(default_factory=dict)
    video: str | None = None
    path_fields: str | None = None
    files: str | Sequence[str] | None = None
    longest: float | None = 4.0  # macro-expressions last up to four seconds, micro-expressions half a second
    row_names: str | None = None
    editions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    orders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"name must be the dataset's name, got {self.name!r}")
        for name in ("columns", "naming", "editions", "positions", "orders", "known"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must be a mapping, got {getattr(self, name)!r}")
        if "clip" not in self.columns:
            raise ValueError(f"columns must say which column holds the clip, got {sorted(self.columns)}")
        if not self.labels or isinstance(self.labels, str):
            raise ValueError(
                f"labels must be the dataset's labels, or its spellings and what they mean: {self.labels!r}"
            )
        places = {name: as_integer(column) for name, column in self.columns.items()}
        numeric = [name for name, place in places.items() if place is not None]
        if (self.header is None) != (len(numeric) == len(self.columns)) or (self.header is not None and numeric):
            raise ValueError(
                "columns must all be positions when header is None, and all be headers otherwise; "
                f"got header={self.header}, positions for {numeric or 'none'}"
            )
        columns = {name: self.columns[name] if place is None else place for name, place in places.items()}
        object.__setattr__(self, "columns", columns)
        for part in fields(self):
            object.__setattr__(self, part.name, _frozen(getattr(self, part.name)))
        for name in ("header", "subject_width", "clip_width"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_count(name, value, least=0))
        for name in ("fps", "longest"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(check_number(name, value, 0)))

    @cached_property
    def label_names(self) -> dict[str, str]:
        """Label by normalised spelling."""
        pairs = self.labels.items() if isinstance(self.labels, Mapping) else ((name, name) for name in self.labels)
        return {normal(spelling): name for spelling, name in pairs}

    def with_order(self, path: str, labels: Mapping[str, str]) -> AnnotationSchema:
        """The schema that reads the integers of the list at ``path``; ``labels`` are its integers or names by clip."""
        if not self.orders:
            return self
        seen = {clip: labels[clip] for clip in self.known if labels.get(clip, "").isdigit()}
        fitting = [
            order
            for order in self.orders.values()
            if all(int(i) < len(order) and order[int(i)] == self.known[clip] for clip, i in seen.items())
        ]
        named = [order for pattern, order in self.orders.items() if re.search(pattern, path, re.IGNORECASE)]
        found = fitting if len(seen) > 1 and len(fitting) == 1 else named
        if not found:
            return self
        numbered = {str(i): name for i, name in enumerate(found[0])}
        return replace(self, labels={**self.label_names, **numbered}, orders={})

    @property
    def folders(self) -> tuple[str, ...]:
        """The folder patterns, in the order they are tried."""
        return (self.folder,) if isinstance(self.folder, str) else tuple(self.folder)

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Write the schema as a small TOML file, for others to read with :meth:`from_toml` or by its path.

        Examples:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "ours.toml"
            >>> ours = AnnotationSchema(name="ours", columns={"clip": "file", "label": "emotion"}, labels=["happy"])
            >>> ours.to_toml(path)
            >>> AnnotationSchema.from_toml(path) == ours
            True
        """
        write_record(path, self)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> AnnotationSchema:
        """Read a schema that :meth:`to_toml` wrote, or one of your own making: the settings of this class by name."""
        return read_record(path, cls, **dict.fromkeys(("header", "fps", "longest"), _or_none))


def _or_none(value: Any) -> Any:
    return None if value == "none" else value


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that what was read from a file equals what was written."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


_LIST_PATH = (
    r"(?i)(?=(?:.*?(?:(?:^|/)(?:set|fold|split)[ _-]?0*(?P<fold2>[1-9]\d?)/[^/]*$"
    r"|(?<![a-z])(?:set|fold|split)[ _-]?0*(?P<fold>[1-9]\d?)(?!\d)[^/]*$))?)"
    r"(?=(?:.*(?<![a-z])(?P<split>train|test|val|eval|validation)(?:ing)?(?![a-z])[^/]*$)?)"
)


# Three clips of each test list, to tell by in which order a list of bare integers numbers its classes.
_KNOWN = {
    "mafw": {
        "01744": "happiness", "01938": "neutral", "03642": "sadness", "03742": "anger", "04417": "happiness",
        "05847": "neutral", "07391": "disgust", "07719": "surprise", "09109": "anger", "09877": "fear",
        "09897": "disgust", "10861": "sadness", "10906": "surprise", "20063": "fear", "20093": "happiness",
    },
}  # fmt: skip


def frame_list_schema(dataset: str, classes: str | Sequence[str]) -> AnnotationSchema:
    """The schema of a derived list with integer classes, ``path num_frames class`` or ``path class``.

    Two code bases rarely number the classes alike, and nothing in the list says how: look it up and name the classes.
    Names of classes are read as well. Split and fold are taken from a list's name: ``DFEW_set_1_train.txt``,
    ``split01/test.csv``.

    Args:
        dataset: name for the annotations.
        classes: class names in the order of the list's integers (from 0), or a set of ``CLASS_SETS``.

    Examples:
        >>> frame_list_schema("ferv39k", "FERV39K-alphabetical").label_names["0"]
        'angry'
    """
    names = class_names(classes)
    labels = {str(i): name for i, name in enumerate(names)} | _labels(*names)
    return _list_schema(dataset, labels, known=_KNOWN.get(dataset, {}))


def _list_schema(dataset: str, labels: Mapping[str, str], **more: Any) -> AnnotationSchema:
    settings: dict[str, Any] = {
        "folder": ("**/{clip}", "**/{stem}"),
        "path_fields": _LIST_PATH,
        "files": (f"*{dataset.removesuffix('-list')}*_t*.txt", f"*{dataset.removesuffix('-list')}*/t*.csv"),
    }
    return AnnotationSchema(
        name=dataset,
        columns={"clip": 0, "num_frames": 1, "label": 2},
        optional=("num_frames",),
        labels=labels,
        header=None,
        whitespace=True,
        key=("clip",),
        **(settings | more),
    )


# Synonyms of labels.
_SAME = (
    ("happiness", "happy"), ("sadness", "sad"), ("anger", "angry"), ("surprise", "surprised"), ("disgust", "disgusted"),
    ("fear", "fearful"), ("neutral", "neutrality"), ("others", "other"), ("contempt", "contemptuous"),
    ("repression", "repressed"), ("negative", "neg"), ("positive", "pos"),
)  # fmt: skip


def _labels(*names: str) -> dict[str, str]:
    """Each label by its own name and by the other words for it."""
    found = {name: name for name in names}
    for pair in _SAME:
        for name, other in (pair, pair[::-1]):
            if name in names:
                found.setdefault(other, name)
    return found


# Other headers that copies of the tables have for a field, after the dataset's own.
_HEADERS: dict[str, tuple[str, ...]] = {
    "subject": ("Subject", "Sub", "sub_ID", "Subject ID", "Subject No", "Participant"),
    "clip": ("Filename", "File", "Clip", "Clip name", "Video", "Video name", "filename_o", "fold_name", "Sample"),
    "label": ("Estimated Emotion", "Emotion", "Label", "Emotion label", "Expression"),
    "action_units": ("Action Units", "AU", "AUs", "Action Unit", "FACS", "FACS codes"),
} | {
    key: (key, f"{key}Frame", f"{key}F", f"{key}Index", f"{key}Number", f"{key}FrameNumber", f"Frame{key}")
    for key in ("onset", "apex", "offset")
}  # fmt: skip


def _columns(**own: str | tuple[str, ...]) -> dict[str, Column]:
    """Headers by field: the dataset's own first, then those of derived copies."""
    found: dict[str, Column] = {}
    for name, header in own.items():
        headers = (header,) if isinstance(header, str) else header
        seen = {normal(title) for title in headers}
        found[name] = (*headers, *(title for title in _HEADERS.get(name, ()) if normal(title) not in seen))
    return found


_SEVEN = _labels("happiness", "disgust", "surprise", "sadness", "fear", "anger", "others")
_CASME3 = _labels("happy", "sad", "anger", "disgust", "fear", "surprise", "others")
_THREE = _labels("negative", "positive", "surprise") | {"ne": "negative", "po": "positive", "sur": "surprise"}
_DFEW = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
_AS_DFEW = _labels(*_DFEW)
_IN_PATH = r"(?:^|/)(angry|disgust|fear|happy|neutral|sad|surprise)/"
_MAFW = CLASS_SETS["MAFW"]
_MAFW_ORDERS = {  # lists of the one kind number the classes as MAFW does, of the other as DFEW does, then the last four
    r"MAFW_set_\d+_": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear", *_MAFW[7:]),
    r"split0*\d+/[^/]*$": _MAFW,
}
_TYPES = {
    "macro": "macro", "macro-expression": "macro", "macro expression": "macro", "micro": "micro",
    "micro-expression": "micro", "micro expression": "micro", "micro - 1/2": "micro",
}  # fmt: skip
_CASME3_A: dict[str, Any] = {
    "columns": _columns(
        subject="Subject", clip="Filename", onset="Onset", apex="Apex", offset="Offset", action_units=("AU", "AUs"),
        objective_class="Objective class", label="emotion", reselect=("reselect", "flag"),
    ),
    "optional": ("objective_class", "reselect"),
    "folder": ("{subject}_{clip}_{onset}", "{subject}/{clip}/color", "{subject}/{clip}"),
    "key": ("subject", "clip", "onset"),
    "labels": _CASME3,
    "fps": 30.0,
    "row_names": r"spNO\.?\d+/[a-z]",
}  # fmt: skip
_SQUARED: dict[str, Any] = {
    "header": None,
    "fps": 30.0,
    "missing": (*AnnotationSchema.missing, "0"),
    # A video holds several expressions (anger1_1, anger1_2); naming sheets give subject 1 -> 15, anger1 -> 0401.
    "folder": ("s{subject_code}/{subject_code}_{clip_code:0>4}*", "s{subject_code}/{clip}"),
    "naming": {"subject": r"(.*)", "clip": r"(.*?)(?:_\d+)?"},
    "row_names": r"[^/]*/(?:anger|disgust|happy)\d*_\d+",
}
_CASME2_2019 = ("24/EP07_01", "24/EP07_04f", "24/EP10_03")  # three clips that the two editions label differently

SCHEMAS: dict[str, AnnotationSchema] = {
    schema.name: schema
    for schema in (
        AnnotationSchema(
            name="casme2",
            columns=_columns(
                subject="Subject", clip="Filename", onset="OnsetFrame", apex="ApexFrame", offset="OffsetFrame",
                action_units="Action Units", label="Estimated Emotion",
            ),
            optional=("action_units",),
            labels=_labels("others", "disgust", "happiness", "repression", "surprise", "sadness", "fear"),
            folder="sub{subject}/{clip}",
            fps=200.0,
            subject_width=2,
            row_names=r"[^/]*/EP\d{2}(?:_\d{1,2})*f?",
            editions={
                "2014": dict.fromkeys(_CASME2_2019, "sadness"),
                "2019": dict.fromkeys(_CASME2_2019, "surprise"),
            },
        ),
        AnnotationSchema(
            name="samm",
            columns=_columns(
                subject="Subject", clip="Filename", inducement="Inducement Code", onset="Onset Frame",
                apex="Apex Frame", offset="Offset Frame", duration="Duration", micro="Micro",
                action_units="Action Units", label="Estimated Emotion", objective_class="Objective Classes",
                notes="Notes",
            ),
            optional=("inducement", "duration", "micro", "action_units", "objective_class", "notes"),
            labels=_labels("anger", "contempt", "happiness", "surprise", "other", "disgust", "fear", "sadness"),
            folder="{subject}/{clip}",
            header=13,
            fps=200.0,
            subject_width=3,
            row_names=r"[^/]*/\d{3}_\d_\d{1,2}",
        ),
        AnnotationSchema(
            name="samm-lv",
            columns=_columns(
                subject="Subject", clip="Filename", inducement="Inducement Code", onset="Onset", apex="Apex",
                offset="Offset", duration="Duration", action_units="Action Units", notes="Notes",
            ) | {"label": ("Type", "Expression type")},
            optional=("inducement", "duration", "action_units", "notes"),
            labels=_TYPES,
            folder=("{video}", "{subject}/{video}"),
            video=r"(\d+_\d+)_\d+",
            key=("subject", "clip", "onset"),
            header=9,
            fps=200.0,
            subject_width=3,
            row_names=r"[^/]*/\d{3}_\d_\d{1,2}",
            longest=None,  # macro-expressions of long videos may last longer
        ),
        AnnotationSchema(
            name="cas(me)2",
            columns={
                "subject": 0, "clip": 1, "onset": 2, "apex": 3, "offset": 4, "action_units": 5, "label": 6, "type": 7,
                "self_report": 8,
            },
            optional=("self_report",),
            labels=_labels("negative", "positive", "surprise", "others"),
            **_SQUARED,
        ),
        AnnotationSchema(
            name="cas(me)2-spotting",
            columns={
                "subject": 0, "clip": 1, "onset": 2, "apex": 3, "offset": 4, "action_units": 5, "emotion": 6,
                "label": 7, "self_report": 8,
            },
            optional=("self_report",),
            labels=_TYPES,
            longest=None,
            key=("subject", "clip", "onset"),
            **_SQUARED,
        ),
        AnnotationSchema(name="casme3-a", sheet="label", **_CASME3_A),
        AnnotationSchema(name="casme3-a-v1", **_CASME3_A),
        AnnotationSchema(
            name="casme3-c",
            sheet="mockCrimeME",
            columns=_columns(subject="sub", clip="count", onset="onset", offset="offset", action_units="au",
                             label="emotion"),
            labels=_CASME3 | _labels("negative", "positive"),
            folder=("{subject}/{clip}/color", "{subject}_{clip}_{onset}", "{subject}/{clip}", "{subject}/color"),
            key=("subject", "clip", "onset"),
            fps=30.0,
        ),
        AnnotationSchema(
            name="smic",
            columns=_columns(
                subject="Subject", clip="Filename", onset="OnsetF", apex="ApexF", offset="OffsetF", label="Emotion",
                onset2="Onset2F", apex2="Apex2F", offset2="Offset2F", onset3="Onset3F", apex3="Apex3F",
                offset3="Offset3F",
            ),
            optional=("apex", "onset2", "apex2", "offset2", "onset3", "apex3", "offset3"),
            labels=_THREE,
            label_in_clip=r"_(ne|po|sur)_",
            folder=("{clip}", "s{number}_{video}", "s{number:0>2}_{video}"),
            video=r"s?\d+_(.+)",
            key=("subject", "clip", "expression"),
            missing=(*AnnotationSchema.missing, "0"),
            fps=100.0,
            row_names=r"[^/]*/s\d+_(?:ne|po|sur)_\d+",
        ),
        AnnotationSchema(
            name="mmew",
            columns=_columns(
                subject="Subject", clip="Filename", onset="OnsetFrame", apex="ApexFrame", offset="OffsetFrame",
                action_units="Action Units", label="Estimated Emotion", remarks="remarks",
            ),
            optional=("action_units", "remarks"),
            labels=_SEVEN,
            fps=90.0,
            subject_width=2,
            row_names=r"[^/]*/S\d{2}-\d{2}-\d{3}",
        ),
        AnnotationSchema(
            name="4dme",
            columns=_columns(
                subject="sub_ID", clip="fold_name", onset="Onset", apex="Apex", offset="Offset",
                action_units=("AUs", "AU"), label="Emotion", eye_blink=("eye blink", "eyeblink"),
            ),
            optional=("eye_blink",),
            labels=_labels("positive", "negative", "surprise", "repression", "others"),
            separator="+",
            folder=("{subject}/{clip}", "{clip}"),
            fps=60.0,
        ),
        AnnotationSchema(
            name="dfme",
            columns=_columns(
                subject="Subject", clip="Filename", onset="OnsetFrame", apex="ApexFrame", offset="OffsetFrame",
                label="Emotion", action_units="AU", fps="Fps",
            ),
            optional=("action_units", "fps"),
            labels=_labels("happiness", "anger", "contempt", "disgust", "fear", "sadness", "surprise", "others"),
            row_names=r"[^/]*/sub\d{4}_\d+",
        ),
        AnnotationSchema(
            name="megc2019",
            columns=_columns(dataset=("dataset", "data", "database"), subject="sub", clip="filename_o", label="label",
                             apex="apex"),
            optional=("apex",),
            positions={"dataset": 0, "subject": 1, "clip": 2, "label": 3},
            labels={"0": "negative", "1": "positive", "2": "surprise"} | _labels("negative", "positive", "surprise"),
            key=("dataset", "subject", "clip"),
        ),
        AnnotationSchema(
            name="dfew",
            columns=_columns(clip="video_name", label="label"),
            labels={str(i): name for i, name in enumerate(_DFEW, start=1)},
            folder="{clip}",
            key=("clip",),
            clip_width=5,
            path_fields=r"(?P<split>train|test)\(single-labeled\)/set_(?P<fold>\d)\.csv$",
            files="*(single-labeled)/set_*.csv",
        ),
        _list_schema("dfew-list", {str(i): name for i, name in enumerate(_DFEW)} | _AS_DFEW),
        # By name, or by the path where there are integers: two orders of the classes are in use.
        _list_schema(
            "ferv39k", _AS_DFEW, label_in_clip=_IN_PATH,
            files=("*_All.csv", "*ferv39k*_t*.txt", "*ferv39k*/t*.csv"),
        ),
        _list_schema("mafw", _labels(*_MAFW), orders=_MAFW_ORDERS, known=_KNOWN["mafw"]),
        _list_schema(
            "afew", _AS_DFEW, label_in_clip=_IN_PATH, files=("*afew*train*", "*afew*val*"),
        ),
    )
}  # fmt: skip

_ALIASES = {
    "casmeii": "casme2", "casme-ii": "casme2", "casme2": "casme2", "sammmicro": "samm", "samm-v2": "samm",
    "sammlv": "samm-lv", "sammlongvideos": "samm-lv", "samm-long-video": "samm-lv", "sammlongvideo": "samm-lv",
    "cas(me)^2": "cas(me)2", "cas(me)²": "cas(me)2", "casme^2": "cas(me)2", "casme-squared": "cas(me)2",
    "casmesq": "cas(me)2", "casme-sq": "cas(me)2", "casme²": "cas(me)2",
    "cas(me)^2-spotting": "cas(me)2-spotting", "cas(me)²-spotting": "cas(me)2-spotting",
    "casme-squared-spotting": "cas(me)2-spotting",
    "casme3": "casme3-a", "casme3a": "casme3-a", "casme3-a-v2": "casme3-a", "casme3-part-a": "casme3-a",
    "casme3c": "casme3-c", "casme3-part-c": "casme3-c",
    "smic-hs": "smic", "smichs": "smic", "smic-hs-e": "smic", "smic-e-hs": "smic",
    "megc-2019": "megc2019", "megc2019-cd": "megc2019", "3db": "megc2019", "mafw-list": "mafw",
}  # fmt: skip


def dataset_schema(dataset: str | os.PathLike[str] | AnnotationSchema) -> AnnotationSchema:
    """The schema of a dataset by name (spellings such as ``"CASME II"`` and ``"CAS(ME)^3"`` are understood) or file.

    Examples:
        >>> [dataset_schema(name).name for name in ("CASME II", "CAS(ME)^2", "SMIC-HS", "cas(me)3 part C")]
        ['casme2', 'cas(me)2', 'smic', 'casme3-c']
    """
    if isinstance(dataset, AnnotationSchema):
        return dataset
    if isinstance(dataset, os.PathLike) or (isinstance(dataset, str) and dataset.endswith(".toml")):
        return AnnotationSchema.from_toml(dataset)
    if not isinstance(dataset, str):
        raise TypeError(f"dataset must be a name or an AnnotationSchema, got {type(dataset).__name__}")
    name = "-".join(dataset.casefold().replace("_", " ").split())
    for third in ("cas(me)^3", "cas(me)³", "cas(me)3", "casme^3", "casme³"):
        name = name.replace(third, "casme3")
    for key in (name, _ALIASES.get(name, ""), _ALIASES.get(name.replace("-", ""), "")):
        if key in SCHEMAS:
            return SCHEMAS[key]
    raise ValueError(
        f"dataset must be one of {', '.join(SCHEMAS)}, or an AnnotationSchema of your own (or its "
        f".toml file), got {dataset!r}"
    )


def clip_key(subject: str, clip: str) -> tuple[str, str]:
    """What a clip is known by where editions, protocols and exceptions name it, however its subject is spelt."""
    return plain_subject(subject), clip.strip().casefold()


def last_name(clip: str) -> str:
    """The last part of a path, without the suffix of a file: what lists of another machine have in common."""
    return re.sub(r"\.[a-z0-9]{2,4}$", "", clip.rpartition("/")[2], flags=re.IGNORECASE)


def edition_labels(editions: Mapping[str, Mapping[str, str]], subject: str, clip: str) -> dict[str, str]:
    """The label of a clip in each edition that knows it."""
    key = clip_key(subject, clip)
    return {
        name: label
        for name, table in editions.items()
        for told, label in table.items()
        if clip_key(*told.split("/", 1)) == key
    }
