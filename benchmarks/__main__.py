"""Run the benchmarks, keep their figures, write the page.

    python -m benchmarks [--quick] [--all] [NAME ...] [--results FILE] [--page FILE] [--render]

Every script of this folder with a ``main`` and a method in its docstring is one; a new one is found by itself. Each
runs in a process of its own, as ``python -m benchmarks.NAME`` does, and what it prints, Markdown tables among it,
becomes data: ``benchmarks/results.json`` holds the figures with the machine and the versions they were measured on, and
``docs/benchmarks.md`` is rendered from that file alone (``--render`` does only this). Named scripts are run and put in
the place of their earlier figures; the others keep theirs. ``--quick`` writes nothing unless it is told where: its
figures mean nothing.

A script may say more about itself in plain constants: ``SLOW = True`` leaves it out unless it is named or ``--all`` is
given, ``ARGUMENTS = ("--flag",)`` is how it is run here.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from mertools._files import atomic_write

FOLDER = Path(__file__).parent
HELPERS = ("hard_clips", "__init__", "__main__", "measure", "peak", "plain", "small_runs")
ORDER = (
    "keyframes", "spotting", "distance", "audit_recovery", "audit", "au_prior_effect", "au_loss", "retention", "models",
    "leakage", "reselection", "corpus", "scaling", "import_cost",
)  # fmt: skip

Figures = dict[str, Any]


def scripts() -> dict[str, ast.Module]:
    """The benchmarks by name, parsed: first those with a place in ``ORDER``, then the others by name."""
    names = {path.stem for path in FOLDER.glob("*.py")} - set(HELPERS)
    ordered = [name for name in ORDER if name in names] + sorted(names - set(ORDER))
    return {name: ast.parse((FOLDER / f"{name}.py").read_text("utf-8")) for name in ordered}


def constant(script: ast.Module, name: str, default: Any) -> Any:
    """The value of a plain constant at the top of a script, without importing it."""
    for node in script.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return ast.literal_eval(node.value)
    return default


def run(name: str, script: ast.Module, *, quick: bool) -> Figures:
    """One script in a process of its own: what it printed as data, with all that is needed to print it again."""
    arguments = ["--quick"] if quick else list(constant(script, "ARGUMENTS", ()))
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER.parent,
    )
    if done.returncode:
        raise RuntimeError(f"python -m benchmarks.{name} failed with {done.returncode}:\n{done.stderr}")
    return {
        "command": " ".join(["python -m", f"benchmarks.{name}", *arguments]),
        "about": ast.get_docstring(script) or name,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seconds": round(time.perf_counter() - begin),
        "machine": machine(),
        "blocks": parse(done.stdout),
    }


def parse(printed: str) -> list[Figures]:
    """Paragraphs and tables of Markdown, in order: ``{"text": ...}`` or ``{"header": [...], "rows": [[...]]}``."""
    blocks: list[Figures] = []
    lines = printed.splitlines()
    for i, line in enumerate(lines):
        if not line.startswith("|"):
            if line.strip():
                if blocks and "text" in blocks[-1] and lines[i - 1].strip():
                    blocks[-1]["text"] += "\n" + line
                else:
                    blocks.append({"text": line})
        elif set(line) <= set("|-: "):
            continue
        elif i and lines[i - 1].startswith("|"):
            blocks[-1]["rows"].append(cells(line))
        else:
            blocks.append({"header": cells(line), "rows": []})
    return blocks


def cells(line: str) -> list[str]:
    """The cells of a row."""
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def render(results: dict[str, Figures]) -> str:
    """The page, from the figures alone."""
    shared = common_machine(results)
    parts = [INTRODUCTION.strip()]
    if shared:
        parts.append("## The machine\n\n" + rows_of(["", ""], [[key, value] for key, value in shared.items()]))
    for name in [*ORDER, *sorted(results.keys() - set(ORDER))]:
        if name not in results:
            continue
        found = results[name]
        title, _, rest = found["about"].partition("\n")
        # Methods and the lists in them; the rest is for those who read the script.
        methods = re.findall(r"^Method.+?(?=\n\n[^\sM]|\Z)", rest, re.MULTILINE | re.DOTALL)
        parts.append(f"## {title.rstrip('.')}\n\n`{found['command']}`")
        parts.append('??? note "Method"\n\n' + textwrap.indent("\n\n".join(methods), "    "))
        for block in found["blocks"]:
            parts.append(block["text"] if "text" in block else rows_of(block["header"], block["rows"]))
        measured = f"*Measured on {found['date']}" + (f" in {found['seconds']} s" if found["seconds"] else "")
        own = "" if found["machine"] == shared else f", on {', '.join(found['machine'].values())}"
        parts.append(f"{measured}{own}.*")
    return "\n\n".join(parts) + "\n"


def common_machine(results: dict[str, Figures]) -> dict[str, str]:
    """The machine that most scripts ran on."""
    seen = [found["machine"] for found in results.values()]
    return max(seen, key=seen.count) if seen else {}


def rows_of(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


INTRODUCTION = """
---
search:
  boost: 0.5
---

# Benchmarks

What the parts of the library cost, or find, beside what people would use instead. The rows in which we lose are here
too. `python -m benchmarks` writes this page from `benchmarks/results.json`.

**How it is measured.** The candidates of a table run in turn in one process (A B C A B C ...); the first turn is left
out. A figure is the median over the turns, a ratio the median of the ratios within a turn. Two threads on a CPU unless
something else is said. Peak memory is that of a fresh process, beyond what it holds before the call. Ratios carry over
to other machines better than times.
"""


def main() -> None:
    """Run, keep, render."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="All benchmarks, their figures, the page."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these scripts; the others keep their figures")
    parser.add_argument("--quick", action="store_true", help="small and few, to see that all of them run")
    parser.add_argument("--all", action="store_true", help="the slow studies as well")
    parser.add_argument("--render", action="store_true", help="run nothing, write the page from the figures")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results.json")
    parser.add_argument("--page", type=Path, help="default: docs/benchmarks.md")
    args = parser.parse_args()
    known = scripts()
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    keep = not args.quick
    results_file = args.results or (FOLDER / "results.json" if keep else None)
    page = args.page or (FOLDER.parent / "docs" / "benchmarks.md" if keep else None)
    earlier = results_file is not None and results_file.exists()
    results: dict[str, Figures] = json.loads(results_file.read_text("utf-8")) if earlier and results_file else {}
    chosen = args.names or [n for n, s in known.items() if args.all or args.quick or not constant(s, "SLOW", False)]
    for name in [] if args.render else chosen:
        print(f"{name} ...", end=" ", flush=True)
        results[name] = run(name, known[name], quick=args.quick)
        print(f"{results[name]['seconds']} s", flush=True)
        if results_file:  # after every script: what is done stays done
            atomic_write(results_file, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
    if page:
        atomic_write(page, render(results).encode())
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
