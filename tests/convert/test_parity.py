"""Every native dialect computes what transformers' own class computes, in both directions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.convert.foreign import CASES, Case, decoder_of, in_fp64, tokens


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_logits_are_those_of_transformers(case: Case, tmp_path: Path) -> None:
    theirs = case.build()
    theirs.save_pretrained(tmp_path)
    x = tokens()
    with torch.no_grad():
        for dtype, bound in ((torch.float32, 1e-4), (torch.float64, 1e-8)):
            ours = decoder_of(tmp_path, dtype).logits(x)
            model = in_fp64(theirs) if dtype == torch.float64 else theirs
            expected = model(x).logits
            assert expected.dtype == dtype
            assert expected.std() > 0.5
            assert (ours - expected).abs().max() < bound
