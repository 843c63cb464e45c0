"""Writing destroys nothing that it does not name: links, pipes and devices stay what they are."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from secateur.errors import EnvironmentFailure, UsageError
from secateur.shell import saving


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    real = tmp_path / "far" / "real.sct"
    real.parent.mkdir()
    real.write_bytes(b"old")
    link, second, dangling = (tmp_path / n for n in ("link.sct", "second.sct", "dangling.sct"))
    link.symlink_to("far/real.sct")
    second.symlink_to(link)
    dangling.symlink_to("far/new.sct")
    for path, data in ((link, b"one"), (second, b"two"), (dangling, b"three")):
        saving.write_bytes(path, data)
        assert path.is_symlink()
        assert path.read_bytes() == data
    assert real.read_bytes() == b"two"
    assert sorted(p.name for p in real.parent.iterdir()) == ["new.sct", "real.sct"]


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("no/such/folder")
    for name in "ac":
        with pytest.raises(EnvironmentFailure, match=f"{tmp_path / name}: cannot be written"):
            saving.write_bytes(tmp_path / name, b"x")


def test_permissions_stay_and_a_protected_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o640)
    saving.write_bytes(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o440)
    monkeypatch.setattr(os, "access", lambda p, mode: bool(os.stat(p).st_mode & 0o200))  # root may write everything
    with pytest.raises(EnvironmentFailure, match="write-protected"):
        saving.write_bytes(path, b"newer")
    assert path.read_bytes() == b"new"


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is a pipe that nobody reads"):
        saving.write_bytes(pipe, b"x")
    data = os.urandom(300_000)  # more than a pipe holds
    got: list[bytes] = []
    ready = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # a reader before the writer comes
    os.set_blocking(ready, True)

    def read() -> None:
        with os.fdopen(ready, "rb") as f:
            while sum(map(len, got)) < len(data):
                got.append(f.read(1 << 16))
                time.sleep(0 if got[-1] else 0.001)  # nobody writes yet

    reader = threading.Thread(target=read)
    reader.start()
    saving.write_bytes(pipe, data)
    reader.join()
    assert b"".join(got) == data
    assert pipe.is_fifo()


def test_devices_folders_and_sockets_stay(tmp_path: Path) -> None:
    ours, theirs = os.openpty()  # a device that even root cannot replace: nothing is lost where this test fails
    saving.write_bytes(Path(os.ttyname(theirs)), b"shown")
    assert os.read(ours, 5) == b"shown"
    assert Path(os.ttyname(theirs)).is_char_device()
    os.close(ours)
    os.close(theirs)
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
        for name in ("folder", "socket"):
            with pytest.raises(UsageError, match=f"is a {name}; give the name of a file"):
                saving.write_bytes(tmp_path / name, b"x")
    assert (tmp_path / "socket").is_socket()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "socket"]


def test_what_another_program_holds_open_for_us_is_written_in_place(tmp_path: Path) -> None:
    with open(tmp_path / "redirected", "wb+") as f:
        saving.write_bytes(Path(f"/dev/fd/{f.fileno()}"), b"through the open file")
        assert f.read() == b"through the open file"
    assert [p.name for p in tmp_path.iterdir()] == ["redirected"]


def test_long_names_and_other_peoples_files_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    mine = tmp_path / f".{path.name[:200]}.tmp"
    mine.write_bytes(b"mine")
    saving.write_bytes(path, b"x")
    assert mine.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_run_leaves_no_folder_and_a_killed_one_no_half_file(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with pytest.raises(KeyError), saving.locked(folder):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    stale, other = folder / "checkpoint" / f"{saving.TEMPORARY}12-ab.tmp", folder / "x.tmp"
    stale.parent.mkdir(parents=True)
    for path in (stale, other):
        path.write_bytes(b"half")
    with saving.locked(folder):
        assert not stale.exists()
    assert other.exists()
