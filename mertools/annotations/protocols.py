"""Evaluation protocols by name: which clips count, and which class each belongs to.

"Three classes of CASME II" means 145, 147 or 156 clips, depending on the paper. A protocol here has a name, its classes
in order, and a rule for every label it keeps; what it leaves out is listed with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mertools.action_units.expressions import CLASS_SETS, EXPRESSIONS
from mertools.annotations.annotation import ClipAnnotation

__all__ = ["PROTOCOLS", "Protocol", "ProtocolClips", "apply_protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A rule from labels to classes.

    Args:
        name: of the protocol.
        classes: in the order of their indices.
        labels: dataset to (label to class); a label that is not there is dropped. ``"*"`` stands for any dataset.
        without: clips left out by (dataset, subject, clip).

    Examples:
        >>> Protocol(name="smile", classes=("no", "yes"), labels={"ours": {"happy": "yes", "sad": "no"}}).classes
        ('no', 'yes')
    """

    name: str
    classes: Sequence[str]
    labels: Mapping[str, Mapping[str, str]]
    without: frozenset[tuple[str, str, str]] = field(default_factory=frozenset)


class ProtocolClips(NamedTuple):
    """What a protocol makes of a table.

    Shape:
        - clips: the annotations that count
        - targets: their class indices
        - classes: class names by index
        - dropped: the others, each with the reason
        - name: of the protocol

    Examples:
        >>> clips = [ClipAnnotation("samm", "006", "006_1_2", label="anger")]
        >>> apply_protocol(clips, "samm-5").counts
        {'anger': 1, 'contempt': 0, 'happiness': 0, 'surprise': 0, 'other': 0}
    """

    clips: list[ClipAnnotation]
    targets: list[int]
    classes: tuple[str, ...]
    dropped: list[tuple[ClipAnnotation, str]]
    name: str

    @property
    def subjects(self) -> list[str]:
        """Subject of each clip (and its dataset where several are mixed): the groups of leave-one-subject-out."""
        mixed = len({clip.dataset for clip in self.clips}) > 1
        return [f"{clip.dataset}/{clip.subject}" if mixed else clip.subject for clip in self.clips]

    @property
    def names(self) -> list[str]:
        """A name for each clip that no other has, for a score book: its dataset and the fields that name its row.

        The lists of DFEW's folds hold every clip once per fold: these rows share the clip's name.
        """
        return ["/".join((clip.dataset, *(clip.key or (clip.name,)))) for clip in self.clips]

    @property
    def counts(self) -> dict[str, int]:
        """How many clips each class has."""
        found = Counter(self.targets)
        return {name: found[i] for i, name in enumerate(self.classes)}

    def take(self, indices: Iterable[int]) -> ProtocolClips:
        """The clips at these indices with their targets, in this order: one side of a :class:`Fold`.

        Raises:
            TypeError: indices are no integers.
            IndexError: an index is negative or beyond the last clip.
        """
        places = []
        for index in indices:
            if isinstance(index, bool) or not hasattr(index, "__index__"):
                raise TypeError(f"indices must be integers, got {index!r}")
            if not 0 <= int(index) < len(self.clips):
                raise IndexError(f"indices must lie within the {len(self.clips)} clips, got {int(index)}")
            places.append(int(index))
        kept, targets = [self.clips[i] for i in places], [self.targets[i] for i in places]
        return ProtocolClips(kept, targets, self.classes, [], self.name)

    def split(self, fold: int | None = None) -> tuple[ProtocolClips, ProtocolClips]:
        """Training and test clips of a fold that the dataset fixes (DFEW 1 to 5; FERV39K has one split).

        Raises:
            ValueError: the clips know no split, or there is no such fold.
        """
        folds = sorted({clip.fold for clip in self.clips if clip.fold is not None})
        if folds and fold not in folds:
            raise ValueError(f"fold must be one of {folds}, got {fold}")
        if not any(clip.split for clip in self.clips):
            raise ValueError(
                f"the clips of {self.name} know no split: read the folder of the lists, or files named as published"
            )
        parts = []
        for split in ("train", "test"):
            keep = [
                i for i, clip in enumerate(self.clips) if clip.split == split and clip.fold == (fold if folds else None)
            ]
            if not keep:
                raise ValueError(f"there are no {split} clips" + (f" in fold {fold}" if folds else ""))
            parts.append(self.take(keep))
        return parts[0], parts[1]


def _same(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


_CASME3 = ("casme3-a", "casme3-a-v1")
_NEGATIVE_SAMM = ("anger", "contempt", "disgust", "fear", "sadness")
_MEGC = {
    "casme2": {"disgust": "negative", "repression": "negative", "happiness": "positive", "surprise": "surprise"},
    "samm": dict.fromkeys(_NEGATIVE_SAMM, "negative") | {"happiness": "positive", "surprise": "surprise"},
    "smic": _same(("negative", "positive", "surprise")),
}
_MEGC_WITHOUT = frozenset(
    ("casme2", subject, clip) for subject, clip in (("04", "EP12_01f"), ("05", "EP12_03f"), ("24", "EP02_07"))
)
_CASME3_4 = dict.fromkeys(("anger", "disgust", "fear", "sad"), "negative") | {
    "happy": "positive", "surprise": "surprise", "others": "others",
}  # fmt: skip

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="casme2-5", classes=CLASS_SETS["CASME2-5"], labels={"casme2": _same(CLASS_SETS["CASME2-5"])}),
        Protocol(name="samm-5", classes=CLASS_SETS["SAMM-5"], labels={"samm": _same(CLASS_SETS["SAMM-5"])}),
        Protocol(
            name="casme3-7", classes=CLASS_SETS["CASME3-7"],
            labels={part: _same(CLASS_SETS["CASME3-7"]) for part in _CASME3},
        ),
        Protocol(name="casme3-4", classes=CLASS_SETS["CASME3-4"], labels=dict.fromkeys(_CASME3, _CASME3_4)),
        Protocol(name="smic-3", classes=CLASS_SETS["MEGC2019"], labels={"smic": _MEGC["smic"]}),
        Protocol(
            name="megc2019",
            classes=CLASS_SETS["MEGC2019"],
            labels=_MEGC,
            without=_MEGC_WITHOUT,
        ),
        Protocol(name="dfew", classes=EXPRESSIONS, labels=dict.fromkeys(("dfew", "dfew-list"), _same(EXPRESSIONS))),
        Protocol(name="ferv39k", classes=EXPRESSIONS, labels={"ferv39k": _same(EXPRESSIONS)}),
    )
}  # fmt: skip
"""The protocols of the field by name, for :func:`apply_protocol`; ``PROTOCOLS["megc2019"].classes`` is their order."""


def apply_protocol(clips: Iterable[ClipAnnotation], protocol: str | Protocol) -> ProtocolClips:
    """Turn labels into class indices and drop what the protocol drops.

    Args:
        clips: annotations of one dataset, or of several where the protocol mixes them (MEGC 2019).
        protocol: ``"casme2-5"``, ``"samm-5"``, ``"casme3-7"``, ``"casme3-4"``, ``"smic-3"``, ``"megc2019"``,
            ``"dfew"``, ``"ferv39k"``, or a :class:`Protocol` of your own.

    Returns:
        Clips, targets, classes, and what was dropped with the reason.

    Raises:
        TypeError: not annotations.
        ValueError: there is no such protocol, or it is not for this dataset.

    Examples:
        >>> table = [ClipAnnotation("casme2", "01", "EP01", label=label) for label in ("fear", "disgust", "others")]
        >>> found = apply_protocol(table, "megc2019")
        >>> found.targets, found.classes[0], [reason for _, reason in found.dropped]
        ([0], 'negative', ['label fear', 'label others'])

    Source: See et al., MEGC 2019 (3 classes); the 5, 7 and 4 classes of the papers that introduced the datasets.
    """
    rule = _protocol(protocol)
    index = {name: i for i, name in enumerate(rule.classes)}
    kept: list[ClipAnnotation] = []
    targets: list[int] = []
    dropped: list[tuple[ClipAnnotation, str]] = []
    for clip in clips:
        if not isinstance(clip, ClipAnnotation):
            raise TypeError(f"clips must be ClipAnnotations, got {type(clip).__name__}")
        names = rule.labels.get(clip.dataset, rule.labels.get("*"))
        if names is None:
            raise ValueError(
                f"protocol {rule.name!r} is for {', '.join(rule.labels)}, got a clip of {clip.dataset!r} ({clip.place})"
            )
        if (clip.dataset, clip.subject, clip.clip) in rule.without:
            dropped.append((clip, "left out by the protocol"))
        elif clip.label not in names:
            dropped.append((clip, f"label {clip.label}"))
        else:
            kept.append(clip)
            targets.append(index[names[clip.label]])
    return ProtocolClips(kept, targets, tuple(rule.classes), dropped, rule.name)


def _protocol(protocol: str | Protocol) -> Protocol:
    if isinstance(protocol, Protocol):
        missing = {name for names in protocol.labels.values() for name in names.values()} - set(protocol.classes)
        if missing:
            raise ValueError(f"protocol {protocol.name!r} maps labels to {sorted(missing)}, which are not its classes")
        return protocol
    if not isinstance(protocol, str) or protocol.casefold() not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, or a Protocol, got {protocol!r}")
    return PROTOCOLS[protocol.casefold()]
