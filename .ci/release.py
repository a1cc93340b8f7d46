"""What a release must say of itself before it is built: one version, a dated changelog, nothing uncommitted.

python .ci/release.py            one line for each thing that is missing, exit status 1
python .ci/release.py --ready    what is left to do by hand
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git(*words: str) -> str:
    """What a git command says of this repository."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def version_of(root: Path) -> str:
    """The package's version."""
    found = re.search(r'^__version__ = "(.+)"', (root / "mertools" / "__init__.py").read_text(), re.MULTILINE)
    assert found
    return found[1]


def complaints(root: Path = ROOT, git: Callable[..., str] = git) -> list[str]:
    """Why this can't be released as it is."""
    version = version_of(root)
    found = []
    heading = re.search(r"^## .*", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    wanted = rf"## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}"
    if heading is None or not re.fullmatch(wanted, heading[0]):
        shown = heading[0] if heading else "nothing"
        found.append(f"CHANGELOG.md must begin with '## [{version}] - YYYY-MM-DD', it begins with {shown!r}")
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text():
        found.append(f"CITATION.cff must say version: {version}")
    if f"Version {version}." not in (root / "README.md").read_text():
        found.append(f"README.md must say Version {version}.")
    if changed := git("status", "--porcelain"):
        found.append(f"{len(changed.splitlines())} files are not committed: {changed.split()[-1]}, ...")
    if git("tag", "--list", f"v{version}"):
        found.append(f"there is a tag v{version}: give __version__ in mertools/__init__.py another number")
    return found


def main() -> int:
    """Run from the command line."""
    if sys.argv[1:] == ["--ready"]:
        archives = " ".join(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "dist").iterdir()))
        print(f"\nversion {version_of(ROOT)} is built and checked. What is left, by hand:")
        print(f"  git tag v{version_of(ROOT)} && git push origin v{version_of(ROOT)}")
        print(f"  .venv/bin/twine upload {archives}")
        return 0
    found = complaints()
    for line in found:
        print(f"release: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
