"""The parsers of what others write: read, or refused by an error that names the file. Long runs with atheris.

    pip install -e '.[reliability]'                # Linux and macOS
    python -m reliability.fuzz facs --seconds 600  # inputs are chosen by the code that they reach

tests/test_fuzz.py gives the same parsers tables and bytes that hypothesis breaks. What broke something becomes a test.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import mertools as mt
from mertools.audit.journal import Journal

UNITS = [f"{unit}_r" for unit in mt.ACTION_UNITS if unit != "AU28"] + [f"{unit}_c" for unit in mt.ACTION_UNITS]
SCHEMA = mt.AnnotationSchema(
    name="ours", labels=["happy", "sad"], separator="+", folder="{subject}/{clip}", optional=("fps",),
    columns={"subject": "who", "clip": "file", "onset": "on", "apex": "top", "offset": "off", "label": "emotion",
             "fps": "fps"},
)  # fmt: skip


def annotations(path: Path) -> object:
    """A table of a schema of one's own, every repair in turn; no row that holds something may be missing."""
    clips = mt.read_annotations(path, SCHEMA)
    assert len({clip.row for clip in clips}) == len(clips), "a row twice"
    return [mt.read_annotations(path, SCHEMA, repair=rule) for rule in ("apex-midpoint", "drop")], clips.problems


def published(path: Path) -> object:
    """The layout of a dataset."""
    return mt.read_annotations(path, "casme2").problems


def facs(path: Path) -> object:
    """FACS codes, one a line."""
    return mt.facs_labels(path.read_bytes().decode("utf-8", "replace").splitlines())


def openface(path: Path) -> object:
    """The output of OpenFace."""
    return mt.read_openface(path)


def au_labels(path: Path) -> object:
    """The cache of AU labels: what was read is written and read again the same."""
    labels = mt.read_au_labels(path)
    mt.write_au_labels(path.with_name("again.txt"), labels)
    assert list(mt.read_au_labels(path.with_name("again.txt"))) == list(labels), "unlike"
    return labels


def journal(path: Path) -> object:
    """The journal of an audit that was killed: results of an audit, and the same once more."""
    found = []
    for _ in range(2):
        with Journal(path.parent, "x") as held:
            for result in held.done.values():
                keys = [found["keys"] if isinstance(found, dict) else found for found in result.values()]
                assert "error" in result or all(len(k) == 3 for k in keys)
            found.append(dict(held.done))
    assert found[0] == found[1], "resumed twice, found twice"
    return found


TABLE = "who,file,on,top,off,emotion,fps\n1,a,1,5,9,happy,30\n2,b,3,/,8,sad+happy,\n"
CASME2 = (
    "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion\n"
    "01,EP02_01f,46,59,86,12,happiness\n4,EP12_01f,181,/,270,L1+R4,disgust\n"
)
OPENFACE = ", ".join(["frame", "face_id", "confidence", "success", *UNITS]) + "\n"
OPENFACE += "".join(f"{i}, 0, 0.98, 1, " + ", ".join(["1"] * 35) + "\n" for i in (1, 2))
JOURNAL = (
    '{"run": "x"}\n{"clip": 0, "annotated": [1, 2, 3], "robust": {"keys": [1, 2, 3], "estimate": [1, 2, 4], '
    '"evidence": 0.5, "spread": [1.0, 2.0, 3.5], "intervals": [[0, 2], [1, 3], [2, 6]], "plateau": [2, 3]}}\n'
    '{"clip": 1, "error": "no"}\n'
)
# A name for the file, what is read from it, and a file that is fine.
PARSERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "annotations": ("t.csv", annotations, TABLE),
    "published": ("t.csv", published, CASME2),
    "facs": ("codes.txt", facs, "L1+R4\n12B or 14\nAU4 and AU7?\n"),
    "openface": ("o.csv", openface, OPENFACE),
    "au_labels": ("AU.txt", au_labels, "".join(f"0000{i}.csv/1" + " 1 0 0.5" * 6 + "\n" for i in range(2))),
    "journal": ("journal.jsonl", journal, JOURNAL),
}


def parse(name: str, data: bytes, folder: Path, file: str | None = None) -> bool:
    """Whether an input is read; errors that are not documented, or name no file, go through."""
    path, read = folder / (file or PARSERS[name][0]), PARSERS[name][1]
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except (ValueError, OSError) as error:
        named = name == "facs" or path.name in str(error) or "again.txt" in str(error) or path.parent.name in str(error)
        if isinstance(error, UnicodeError) or not named:
            raise AssertionError(f"{name}: {error!r} does not name the file") from error
        return False
    return True


def main() -> None:
    """Fuzz one parser; libFuzzer ends the process and leaves the input that broke something in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    import atheris

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as name:
        corpus, folder = Path(name) / "corpus", Path(name) / "work"
        corpus.mkdir()
        folder.mkdir()
        (corpus / "seed").write_text(PARSERS[args.parser][2])
        limits = [f"-max_total_time={args.seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=4096"]
        atheris.Setup([sys.argv[0], str(corpus), *limits], lambda data: parse(args.parser, data, folder) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
