"""Drawings of how things go together, as SVG for light and dark pages: `python docs/drawings.py`, or `make figures`.

A drawing is 640 wide, so that its words can be read on a phone. The map of the package is drawn from its folders and
imports: run this again when a file was added, renamed or moved.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 640
# fill and line of a box by what it is: data, something of ours, something of yours, the loss
PALETTES = {
    "light": {
        "ink": "#22262b", "muted": "#5d666f", "line": "#8a939c", "data": ("#eef1f3", "#c3cad0"),
        "ours": ("#d9f0ea", "#1b7f6b"), "yours": ("#fdf3dd", "#c99a2e"), "loss": ("#fbe3dd", "#c2452d"),
    },
    "dark": {
        "ink": "#e8ebee", "muted": "#a8b1ba", "line": "#7d868f", "data": ("#2f353d", "#59626c"),
        "ours": ("#17433a", "#4dc0a4"), "yours": ("#463a1c", "#d9b75c"), "loss": ("#4d2a22", "#e98a73"),
    },
}  # fmt: skip

Point = tuple[float, float]


class Drawing:
    """Boxes, words and arrows on a sheet of a given height."""

    def __init__(self, height: float, palette: str) -> None:
        self.height, self.colours = height, PALETTES[palette]
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, kind: str, *lines: str) -> None:
        """A box whose first line is its name; the others are smaller."""
        fill, line = self.colours[kind]
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8" fill="{fill}" stroke="{line}" stroke-width="1.5"/>'
        )
        step = 19
        top = y + h / 2 - (len(lines) - 1) * step / 2
        for i, text in enumerate(lines):
            self.text(x + w / 2, top + i * step, text, size=16 if i == 0 else 13.5, muted=i > 0, bold=i == 0)

    def text(
        self, x: float, y: float, text: str, *, size: float = 14, muted: bool = False, bold: bool = False,
        anchor: str = "middle",
    ) -> None:  # fmt: skip
        """Words, centred on a height."""
        colour = self.colours["muted" if muted else "ink"]
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y + 0.35 * size:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
            f"{weight}>{escape(text)}</text>"
        )

    def arrow(self, *points: Point, dashed: bool = False, head: bool = True) -> None:
        """A line through points, with a head at the last one."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        more = (' stroke-dasharray="5 4"' if dashed else "") + (' marker-end="url(#head)"' if head else "")
        self.parts.append(f'<path d="{path}" fill="none" stroke="{self.colours["line"]}" stroke-width="1.8"{more}/>')

    def plus(self, x: float, y: float) -> None:
        """A sum."""
        self.parts.append(
            f'<circle cx="{x}" cy="{y}" r="12" fill="none" stroke="{self.colours["line"]}" stroke-width="1.8"/>'
        )
        self.text(x, y, "+", size=18)

    def svg(self, title: str) -> str:
        """The whole drawing."""
        line = self.colours["line"]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
            f"font-family=\"-apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif\">\n"
            f"<title>{escape(title)}</title>\n"
            f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto" markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z" fill="{line}"/></marker></defs>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def overview(palette: str) -> str:
    """Where each part goes in a DFER and in a MER model."""
    d = Drawing(584, palette)
    d.box(20, 20, 170, 54, "data", "clip", "b t c h w")
    d.arrow((190, 47), (226, 47))
    d.box(230, 20, 160, 54, "ours", "FrameSelector", "GAMDSS")
    d.arrow((390, 47), (426, 47))
    d.box(430, 20, 190, 54, "data", "onset, apex, offset", "b c h w each")
    d.arrow((105, 74), (105, 126))
    d.arrow((525, 74), (525, 126))
    d.text(180, 104, "a DFER model", bold=True)
    d.text(440, 104, "a MER model", bold=True)
    # DFER, left
    d.box(20, 130, 220, 44, "yours", "your frame encoder", "b t c h w to b t d")
    d.arrow((130, 174), (130, 206))
    d.box(20, 210, 220, 44, "ours", "RetNetTemporal", "in place of an LSTM; streams")
    d.arrow((130, 254), (130, 286))
    d.box(20, 290, 220, 44, "ours", "FramePool", "one vector a clip")
    d.arrow((72, 334), (72, 366))
    d.arrow((188, 334), (188, 366))
    d.box(20, 370, 108, 44, "yours", "your head", "logits")
    d.box(136, 370, 104, 44, "ours", "AUHead", "18 units")
    # MER, right
    d.box(262, 130, 358, 44, "ours", "TwoBranch", "rise and fall, one set of weights")
    d.arrow((352, 174), (352, 206))
    d.arrow((540, 174), (540, 206))
    d.text(360, 190, "onset", size=13, muted=True, anchor="start")
    d.text(532, 190, "apex − onset", size=13, muted=True, anchor="end")
    d.box(262, 210, 180, 54, "ours", "SpatialTransformer", "where")
    d.box(452, 210, 168, 54, "ours", "ManhattanRetNet", "how")
    d.arrow((352, 264), (352, 298), (429, 298))
    d.arrow((536, 264), (536, 298), (453, 298))
    d.plus(441, 298)
    d.arrow((441, 310), (441, 340))
    d.box(262, 344, 358, 44, "ours", "ParallelFusion", "lift to 1024, then the mean")
    d.text(441, 404, "together: TSFmicro", size=13, muted=True)
    # loss
    d.arrow((72, 414), (72, 488), (186, 488))
    d.arrow((188, 414), (188, 436), (240, 436), (240, 456), dashed=True)
    d.arrow((540, 388), (540, 488), (454, 488))
    d.box(190, 460, 260, 56, "loss", "AUPriorLoss", "in place of CrossEntropyLoss")
    for x, kind, words in (
        (20, "ours", "this library"),
        (160, "loss", "its loss"),
        (270, "yours", "your code"),
        (390, "data", "data"),
    ):
        fill, line = d.colours[kind]
        d.parts.append(
            f'<rect x="{x}" y="545" width="22" height="18" rx="4" fill="{fill}" stroke="{line}" stroke-width="1.5"/>'
        )
        d.text(x + 30, 554, words, size=13.5, muted=True, anchor="start")
    return d.svg(
        "Where the parts of mertools go: a DFER model on the left, a MER model on the right, one loss for both"
    )


def tsfmicro(palette: str) -> str:
    """TSFmicro with parallel fusion, box by box."""
    d = Drawing(640, palette)
    d.box(40, 20, 200, 50, "data", "onset", "b 3 224 224")
    d.box(400, 20, 200, 50, "data", "apex − onset", "b 3 224 224")
    d.text(140, 92, "where: SpatialTransformer", bold=True)
    d.text(500, 92, "how: ManhattanRetNet", bold=True)
    d.arrow((140, 70), (140, 78), head=False)
    d.arrow((500, 70), (500, 78), head=False)
    left = [("resize, embed", "14×14, 1×1 conv to 512"), ("+ position", "196 learned, of 512"),
            ("2 × block", "4 heads, MLP × 4, pre-norm"), ("LayerNorm", "")]  # fmt: skip
    right = [("stem", "four 3×3 convs to 112×112×64"), ("stage 1", "rows, columns, 112×112×64"),
             ("stage 2", "rows, columns, 56×56×128"), ("stage 3", "all places, 28×28×256, twice"),
             ("stage 4", "all places, 14×14×512")]  # fmt: skip
    for i, (name, what) in enumerate(left):
        y = 108 + i * 75
        d.box(20, y, 240, 50, "ours", name, *([what] if what else []))
        if i + 1 < len(left):
            d.arrow((140, y + 50), (140, y + 72))
    for i, (name, what) in enumerate(right):
        y = 108 + i * 62
        d.box(380, y, 240, 46, "ours", name, what)
        if i + 1 < len(right):
            d.arrow((500, y + 46), (500, y + 60))
    d.arrow((140, 383), (140, 432), (305, 432))
    d.arrow((500, 402), (500, 432), (335, 432))
    d.text(132, 408, "b 512 14 14", size=13, muted=True, anchor="end")
    d.text(508, 418, "b 512 14 14", size=13, muted=True, anchor="start")
    d.plus(320, 432)
    d.arrow((320, 444), (320, 464))
    d.box(150, 468, 340, 50, "ours", "ParallelFusion", "each place to 1024, BatchNorm, SiLU")
    d.arrow((320, 518), (320, 540))
    d.box(190, 544, 260, 36, "ours", "mean over places, Linear")
    d.arrow((320, 580), (320, 600))
    d.text(320, 614, "logits  b e", size=15)
    return d.svg(
        "TSFmicro: the onset frame through a transformer, the motion image through retention, added and lifted"
    )


def structures(palette: str) -> str:
    """The paper's four ways to let the branches meet."""
    d = Drawing(540, palette)
    rows = [
        ("parallel", ("onset", "motion"), ("spatial", "temporal"), "after both, added"),
        ("early", ("onset", "motion"), ("stem", "stem"), "after the stems; no spatial branch"),
        ("s_to_t", ("onset", "motion"), ("spatial ↑", "stem"), "the spatial map enters behind the stem"),
        ("t_to_s", ("onset", "motion"), ("blocks", "temporal"), "the temporal map enters before the last norm"),
    ]
    tails = {"parallel": None, "early": "stages 1–4", "s_to_t": "stages 1–4", "t_to_s": "norm"}
    for i, (name, sources, parts, words) in enumerate(rows):
        y = 24 + i * 130
        d.text(20, y + 2, f'fusion="{name}"', bold=True, anchor="start", size=15)
        d.text(620, y + 2, words, muted=True, anchor="end", size=13.5)
        for k in (0, 1):
            top = y + 18 + k * 46
            d.box(20, top, 88, 36, "data", sources[k])
            d.arrow((108, top + 18), (132, top + 18))
            d.box(136, top, 108, 36, "ours", parts[k])
        middle = y + 18 + 41
        d.arrow((244, y + 36), (282, y + 36), (282, middle - 12))
        d.arrow((244, y + 82), (282, y + 82), (282, middle + 12))
        d.plus(282, middle)
        tail = tails[name]
        if tail:
            d.arrow((294, middle), (326, middle))
            d.box(330, middle - 18, 110, 36, "ours", tail)
            d.arrow((440, middle), (466, middle))
        else:
            d.arrow((294, middle), (466, middle))
        d.box(470, middle - 26, 150, 52, "ours", "fusion", "lift, mean, Linear")
    return d.svg("The four fusion structures of TSFmicro: parallel, early, spatial to temporal, temporal to spatial")


def two_branch(palette: str) -> str:
    """GAMDSS's two branches: which frames go where."""
    d = Drawing(330, palette)
    for i, name in enumerate(("onset", "apex", "offset")):
        d.box(20 + i * 225, 20, 150, 40, "data", name)
    d.box(60, 110, 230, 54, "yours", "net(static, motion)", "onset, apex − onset")
    d.box(350, 110, 230, 54, "yours", "net(static, motion)", "apex, apex − offset")
    d.arrow((95, 60), (130, 106))
    d.arrow((300, 60), (220, 106))
    d.arrow((340, 60), (430, 106))
    d.arrow((545, 60), (515, 106))
    d.arrow((292, 137), (348, 137), dashed=True, head=False)
    d.text(320, 180, "one set of weights", size=13, muted=True)
    d.arrow((175, 164), (175, 206))
    d.arrow((465, 164), (465, 206))
    d.box(60, 210, 230, 40, "data", "front: the rise")
    d.box(350, 210, 230, 40, "data", "back: the fall")
    d.arrow((175, 250), (175, 284), (236, 284))
    d.arrow((465, 250), (465, 284), (404, 284))
    d.box(240, 262, 160, 44, "loss", "loss + loss", "in training")
    d.text(20, 290, "prediction: front alone", size=13, muted=True, anchor="start")
    return d.svg("TwoBranch: one network on the rise and on the fall of an expression")


# --- the package, from its folders and imports -----------------------------------------------------------------------

PACKAGE = ROOT / "mertools"
TOP = {"__init__": "mt: the flat API", "plots": "plots.py", "cli": "cli.py"}  # files that stand above the rooms


def floors() -> tuple[tuple[str, ...], ...]:
    """Which rooms stand on which floor, lowest first: as the test of the imports has it."""
    tree = ast.parse((ROOT / "tests" / "test_rooms.py").read_text())
    (value,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    )
    return ast.literal_eval(value)


def uses(room: str) -> set[str]:
    """Rooms that the files of a room import from, also inside functions."""
    files = sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mertools."):
                found.add(str(node.module).split(".")[1])
    return found - {room}


def package(palette: str) -> str:
    """The rooms floor by floor with their files, and what each room uses."""
    ground, *rooms = floors()
    order = [room for floor in rooms for room in floor]
    parts: list[tuple[float, Drawing]] = []
    y = 12.0
    for floor in reversed(rooms):
        names = [name for name in (TOP if "cli" in floor else floor) if name in floor]
        width = (600 - 12 * (len(names) - 1)) / len(names)
        texts = []
        for name in names:
            files = sorted(path.stem for path in (PACKAGE / name).glob("*.py") if path.stem != "__init__")
            below = [other for other in order[: order.index(floor[0])] if other in uses(name)]
            needs = ["every room"] if name == "__init__" else below
            texts.append((_wrapped(files, width, ", "), _wrapped(needs, width - 26, ", ")))
        height = 40 + 18 * max(len(files) + len(needs) for files, needs in texts)
        sheet = Drawing(0, palette)
        for i, (name, (files, needs)) in enumerate(zip(names, texts, strict=True)):
            x = 20 + i * (width + 12)
            fill, line = sheet.colours["data" if name in TOP else "ours"]
            sheet.parts.append(
                f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height}" rx="8" fill="{fill}" stroke="{line}"/>'
            )
            sheet.text(x + 12, y + 18, TOP.get(name, f"{name}/"), bold=True, anchor="start", size=15)
            for j, words in enumerate(files):
                sheet.text(x + 12, y + 40 + 18 * j, words, muted=True, anchor="start", size=13)
            for j, words in enumerate(needs):
                base = y + height - 16 - 18 * (len(needs) - 1 - j)
                sheet.text(x + 12, base, f"↓ {words}" if j == 0 else words, anchor="start", size=13)
        parts.append((y, sheet))
        y += height + 12
    d = Drawing(y + 56, palette)
    d.parts = [part for _, sheet in parts for part in sheet.parts]
    d.box(20, y, 600, 44, "data", ", ".join(f"{name}.py" for name in ground), "the ground: everything may use it")
    return d.svg("The rooms of mertools, floor by floor, with their files; ↓ names the rooms that a room uses")


def _wrapped(names: list[str], width: float, between: str) -> list[str]:
    """Names in lines that fit into a box; a letter of 13 px is taken for 7.3 wide."""
    lines: list[str] = []
    for name in names:
        if lines and 7.3 * len(lines[-1] + between + name) <= width - 24:
            lines[-1] += between + name
        else:
            if lines:
                lines[-1] += between.rstrip()
            lines.append(name)
    return lines


DRAWINGS = {
    "overview": overview, "tsfmicro": tsfmicro, "structures": structures, "two-branch": two_branch, "package": package,
}  # fmt: skip


def write(folder: Path) -> None:
    """Write every drawing twice, for light and for dark pages."""
    for name, draw in DRAWINGS.items():
        for palette in PALETTES:
            (folder / f"{name}-{palette}.svg").write_text(draw(palette))


if __name__ == "__main__":
    write(ROOT / "docs" / "figures")
