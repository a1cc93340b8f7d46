"""Small tables as the datasets have them, quirks included, and the folders of frames that go with them."""

import struct

import numpy as np

CASME2_HEADER = [
    "Subject",
    "Filename",
    None,
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    None,
    "Action Units",
    "Estimated Emotion",
]
SAMM_HEADER = [
    "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro",
    "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
]  # fmt: skip
CASME3_HEADER = ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
SMIC_HEADER = [
    "Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Onset3F", "Offset3F", "Emotion",
]  # fmt: skip
MMEW_HEADER = [
    "Subject",
    "Filename",
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    "Action Units",
    "Estimated Emotion",
    "remarks",
]
FOURDME_HEADER = [
    "sub_ID'", "fold_name'", "Emotion'", "Onset'", "Apex'", "Offset'", "AUs'", "AU1", "AU2", "eye blink",
    "Positive", "Negative", "Surprise", "Repression", "Others", "Total", "fold",
]  # fmt: skip

CASME2 = [
    CASME2_HEADER,
    ["01", "EP02_01f", None, 46, 59, 86, None, "12", "happiness"],
    [1, "EP03_02", None, 131.0, "139", 161, None, 12, "Happiness "],
    ["04", "EP12_01f", None, 181, "/", 270, None, "L1+R4", "disgust"],
    ["17", "EP05_09", None, 2, 1, 30, None, "4+7", "others"],
]
SAMM = [
    *[["Micro-expression annotations", *[None] * 11] if i == 0 else [None] * 12 for i in range(13)],
    SAMM_HEADER,
    ["006", "006_1_2", 1, 562, 580, 622, 61, "Micro - 1/2", "AU4 or AU7", "Anger", 3, None],
    [7, "007_3_1", 3, 100, -1, 160, 61, "Micro", "AU12A+AU14", "Other", 7, "no apex"],
    ["011", "011_2_1", 2, 1200, 1300, 1250, 51, "Micro", "AU2", "Others", 7, "apex out of range"],
]
CASME_SQUARED = [
    [1, "anger1_1", 557, 564, 572, "4+7", "negative", "macro-expression", "anger"],
    [1, "anger1_2", 600, 605, 0, "4", "negative", "micro-expression", "anger"],
    [2, "happy1_1", 20, 24, 31, "12", "positive", "micro-expression", None],
]
CASME_SQUARED_NAMING = {
    "naming rule1": [[1, 15, 1], [2, 16, 2], [3, 19, 3]],
    "naming rule2": [["0401", "anger1"], ["0502", "happy1"]],
}
CASME3 = [
    CASME3_HEADER,
    ["spNO.1", "b", 175, 180, 190, "4", "II", "disgust"],
    ["spNO.1", "b", 300, 300, 310, "L12", "I", "Others"],
    ["spNO.2", "J", 45, 50, 0, "1+2", "III", "surprise"],
    ["spNO.3", "a", 90, 70, 99, "4，5", "IV", "sad"],
]
CASME3_C = [
    ["sub", "count", "onset", "offset", "au", "emotion"],
    ["spNO.143", 1, 20, 41, "4,7", "disgust"],
    ["spNO.143", 2, 80, 99, "4，10", "anger"],
]
SMIC = [
    SMIC_HEADER,
    ["s1", "s1_ne_01", None, 3453, 3482, None, None, None, None, "negative"],
    ["s1", "s1_po_02", None, 100, 120, 140, 160, 0, 0, None],
    ["s2", "s2_sur_01", None, 10, 30, 40, 52, 60, 77, "surprise"],
]
MMEW = [
    MMEW_HEADER,
    ["S03", "S03-01-002", 1, 13, 30, "1+2", "surprise", None],
    [4, "S04-02-001", 2, 9, 40, "12", "happiness", "weak"],
]
FOURDME = [
    FOURDME_HEADER,
    ["s01", "s01_clip3", "Surprise+Positive", 10, 16, 33, "1+2+12", 1, 1, 0, 1, 0, 1, 0, 0, 2, 1],
    ["s02", "s02_clip1", "Repression", 5, 9, 20, "24", 0, 0, 1, 0, 0, 0, 1, 0, 1, 2],
]

# dataset: rows, further sheets, name of the sheet
TABLES = {
    "casme2": (CASME2, {}, "Sheet1"),
    "samm": (SAMM, {}, "MICRO_ONLY"),
    "cas(me)2": (CASME_SQUARED, CASME_SQUARED_NAMING, "CASFEcode_final"),
    "casme3-a": (CASME3, {"README": [["see label"]]}, "label"),
    "casme3-a-v1": (CASME3, {}, "Sheet1"),
    "casme3-c": (CASME3_C, {"interview": [["sub"]]}, "mockCrimeME"),
    "smic": (SMIC, {}, "Sheet1"),
    "mmew": (MMEW, {}, "Sheet1"),
    "4dme": (FOURDME, {}, "Sheet1"),
}


def write_xlsx(path, rows, others=None, sheet="Sheet1"):
    import openpyxl

    book = openpyxl.Workbook()
    page = book.active
    page.title = sheet
    for row in rows:
        page.append(row)
    for name, cells in (others or {}).items():
        other = book.create_sheet(name)
        for row in cells:
            other.append(row)
    book.save(path)
    return path


def write_csv(path, rows, delimiter=",", encoding="utf-8", newline="\n"):
    lines = [
        delimiter.join("" if cell is None else f'"{cell}"' if delimiter in str(cell) else str(cell) for cell in row)
        for row in rows
    ]
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


def write_xls(path, rows):
    """An xls file of the oldest kind (BIFF2): a stream of number and label records."""

    def record(kind, data):
        return struct.pack("<HH", kind, len(data)) + data

    parts = [record(0x0009, struct.pack("<HH", 2, 0x10))]
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            place = struct.pack("<HH3x", r, c)
            if isinstance(cell, (int, float)):
                parts.append(record(0x0003, place + struct.pack("<d", cell)))
            elif cell is not None:
                text = cell.encode("cp1252")
                parts.append(record(0x0004, place + bytes([len(text)]) + text))
    path.write_bytes(b"".join(parts) + record(0x000A, b""))
    return path


def write_table(folder, dataset, suffix="xlsx"):
    rows, others, sheet = TABLES[dataset]
    path = folder / f"{dataset.replace('(', '').replace(')', '')}.{suffix}"
    if suffix == "xlsx":
        return write_xlsx(path, rows, others, sheet)
    return write_csv(path, rows) if suffix == "csv" else write_xls(path, rows)


def dataframe(rows, header):
    import pandas

    if header is None:
        return pandas.DataFrame(rows)
    return pandas.DataFrame(rows[header + 1 :], columns=rows[header])


def make_frames(folder, numbers, pattern="img{}.jpg", size=(11, 13)):
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        assert cv2.imwrite(str(folder / pattern.format(number)), np.full((*size, 3), number % 256, np.uint8))
    return folder
