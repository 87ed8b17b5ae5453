import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.errors import CheckpointError

from .helpers import FIELDS

HASH = "0" * 32
MADE = Manifest.model_validate(
    FIELDS
    | {
        "created": 1.5,
        "step": 7,
        "files": {"m.safetensors": {"bytes": 9, "xxh3": HASH}},
        "tensors": {
            "a": {
                "dtype": "F32",
                "shape": [1],
                "pieces": [
                    {
                        "file": "m.safetensors",
                        "start": [0],
                        "shape": [1],
                        "offset": 5,
                        "bytes": 4,
                        "xxh3": HASH,
                    }
                ],
            }
        },
    }
)


def seal(fields: dict[str, object]) -> bytes:
    """A manifest with a right hash around any content."""
    import xxhash

    body = json.dumps(fields).encode()[1:]
    return b'{"xxh3":"%s",\n%s' % (xxhash.xxh3_128_hexdigest(body).encode(), body)


def test_round_trip_is_exact_and_canonical(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST
    path.write_bytes(MADE.to_bytes())
    loaded = Manifest.load(path)
    assert loaded == MADE
    assert loaded.mask == 0.1 + 0.2
    assert loaded.to_bytes() == MADE.to_bytes()
    plain = json.loads(path.read_text())
    del plain["xxh3"]
    assert plain == MADE.model_dump()


def test_every_flipped_bit_and_every_cut_is_detected(tmp_path: Path) -> None:
    raw, path = MADE.to_bytes(), tmp_path / MANIFEST
    for position in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:position] + bytes([raw[position] ^ 1 << bit]) + raw[position + 1 :])
            with pytest.raises(CheckpointError, match="cannot be read"):
                Manifest.load(path)
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match="cannot be read"):
            Manifest.load(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 3}, "format version 3"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"step": -1}, "step"),
        ({"files": {"../../etc/passwd": {"bytes": 1, "xxh3": HASH}}}, "files"),
        ({"files": {"a/b": {"bytes": 1, "xxh3": HASH}}}, "files"),
        ({"files": {".hidden\0": {"bytes": 1, "xxh3": HASH}}}, "files"),
    ],
)
def test_a_sealed_manifest_with_wrong_content_is_refused(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    (tmp_path / MANIFEST).write_bytes(seal(MADE.model_dump() | change))
    with pytest.raises(CheckpointError) as raised:
        Manifest.load(tmp_path / MANIFEST)
    assert why in str(raised.value)


def test_deep_nesting_and_absence_are_clear(tmp_path: Path) -> None:
    import xxhash

    with pytest.raises(CheckpointError, match="missing"):
        Manifest.load(tmp_path / MANIFEST)
    body = b'"a":' + b"[" * 100_000
    (tmp_path / MANIFEST).write_bytes(b'{"xxh3":"%s",\n%s' % (xxhash.xxh3_128_hexdigest(body).encode(), body))
    with pytest.raises(CheckpointError, match="cannot be read"):
        Manifest.load(tmp_path / MANIFEST)


def test_nan_never_gets_in() -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(MADE.model_dump() | {"flops": float("nan")})
    with pytest.raises(ValueError, match=r"JSON compliant|finite"):
        Manifest.model_validate(MADE.model_dump() | {"guard": {"x": float("inf")}}).to_bytes()


def test_store_and_manifest_do_not_import_torch() -> None:
    modules = "growlm.checkpoint.store, growlm.checkpoint.lock, growlm.cli.ckpt"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
