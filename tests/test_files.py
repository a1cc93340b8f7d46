import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mertools import _files
from mertools._files import append_line, atomic_folder, atomic_write, json_object, lock, read_bytes, read_text, reading

posix = pytest.mark.skipif(os.name == "nt", reason="links, permissions and forks are POSIX's")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- files and folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["os.fsync", "os.chmod", "os.open", "pathlib.Path.replace"])
def test_whole_or_not_at_all(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    atomic_write(path, b"first")
    monkeypatch.setattr(call, refuse)
    with pytest.raises(OSError, match="No space left on device: .*a.txt'") as caught:
        atomic_write(path, b"second")
    assert caught.value.filename == str(path)  # not the temporary one
    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["a.txt"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a.txt", b"x")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "folder") as folder:
        atomic_write(folder / "a.txt", b"x")
    assert names_in(tmp_path) == []


def test_a_disk_that_can_not_sync_a_folder_has_the_file(tmp_path, monkeypatch):
    real = os.fsync
    monkeypatch.setattr("os.fsync", lambda handle: refuse() if stat.S_ISDIR(os.fstat(handle).st_mode) else real(handle))
    atomic_write(tmp_path / "a.txt", b"x")
    assert (tmp_path / "a.txt").read_bytes() == b"x"


@posix
def test_a_killed_writer_leaves_the_old_file_and_stops_no_other(tmp_path):
    import faults

    path = tmp_path / "a.txt"
    atomic_write(path, b"old")

    def killed():
        _files.os.fsync = lambda _: faults.kill()
        atomic_write(path, b"new" * 9999)

    assert faults.trial(killed).how == "killed 9"
    assert path.read_bytes() == b"old"
    (half,) = (name for name in names_in(tmp_path) if name != "a.txt")
    assert half.startswith(".a.txt-")
    assert half.endswith(".part")
    atomic_write(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert names_in(tmp_path) == [half, "a.txt"]


@posix
def test_permissions_are_the_umask_s_or_those_of_the_file_before(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", b"")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        (tmp_path / "a").chmod(0o606)
        atomic_write(tmp_path / "a", b"")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        assert os.umask(before) == 0o027  # nobody changed it on the way
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o606
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


@posix
def test_links_are_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "there" / "b")
    for text in (b"new", b"newer"):  # the link leads nowhere at first
        atomic_write(tmp_path / "a", text)
        assert (tmp_path / "a").is_symlink()
        assert (tmp_path / "there" / "b").read_bytes() == text
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(OSError, match=r"(?i)symbolic link|too many levels"):
        atomic_write(tmp_path / "circle", b"")


@posix
def test_where_nothing_can_be_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "nowhere" / "a", "there is no folder"), (tmp_path, "is a folder"),
        (tmp_path / "pipe", "device or a pipe"), (Path(os.devnull), "device or a pipe"),
    ):  # fmt: skip
        with pytest.raises(OSError, match=message):
            atomic_write(path, b"")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)  # or every program of the machine would write to a file
    assert names_in(tmp_path) == ["pipe"]


def test_a_name_as_long_as_the_disk_takes(tmp_path):
    path = tmp_path / ("ü" * 125 + ".txt")  # 254 bytes: a temporary name must not be longer than that
    atomic_write(path, b"x")
    assert path.read_bytes() == b"x"


@posix
def test_many_writers_of_one_file_and_a_reader(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write(path, b"0" * 70000)
    workers = []
    for which in (b"1", b"2", b"3"):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                for _ in range(25):
                    atomic_write(path, which * 70000)
                code = 0
            finally:
                os._exit(code)
        workers.append(pid)
    while workers:
        data = path.read_bytes()
        assert len(data) == 70000
        assert len(set(data)) == 1
        pid, status = os.waitpid(workers[0], os.WNOHANG)
        if pid:
            assert status == 0
            workers.pop(0)
    assert names_in(tmp_path) == ["a.txt"]


def test_a_folder_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder"
    with atomic_folder(path) as building:
        (building / "a").write_text("1")
        assert not path.exists()
    assert names_in(path) == ["a"]
    with pytest.raises(OSError, match=r"(?i)not empty|exist"), atomic_folder(path) as building:
        (building / "b").write_text("2")
    assert names_in(path) == ["a"]
    assert names_in(path.parent) == ["folder"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as building:
        (building / "a").write_text("1")
    assert names_in(tmp_path / "empty") == ["a"]


@posix
@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_line_is_added_whole_or_not_at_all(tmp_path, size):
    """The disk takes ``size`` bytes of a line of eight and is full."""
    import faults

    path = tmp_path / "log"
    path.write_text("one\n")

    def add():
        with path.open("ab", buffering=0) as file:
            append_line(file, "1234567")

    assert faults.trial(add, before=lambda: faults.no_larger_than(4 + size)).how == f"OSError {errno.EFBIG}"
    assert path.read_text() == "one\n"
    add()
    assert path.read_text() == "one\n1234567\n"


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_within_one_process(tmp_path):
    path = tmp_path / "work" / ".lock"
    held = lock(path)
    with pytest.raises(RuntimeError, match="work is in use by another process: two runs on the same output would mix"):
        lock(path)
    held.release()
    held.release()
    lock(path).release()
    assert path.read_bytes() == b""


def test_a_shared_lock_is_given_back_by_the_last(tmp_path):
    path = tmp_path / ".lock"
    first, second = lock(path, shared=True), lock(path, shared=True)
    first.release()
    with pytest.raises(RuntimeError, match="in use"):
        lock(path)
    second.release()
    lock(path).release()


def test_a_lock_goes_with_its_process_however_that_ends(tmp_path):
    code = "import sys; from pathlib import Path; from mertools._files import lock\n"
    code += "held = lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            for shared in (False, True):
                with pytest.raises(RuntimeError, match="in use by another process"):
                    lock(tmp_path / "lock", shared=shared)
        finally:
            other.kill()
    os.utime(tmp_path / "lock", (4e9, 4e9))  # however young it looks: nobody holds it
    lock(tmp_path / "lock").release()


# --- reading ----------------------------------------------------------------------------------------------------------


def test_an_error_while_reading_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"Input/output error: 'a.txt'"), reading("a.txt"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(FileNotFoundError, match="missing"), reading("a.txt"):
        (tmp_path / "missing").read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_of_these_encodings_are_read(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("clip,é,表情\n".encode(encoding))
    assert read_text(tmp_path / "a.csv") == ("clip,é,表情\n", encoding)


def test_other_encodings_and_large_files_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes("one\ncafé\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.csv is not UTF-8 \(row 2\): save the table as UTF-8"):
        read_text(tmp_path / "a.csv")
    monkeypatch.setattr(_files, "MAX_BYTES", 8)
    with pytest.raises(ValueError, match="has 9 bytes, a table of at most 8 is read"):
        read_bytes(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b"{", b"\xff", b"\0\0", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"]
)
def test_what_is_no_json_object(data):
    with pytest.raises(ValueError, match=r"^a.json (can't be read as JSON|must hold a JSON object, it holds)"):
        json_object(data, "a.json")


def test_chinese_tables_are_read_and_western_ones_are_not_taken_for_them(tmp_path):
    path = tmp_path / "codes.csv"
    for text in ("受试者,表情\n1,高兴\n", "Subject,AU\n1,4；7\n2,12或14\n", "a,朱镕基\n"):
        path.write_bytes(text.encode("gb18030"))
        assert read_text(path) == (text, "gb18030")
    for text in ("Überschrift,café\n", "Müller,Größe\n", "naïve,Ærø\n", "señor,niño\n"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"codes.csv is not UTF-8 \(row 1\)"):
            read_text(path)
