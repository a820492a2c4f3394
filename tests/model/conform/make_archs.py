#!/usr/bin/env python3
"""make_archs.py - the architectures' part of this folder, made anew: python3 tests/model/conform/make_archs.py

Tiny random models of Hugging Face transformers, converted to GGUF by this script, and what transformers gives on exactly the stored weights
(models/NAME.TYPE.gguf, golden/NAME.TYPE.json and .npy, in the form that check.py reads), plus the rotary frequencies that
transformers' own initialisation gives for sets of scaling parameters (../../data/rope_scaling.txt). Needs torch, transformers, gguf, numpy.
"""
import hashlib, json
from pathlib import Path
import gguf, numpy as np, torch, transformers
from gguf import GGMLQuantizationType as T
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = Path(__file__).resolve().parent
PROMPTS, GREEDY = (1, 37, 150), 24
COMMON = dict(max_position_embeddings=256, rms_norm_eps=1e-5, attn_implementation="eager", bos_token_id=None, eos_token_id=None, pad_token_id=None)


def sizes(hidden, heads, kv, ff, vocab, layers, **more):
    return dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=ff, vocab_size=vocab,
                num_hidden_layers=layers, **COMMON, **more)


def rope(base, **scaling):
    return {"rope_theta": float(base), "rope_type": "default", **scaling}


# name, file type of the matrices, class, configuration
MODELS = [
    ("qwen2-tied-gqa3", "F32", Qwen2ForCausalLM, Qwen2Config(**sizes(60, 6, 2, 88, 307, 2, tie_word_embeddings=True, rope_parameters=rope(1e6)))),
    ("qwen2-untied-gqa3", "Q4_0", Qwen2ForCausalLM, Qwen2Config(**sizes(96, 3, 1, 160, 311, 3, tie_word_embeddings=False, rope_parameters=rope(1e4)))),
    ("qwen2-yarn", "Q8_0", Qwen2ForCausalLM, Qwen2Config(**sizes(96, 6, 2, 128, 304, 2, tie_word_embeddings=True, rope_parameters=rope(
        1e4, rope_type="yarn", factor=8.0, original_max_position_embeddings=32)))),
    ("llama-bias", "F16", LlamaForCausalLM, LlamaConfig(**sizes(60, 3, 1, 92, 309, 2, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
                                                               rope_parameters=rope(1e4)))),
    ("llama-linear", "Q8_0", LlamaForCausalLM, LlamaConfig(**sizes(96, 6, 2, 96, 310, 2, tie_word_embeddings=True, rope_parameters=rope(
        1e4, rope_type="linear", factor=4.0)))),
    ("llama-yarn", "F32", LlamaForCausalLM, LlamaConfig(**sizes(60, 6, 2, 64, 305, 2, tie_word_embeddings=True, rope_parameters=rope(
        5e5, rope_type="yarn", factor=4.0, original_max_position_embeddings=64, attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)))),
    ("llama-window", "Q8_0", MistralForCausalLM, MistralConfig(**sizes(96, 6, 2, 96, 308, 2, tie_word_embeddings=True, head_dim=16, sliding_window=24, rope_parameters=rope(1e4)))),
]

# transformers' names, per layer and not → GGUF's.
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in WHOLE: return f"{WHOLE[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{kind}"


def randomize(model, generator):
    """Activations keep their size, attention is sharp enough to depend on positions, biases and gains matter."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name: p.data = 1 + 0.2 * noise
        elif name.endswith("bias"): p.data = 0.5 * noise
        else: p.data = noise * (1.0 if "embed" in name else (2.0 if "q_proj" in name or "k_proj" in name else 1.0) / p.shape[1] ** 0.5)


def stored(data, kind):
    """The file's bytes of a tensor and the float32 values that they mean."""
    if data.ndim == 1 or kind == "F32": return data, data, T.F32
    if kind == "F16": return data.astype(np.float16), data.astype(np.float16).astype(np.float32), T.F16
    raw = gguf.quants.quantize(data, T[kind])
    return raw, gguf.quants.dequantize(raw, T[kind]).reshape(data.shape), T[kind]


def neighbours(data, heads):
    """Rows of Q or K as llama files have them: dimension i of a head beside i + head_dim / 2."""
    return data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def write_keys(w, c, arch):
    w.add_name("tiny random"); w.add_block_count(c.num_hidden_layers); w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size); w.add_feed_forward_length(c.intermediate_size); w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads); w.add_layer_norm_rms_eps(c.rms_norm_eps)
    if getattr(c, "sliding_window", None): w.add_sliding_window(c.sliding_window)
    r = c.rope_parameters
    w.add_rope_freq_base(r["rope_theta"])
    if arch == "llama": w.add_rope_dimension_count(c.hidden_size // c.num_attention_heads); w.add_vocab_size(c.vocab_size)
    if r["rope_type"] == "default": return
    w.add_rope_scaling_type(gguf.RopeScalingType(r["rope_type"])); w.add_rope_scaling_factor(r["factor"])
    if r["rope_type"] != "yarn": return
    w.add_rope_scaling_orig_ctx_len(r["original_max_position_embeddings"])
    # GGUF's factor comes on top of YaRN's own, transformers' replaces it.
    if r.get("attention_factor"): w.add_rope_scaling_attn_factors(r["attention_factor"] / (1 + 0.1 * np.log(r["factor"])))
    if r.get("beta_fast"): w.add_float32(f"{arch}.rope.scaling.yarn_beta_fast", r["beta_fast"])
    if r.get("beta_slow"): w.add_float32(f"{arch}.rope.scaling.yarn_beta_slow", r["beta_slow"])


def convert(model, path, kind):
    """Writes the GGUF file and puts the values that it holds into the model."""
    c, arch = model.config, "qwen2" if isinstance(model, Qwen2ForCausalLM) else "llama"
    w = gguf.GGUFWriter(path, arch)
    write_keys(w, c, arch)
    types = {}
    for name, p in model.named_parameters():
        data = p.data.numpy().astype(np.float32)
        raw, values, t = stored(data, kind)
        p.data = torch.from_numpy(values.copy())
        for proj, heads in (("q_proj", c.num_attention_heads), ("k_proj", c.num_key_value_heads)):
            if arch == "llama" and proj in name: raw = neighbours(raw, heads)
        w.add_tensor(gguf_name(name), raw, raw_dtype=t)
        types[t.name] = types.get(t.name, 0) + 1
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    return arch, types


@torch.no_grad()
def logits_of(model, ids): return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def margin(row):
    top = np.sort(row)[-2:]
    return round(float(top[1] - top[0]), 5)


def prompt_record(model, ids):
    rows = logits_of(model, ids)
    z = rows.astype(np.float64) - rows.max(-1, keepdims=True)
    z -= np.log(np.exp(z).sum(-1, keepdims=True))
    nll = [round(float(-z[t, ids[t + 1]]), 6) for t in range(len(ids) - 1)]
    greedy, margins, text = [], [], list(ids)
    while len(greedy) < GREEDY:
        row = logits_of(model, text)[-1]
        greedy.append(int(row.argmax())); margins.append(margin(row)); text.append(greedy[-1])
    top10 = [[int(i), float(rows[-1][i])] for i in np.argsort(-rows[-1])[:10]]
    return dict(ids=ids, top10=top10, nll=nll, mean_nll=float(np.mean(nll)) if nll else None, argmax=[int(r.argmax()) for r in rows],
                argmax_margin=[margin(r) for r in rows], logits_std=float(rows[-1].std()), greedy=greedy, greedy_margin=margins), rows[-1]


@torch.no_grad()
def check_sensitivity(model, ids, name):
    """What the model is here to test must show in its logits, far above the tolerance of any test."""
    before = logits_of(model, ids)
    for bias in [p for n, p in model.named_parameters() if n.endswith("bias")]:
        kept = bias.data.clone(); bias.data = torch.zeros_like(kept)
        change = np.abs(logits_of(model, ids) - before).max() / before[-1].std(); bias.data = kept
        # What a bias of K adds to q · k is the same for each key but for its rotation: the smallest effect of all.
        assert change > 0.05, (name, "a bias does not matter", change)
    if getattr(model.config, "sliding_window", None):
        window, model.config.sliding_window = model.config.sliding_window, None
        assert np.abs(logits_of(model, ids)[-1] - before[-1]).max() / before[-1].std() > 0.1, (name, "the window does not matter")
        model.config.sliding_window = window
    emb = model.model.rotary_emb
    if model.config.rope_parameters["rope_type"] == "default": return
    dim = model.config.hidden_size // model.config.num_attention_heads
    plain = 1.0 / model.config.rope_parameters["rope_theta"] ** (torch.arange(0, dim, 2).float() / dim)
    scaled, factor = emb.inv_freq.clone(), emb.attention_scaling
    emb.inv_freq = plain
    assert np.abs(logits_of(model, ids)[-1] - before[-1]).max() / before[-1].std() > 0.1, (name, "the scaling does not matter")
    emb.inv_freq, emb.attention_scaling = scaled, 1.0
    if factor != 1.0: assert np.abs(logits_of(model, ids)[-1] - before[-1]).max() / before[-1].std() > 0.05, (name, "the attention factor does not matter")
    emb.attention_scaling = factor


def make_model(name, kind, cls, config, seed):
    model = cls(config).eval()
    generator = torch.Generator().manual_seed(seed)
    randomize(model, generator)
    path = HERE / f"models/{name}.{kind}.gguf"
    arch, types = convert(model, path, kind)
    model.tie_weights()
    prompts = [torch.randint(0, config.vocab_size, (n,), generator=generator).tolist() for n in PROMPTS]
    check_sensitivity(model, prompts[-1], name)
    records, last = zip(*(prompt_record(model, ids) for ids in prompts))
    np.save(HERE / f"golden/{name}.{kind}.npy", np.stack(last).astype("<f4"))
    golden = dict(name=name, quant=kind, arch=arch, hf_class=cls.__name__, gguf=f"models/{name}.{kind}.gguf", sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                  n_vocab=config.vocab_size, tensor_types=types, last_logits=f"golden/{name}.{kind}.npy", transformers=transformers.__version__,
                  torch=torch.__version__.split("+")[0], prompts=list(records))
    (HERE / f"golden/{name}.{kind}.json").write_text(json.dumps(golden, separators=(",", ":")))
    print(f"{name}.{kind}: {path.stat().st_size} bytes, logits' deviation {[round(r['logits_std'], 2) for r in records]}")


# rope_type, dim, base, trained context, parameters
SCALINGS = [
    ("linear", 64, 1e4, 2048, dict(factor=4.0)), ("linear", 10, 5e5, 64, dict(factor=2.5)),
    ("yarn", 128, 1e6, 32768, dict(factor=4.0)), ("yarn", 64, 1e4, 4096, dict(factor=16.0)), ("yarn", 80, 1e4, 2048, dict(factor=1.5)),
    ("yarn", 20, 5e5, 64, dict(factor=4.0, attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)), ("yarn", 128, 1e4, 8192, dict(factor=64.0, attention_factor=1.0)),
    ("yarn", 96, 1.5e5, 4096, dict(factor=32.0, beta_fast=8.0, beta_slow=1.5)), ("yarn", 2, 1e4, 128, dict(factor=2.0)),
    # Boundaries below the first pair and past the last.
    ("yarn", 64, 1e4, 100, dict(factor=8.0)), ("yarn", 16, 100.0, 65536, dict(factor=8.0)),
]


def make_scalings(path):
    lines = ["# What transformers' rope initialisation gives. A case: type, dimensions, base, context, factor, attention factor (0: none given), beta fast,",
             "# beta slow; then the factor on cos and sin; then the frequency of each pair. Made by tests/model/conform/make_archs.py."]
    for kind, dim, base, context, parameters in SCALINGS:
        extra = {} if kind == "linear" else dict(original_max_position_embeddings=context)
        config = LlamaConfig(hidden_size=dim, num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=context,
                             rope_parameters=rope(base, rope_type=kind, **parameters, **extra))
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
        p = parameters
        lines.append(" ".join(map(str, (kind, dim, base, context, p["factor"], p.get("attention_factor", 0), p.get("beta_fast", 32.0), p.get("beta_slow", 1.0)))))
        lines.append(repr(float(factor)))
        lines.append(" ".join(f"{v:.9g}" for v in frequencies.tolist()))
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    for i, model in enumerate(MODELS): make_model(*model, seed=100 + i)
    make_scalings(HERE / "../../data/rope_scaling.txt")
