"""Every case of the contract put to every check, the long compilations included; see tests/contract.py.

    python -m reliability.contract

writes ``reliability/contract.json``: the versions, and for each case the seconds of each check that held, or its error.
The suite (``make test``) makes the same checks without the compilation of the largest models.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

RECORD = Path(__file__).with_suffix(".json")
TESTS = Path(__file__).parents[1] / "tests"


def run() -> dict[str, Any]:
    """All checks but those among processes, which test_contract_ranks.py makes in one launch."""
    sys.path.insert(0, str(TESTS))
    from contract import CASES
    from contract_checks import CHECKS, applies

    results: dict[str, dict[str, float | str]] = {}
    for name, case in CASES.items():
        results[name] = {}
        for check in CHECKS:
            if check == "ranks" or applies(case, check) is not None:
                continue
            torch.manual_seed(0)
            torch._dynamo.reset()
            start = time.process_time()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    CHECKS[check](case)
                results[name][check] = round(time.process_time() - start, 2)
            except Exception as error:
                results[name][check] = f"{type(error).__name__}: {error}"
                print(f"{name}: {check}: {error}", file=sys.stderr)
            finally:
                torch.set_default_dtype(torch.float32)
                torch.use_deterministic_algorithms(False)
    return {"torch": torch.__version__, "python": platform.python_version(), "checks": results}


def summary(record: dict[str, Any]) -> str:
    """The sentence on the page."""
    cells = [cell for row in record["checks"].values() for cell in row.values()]
    held = sum(not isinstance(cell, str) for cell in cells)
    return f"{len(record['checks'])} cases, {len(cells)} checks, {held} hold (PyTorch {record['torch']})"


def main() -> None:
    """Run, write the record whole or not at all, print the summary."""
    torch.set_num_threads(1)
    record = run()
    part = RECORD.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(RECORD)
    print(summary(record))


if __name__ == "__main__":
    main()
