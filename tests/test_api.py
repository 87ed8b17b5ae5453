"""`growlm.grow` on everything that it takes, against the command's own growth and the models' logits."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch

import growlm
from growlm.errors import CheckpointError, GrowthError, RecipeError
from growlm.growth.operators import plan_growth
from growlm.model.decoder import Decoder
from growlm.recipe.sizes import growth_table
from tests.convert.foreign import CASES, Case, tokens
from tests.growth.tools import grown as grown_state
from tests.model.tiny import batch, config, decoder, trained

WIDER = "width=2x,depth=2x"


def test_a_decoder_grows_as_a_checkpoint_does() -> None:
    c = config()
    old = decoder(c)
    new, certificate = growlm.grow(old, WIDER, seed=4)
    table = growth_table({"operator": "clone", "depth": "zero_block"})
    growth = plan_growth(c, new.config, table, seed=4)
    assert new.config == growth.new
    assert (new.config.d_model, new.config.n_layers) == (32, 4)
    assert (certificate["exact"], certificate["kind"]) == (True, "full")
    state = new.state_dict()
    assert all(torch.equal(state[n], t) for n, t in grown_state(growth, trained(c)).items())
    assert all(torch.equal(t, trained(c)[n]) for n, t in old.state_dict().items())
    assert all(p.requires_grad for p in new.parameters())


def test_a_masked_decoder_starts_behind_its_mask_and_does_not_grow_again() -> None:
    old, (x, _) = decoder(config()), batch(config())
    new, _ = growlm.grow(old, {"d_model": 21}, operator="masked")
    with torch.no_grad():
        assert (new.logits(x) - old.logits(x)).abs().max() < 1e-10
    with pytest.raises(GrowthError, match="inside a mask ramp"):
        growlm.grow(new, "depth=2x")
    new.set_mask(None, 1.0)
    growlm.grow(new, "depth=2x")


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_a_transformers_model_stays_of_its_class(case: Case) -> None:
    old = case.build()
    x = tokens()
    to = {"width": "2x", "depth": "2x"} if case.cls != "OPT" else {"n_layers": 6, "d_ff": 96}
    new, certificate = growlm.grow(old, to, tokens=x)
    assert type(new) is type(old)
    assert not new.training
    assert new.config.num_hidden_layers == 6
    assert certificate["exact"]
    with torch.no_grad():
        moved = (new(x).logits - old(x).logits).abs().max().item()
    assert moved == certificate["transformers"]["max_dlogit"]
    assert moved < 1e-4


def test_a_grown_transformers_model_generates_the_same_tokens() -> None:
    old = CASES[1].build()
    new, _ = growlm.grow(old, WIDER)
    prompt = tokens(shape=(1, 5))
    models: list[Any] = [old, new]
    texts = [m.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0) for m in models]
    assert torch.equal(*texts)


def test_bf16_stays_bf16_and_training_stays_training() -> None:
    old = CASES[0].build().bfloat16().train()
    new, _ = growlm.grow(old, "width=2x")
    assert new.dtype == torch.bfloat16
    assert new.training


def test_a_folder_gives_a_decoder(tmp_path: Path) -> None:
    theirs = CASES[3].build()
    theirs.save_pretrained(tmp_path)
    x = tokens()
    for path in (tmp_path, str(tmp_path)):
        new, _ = growlm.grow(path, WIDER, tokens=x)
        assert isinstance(new, Decoder)
        with torch.no_grad():
            assert (new.logits(x) - theirs(x).logits).abs().max() < 1e-4


def test_a_config_is_a_size() -> None:
    c = config()
    new, _ = growlm.grow(decoder(c), c.with_(d_ff=40))
    assert new.config == c.with_(d_ff=40)


def test_depth_by_distance_and_learned_growth_need_no_more_than_tokens() -> None:
    c = config()
    new, certificate = growlm.grow(decoder(c), {"n_layers": 3}, depth="distance")
    assert new.config.n_layers == 3
    assert not certificate["exact"]
    new, _ = growlm.grow(
        decoder(c), WIDER, operator="ligo", depth="stack", batches=repeat(batch(c)), learn_steps=2
    )
    assert new.config.d_model == 32


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"to": "width=3"}, GrowthError, "smaller than"),
        ({"to": "weight=2x"}, RecipeError, "not a size"),
        ({"operator": "magic"}, RecipeError, "magic"),
        ({"nose": 0.1}, RecipeError, "nose"),
        ({"operator": "ligo", "depth": "stack"}, GrowthError, "nothing to learn from"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        growlm.grow(decoder(config()), **({"to": WIDER} | settings))


def test_models_that_cannot_be_grown_are_refused() -> None:
    with pytest.raises(RecipeError, match="a Linear cannot be grown"):
        growlm.grow(torch.nn.Linear(2, 2), WIDER)
    headless: Any = CASES[0].build()
    with pytest.raises(CheckpointError, match="LlamaModel is not a whole language model"):
        growlm.grow(headless.model, WIDER)
    with pytest.raises(GrowthError, match="behind a mask"):
        growlm.grow(CASES[0].build(), WIDER, operator="masked")


def test_the_example_in_the_docs_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.0\n")


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, growlm; assert not {'torch', 'transformers'} & set(sys.modules); print(growlm.grow)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "function grow" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'shrink'"):
        growlm.shrink  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
