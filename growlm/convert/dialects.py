"""The dialects. Adding one is adding a table here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from growlm.convert.config_keys import Json, count, refuse
from growlm.convert.dialect import Dialect, ForeignTensor
from growlm.convert.layouts import CONV1D, JOINED, OFFSET2, PER_HEAD
from growlm.convert.table import Row, Table
from growlm.errors import CheckpointError
from growlm.model.parameters import parameter_table
from growlm.recipe.families import FAMILIES
from growlm.recipe.shape import ModelConfig


def _affine(foreign: str, ours: str) -> list[Row]:
    """Weight and bias of one plain module."""
    return [(f"{foreign}.{kind}", (f"{ours}.{kind}",), None) for kind in ("weight", "bias")]


def _modules(names: Mapping[str, str]) -> list[Row]:
    """Weights and biases of plain modules, foreign name -> ours."""
    return [row for foreign, ours in names.items() for row in _affine(foreign, ours)]


_LLAMA_KEYS = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "vocab_size": "vocab_size",
    "max_positions": "max_position_embeddings",
    "tied": "tie_word_embeddings",
    "norm_eps": "rms_norm_eps",
    "init_std": "initializer_range",
}
_LLAMA_ROWS = _modules(
    {
        "model.embed_tokens": "embedding",
        "model.layers.{i}.input_layernorm": "blocks.{i}.attn_norm",
        "model.layers.{i}.self_attn.q_proj": "blocks.{i}.attn.q_proj",
        "model.layers.{i}.self_attn.k_proj": "blocks.{i}.attn.k_proj",
        "model.layers.{i}.self_attn.v_proj": "blocks.{i}.attn.v_proj",
        "model.layers.{i}.self_attn.q_norm": "blocks.{i}.attn.q_norm",
        "model.layers.{i}.self_attn.k_norm": "blocks.{i}.attn.k_norm",
        "model.layers.{i}.self_attn.o_proj": "blocks.{i}.attn.o_proj",
        "model.layers.{i}.post_attention_layernorm": "blocks.{i}.mlp_norm",
        "model.layers.{i}.mlp.gate_proj": "blocks.{i}.mlp.gate_proj",
        "model.layers.{i}.mlp.up_proj": "blocks.{i}.mlp.up_proj",
        "model.layers.{i}.mlp.down_proj": "blocks.{i}.mlp.down_proj",
        "model.norm": "norm",
        "lm_head": "lm_head",
    }
)
_SILU = {"hidden_act": ("silu", "swish")}
_NO_WINDOW = {"use_sliding_window": False, "sliding_window": None, "layer_types": None}

LLAMA = Table(
    name="llama",
    model_type="llama",
    family="llama",
    architecture="LlamaForCausalLM",
    keys=_LLAMA_KEYS,
    rows=_LLAMA_ROWS,
    fixed=_SILU | {"attention_bias": (False,), "mlp_bias": (False,)},
    whole_heads=True,
    eps=1e-6,
)
MISTRAL = Table(
    name="mistral",
    model_type="mistral",
    family="llama",
    architecture="MistralForCausalLM",
    keys=_LLAMA_KEYS,
    rows=_LLAMA_ROWS,
    fixed=_SILU,
    resets={"sliding_window": None},
    window=True,
    eps=1e-6,
)
QWEN2 = Table(
    name="qwen2",
    model_type="qwen2",
    family="qwen2",
    architecture="Qwen2ForCausalLM",
    keys=_LLAMA_KEYS,
    rows=_LLAMA_ROWS,
    fixed=_SILU,
    resets=_NO_WINDOW,
    window=False,
    eps=1e-6,
)
QWEN3 = Table(
    name="qwen3",
    model_type="qwen3",
    family="qwen3",
    architecture="Qwen3ForCausalLM",
    keys=_LLAMA_KEYS,
    rows=_LLAMA_ROWS,
    fixed=_SILU | {"attention_bias": (False,)},
    resets=_NO_WINDOW,
    window=False,
    eps=1e-6,
)
TELEFLM = Table(
    name="teleflm",
    model_type="TeleFLM",
    family="llama",
    architecture="TeleFLMForCausalLM",
    keys=_LLAMA_KEYS,
    rows=_LLAMA_ROWS,
    fixed=_SILU | {"attention_bias": (False,), "mlp_bias": (False,)},
    mup=True,
    native=False,
    eps=1e-6,
)

_GPT2_KEYS = {
    "d_model": "n_embd",
    "n_heads": "n_head",
    "d_ff": "n_inner",
    "n_layers": "n_layer",
    "vocab_size": "vocab_size",
    "max_positions": "n_positions",
    "tied": "tie_word_embeddings",
    "norm_eps": "layer_norm_epsilon",
    "init_std": "initializer_range",
}
_QKV = [f"blocks.{{i}}.attn.{p}_proj" for p in "qkv"]
_GPT2_ROWS: list[Row] = [
    ("transformer.wte.weight", ("embedding.weight",), None),
    ("transformer.wpe.weight", ("position.weight",), None),
    *_affine("transformer.h.{i}.ln_1", "blocks.{i}.attn_norm"),
    ("transformer.h.{i}.attn.c_attn.weight", [f"{p}.weight" for p in _QKV], CONV1D),
    ("transformer.h.{i}.attn.c_attn.bias", [f"{p}.bias" for p in _QKV], JOINED),
    ("transformer.h.{i}.attn.c_proj.weight", ("blocks.{i}.attn.o_proj.weight",), CONV1D),
    ("transformer.h.{i}.attn.c_proj.bias", ("blocks.{i}.attn.o_proj.bias",), None),
    *_affine("transformer.h.{i}.ln_2", "blocks.{i}.mlp_norm"),
    ("transformer.h.{i}.mlp.c_fc.weight", ("blocks.{i}.mlp.up_proj.weight",), CONV1D),
    ("transformer.h.{i}.mlp.c_fc.bias", ("blocks.{i}.mlp.up_proj.bias",), None),
    ("transformer.h.{i}.mlp.c_proj.weight", ("blocks.{i}.mlp.down_proj.weight",), CONV1D),
    ("transformer.h.{i}.mlp.c_proj.bias", ("blocks.{i}.mlp.down_proj.bias",), None),
    *_affine("transformer.ln_f", "norm"),
    ("lm_head.weight", ("lm_head.weight",), None),
]
_GELU_TANH = {"activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")}

GPT2 = Table(
    name="gpt2",
    model_type="gpt2",
    family="gpt2",
    architecture="GPT2LMHeadModel",
    keys=_GPT2_KEYS,
    rows=_GPT2_ROWS,
    fixed=_GELU_TANH
    | {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    rope=None,
    tied=True,
    prefix="transformer.",
    ignored=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
)
FLM = Table(
    name="flm",
    model_type="flm",
    family="flm",
    architecture="FLM",
    keys=_GPT2_KEYS,
    rows=_GPT2_ROWS,
    # the released code multiplies by the layer's index again what it divided by it: neutral, unlike GPT-2's
    fixed={"activation_function": ("gelu_fast", "gelu_new", "gelu_pytorch_tanh")}
    | {"relative_encoding": ("rotary",), "rotary_use_xpos": (True,), "scale_attn_weights": (True,)},
    rope=("rotary_theta", None, 1.0),
    mup=True,
    native=False,
    tied=True,
    prefix="transformer.",
    ignored=r"transformer\.(h\.\d+\.attn\.(masked_)?bias|wpe\.(inv_freq|scale))",
)
NEOX = Table(
    name="gpt_neox",
    model_type="gpt_neox",
    family="neox",
    architecture="GPTNeoXForCausalLM",
    keys={k: v for k, v in _LLAMA_KEYS.items() if k not in ("n_kv_heads", "head_dim")}
    | {"norm_eps": "layer_norm_eps"},
    rows=[
        ("gpt_neox.embed_in.weight", ("embedding.weight",), None),
        *_affine("gpt_neox.layers.{i}.input_layernorm", "blocks.{i}.attn_norm"),
        (
            "gpt_neox.layers.{i}.attention.query_key_value.weight",
            [f"{p}.weight" for p in _QKV],
            PER_HEAD,
        ),
        ("gpt_neox.layers.{i}.attention.query_key_value.bias", [f"{p}.bias" for p in _QKV], PER_HEAD),
        *_affine("gpt_neox.layers.{i}.attention.dense", "blocks.{i}.attn.o_proj"),
        *_affine("gpt_neox.layers.{i}.post_attention_layernorm", "blocks.{i}.mlp_norm"),
        *_affine("gpt_neox.layers.{i}.mlp.dense_h_to_4h", "blocks.{i}.mlp.up_proj"),
        *_affine("gpt_neox.layers.{i}.mlp.dense_4h_to_h", "blocks.{i}.mlp.down_proj"),
        *_affine("gpt_neox.final_layer_norm", "norm"),
        ("embed_out.weight", ("lm_head.weight",), None),
    ],
    fixed={"hidden_act": ("gelu",), "use_parallel_residual": (True,), "attention_bias": (True,)},
    rope=("rotary_emb_base", "rotary_pct", 0.25),
    prefix="gpt_neox.",
    ignored=r"(gpt_neox\.)?layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",
)
OPT = Table(
    name="opt",
    model_type="opt",
    family="opt",
    architecture="OPTForCausalLM",
    keys={k: v for k, v in _LLAMA_KEYS.items() if k not in ("n_kv_heads", "head_dim", "norm_eps")}
    | {"d_ff": "ffn_dim", "init_std": "init_std"},
    rows=[
        ("model.decoder.embed_tokens.weight", ("embedding.weight",), None),
        ("model.decoder.embed_positions.weight", ("position.weight",), OFFSET2),
        *_modules(
            {
                "model.decoder.layers.{i}.self_attn_layer_norm": "blocks.{i}.attn_norm",
                "model.decoder.layers.{i}.self_attn.q_proj": "blocks.{i}.attn.q_proj",
                "model.decoder.layers.{i}.self_attn.k_proj": "blocks.{i}.attn.k_proj",
                "model.decoder.layers.{i}.self_attn.v_proj": "blocks.{i}.attn.v_proj",
                "model.decoder.layers.{i}.self_attn.out_proj": "blocks.{i}.attn.o_proj",
                "model.decoder.layers.{i}.final_layer_norm": "blocks.{i}.mlp_norm",
                "model.decoder.layers.{i}.fc1": "blocks.{i}.mlp.up_proj",
                "model.decoder.layers.{i}.fc2": "blocks.{i}.mlp.down_proj",
                "model.decoder.final_layer_norm": "norm",
            }
        ),
        ("lm_head.weight", ("lm_head.weight",), None),
    ],
    repeats={"word_embed_proj_dim": "d_model"},
    fixed={
        "activation_function": ("relu",),
        "do_layer_norm_before": (True,),
        "_remove_final_layer_norm": (False,),
        "enable_bias": (True,),
        "layer_norm_elementwise_affine": (True,),
    },
    rope=None,
    tied=True,
    ignored=r"(model\.)?decoder\.version",
)


def _read_growlm(config: Json) -> ModelConfig:
    family = config.get("family")
    if family not in FAMILIES:
        raise refuse("family", f"{family!r} is none of {', '.join(sorted(FAMILIES))}")
    keys = {_RENAMED.get(f.name, f.name): f.name for f in fields(ModelConfig)}
    for name in _SIZES:
        count(config, name, least=0 if name == "n_layers" else 1)
    return ModelConfig(**{keys[key]: value for key, value in config.items() if key in keys})


def _write_growlm(config: ModelConfig) -> dict[str, Any]:
    stated = {_RENAMED.get(name, name): value for name, value in config.to_dict().items()}
    return {"architectures": ["GrowLMForCausalLM"], "model_type": "growlm", **stated}


def _growlm_tensors(config: ModelConfig) -> list[ForeignTensor]:
    return [ForeignTensor("decoder." + n, p.shape, (n,)) for n, p in parameter_table(config).items()]


_SIZES = ("d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "n_layers", "vocab_size")
_RENAMED = {"rope_scaling": "rope_smoothing"}  # transformers takes that name for something else
GROWLM = Dialect(
    name="growlm",
    model_type="growlm",
    family="",
    native=False,
    prefix="",
    ignored="",
    keys={name: name for name in _SIZES},
    read_config=_read_growlm,
    write_config=_write_growlm,
    tensors=_growlm_tensors,
)
"""GrowLM's own: every field and parameter under its name; `import growlm.hf` teaches it to transformers."""

DIALECTS: dict[str, Dialect] = {
    d.name: d
    for d in (
        *(t.dialect() for t in (LLAMA, MISTRAL, QWEN2, QWEN3, TELEFLM, GPT2, FLM, NEOX, OPT)),
        GROWLM,
    )
}


def dialect_of(config: Json) -> Dialect:
    """The dialect of a config.json, by its model_type; the code that `auto_map` names is never run.

    Raises CheckpointError for a model_type that is not in the tables.
    """
    model_type = config.get("model_type")
    if model_type == LLAMA.model_type and config.get("use_mup"):  # as engines need it (docs/serving.md)
        model_type = TELEFLM.model_type
    for dialect in DIALECTS.values():
        if isinstance(model_type, str) and model_type.lower() == dialect.model_type.lower():
            return dialect
    known = ", ".join(sorted(d.model_type for d in DIALECTS.values()))
    if "auto_map" in config:
        raise CheckpointError(
            f"model_type {model_type!r} brings code of its own",
            where="config.json: auto_map",
            why="code from a model folder is never run",
            fix=f"give a model of one of these types: {known}",
        )
    raise refuse("model_type", f"{model_type!r} is not known", f"known are {known}")


def native_dialect(family: str) -> Dialect | None:
    """The dialect in which plain transformers loads this family; None if it has no class for it."""
    tables = (LLAMA, QWEN2, QWEN3, GPT2, NEOX, OPT)
    return next((DIALECTS[t.name] for t in tables if t.family == family), None)
