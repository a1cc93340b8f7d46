"""What the built archives hold: the wheel the package and nothing else, the sdist all that a build and its tests need.

python .ci/check_dist.py dist
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = {"torch", "einops", "numpy", "opencv-python-headless", "scipy"}


def main(folder: Path) -> int:
    """Check the one wheel and the one sdist of a folder; the exit status is the number of complaints."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    version = re.search(r'^__version__ = "(.+)"', (ROOT / "mertools/__init__.py").read_text(), re.MULTILINE)
    assert version
    complaints = []

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        info = f"mertools-{version[1]}.dist-info/"
        metadata = email.message_from_bytes(archive.read(info + "METADATA"))
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mertools").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    }
    wanted = package | {info + name for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    complaints += [f"the wheel lacks {name}" for name in sorted(wanted - names)]
    complaints += [f"the wheel holds {name}, which is no part of it" for name in sorted(names - wanted)]
    kinds = {Path(name).suffix for name in package}
    if kinds != {".py", ".json", ".html", ".typed"}:
        complaints.append(f"mertools/ holds files of the kinds {sorted(kinds)}")
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    if {re.split(r"[^\w.-]", line)[0] for line in needed} != CORE:
        complaints.append(f"the wheel requires {needed}")
    if metadata["Version"] != version[1]:
        complaints.append(f"the wheel is of version {metadata['Version']}, the package of {version[1]}")

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    private = (".github/", ".gitignore")
    wanted = {name for name in tracked if name and not name.startswith(private) and (ROOT / name).exists()}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    complaints += [f"the sdist lacks {name}" for name in sorted(wanted - names)]

    for complaint in complaints:
        print(f"check_dist: {complaint}", file=sys.stderr)
    print(f"{wheel.name} {wheel.stat().st_size // 1024} KiB, {sdist.name} {sdist.stat().st_size // 1024} KiB")
    return len(complaints)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
