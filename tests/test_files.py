import pytest

from mertools._files import atomic_write, read_text


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    atomic_write(path, b"first")

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_permissions_are_the_usual_ones(tmp_path):
    atomic_write(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        atomic_write(tmp_path / "nowhere" / "a", b"")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        atomic_write(tmp_path, b"")


def test_chinese_tables_are_read_and_western_ones_are_not_taken_for_them(tmp_path):
    path = tmp_path / "codes.csv"
    for text in ("受试者,表情\n1,高兴\n", "Subject,AU\n1,4；7\n2,12或14\n", "a,朱镕基\n"):
        path.write_bytes(text.encode("gb18030"))
        assert read_text(path) == (text, "gb18030")
    for text in ("Überschrift,café\n", "Müller,Größe\n", "naïve,Ærø\n", "señor,niño\n"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"codes.csv is not UTF-8 \(row 1\)"):
            read_text(path)
