"""Which column of a table of losses is what: by its name, by its unit, or by the user's mapping. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from growlm.errors import DataError

MEANINGS = {
    "n": "parameters, best without embeddings",
    "n_total": "parameters with embeddings",
    "d": "training tokens",
    "c": "training FLOPs",
    "tpp": "tokens per parameter",
    "loss": "loss in nats per token",
    "width": "d_model",
    "depth": "layers",
    "step": "optimizer steps",
    "lr": "learning rate",
    "lr_end": "learning rate of the last step",
    "lr_peak": "highest learning rate",
    "run": "name of the run or schedule",
}

# In order of preference; compared after `_plain`.
_NAMES = {
    "n": "n_nonembedding n_non_embedding non_embedding_params non_embedding_parameters "
    "nonembedding_params params_non_embedding params_nonemb non_emb_params params_active "
    "params_active_precise active_params active_parameters n params parameters model_size n_params "
    "n_parameters num_params num_parameters parameter_count param_count size model_params",
    "n_total": "n_total total_params total_parameters params_total params_with_embeddings",
    "d": "d tokens training_tokens train_tokens n_tokens num_tokens tokens_seen total_tokens dataset_size "
    "data data_size tokens_trained token_count dataset_tokens",
    "c": "c flops training_flop training_flops train_flops flop compute total_flops total_flop train_flop "
    "training_compute",
    "tpp": "tpp tokens_per_param tokens_per_parameter d_over_n d_n token_multiplier",
    "loss": "valid_loss validation_loss val_loss eval_loss test_loss final_valid_loss final_val_loss "
    "final_loss loss c4_loss lm_loss nll cross_entropy ce_loss ce train_loss training_loss final_train_loss "
    "smooth_loss l",
    "width": "width d_model hidden_size n_embd hidden_dim d_hidden model_dim",
    "depth": "depth n_layers layers num_layers n_layer num_hidden_layers",
    "step": "step steps iteration iterations iter iters train_steps training_steps n_steps _step",
    "lr": "lr learning_rate lrs eta learning_rates",
    "lr_end": "lr_end final_lr last_lr end_lr lr_final lr_last",
    "lr_peak": "lr_peak peak_lr max_lr lr_max",
    "run": "run run_name run_id name schedule curve model model_name experiment group",
}
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "bn": 1e9, "t": 1e12}
_UNITS |= {"millions": 1e6, "million": 1e6, "billions": 1e9, "billion": 1e9, "trillion": 1e12}
_NAMES_KNOWN = {name for names in _NAMES.values() for name in names.split()}
_CASED = {"N": "n", "D": "d", "C": "c", "L": "loss"}


def match_columns(headers: Sequence[str], given: dict[str, str]) -> dict[str, tuple[str, float]]:
    """From a meaning ("n", "d", "loss"...) to (header, factor by which its numbers count).

    `given` maps meanings to headers and comes first. A unit at the end of a header is the factor:
    `params_M`, `Tokens (B)`. Raises DataError for an unknown meaning or a header that is not there.
    """
    found: dict[str, tuple[str, float]] = {}
    for meaning, header in given.items():
        if meaning not in MEANINGS or header not in headers:
            what = f"there is no column {header!r}" if meaning in MEANINGS else f"{meaning!r} is no meaning"
            raise DataError(
                what,
                where=f"--columns {meaning}={header}",
                why=f"columns: {', '.join(headers)}; meanings: {', '.join(MEANINGS)}",
            )
        found[meaning] = (header, _split_unit(header)[1])
    free = [h for h in headers if h not in given.values()]
    for meaning, names in _NAMES.items():
        if meaning not in found and (header := _first(free, meaning, names.split())) is not None:
            found[meaning] = (header, 1.0 if header in _CASED else _split_unit(header)[1])
            free.remove(header)
    if "n" not in found and "n_total" in found:
        found["n"] = found["n_total"]
    return found


def _first(headers: Sequence[str], meaning: str, names: Sequence[str]) -> str | None:
    """The header of this meaning with the preferred name; None without one."""
    letter = next((h for h in headers if _CASED.get(h) == meaning), None)
    if letter and meaning != "loss":  # L is also a number of layers
        return letter
    ranks = {}
    for header in headers:
        if header in _CASED:
            continue
        plain = _plain(header)
        for name in (plain, _split_unit(header)[0]):
            if name in names:
                ranks[header] = min(names.index(name), ranks.get(header, len(names)))
    return min(ranks, key=lambda h: ranks[h]) if ranks else letter


def _plain(header: str) -> str:
    """A header in lower case with one underscore between its words."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1_\2", header.strip())
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _split_unit(header: str) -> tuple[str, float]:
    """`params_M` -> ("params", 1e6); a header without a unit keeps its name and counts once."""
    plain = _plain(header)
    head, _, unit = plain.rpartition("_")
    if head and unit in _UNITS and plain not in _NAMES_KNOWN:
        return head.removesuffix("_in"), _UNITS[unit]
    return plain, 1.0


def number(text: str) -> float:
    """A number as people write it: 1.3e9, 125M, 1.5B, 2_000, 1,000. Raises ValueError."""
    plain = text.strip().replace("_", "").replace(",", "")
    if plain[-1:].lower() in ("k", "m", "b", "g", "t") and plain[:-1]:
        return float(plain[:-1]) * _UNITS[plain[-1].lower()]
    return float(plain)
