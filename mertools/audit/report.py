"""An audit as one HTML page with everything in it, and as csv files beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape as escaped
from pathlib import Path
from typing import Any

import numpy as np

from mertools._files import atomic_write
from mertools._text import csv_text, escape_unprintable
from mertools.annotations.folders import FrameFolders
from mertools.audit.plots import plot_contact_sheet, plot_shifts, plot_uncertain
from mertools.audit.run import AnnotationAudit, ClipAudit
from mertools.audit.statistics import KEYS, Distribution, Group, SpreadTest
from mertools.clips.read import decode_frames

_PLURAL = {"onset": "onsets", "apex": "apexes", "offset": "offsets"}
REPORT_FILES = ("clips.csv", "groups.csv", "tests.csv", "index.html")
_GROUPS = 25  # rows of a table by subject; the csv has all
_STYLE = """
:root { color-scheme: light; --ink: #22262b; --muted: #6b737c; --line: #e4e7ea; --back: #f6f7f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 70rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.4rem 0 0.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; }
p.muted, figcaption, small { color: var(--muted); }
img { max-width: 100%; height: auto; display: block; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.7rem; padding: 0; }
.cards div { background: var(--back); border-radius: 0.5rem; padding: 0.7rem 0.9rem; }
.cards b { display: block; font-size: 1.5rem; line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { color: var(--muted); font-weight: 600; }
.sheets { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.2rem; }
.plot { overflow-x: auto; } .plot img { min-width: 34rem; }
figure { margin: 0; } figcaption { font-size: 0.9rem; margin-bottom: 0.3rem; }
ul.broken { padding-left: 1.2rem; font-size: 0.9rem; overflow-wrap: anywhere; }
"""


def write_report(
    audit: AnnotationAudit, folder: Path, *, frames: FrameFolders | None, search: str, title: str, worst: int
) -> None:
    """Write ``index.html``, ``clips.csv``, ``groups.csv`` and ``tests.csv``; see ``AnnotationAudit.write_report``."""
    page = _page(audit, search, frames, title, worst)
    folder.mkdir(parents=True, exist_ok=True)
    clips, groups, tests, index = (folder / name for name in REPORT_FILES)
    audit.write_csv(clips)
    atomic_write(groups, _groups_csv(audit).encode())
    atomic_write(tests, _tests_csv(audit).encode())
    atomic_write(index, page.encode())


def _page(audit: AnnotationAudit, search: str, frames: FrameFolders | None, title: str, worst: int) -> str:
    done, broken = audit.done, audit.broken
    parts = [f"<h1>{escape(title)}</h1>"]
    datasets = ", ".join(sorted({entry.clip.dataset for entry in audit.clips}))
    parts.append(
        f"<p class=muted>{escape(datasets)} · {len(audit.clips)} clips, {len(broken)} skipped · searches: "
        f"{', '.join(audit.searches)}; figures below are of the {search} search unless they say otherwise</p>"
    )
    if done:
        parts += [_cards(audit, search), _verdict(audit.tests(search))]
        shifts = {name: audit.shifts(name) for name in audit.searches}
        parts.append("<h2>How far key frames move</h2>" + _plot(plot_shifts(shifts),
                     "Histograms of the shifts of onset, apex and offset in frames"))  # fmt: skip
        parts.append("<p class=muted>Shifts beyond the axis are counted in its last bar.</p>")
        for by in ("dataset", "label", "subject"):
            parts.append(_section(audit, by, search))
        parts.append("<h2>Do onset, apex and offset differ in spread?</h2>" + _tests_table(audit.tests(search)))
        parts.append(
            "<p class=muted>On shifts in phase lengths. Friedman and Wilcoxon compare absolute deviations from the "
            "median within clips; p is Holm-corrected over the three pairs. The ratio is of mean absolute deviations; "
            "its 95 % interval resamples subjects. Brown-Forsythe and Fligner-Killeen treat the key frames as "
            "independent groups, which they are not: read them as customary, not as evidence.</p>"
        )
        if frames is not None and worst:
            parts.append(_contact_sheets(audit.worst(worst, search), search, frames))
    if broken:
        lines = [f"{e.clip.place} ({e.clip.name}): {e.error}" for e in broken[:200]]
        shown = "".join(f"<li>{escape(line)}</li>" for line in lines)
        more = f"<li>... and {len(broken) - 200} more in clips.csv</li>" if len(broken) > 200 else ""
        parts.append(f"<h2>Skipped clips</h2><ul class=broken>{shown}{more}</ul>")
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _cards(audit: AnnotationAudit, search: str) -> str:
    (whole,) = audit.groups("all", search)
    cards = []
    for key in KEYS:
        found: Distribution = getattr(whole, key)
        if found.n:
            interval = f"{_percent(found.low)} to {_percent(found.high)}"
            text = f"<b>{_percent(found.share)}</b>uncertain {key}<br><small>95 %: {interval}; "
            cards.append(f"<div>{text}mean |shift| {found.mean_abs:.1f} frames</small></div>")
    return (
        f"<div class=cards>{''.join(cards)}</div><p class=muted>Uncertain: the key frame moves by more than "
        f"{_percent(audit.threshold)} of its phase and by at least two frames.</p>"
    )


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
    return f"<p>{escape('; '.join(lines).capitalize())}.</p>" if lines else ""


def _section(audit: AnnotationAudit, by: str, search: str) -> str:
    groups = audit.groups(by, search)
    if len(groups) < 2 and by == "dataset":
        return ""
    parts = [f"<h2>By {by}</h2>"]
    if len(groups) <= _GROUPS:
        parts.append(_plot(plot_uncertain(groups, by), f"Share of clips with an uncertain key frame by {by}"))
    parts.append(_groups_table(groups[:_GROUPS], by))
    if len(groups) > _GROUPS:
        parts.append(f"<p class=muted>The {_GROUPS} largest of {len(groups)}; groups.csv has all.</p>")
    return "".join(parts)


def _groups_table(groups: Sequence[Group], by: str) -> str:
    head = "".join(f"<th>{key} [quartiles]</th><th>uncertain</th>" for key in KEYS)
    rows = []
    for group in groups:
        cells = [f"<td>{escape(group.name)}</td><td>{group.n}</td>"]
        for key in KEYS:
            d: Distribution = getattr(group, key)
            quartiles = f"{d.median:+.1f} [{d.lower:+.1f}, {d.upper:+.1f}]" if d.n else "–"
            cells.append(f"<td>{quartiles}</td><td>{_percent(d.share) if d.n else '–'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f"<div class=wide><table><thead><tr><th>{by}</th><th>clips</th>{head}</tr></thead>{''.join(rows)}</table></div>"
    )


def _tests_table(tests: Sequence[SpreadTest]) -> str:
    rows = []
    for test in tests:
        statistic = f"{test.statistic:.3g}" if np.isfinite(test.statistic) else "–"
        effect = f"{test.effect_name} = {test.effect:.2f}" if np.isfinite(test.effect) else "–"
        if np.isfinite(test.low):
            effect += f" [{test.low:.2f}, {test.high:.2f}]"
        cells = (test.name, statistic, _p(test.p), _p(test.p_corrected), effect)
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("test", "statistic", "p", "p, corrected", "effect"))
    return f"<div class=wide><table><thead><tr>{head}</tr></thead>{''.join(rows)}</table></div>"


def _contact_sheets(worst: Iterable[ClipAudit], search: str, frames: FrameFolders) -> str:
    sheets = []
    for entry in worst:
        assert entry.keys is not None
        try:
            folder = frames.find(entry.clip)
            new = entry.found[search]
            names = [folder.names[folder.position(number)] for number in (*entry.keys, *new)]
            images = decode_frames([f"{folder.path}/{name}" for name in names], longest=200)[..., ::-1]
        except (OSError, ValueError) as error:
            sheets.append(f"<figure><figcaption>{escape(entry.clip.name)}: {escape(str(error))}</figcaption></figure>")
            continue
        span = min(*entry.keys, *new), max(*entry.keys, *new)
        largest = max(entry.relative(search), key=abs)
        words = f"{entry.clip.name}, {entry.clip.label} (row {entry.clip.row}): {largest:+.2f} phases"
        figure = plot_contact_sheet(images, span, entry.keys, new)
        sheets.append(f"<figure><figcaption>{escape(words)}</figcaption>{_photo(figure, words)}</figure>")
    return f"<h2>The clips that move most</h2><div class=sheets>{''.join(sheets)}</div>"


def _plot(figure: Any, words: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return f"<div class=plot>{_embedded(data, 'png', words)}</div>"


def _photo(figure: Any, words: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="jpeg", pil_kwargs={"quality": 88})
    return _embedded(data, "jpeg", words)


def _embedded(data: io.BytesIO, kind: str, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}">'


def _groups_csv(audit: AnnotationAudit) -> str:
    rows: list[tuple[object, ...]] = [("search", "by", "group", "clips", "key", *Distribution._fields)]
    for search in audit.searches if audit.done else ():
        for by in ("all", "dataset", "label", "subject"):
            for group in audit.groups(by, search):
                for key in KEYS:
                    values = (f"{value:.6g}" for value in getattr(group, key))
                    rows.append((search, by, group.name, group.n, key, *values))
    return csv_text(rows)


def _tests_csv(audit: AnnotationAudit) -> str:
    rows: list[tuple[object, ...]] = [("search", "unit", *SpreadTest._fields)]
    for search in audit.searches if audit.done else ():
        for unit in ("phase", "frames"):
            for test in audit.tests(search, unit=unit):
                rows.append((search, unit, *(f"{x:.6g}" if isinstance(x, float) else x for x in test)))
    return csv_text(rows)


def escape(text: str) -> str:
    """Text for HTML, in an attribute too: no mark-up, and nothing in it that does not print."""
    return escaped(escape_unprintable(text))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if np.isfinite(share) else "–"


def _p(p: float) -> str:
    return "–" if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
