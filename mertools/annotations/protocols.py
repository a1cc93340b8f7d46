"""Evaluation protocols by name: which clips count, and which class each belongs to.

"Three classes of CASME II" means 145, 147 or 156 clips, depending on the paper. A protocol here has a name, its classes
in order, and a rule for every label it keeps; what it leaves out is listed with the reason.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mertools._checks import as_integer
from mertools._files import read_record, write_record
from mertools.action_units.expressions import CLASS_SETS, EXPRESSIONS
from mertools.annotations.annotation import ClipAnnotation
from mertools.annotations.schemas import SCHEMAS, clip_key, edition_labels

__all__ = ["PROTOCOLS", "Protocol", "ProtocolClips", "apply_protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A rule from labels to classes.

    Args:
        name: of the protocol.
        classes: in the order of their indices.
        labels: dataset to (label to class); a label that is not there is dropped. ``"*"`` stands for any dataset.
        without: clips left out by (dataset, subject, clip), however the subject is spelt.
        editions: dataset to the edition of its table that the protocol counts; where another edition labels a clip
            differently, the label is that of the wanted one.

    Examples:
        >>> Protocol(name="smile", classes=("no", "yes"), labels={"ours": {"happy": "yes", "sad": "no"}}).classes
        ('no', 'yes')
    """

    name: str
    classes: Sequence[str]
    labels: Mapping[str, Mapping[str, str]]
    without: frozenset[tuple[str, str, str]] = field(default_factory=frozenset)
    editions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "without", frozenset((d, s, c) for d, s, c in self.without))

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Write the protocol as a small TOML file, for others to read with :meth:`from_toml` or by its path."""
        write_record(path, self)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Protocol:
        """Read a protocol that :meth:`to_toml` wrote, or one of your own making: the settings of this class by name."""
        return read_record(path, cls)


class ProtocolClips(NamedTuple):
    """What a protocol makes of a table.

    ``clips`` are the annotations that count, ``targets`` their class indices, ``classes`` the class names by index,
    ``dropped`` the others, each with the reason, and ``name`` is the protocol's.

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
        """The clips at these indices with their targets, in this order: one side of a :class:`Fold`."""
        places = []
        for index in indices:
            place = as_integer(index)
            if place is None:
                raise TypeError(f"indices must be integers, got {index!r}")
            if not 0 <= place < len(self.clips):
                raise IndexError(f"indices must lie within the {len(self.clips)} clips, got {place}")
            places.append(place)
        kept, targets = [self.clips[i] for i in places], [self.targets[i] for i in places]
        return ProtocolClips(kept, targets, self.classes, [], self.name)

    def split(self, fold: int | None = None) -> tuple[ProtocolClips, ProtocolClips]:
        """Training and test clips of a fold that the dataset fixes (DFEW and MAFW 1 to 5; FERV39K has one split).

        Without a test list, the validation list is tested on (AFEW).
        """
        folds = sorted({clip.fold for clip in self.clips if clip.fold is not None})
        if folds and fold not in folds:
            raise ValueError(f"fold must be one of {folds}, got {fold}")
        if not any(clip.split for clip in self.clips):
            raise ValueError(
                f"the clips of {self.name} know no split: read the folder of the lists, or files named as published"
            )
        sides: dict[str | None, list[int]] = {}
        for i, clip in enumerate(self.clips):
            if clip.fold == (fold if folds else None):
                sides.setdefault(clip.split, []).append(i)
        train, test = sides.get("train"), sides.get("test", sides.get("val"))
        if not train or not test:
            raise ValueError(
                f"there are no {'test' if train else 'train'} clips" + (f" in fold {fold}" if folds else "")
            )
        return self.take(train), self.take(test)


def _same(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


_CASME3 = ("casme3-a", "casme3-a-v1")
_NEGATIVE_SAMM = ("anger", "contempt", "disgust", "fear", "sadness")
_MEGC = {
    "casme2": {"disgust": "negative", "repression": "negative", "happiness": "positive", "surprise": "surprise"},
    "samm": dict.fromkeys(_NEGATIVE_SAMM, "negative") | {"happiness": "positive", "surprise": "surprise"},
    "smic": {},
}
_MEGC = {name: labels | _same(("negative", "positive", "surprise")) for name, labels in _MEGC.items()}  # combined list
# Two clips of disgust that the challenge's list does not have: the apex of the first is missing.
_MEGC_WITHOUT = frozenset({("casme2", "04", "EP12_01f"), ("casme2", "05", "EP09_05f")})
_CASME3_4 = dict.fromkeys(("anger", "disgust", "fear", "sad"), "negative") | {
    "happy": "positive", "surprise": "surprise", "others": "others",
}  # fmt: skip
_CASME2_7 = (*CLASS_SETS["CASME2-5"], "sadness", "fear")
_DFME_7 = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")  # the table's EmotionId
_EDITION = {"casme2": "2014"}  # the one that papers count: 246 and 145 clips

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="casme2-5", classes=CLASS_SETS["CASME2-5"], labels={"casme2": _same(CLASS_SETS["CASME2-5"])},
            editions=_EDITION,
        ),
        Protocol(name="samm-5", classes=CLASS_SETS["SAMM-5"], labels={"samm": _same(CLASS_SETS["SAMM-5"])}),
        Protocol(
            name="casme3-7", classes=CLASS_SETS["CASME3-7"],
            labels={part: _same(CLASS_SETS["CASME3-7"]) for part in _CASME3},
        ),
        Protocol(name="casme3-4", classes=CLASS_SETS["CASME3-4"], labels=dict.fromkeys(_CASME3, _CASME3_4)),
        Protocol(name="smic-3", classes=CLASS_SETS["MEGC2019"], labels={"smic": _MEGC["smic"]}),
        Protocol(
            name="megc2019", classes=CLASS_SETS["MEGC2019"], labels=_MEGC, without=_MEGC_WITHOUT, editions=_EDITION,
        ),
        Protocol(name="dfew", classes=EXPRESSIONS, labels=dict.fromkeys(("dfew", "dfew-list"), _same(EXPRESSIONS))),
        Protocol(name="ferv39k", classes=EXPRESSIONS, labels={"ferv39k": _same(EXPRESSIONS)}),
        Protocol(name="casme2-7", classes=_CASME2_7, labels={"casme2": _same(_CASME2_7)}, editions=_EDITION),
        Protocol(name="dfme-7", classes=_DFME_7, labels={"dfme": _same(_DFME_7)}),
        Protocol(name="afew", classes=EXPRESSIONS, labels={"afew": _same(EXPRESSIONS)}),
        Protocol(name="mafw-11", classes=CLASS_SETS["MAFW"], labels={"mafw": _same(CLASS_SETS["MAFW"])}),
    )
}  # fmt: skip
"""The protocols of the field by name, for :func:`apply_protocol`; ``PROTOCOLS["megc2019"].classes`` is their order."""


def apply_protocol(
    clips: Iterable[ClipAnnotation],
    protocol: str | os.PathLike[str] | Protocol,
    *,
    editions: Mapping[str, str] | None = None,
) -> ProtocolClips:
    """Turn labels into class indices and drop what the protocol drops, with the reason.

    Args:
        clips: annotations of one dataset, or of several where the protocol mixes them (MEGC 2019).
        protocol: ``"casme2-5"``, ``"casme2-7"``, ``"samm-5"``, ``"casme3-7"``, ``"casme3-4"``, ``"smic-3"``,
            ``"dfme-7"``, ``"megc2019"``, ``"dfew"``, ``"ferv39k"``, ``"afew"``, ``"mafw-11"``, a :class:`Protocol` of
            your own, or the path of its ``.toml`` file.
        editions: other editions of the tables than the protocol's, ``{"casme2": "2019"}``; a clip of another than the
            one that is wanted is a ValueError where nobody knows how they differ.

    Examples:
        >>> table = [ClipAnnotation("casme2", "01", "EP01", label=label) for label in ("fear", "disgust", "others")]
        >>> found = apply_protocol(table, "megc2019")
        >>> found.targets, found.classes[0], [reason for _, reason in found.dropped]
        ([0], 'negative', ['label fear', 'label others'])

    Source: See et al., MEGC 2019 (3 classes); the 5, 7 and 4 classes of the papers that introduced the datasets.
    """
    rule = _protocol(protocol)
    if editions is not None:
        rule = replace(rule, editions={**rule.editions, **editions})
    for dataset, edition in rule.editions.items():
        known = SCHEMAS[dataset].editions if dataset in SCHEMAS else {}
        if known and edition not in known:
            raise ValueError(f"editions of {dataset} must be one of {', '.join(known)}, got {edition!r}")
    index = {name: i for i, name in enumerate(rule.classes)}
    without = {(dataset, *clip_key(subject, clip)) for dataset, subject, clip in rule.without}
    kept: list[ClipAnnotation] = []
    targets: list[int] = []
    dropped: list[tuple[ClipAnnotation, str]] = []
    for original in clips:
        if not isinstance(original, ClipAnnotation):
            raise TypeError(f"clips must be ClipAnnotations, got {type(original).__name__}")
        names = rule.labels.get(original.dataset, rule.labels.get("*"))
        if names is None:
            raise ValueError(
                f"protocol {rule.name!r} is for {', '.join(rule.labels)}, "
                f"got a clip of {original.dataset!r} ({original.place})"
            )
        clip = _of_edition(original, rule)
        if (clip.dataset, *clip_key(clip.subject, clip.clip)) in without:
            dropped.append((original, "left out by the protocol"))
        elif clip.label not in names:
            wanted = rule.editions.get(clip.dataset)
            why = "" if clip is original else f" in the edition of {wanted}, here {original.label}"
            dropped.append((original, f"label {clip.label}{why}"))
        else:
            kept.append(clip)
            targets.append(index[names[clip.label]])
    return ProtocolClips(kept, targets, tuple(rule.classes), dropped, rule.name)


def _of_edition(clip: ClipAnnotation, rule: Protocol) -> ClipAnnotation:
    """The clip with the label that it has in the edition that the protocol wants."""
    wanted = rule.editions.get(clip.dataset)
    if wanted is None:
        return clip
    known = SCHEMAS[clip.dataset].editions if clip.dataset in SCHEMAS else {}
    if not known and clip.edition not in (None, wanted):
        raise ValueError(
            f"protocol {rule.name!r} wants the edition of {wanted}, got a clip of that of {clip.edition} ({clip.place})"
        )
    labels = edition_labels(known, clip.subject, clip.clip)
    label = labels.get(wanted, clip.label)
    if label == clip.label or clip.label not in labels.values():
        return clip
    return replace(clip, label=label, labels=(label,))


def _protocol(protocol: str | os.PathLike[str] | Protocol) -> Protocol:
    if isinstance(protocol, os.PathLike) or (isinstance(protocol, str) and protocol.endswith(".toml")):
        protocol = Protocol.from_toml(protocol)
    if isinstance(protocol, Protocol):
        missing = {name for names in protocol.labels.values() for name in names.values()} - set(protocol.classes)
        if missing:
            raise ValueError(f"protocol {protocol.name!r} maps labels to {sorted(missing)}, which are not its classes")
        return protocol
    if not isinstance(protocol, str) or protocol.casefold() not in PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(PROTOCOLS)}, a Protocol or its .toml file, got {protocol!r}"
        )
    return PROTOCOLS[protocol.casefold()]
