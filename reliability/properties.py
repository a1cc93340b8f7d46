"""The property-based tests with many new examples each, and how many were tried.

    python -m reliability.properties                  # 2000 examples of each property
    python -m reliability.properties --examples 200   # fewer
    python -m reliability.properties selection loss   # some groups

``properties.json`` holds, for each group (a file ``tests/test_properties_*.py``), how many properties it has, how many
examples were tried, and how many of its properties failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from mertools._files import atomic_write

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")
GROUPS = [path.stem.removeprefix("test_properties_") for path in sorted((ROOT / "tests").glob("test_properties_*.py"))]


def run(group: str, examples: int) -> dict[str, int]:
    """Run one group; its numbers."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-show-statistics",
         "--timeout=7200", str(ROOT / "tests" / f"test_properties_{group}.py")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "HYPOTHESIS_PROFILE": "long", "HYPOTHESIS_EXAMPLES": str(examples)},
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout + done.stderr)
    tried = re.findall(r"(\d+) passing(?: examples)?, (\d+) failing", done.stdout)
    if done.returncode:
        print(done.stdout)
    return {
        "properties": len(re.findall(r"^tests/test_properties_\w+\.py::", done.stdout, re.MULTILINE)),
        "examples": sum(int(number) for row in tried for number in row),
        "failed": len(re.findall(r"^FAILED ", done.stdout, re.MULTILINE)),
        "seconds": round(time.monotonic() - start),
    }


def main() -> None:
    """Run, and write the record after every group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; default all")
    parser.add_argument("--examples", type=int, default=2000, help="of each property (default: 2000)")
    options = parser.parse_args()
    for group in options.groups or GROUPS:
        if group not in GROUPS:
            parser.error(f"GROUP must be among {', '.join(GROUPS)}, got {group!r}")
        numbers = run(group, options.examples)
        record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {"groups": {}}
        record["tool"] = f"hypothesis {version('hypothesis')}"
        record["groups"][group] = numbers | {"examples_each": options.examples}
        atomic_write(RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
        print(f"{group}: {numbers}", flush=True)


if __name__ == "__main__":
    main()
