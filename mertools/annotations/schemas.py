"""What the annotation table of each dataset looks like, as data: columns, labels, quirks, frame folders.

A schema says by which headers (or positions) a table names its fields, which labels it may hold, and where the frames
of a row lie. :func:`read_annotations` does the rest, so a dataset of your own is one :class:`AnnotationSchema`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mertools.action_units.expressions import class_names
from mertools.annotations.tables import normal

__all__ = ["AnnotationSchema", "frame_list_schema"]

Column: TypeAlias = str | int | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class AnnotationSchema:
    """How to read one dataset's annotation table.

    Args:
        name: the dataset, as it stands in each annotation.
        columns: field to header, several headers (forks of a table), or a 0-based position. Fields are ``subject``,
            ``clip``, ``onset``, ``apex``, ``offset``, ``label``, ``action_units``, ``reselect`` (0: leave this clip
            alone), ``fps`` and ``num_frames``; ``onset2``, ``apex2``, ``offset2``, ... for further expressions in the
            same row; any other name ends up in the annotation's ``extra``.
        labels: the label of each spelling, or the labels if each is spelt as it is; compared without case and blanks.
        folder: where a row's frames lie below the root you give: a pattern of fields in braces such as
            ``"sub{subject}/{clip}"``, with ``*`` for what the table does not say; several are tried in order.
            ``**/`` in front: leading folders of the table's path may be missing here (another machine's).
        optional: fields whose column may be absent.
        header: 0-based row of the header; None for a table without one (columns are positions then). The header is
            looked for in the rows around when it is not there.
        sheet: name of the sheet; default the first.
        fps: frames per second of the recordings.
        key: the fields that name a row uniquely.
        missing: what a frame's cell holds when there is no number.
        subject_width: zero-pad subjects that are numbers to this width.
        clip_width: the same for clips.
        separator: what stands between several labels in one cell.
        label_in_clip: regular expression whose first group is the label within the clip's name, for tables whose
            label column is absent or empty.
        whitespace: the cells of a text file are separated by blanks.
        naming: fields that other sheets of the workbook translate to the codes of the frame folders.
        path_fields: regular expression on the table's own path whose named groups are ``split`` and ``fold``.
        files: pattern of the tables below a folder, for sets that come in several files.

    Raises:
        ValueError: no clip column, a header position that clashes with positional columns, or no labels.

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
    missing: Sequence[str] = ("", "/", "-1", "-", "nan", "none")
    subject_width: int = 0
    clip_width: int = 0
    separator: str | None = None
    label_in_clip: str | None = None
    whitespace: bool = False
    naming: Mapping[str, str] = field(default_factory=dict)
    path_fields: str | None = None
    files: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"name must be the dataset's name, got {self.name!r}")
        if "clip" not in self.columns:
            raise ValueError(f"columns must say which column holds the clip, got {sorted(self.columns)}")
        if not self.labels or isinstance(self.labels, str):
            raise ValueError(
                f"labels must be the dataset's labels, or its spellings and what they mean: {self.labels!r}"
            )
        numeric = [name for name, column in self.columns.items() if isinstance(column, int)]
        if (self.header is None) != (len(numeric) == len(self.columns)) or (self.header is not None and numeric):
            raise ValueError(
                "columns must all be positions when header is None, and all be headers otherwise; "
                f"got header={self.header}, positions for {numeric or 'none'}"
            )

    @property
    def label_names(self) -> dict[str, str]:
        """Label by normalised spelling."""
        pairs = self.labels.items() if isinstance(self.labels, Mapping) else ((name, name) for name in self.labels)
        return {normal(spelling): name for spelling, name in pairs}

    @property
    def folders(self) -> tuple[str, ...]:
        """The folder patterns, in the order they are tried."""
        return (self.folder,) if isinstance(self.folder, str) else tuple(self.folder)


def frame_list_schema(dataset: str, classes: str | Sequence[str]) -> AnnotationSchema:
    """The schema of a derived list ``path num_frames class`` with integer classes, as many code bases use.

    Two code bases rarely number the classes alike, and nothing in the list says how: look it up and name the classes.

    Args:
        dataset: name for the annotations.
        classes: class names in the order of the list's integers (from 0), or a set of ``CLASS_SETS``.

    Returns:
        A schema for :func:`read_annotations`.

    Raises:
        TypeError: classes are no names.
        ValueError: there is no such set of classes, or one is named twice.

    Examples:
        >>> frame_list_schema("ferv39k", "FERV39K-alphabetical").label_names["0"]
        'angry'
    """
    names = class_names(classes)
    return AnnotationSchema(
        name=dataset,
        columns={"clip": 0, "num_frames": 1, "label": 2},
        labels={str(i): name for i, name in enumerate(names)},
        folder="**/{clip}",
        header=None,
        whitespace=True,
        key=("clip",),
    )


_SEVEN = ("happiness", "disgust", "surprise", "sadness", "fear", "anger", "others")
_CASME3 = {
    "happy": "happy", "happiness": "happy", "sad": "sad", "sadness": "sad", "anger": "anger", "angry": "anger",
    "disgust": "disgust", "fear": "fear", "surprise": "surprise", "others": "others", "other": "others",
}  # fmt: skip
_THREE = {
    "negative": "negative", "ne": "negative", "positive": "positive", "po": "positive", "surprise": "surprise",
    "sur": "surprise",
}  # fmt: skip
_DFEW = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
_CASME3_A = {
    "columns": {
        "subject": "Subject", "clip": "Filename", "onset": "Onset", "apex": "Apex", "offset": "Offset",
        "action_units": ("AU", "AUs"), "objective_class": "Objective class", "label": "emotion",
        "reselect": ("reselect", "flag"),
    },
    "optional": ("objective_class", "reselect"),
    "folder": ("{subject}_{clip}_{onset}", "{subject}/{clip}/color", "{subject}/{clip}"),
    "key": ("subject", "clip", "onset"),
    "labels": _CASME3,
    "fps": 30.0,
}  # fmt: skip

SCHEMAS: dict[str, AnnotationSchema] = {
    schema.name: schema
    for schema in (
        AnnotationSchema(
            name="casme2",
            columns={
                "subject": "Subject", "clip": "Filename", "onset": "OnsetFrame", "apex": "ApexFrame",
                "offset": "OffsetFrame", "action_units": "Action Units", "label": "Estimated Emotion",
            },
            labels=("others", "disgust", "happiness", "repression", "surprise", "sadness", "fear"),
            folder="sub{subject}/{clip}",
            fps=200.0,
            subject_width=2,
        ),
        AnnotationSchema(
            name="samm",
            columns={
                "subject": "Subject", "clip": "Filename", "inducement": "Inducement Code",
                "onset": ("Onset Frame", "Onset"), "apex": ("Apex Frame", "Apex"), "offset": ("Offset Frame", "Offset"),
                "duration": "Duration", "micro": "Micro", "action_units": "Action Units", "label": "Estimated Emotion",
                "objective_class": "Objective Classes", "notes": "Notes",
            },
            optional=("inducement", "duration", "micro", "objective_class", "notes"),
            labels={name: name for name in (
                "anger", "contempt", "happiness", "surprise", "other", "disgust", "fear", "sadness"
            )} | {"others": "other"},
            folder="{subject}/{clip}",
            header=13,
            fps=200.0,
            subject_width=3,
        ),
        AnnotationSchema(
            name="cas(me)2",
            columns={
                "subject": 0, "clip": 1, "onset": 2, "apex": 3, "offset": 4, "action_units": 5, "label": 6, "type": 7,
                "self_report": 8,
            },
            optional=("self_report",),
            labels=("negative", "positive", "surprise", "others"),
            # a video holds several expressions (anger1_1, anger1_2); naming sheets give subject 1 -> 15, anger1 -> 0401
            folder=("s{subject_code}/{subject_code}_{clip_code}*", "s{subject}/{clip}"),
            header=None,
            fps=30.0,
            missing=("", "/", "-1", "-", "nan", "none", "0"),
            naming={"subject": r"(.*)", "clip": r"(.*?)(?:_\d+)?"},
        ),
        AnnotationSchema(name="casme3-a", sheet="label", **_CASME3_A),  # type: ignore[arg-type]
        AnnotationSchema(name="casme3-a-v1", **_CASME3_A),  # type: ignore[arg-type]
        AnnotationSchema(
            name="casme3-c",
            sheet="mockCrimeME",
            columns={
                "subject": "sub", "clip": "count", "onset": "onset", "offset": "offset", "action_units": "au",
                "label": "emotion",
            },
            labels=_CASME3 | {"negative": "negative", "positive": "positive"},
            folder=("{subject}/{clip}/color", "{subject}_{clip}_{onset}", "{subject}/{clip}", "{subject}/color"),
            key=("subject", "clip", "onset"),
            fps=30.0,
        ),
        AnnotationSchema(
            name="smic",
            columns={
                "subject": "Subject", "clip": "Filename", "onset": "OnsetF", "offset": "OffsetF", "label": "Emotion",
                "onset2": "Onset2F", "offset2": "Offset2F", "onset3": "Onset3F", "offset3": "Offset3F",
            },
            optional=("onset2", "offset2", "onset3", "offset3"),
            labels=_THREE,
            label_in_clip=r"_(ne|po|sur)_",
            key=("subject", "clip", "expression"),
            missing=("", "/", "-1", "-", "nan", "none", "0"),
            fps=100.0,
        ),
        AnnotationSchema(
            name="mmew",
            columns={
                "subject": "Subject", "clip": "Filename", "onset": "OnsetFrame", "apex": "ApexFrame",
                "offset": "OffsetFrame", "action_units": "Action Units", "label": "Estimated Emotion",
                "remarks": "remarks",
            },
            optional=("remarks",),
            labels=_SEVEN,
            fps=90.0,
            subject_width=2,
        ),
        AnnotationSchema(
            name="4dme",
            columns={
                "subject": "sub_ID", "clip": "fold_name", "onset": "Onset", "apex": "Apex", "offset": "Offset",
                "action_units": ("AUs", "AU"), "label": "Emotion", "eye_blink": ("eye blink", "eyeblink"),
            },
            optional=("eye_blink",),
            labels=("positive", "negative", "surprise", "repression", "others"),
            separator="+",
            folder=("{subject}/{clip}", "{clip}"),
            fps=60.0,
        ),
        AnnotationSchema(
            name="dfew",
            columns={"clip": "video_name", "label": "label"},
            labels={str(i): name for i, name in enumerate(_DFEW, start=1)},
            folder="{clip}",
            key=("clip",),
            clip_width=5,
            path_fields=r"(?P<split>train|test)\(single-labeled\)/set_(?P<fold>\d)\.csv$",
            files="*(single-labeled)/set_*.csv",
        ),
        frame_list_schema("dfew-list", _DFEW),
        AnnotationSchema(
            name="ferv39k",
            columns={"clip": 0, "label": 1},
            labels={name: name for name in _DFEW},
            folder="{clip}",
            header=None,
            whitespace=True,
            key=("clip",),
            path_fields=r"(?P<split>train|test)_[^/]*\.csv$",
            files="*_All.csv",
        ),
    )
}  # fmt: skip

_ALIASES = {
    "casmeii": "casme2", "casme-ii": "casme2", "casme2": "casme2", "sammmicro": "samm", "samm-v2": "samm",
    "cas(me)^2": "cas(me)2", "cas(me)²": "cas(me)2", "casme^2": "cas(me)2", "casme-squared": "cas(me)2",
    "casmesq": "cas(me)2", "casme-sq": "cas(me)2", "casme²": "cas(me)2",
    "casme3": "casme3-a", "casme3a": "casme3-a", "casme3-a-v2": "casme3-a", "casme3-part-a": "casme3-a",
    "casme3c": "casme3-c", "casme3-part-c": "casme3-c",
    "smic-hs": "smic", "smichs": "smic", "smic-hs-e": "smic", "smic-e-hs": "smic",
}  # fmt: skip


def dataset_schema(dataset: str | AnnotationSchema) -> AnnotationSchema:
    """The schema of a dataset by name (spellings such as ``"CASME II"`` and ``"CAS(ME)^3"`` are understood).

    Examples:
        >>> [dataset_schema(name).name for name in ("CASME II", "CAS(ME)^2", "SMIC-HS", "cas(me)3 part C")]
        ['casme2', 'cas(me)2', 'smic', 'casme3-c']
    """
    if isinstance(dataset, AnnotationSchema):
        return dataset
    if not isinstance(dataset, str):
        raise TypeError(f"dataset must be a name or an AnnotationSchema, got {type(dataset).__name__}")
    name = "-".join(dataset.casefold().replace("_", " ").split())
    for third in ("cas(me)^3", "cas(me)³", "cas(me)3", "casme^3", "casme³"):
        name = name.replace(third, "casme3")
    for key in (name, _ALIASES.get(name, ""), _ALIASES.get(name.replace("-", ""), "")):
        if key in SCHEMAS:
            return SCHEMAS[key]
    raise ValueError(
        f"dataset must be one of {', '.join(SCHEMAS)}, or an AnnotationSchema of your own, got {dataset!r}"
    )
