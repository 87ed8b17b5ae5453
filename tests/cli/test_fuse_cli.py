import json
from pathlib import Path

from tests.cli.run_cli import growlm
from tests.convert.foreign import CASES


def test_fuse_says_how_the_fused_model_compares_with_its_parents(tmp_path: Path) -> None:
    CASES[0].build().save_pretrained(tmp_path / "a")
    CASES[0].build().save_pretrained(tmp_path / "b")
    call = ("grow", tmp_path / "a", "--fuse", tmp_path / "b", "--fuse", tmp_path / "b")
    done = growlm(*call, "--dry-run", "--json")
    assert (done.code, json.loads(done.out)["growths"][0]["to"]["d_model"]) == (0, 96)
    done = growlm(*call, "--out", tmp_path / "c")
    assert done.code == 0
    assert "fusion (not exact by design): loss" in done.out
    assert "growth of the fused model: max |dlogit|" in done.out
    assert (tmp_path / "c" / "model.safetensors").is_file()
    done = growlm("grow", tmp_path / "a", "--out", tmp_path / "d")
    assert (done.code, "what to grow to" in done.err) == (2, True)
