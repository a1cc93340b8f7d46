"""An audit as one HTML page with everything in it (``report.html`` is its template), and as csv files beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mertools._files import atomic_write
from mertools._text import csv_text, escape_unprintable
from mertools.annotations.folders import FrameFolders
from mertools.audit.plots import plot_contact_sheet, plot_shifts, plot_uncertain
from mertools.audit.statistics import KEYS, Distribution, SpreadTest, VarianceComponents
from mertools.clips.read import decode_frames

REPORT_FILES = ("clips.csv", "groups.csv", "tests.csv", "components.csv", "index.html")
_PLURAL = {"onset": "onsets", "apex": "apexes", "offset": "offsets"}
_GROUPS = 25  # rows of a table by subject; the csv has all
_SKIPPED = 200  # that the page lists; the csv has all


class _Image(NamedTuple):
    kind: str
    data: str


# The audit is an AnnotationAudit, whose write_report forwards here: its class can't be imported for its name.
def write_report(audit: Any, folder: Path, *, frames: FrameFolders | None, search: str, title: str, worst: int) -> None:
    """Write ``index.html`` and its numbers as csv files; see ``AnnotationAudit.write_report``."""
    page = _page(audit, search, frames, title, worst)
    folder.mkdir(parents=True, exist_ok=True)
    clips, groups, tests, components, index = (folder / name for name in REPORT_FILES)
    audit.write_csv(clips)
    atomic_write(groups, _groups_csv(audit).encode())
    atomic_write(tests, _tests_csv(audit).encode())
    atomic_write(components, _components_csv(audit).encode())
    atomic_write(index, page.encode())


def _page(audit: Any, search: str, frames: FrameFolders | None, title: str, worst: int) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters |= {"percent": _percent, "p": _p, "number": _number, "finite": np.isfinite}
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    searched, nothing = audit.searched, audit.nothing_found(search)
    return template.render(
        audit=audit,
        title=title,
        search=search,
        keys=KEYS,
        datasets=sorted({entry.clip.dataset for entry in audit.clips}),
        searched=searched,
        skipped=audit.skipped,
        problems=audit.problems,
        most_groups=_GROUPS,
        most_skipped=_SKIPPED,
        nothing=nothing,
        **(_numbers(audit, search, frames, worst) if len(searched) > len(nothing) else {}),
    )


def _numbers(audit: Any, search: str, frames: FrameFolders | None, worst: int) -> dict[str, Any]:
    """What the page says of the clips that were searched."""
    (whole,) = audit.groups("all", search)
    tests = audit.tests(search)
    worst_clips = [entry for entry in audit.worst(worst, search) if _moves(entry, search)]
    return {
        "cards": [(key, found) for key in KEYS if (found := getattr(whole, key)).n],
        "verdict": _verdict(tests),
        "shifts": _png(plot_shifts({name: audit.shifts(name) for name in audit.searches})),
        "sections": [
            {"by": by, "groups": groups, "image": _png(plot_uncertain(groups, by)) if len(groups) <= _GROUPS else None}
            for by in ("dataset", "label", "subject")
            if len(groups := audit.groups(by, search)) > (by == "dataset")
        ],
        "tests": tests,
        "components": audit.variance_components(search),
        "worst": [_row(entry, search) for entry in worst_clips],
        "sheets": [] if frames is None else [_sheet(entry, search, frames) for entry in worst_clips],
    }


def _moves(entry: Any, search: str) -> bool:
    return not entry.nothing_found(search) and any(entry.shift(search))


def _row(entry: Any, search: str) -> dict[str, Any]:
    """A clip in the table of those that move most."""
    sure = entry.certainty.get(search)
    keys = []
    for i, key in enumerate(KEYS):
        told = "–" if key == "apex" and entry.clip.apex is None else entry.keys[i]
        ends = "" if sure is None else " ({}–{})".format(*sure.intervals[i])
        keys.append({"told": told, "found": f"{entry.found[search][i]}{ends}", "moves": told != entry.found[search][i]})
    return {"entry": entry, "evidence": float("nan") if sure is None else sure.evidence, "keys": keys}


def _verdict(tests: Sequence[SpreadTest]) -> str:
    pairs = {test.name: test for test in tests}
    lines = []
    for a, b in (("offset", "onset"), ("offset", "apex")):
        paired, ratio = pairs[f"Wilcoxon {a} / {b}"], pairs[f"spread {a} / {b}"]
        if not np.isfinite(paired.p_corrected):
            continue
        if paired.p_corrected < 0.05:
            word = "more" if paired.effect > 0 else "less"
            times = f"ratio {ratio.effect:.2f}, " if np.isfinite(ratio.effect) else ""  # by what does not move at all
            lines.append(f"{_PLURAL[a]} scatter {word} than {_PLURAL[b]} ({times}p {_p(paired.p_corrected)})")
        else:
            lines.append(
                f"no difference in spread of {_PLURAL[a]} and {_PLURAL[b]} is shown (p {_p(paired.p_corrected)})"
            )
    return "; ".join(lines).capitalize()


def _sheet(entry: Any, search: str, frames: FrameFolders) -> dict[str, Any]:
    """The contact sheet of one clip, or why there is none."""
    new = entry.found[search]
    try:
        folder = frames.find(entry.clip)
        names = [folder.names[folder.position(number)] for number in (*entry.keys, *new)]
        images = decode_frames([f"{folder.path}/{name}" for name in names], longest=200)[..., ::-1]
    except (OSError, ValueError) as error:
        return {"words": f"{entry.clip.name}: {error}", "image": None}
    largest = max(entry.relative(search), key=abs)
    sure = entry.certainty.get(search)
    intervals = None if sure is None else sure.intervals
    reach = [*entry.keys, *new, *(number for ends in intervals or () for number in ends)]
    figure = plot_contact_sheet(images, (min(reach), max(reach)), entry.keys, new, intervals)
    data = io.BytesIO()
    figure.savefig(data, format="jpeg", pil_kwargs={"quality": 88})
    return {
        "words": f"{entry.clip.name}, {entry.clip.label} (row {entry.clip.row}): {largest:+.2f} phases",
        "image": _Image("jpeg", base64.b64encode(data.getvalue()).decode()),
    }


def _png(figure: Any) -> _Image:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return _Image("png", base64.b64encode(data.getvalue()).decode())


def _groups_csv(audit: Any) -> str:
    rows: list[tuple[object, ...]] = [("search", "by", "group", "clips", "key", *Distribution._fields)]
    for search in audit.searches if audit.searched else ():
        for by in ("all", "dataset", "label", "subject"):
            for group in audit.groups(by, search):
                for key in KEYS:
                    values = (f"{value:.6g}" for value in getattr(group, key))
                    rows.append((search, by, group.name, group.n, key, *values))
    return csv_text(rows)


def _tests_csv(audit: Any) -> str:
    rows: list[tuple[object, ...]] = [("search", "unit", *SpreadTest._fields)]
    for search in audit.searches if audit.searched else ():
        for unit in ("phase", "frames"):
            for test in audit.tests(search, unit=unit):
                rows.append((search, unit, *(f"{x:.6g}" if isinstance(x, float) else x for x in test)))
    return csv_text(rows)


def _components_csv(audit: Any) -> str:
    rows: list[tuple[object, ...]] = [("search", *VarianceComponents._fields)]
    for search in audit.searches if audit.searched else ():
        for row in audit.variance_components(search):
            rows.append((search, *(f"{x:.6g}" if isinstance(x, float) else x for x in row)))
    return csv_text(rows)


def _printable(value: Any) -> Any:
    """Text of a table without what does not print; the template escapes the rest."""
    return escape_unprintable(value) if type(value) is str else value


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if np.isfinite(share) else "–"


def _number(value: float, form: str) -> str:
    words = form % value
    return "–" if not np.isfinite(value) else words if float(words) else form % 0  # no -0.0


def _p(p: float) -> str:
    return "–" if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
