"""Inputs for parsers: valid seeds, broken with knowledge of what they are (bytes, cells, zip archives, JSON, names)."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from typing import Any

HOSTILE = (
    "", " ", "\0", "../../etc/passwd", "/etc/passwd", "..\\..\\windows\\win.ini", "C:\\boot.ini", "CON", "NUL.jpg",
    "file:///etc/passwd", "http://127.0.0.1:9/", "~root", "$HOME", "%s%n", "{0.__class__}", "{subject}", "*", "**/*",
    "[a-", "[!a]", "a" * 300, "n" * 4096, "x" * 40_000, "sub01/../sub01", "./sub01", "sub01//EP01", "sub01/EP01/",
    "ＥＰ０１", "ΕΡ01",
    "\u202egnp.1", "\ufeff", "\u2028", "\x0b", "\x1c", "\x85", "\ud7ff", "é", "e\u0301", "𝟙", "٣", "²", "½",
    "=cmd|' /C calc'!A0", "=1+1", "+1", "-1", "-", "@SUM(A1)", "'", '"', '""', '"a', "a\nb", "a\r\nb", "a,b;c\td",
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "javascript:alert(1)", "&amp;", "$\\frac$", "$x$",
    "\x1b]0;owned\x07", "\x1b[2J",
    "nan", "NaN", "inf", "-inf", "1e999", "1e-999", "1e308", "-0", "0", "00", "1_000", "0x10",
    "1.5", "46.0", "46.", ".5", "1e3", "9" * 20, "9" * 400, "9" * 5000, "-9223372036854775809", "2147483648",
    "4294967296", "None", "null", "true", "#REF!", "#N/A", "<NA>", "NaT", "Unnamed: 0",
    "surprise+surprise", "Happy\u200b",
    "L1+R4", "12 or 14", "AU99", "++", "or", "12A?B", "0012",
)  # fmt: skip
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 100_000)


def token(rng: random.Random) -> str:
    """A hostile word, or a short random one."""
    if rng.random() < 0.8:
        return rng.choice(HOSTILE)
    return "".join(
        chr(rng.choice((rng.randrange(32, 127), rng.randrange(1, 0x300)))) for _ in range(rng.randrange(1, 12))
    )


def broken_bytes(rng: random.Random, data: bytes, *, others: tuple[bytes, ...] = ()) -> bytes:
    """Flip, cut, insert, repeat or splice; a few of them at once."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) + 1)
        how = rng.randrange(9)
        if how == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif how == 1 and out:
            out[at % len(out)] = rng.randrange(256)
        elif how == 2:
            del out[at:]
        elif how == 3:
            del out[at : at + rng.randrange(1, 64)]
        elif how == 4:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 16)))
        elif how == 5:
            out[at:at] = out[at : at + rng.randrange(1, 256)] * rng.choice((1, 2, 16))
        elif how == 6:
            kind = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
            value = struct.pack(kind, rng.choice(_NUMBERS) % (1 << (8 * struct.calcsize(kind))))
            out[at : at + len(value)] = value
        elif how == 7:
            out[at:at] = token(rng).encode("utf-8", "surrogatepass")
        elif others:
            other = rng.choice(others)
            out[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(out)


def broken_cells(rng: random.Random, rows: list[list[Any]]) -> list[list[Any]]:
    """Hostile cells, rows and columns out of place; half of the time one cell only."""
    rows = [list(row) for row in rows]
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.randrange(len(rows))
        how = rng.randrange(8)
        if how < 4 and rows[row]:
            rows[row][rng.randrange(len(rows[row]))] = token(rng)
        elif how == 4:
            rows.insert(row, list(rows[rng.randrange(len(rows))]))
        elif how == 5:
            rows[row] = rows[row][: rng.randrange(len(rows[row]) + 1)]
        elif how == 6:
            rows[row] = rows[row] + [token(rng)] * rng.choice((1, 3, 50))
        elif len(rows) > 1:
            del rows[row]
    return rows


def broken_zip(rng: random.Random, data: bytes) -> bytes:
    """A zip archive with one part broken, left out, doubled or renamed, zipped again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen, how = rng.choice(names), rng.randrange(6)
        for name in names:
            content = old.read(name)
            kind = old.getinfo(name).compress_type
            if name == chosen:
                if how == 0:
                    continue
                name = token(rng).replace("\0", "") if how == 1 else name
                content = broken_bytes(rng, content) if how > 1 else content
            new.writestr(zipfile.ZipInfo(name or "x"), content, kind)
    return out.getvalue()


def broken_json(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """The value with one part replaced by something else, of another type as a rule."""
    if depth < 6 and rng.random() < 0.75:
        if isinstance(value, dict) and value:
            key = rng.choice(list(value))
            changed = dict(value)
            if rng.random() < 0.15:
                changed[token(rng)] = changed.pop(key)
            elif rng.random() < 0.15:
                del changed[key]
            else:
                changed[key] = broken_json(rng, value[key], depth + 1)
            return changed
        if isinstance(value, list) and value:
            at = rng.randrange(len(value))
            return [*value[:at], broken_json(rng, value[at], depth + 1), *value[at + 1 :]]
    return rng.choice((
        None, True, False, 0, -1, 1, 2, 7, 1.5, -0.0, 1e308, 10**9, 10**12, -(2**63), 2**64, 10**4000, float("nan"),
        float("inf"), "", [], {}, [[]], [1, 2], {"class": "TSFmicro"}, {"class": "os.system"}, token(rng), [token(rng)],
    ))  # fmt: skip


def json_bytes(rng: random.Random, value: Any) -> bytes:
    """JSON of a broken value, sometimes broken as text, too."""
    try:
        data = json.dumps(broken_json(rng, value)).encode()
    except ValueError:  # an integer of thousands of digits is written by hand
        data = json.dumps(value).encode().replace(b"1", b"1" * 5000, 1)
    if rng.random() < 0.3:
        data = broken_bytes(rng, data)
    if rng.random() < 0.02:
        data = b'{"a":' * 100_000 + data if rng.random() < 0.5 else b"[" * 100_000
    return data
