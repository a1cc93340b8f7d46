"""Folds that cannot leak: who is tested is never trained on.

Clips of one person are alike, so a model that saw a subject in training is tested on a memory. Every function here
splits by whole subjects with scikit-learn's splitters and passes what it made through :func:`check_fold`, which you can
put in front of a split of your own too.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mertools._checks import as_integer, check_count, check_number
from mertools._text import natural_order, plain_subject
from mertools.annotations.protocols import ProtocolClips

__all__ = ["Fold", "check_fold", "fixed_folds", "group_folds", "inner_split", "lodo_folds", "loso_folds"]

_DRAWS = 64  # of subjects for an inner split; the one that is nearest to the classes' shares is taken


class Fold(NamedTuple):
    """Indices of the clips to train on (``train``) and of those to test on (``test``), each in ascending order.

    Examples:
        >>> for train, test in loso_folds(["s1", "s1", "s2"]):
        ...     print(train, test)
        [2] [0, 1]
        [0, 1] [2]
    """

    train: list[int]
    test: list[int]


def loso_folds(subjects: Sequence[Any]) -> list[Fold]:
    """Leave one subject out: a fold per subject, in order of their names; ``subjects[fold.test[0]]`` is who it tests.

    Args:
        subjects: who is seen in each clip, as text or integers; where several datasets are mixed, with the dataset's
            name, since each has a subject 01 (``ProtocolClips.subjects`` does that). One spelt in two ways is refused.

    Examples:
        >>> loso_folds(["s1", "s2", "s1", "s3"])[0]
        Fold(train=[1, 3], test=[0, 2])
    """
    names = _names("subjects", subjects)
    return _leave_one_out("subjects", names, names)


def lodo_folds(datasets: Sequence[Any], subjects: Sequence[Any] | None = None) -> list[Fold]:
    """Leave one dataset out of a composite: a fold per dataset, in the order of their names.

    Args:
        datasets: where each clip comes from.
        subjects: who is seen in each clip, for the guard: names with the dataset's in front, unless a person really
            is in two datasets, which is refused.

    Examples:
        >>> lodo_folds(["samm", "casme2", "samm"], ["samm/006", "casme2/01", "samm/007"])
        [Fold(train=[0, 2], test=[1]), Fold(train=[1], test=[0, 2])]
    """
    names = _names("datasets", datasets)
    seen = None if subjects is None else _names("subjects", subjects, len(names))
    return _leave_one_out("datasets", names, seen)


def _leave_one_out(kind: str, names: list[Any], subjects: list[Any] | None) -> list[Fold]:
    groups = sorted(set(names))
    if len(groups) < 2:
        raise ValueError(f"{kind} must be at least 2 to leave one out, got {len(groups)}: {groups}")
    splits = _splitters().LeaveOneGroupOut().split(names, groups=_codes(names))
    return [_fold(train, test, subjects) for train, test in splits]


def fixed_folds(clips: ProtocolClips) -> dict[str, Fold]:
    """The folds that a dataset fixes: DFEW's five, ``"1"`` to ``"5"``, or the one split of FERV39K, ``"1"``.

    ``clips`` is what :func:`apply_protocol` makes of the lists. Neither dataset says who is seen, so the guard is on
    the clips' names: no clip is trained on and tested in the same fold. Where clips have subjects, it is on those.
    Without a test list, the validation list is tested on (AFEW).

    Examples:
        >>> from mertools import ClipAnnotation, apply_protocol
        >>> rows = [ClipAnnotation("ferv39k", "", name, label="happy", split=split)
        ...         for name, split in (("Action/Happy/0267", "test"), ("Action/Happy/0268", "train"))]
        >>> fixed_folds(apply_protocol(rows, "ferv39k"))
        {'1': Fold(train=[1], test=[0])}
    """
    if not isinstance(clips, ProtocolClips):
        raise TypeError(f"clips must be ProtocolClips, the result of apply_protocol, got {type(clips).__name__}")
    unsplit = [clip for clip in clips.clips if clip.split not in ("train", "test", "val")]
    if unsplit or not clips.clips:
        raise ValueError(
            f"{len(unsplit)} of the {len(clips.clips)} clips of {clips.name} know no split: read the folder of the "
            "lists, or files named as published"
        )
    numbers = sorted({clip.fold for clip in clips.clips}, key=lambda fold: (fold is not None, fold))
    if None in numbers and len(numbers) > 1:
        raise ValueError(f"all clips of {clips.name} must have a fold or none, got folds {numbers}")
    known = all(clip.subject for clip in clips.clips)
    guarded = clips.subjects if known else [f"{clip.dataset}/{clip.name}" for clip in clips.clips]
    targets = [clips.classes[target] for target in clips.targets]
    folds = {}
    for number in numbers:
        sides: dict[str | None, list[int]] = {"train": [], "test": [], "val": []}
        for i, clip in enumerate(clips.clips):
            if clip.fold == number:
                sides[clip.split].append(i)
        fold, name = Fold(sides["train"], sides["test"] or sides["val"]), "1" if number is None else str(number)
        try:
            _check(fold, guarded, targets, None, kind="subject" if known else "clip")
        except ValueError as error:
            raise ValueError(f"fold {name} of {clips.name}: {error}") from error
        folds[name] = fold
    return folds


def group_folds(subjects: Sequence[Any], targets: Sequence[Any], *, folds: int = 5, seed: int = 0) -> list[Fold]:
    """Folds of whole subjects with the classes spread over them as evenly as that allows (scikit-learn's splitter).

    Args:
        subjects: who is seen in each clip.
        targets: class of each clip. One that a single subject shows is refused: some fold cannot train on it.
        folds: how many; each clip is tested in one of them.
        seed: of the shuffling.

    Examples:
        >>> folds = group_folds(["s1", "s1", "s2", "s2", "s3", "s4"], [0, 1, 0, 1, 0, 1], folds=2)
        >>> sorted(folds[0].test + folds[1].test)
        [0, 1, 2, 3, 4, 5]
    """
    folds, seed = check_count("folds", folds, least=2), check_count("seed", seed, least=0)
    names = _names("subjects", subjects)
    labels = _names("targets", targets, len(names))
    if len(set(names)) < folds:
        raise ValueError(f"folds must not be more than the subjects, got {folds} folds of {len(set(names))} subjects")
    most = max(Counter(labels).values())
    if most < folds:
        raise ValueError(f"folds must not be more than the clips of the largest class, {most}, got {folds}")
    splitter = _splitters().StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class that some fold has no clips of is no harm to pooled scores; one that training lacks is refused below.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = list(splitter.split(names, _codes(labels), _codes(names)))
    return [_fold(train, test, names, labels) for train, test in splits]


def inner_split(
    train: Sequence[int], subjects: Sequence[Any], targets: Sequence[Any], *, share: float = 0.2, seed: int = 0
) -> Fold:
    """Split the training clips of a fold once more, by whole subjects, to choose the epoch on: never on the test fold.

    Every class of ``train`` stays in the inner training part; a subject who alone shows a class is not held out. Of
    many random draws of subjects the one is taken whose clips come nearest to ``share`` of every class.

    Args:
        train: indices of the fold's training clips, in the whole table, as are those of the result.
        subjects: who is seen in each clip of the whole table; clip names where that is unknown (DFEW).
        targets: class of each clip of the whole table.
        share: share of the subjects that are held out, in (0, 1).
        seed: of the draws.

    Examples:
        >>> subjects, targets = ["s1", "s1", "s2", "s2", "s3", "s3"], [0, 1, 0, 1, 0, 2]
        >>> inner_split([0, 1, 2, 3, 4, 5], subjects, targets, share=0.3)  # s3 alone shows class 2
        Fold(train=[2, 3, 4, 5], test=[0, 1])
    """
    names = _names("subjects", subjects)
    labels = _names("targets", targets, len(names))
    share, seed = check_number("share", share, 0, 1, open_high=True), check_count("seed", seed, least=0)
    if share == 0:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    rows = sorted(_indices("train", train, len(names)))
    there = {names[i] for i in rows}
    shown: dict[Any, set[Any]] = {}
    for i in rows:
        shown.setdefault(labels[i], set()).add(names[i])
    if len(there) < 2:
        raise ValueError(f"train must be clips of at least 2 subjects to hold one out, got {len(there)}")
    alone = {next(iter(showing)) for showing in shown.values() if len(showing) == 1}
    free = sorted(there - alone)
    if not free:
        which = ", ".join(f"{label!r} ({next(iter(p))!r})" for label, p in sorted(shown.items()) if len(p) == 1)
        raise ValueError(
            f"no subject of train can be held out, each alone shows a class: {which}. Choose the epoch beforehand"
        )
    held = _held_out(free, max(round(share * len(there)), 1), seed, rows, names, labels, share)
    return _fold([i for i in rows if names[i] not in held], [i for i in rows if names[i] in held], names, labels)


def _held_out(
    free: list[Any], most: int, seed: int, rows: list[int], names: list[Any], labels: list[Any], share: float
) -> frozenset[Any]:
    """The draw of at most ``most`` of the free subjects that leaves every class and is nearest to their shares."""
    every = Counter(labels[i] for i in rows)
    for count in range(min(most, len(free)), 0, -1):
        best: tuple[float, frozenset[Any]] | None = None
        for held in _draws(free, count, seed):
            out = Counter(labels[i] for i in rows if names[i] in held)
            uneven = sum(abs(out[label] / n - share) for label, n in every.items())
            if all(out[label] < n for label, n in every.items()) and (best is None or uneven < best[0]):
                best = uneven, held
        if best is not None:
            return best[1]
    raise AssertionError("one free subject can always be held out")


def _draws(free: list[Any], count: int, seed: int) -> list[frozenset[Any]]:
    """Sets of ``count`` subjects, at random; all of them where that is no more."""
    if count == len(free):
        return [frozenset(free)]
    if count == 1:
        # In random order, so that the seed decides between equals.
        return [frozenset([free[i]]) for i in np.random.default_rng(seed).permutation(len(free))]
    splitter = _splitters().GroupShuffleSplit(_DRAWS, test_size=count, random_state=seed)
    groups = list(range(len(free)))
    return [frozenset(free[i] for i in test) for _, test in splitter.split(free, groups=groups)]


def check_fold(
    fold: Fold | tuple[Sequence[int], Sequence[int]],
    subjects: Sequence[Any] | None = None,
    *,
    targets: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Refuse a split that leaks, or that cannot be trained on.

    A ValueError names a subject or an index on both sides, an index twice or out of range, an empty side, or a class
    that training lacks.

    Args:
        fold: indices to train on and to test on.
        subjects: who is seen in each clip of the table (clip names where that is unknown); ``1``, ``01``, ``sub01`` and
            ``S01`` are taken for one subject.
        targets: class of each clip of the table, by index or name.
        classes: names of the classes by index, all of which must be in training; default those that occur in the fold.

    Examples:
        >>> check_fold(([0, 1], [2]), ["s1", "s2", "s1"])
        Traceback (most recent call last):
            ...
        ValueError: fold has 1 subject on both sides: 's1' (1 clip in training, 1 in test)
    """
    _check(fold, subjects, targets, classes, kind="subject")


def _check(
    fold: Any,
    subjects: Sequence[Any] | None,
    targets: Sequence[Any] | None,
    classes: Sequence[str] | None,
    *,
    kind: str,
) -> Fold:
    if not isinstance(fold, (tuple, list)) or len(fold) != 2:
        raise TypeError(f"fold must be a Fold, or two lists of indices (train, test), got {fold!r}")
    names = None if subjects is None else _names("subjects", subjects)
    labels = None if targets is None else _names("targets", targets, None if names is None else len(names))
    count = next((len(found) for found in (names, labels) if found is not None), None)
    train, test = (_indices(side, indices, count) for side, indices in zip(("train", "test"), fold, strict=True))
    if both := sorted(set(train) & set(test)):
        raise ValueError(f"fold has {len(both)} clip{'s' * (len(both) != 1)} on both sides: index {_some(both)}")
    if names is not None:
        _check_subjects(train, test, names, kind)
    if labels is not None:
        _check_classes(train, test, labels, classes)
    return Fold(train, test)


def _check_subjects(train: list[int], test: list[int], names: list[Any], kind: str) -> None:
    plain = {name: plain_subject(name) if kind == "subject" and isinstance(name, str) else name for name in set(names)}
    spelt = [plain[name] for name in names]
    sides = Counter(spelt[i] for i in train), Counter(spelt[i] for i in test)
    both = sorted(sides[0].keys() & sides[1].keys(), key=lambda name: natural_order(str(name)))
    if not both:
        return
    shown = []
    for name in both[:5]:
        spellings = sorted({repr(names[i]) for i in (*train, *test) if spelt[i] == name})
        trained, tested = sides[0][name], sides[1][name]
        shown.append(f"{' = '.join(spellings)} ({trained} clip{'s' * (trained != 1)} in training, {tested} in test)")
    more = f" and {len(both) - 5} more" if len(both) > 5 else ""
    raise ValueError(f"fold has {len(both)} {kind}{'s' * (len(both) != 1)} on both sides: {', '.join(shown)}{more}")


def _check_classes(train: list[int], test: list[int], labels: list[Any], classes: Sequence[str] | None) -> None:
    wanted: set[Any] = {labels[i] for i in (*train, *test)}
    named = {i: repr(name) for i, name in enumerate(classes or ())}
    if classes is not None:
        known = set(classes) if any(isinstance(label, str) for label in wanted) else set(named)
        if unknown := sorted(wanted - known):
            raise ValueError(f"targets must be among the {len(named)} classes, got {_some(unknown)}")
        wanted = known
    if missing := sorted(wanted - {labels[i] for i in train}):
        shown = ", ".join(named.get(label, repr(label)) for label in missing)
        raise ValueError(f"training has no clip of class {shown}: the model cannot learn it")


def _fold(
    train: Iterable[Any], test: Iterable[Any], subjects: list[Any] | None, labels: list[Any] | None = None
) -> Fold:
    """A fold that has passed the guard."""
    found = Fold(sorted(int(i) for i in train), sorted(int(i) for i in test))
    check_fold(found, subjects, targets=labels)
    return found


def _names(name: str, values: Sequence[Any], count: int | None = None) -> list[Any]:
    """Strings or integers, one per clip."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a sequence, one per clip, got {values!r}")
    try:
        found = values.tolist() if hasattr(values, "tolist") else list(values)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence, one per clip, got {type(values).__name__}") from error
    if not isinstance(found, list):
        raise TypeError(f"{name} must be a sequence, one per clip, got {found!r}")
    # NumPy's own strings and integers, and tensors of one integer, become Python's.
    found = [str(v) if isinstance(v, str) else v if (i := as_integer(v)) is None else i for v in found]
    kinds = {type(value) for value in found}
    for i, value in enumerate(found):
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise TypeError(f"{name} must be strings or integers, {name}[{i}] is {value!r}")
        if value == "":
            raise ValueError(f"{name} must be names, {name}[{i}] is empty")
    if len(kinds) > 1:
        raise TypeError(f"{name} must be all strings or all integers, got both")
    if count is not None and len(found) != count:
        raise ValueError(f"{name} must be one per clip, got {len(found)} for {count} clips")
    return found


def _indices(name: str, values: Sequence[int], count: int | None) -> list[int]:
    found = _names(name, values)
    if any(isinstance(i, str) for i in found):
        raise TypeError(f"{name} must be indices, got {found[0]!r}")
    if not found:
        raise ValueError(f"{name} is empty, a fold needs clips on both sides")
    wrong = [i for i in found if i < 0 or (count is not None and i >= count)]
    if wrong:
        limit = "not be negative" if count is None else f"lie within the {count} clips"
        raise ValueError(f"{name} must {limit}, got index {_some(wrong)}")
    if twice := [i for i, often in Counter(found).items() if often > 1]:
        raise ValueError(f"{name} must hold every index once, got {_some(sorted(twice))} more than once")
    return found


def _codes(values: list[Any]) -> list[int]:
    place = {value: i for i, value in enumerate(sorted(set(values)))}
    return [place[value] for value in values]


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _splitters() -> Any:
    try:
        from sklearn import model_selection
    except ImportError as error:
        raise ImportError("folds need scikit-learn: pip install 'mertools[train]'") from error
    return model_selection
