import errno
import os
from pathlib import Path

import pytest
import xxhash

from growlm.checkpoint import disk
from growlm.errors import DiskError


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    for text in (b"one", b"", b"three"):
        disk.write_atomic(tmp_path / "f", text)
        assert (tmp_path / "f").read_bytes() == text
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    disk.write_atomic(tmp_path / "f", b"old")

    def fail(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "fsync_fd", fail)
    with pytest.raises(DiskError) as raised:
        disk.write_atomic(tmp_path / "f", b"new" * 1000)
    assert raised.value.exit_code == 76
    assert os.strerror(number) in raised.value.why
    assert raised.value.fix
    assert ("2.9 KiB needed" in raised.value.why) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:7]))
    disk.write_durable(tmp_path / "f", bytes(range(100)))
    assert (tmp_path / "f").read_bytes() == bytes(range(100))


def test_hash_file_is_xxh3_128_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "CHUNK", 1000)
    for size in (0, 1, 999, 1000, 1001, 5000):
        (tmp_path / "f").write_bytes(os.urandom(size))
        assert disk.hash_file(tmp_path / "f") == xxhash.xxh3_128_hexdigest((tmp_path / "f").read_bytes())


def test_make_dirs_and_free_bytes_of_a_folder_to_come(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    assert disk.free_bytes(folder) > 0
    disk.make_dirs(folder)
    disk.make_dirs(folder)
    assert folder.is_dir()


def test_sizes_read_well() -> None:
    assert [disk.human_bytes(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30, 1 << 50)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "1024.0 TiB",
    ]
