"""The tables of docs/reliability.md that come from the records of ``properties`` and ``mutants``.

python -m reliability.tables    # prints them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def load(name: str) -> dict[str, Any]:
    """A record of this folder."""
    record: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return record


def properties_table(record: dict[str, Any]) -> str:
    """A line per group of properties."""
    lines = ["| properties of | properties | examples tried | failed |", "|---|---|---|---|"]
    groups = record["groups"]
    lines += [
        f"| {group} | {numbers['properties']} | {numbers['examples']:,} | {numbers['failed']} |"
        for group, numbers in sorted(groups.items())
    ]
    total = {key: sum(numbers[key] for numbers in groups.values()) for key in ("properties", "examples", "failed")}
    lines.append(f"| together | {total['properties']} | {total['examples']:,} | {total['failed']} |")
    return "\n".join(lines)


def mutants_table(record: dict[str, Any], equivalent: dict[str, dict[str, str]]) -> str:
    """A line per file: what was tried of all there are, what was killed, and what is known to change nothing."""
    lines = [
        "| file | mutants | tried | killed | of code alone | of strings alone | alive | of these equivalent |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = {"all": 0, "mutants": 0, "killed": 0, "alive": 0, "equivalent": 0}
    kinds = {kind: {"mutants": 0, "killed": 0} for kind in ("code", "strings")}
    for name, numbers in record["files"].items():
        alive = {mutant["key"] for mutant in numbers["lived"]}
        same = len(alive & set(equivalent.get(name, {})))
        row = {key: numbers[key] for key in ("all", "mutants", "killed")} | {"alive": len(alive), "equivalent": same}
        for key, value in row.items():
            total[key] += value
        for kind, sums in kinds.items():
            for key in sums:
                sums[key] += numbers[kind][key]
        lines.append(_line(f"`{name}.py`", row, numbers))
    lines.append(_line("together", total, kinds))
    return "\n".join(lines)


def _line(name: str, row: dict[str, int], kinds: dict[str, Any]) -> str:
    shares = " | ".join(_share(kinds[kind]) for kind in ("code", "strings"))
    counts = f"{row['all']:,} | {row['mutants']:,} | {_share(row)}"
    return f"| {name} | {counts} | {shares} | {row['alive']} | {row['equivalent']} |"


def _share(numbers: dict[str, int]) -> str:
    """Killed in per cent, rounded down: 84.96 is not 85."""
    if not numbers["mutants"]:
        return "–"
    return f"{int(1000 * numbers['killed'] / numbers['mutants']) / 10:.1f} %"


def main() -> None:
    """Print what the page should say."""
    print(properties_table(load("properties")), end="\n\n")
    print(mutants_table(load("mutants"), load("mutants_equivalent")))


if __name__ == "__main__":
    main()
