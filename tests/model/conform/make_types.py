#!/usr/bin/env python3
"""Makes tiny random Llama models of the weight types below and what Hugging Face transformers gives on their dequantized weights:
models/NAME.TYPE.gguf, golden/NAME.TYPE.json, golden/NAME.TYPE.npy (needs numpy, torch, transformers and gguf, all from PyPI).

    python3 make_types.py  and then        python3 check.py --only 'llama-(small|wide|mixed|fallback)' …

PyPI's gguf quantizes Q5_0, Q5_1, Q8_0 and BF16; the others it only reads, so their raw blocks are made here: random quants, of K types random
sub-scales and minima that bring the mean near zero.
"""
import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

HERE = Path(__file__).resolve().parent
VOCAB = 320
TYPE = gguf.GGMLQuantizationType

SMALL = dict(dim=64, hidden=96, layers=2, heads=4, kv_heads=2, head_dim=32, tied=False)
WIDE = dict(dim=256, hidden=256, layers=1, heads=4, kv_heads=1, head_dim=64, tied=True)      # every width a multiple of a K type's block
NARROW = dict(dim=256, hidden=96, layers=2, heads=4, kv_heads=1, head_dim=64, tied=True)     # ffn_down's is not
# As files called Q4_K_M mix them: some tensors in Q6_K; a type of smaller blocks where the width asks for it.
MODELS = [
    ("llama-small", "Q5_0", SMALL, {}, "F32"),
    ("llama-small", "Q5_1", SMALL, {}, "F32"),
    ("llama-small", "IQ4_NL", SMALL, {}, "F16"),
    ("llama-small", "BF16", SMALL, {}, "BF16"),
    ("llama-wide", "Q4_K", WIDE, {}, "F32"),
    ("llama-wide", "Q5_K", WIDE, {}, "F32"),
    ("llama-wide", "Q6_K", WIDE, {}, "F32"),
    ("llama-mixed", "Q4_K", WIDE, {"token_embd": "Q6_K", "attn_v": "Q6_K", "ffn_down": "Q6_K"}, "F32"),
    ("llama-fallback", "Q4_K", NARROW, {"token_embd": "Q6_K", "blk.0.attn_v": "Q6_K", "blk.0.ffn_down": "Q8_0", "blk.1.ffn_down": "Q5_0"}, "F32"),
]


def halves(values):
    return np.asarray(values, np.float16).reshape(-1, 1).view(np.uint8)


def sub_scales(scales, minima):
    """12 bytes of eight 6-bit scales and minima: the first four whole, the upper bits of the other four in their top two bits."""
    s, m = scales.astype(np.uint8), minima.astype(np.uint8)
    first = s[:, :4] | (s[:, 4:] >> 4) << 6
    second = m[:, :4] | (m[:, 4:] >> 4) << 6
    return np.concatenate([first, second, (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4], axis=1)


def k_blocks(kind, count, sigma, random):
    """Raw blocks of 256 values with standard deviation about sigma."""
    bits = lambda size: random.integers(0, 256, (count, size), np.uint8)
    if kind == TYPE.Q6_K:
        scales = random.integers(40, 128, (count, 16)) * random.choice([-1, 1], (count, 16))
        return np.concatenate([bits(128), bits(64), scales.astype(np.int8).view(np.uint8), halves(np.full(count, sigma / (84 * 18.5)))], axis=1)
    middle, spread = (7.5, 4.6) if kind == TYPE.Q4_K else (15.5, 9.2)
    scales = random.integers(8, 64, (count, 8))
    minima = np.clip(scales + random.integers(-3, 4, (count, 8)), 0, 63)
    d = sigma / (36 * spread) * random.uniform(0.8, 1.2, count)
    head = np.concatenate([halves(d), halves(d * middle), sub_scales(scales, minima)], axis=1)
    return np.concatenate([head, bits(128) if kind == TYPE.Q4_K else bits(32 + 128)], axis=1)


def random_tensor(kind, rows, columns, sigma, random):
    """Raw bytes [rows, …] as the file has them, and the float32 values [rows, columns] that they mean."""
    if kind in (TYPE.Q4_K, TYPE.Q5_K, TYPE.Q6_K):
        raw = k_blocks(kind, rows * columns // 256, sigma, random).reshape(rows, -1)
    elif kind == TYPE.IQ4_NL:
        raw = np.concatenate([halves(random.normal(0, sigma / 70, rows * columns // 32)), random.integers(0, 256, (rows * columns // 32, 16), np.uint8)], axis=1)
        raw = raw.reshape(rows, -1)
    else:
        raw = gguf.quants.quantize(random.normal(0, sigma, (rows, columns)).astype(np.float32), kind)
    return raw, gguf.quants.dequantize(raw, kind).astype(np.float32).reshape(rows, columns)


def add_keys(writer, shape):
    writer.add_context_length(256)
    writer.add_embedding_length(shape["dim"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["hidden"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    pieces = VOCAB - 259
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % b for b in range(256)), *(b"\xe2\x96\x81" + bytes([97 + i % 26]) * (1 + i // 26) for i in range(pieces))])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(pieces)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * pieces)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def tensors(shape):
    """(name in the file, name in transformers, rows, columns, standard deviation, heads whose rows are permuted)"""
    d, h, q, kv = shape["dim"], shape["hidden"], shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    yield "token_embd", "model.embed_tokens", VOCAB, d, 2.4 / d**0.5, 0
    for n in range(shape["layers"]):
        for name, hf, rows, columns, heads in [
            ("attn_q", "self_attn.q_proj", q, d, shape["heads"]),
            ("attn_k", "self_attn.k_proj", kv, d, shape["kv_heads"]),
            ("attn_v", "self_attn.v_proj", kv, d, 0),
            ("attn_output", "self_attn.o_proj", d, q, 0),
            ("ffn_gate", "mlp.gate_proj", h, d, 0),
            ("ffn_up", "mlp.up_proj", h, d, 0),
            ("ffn_down", "mlp.down_proj", d, h, 0),
            ("attn_norm", "input_layernorm", 1, d, 0),
            ("ffn_norm", "post_attention_layernorm", 1, d, 0),
        ]:
            yield f"blk.{n}.{name}", f"model.layers.{n}.{hf}", rows, columns, 1.5 / columns**0.5, heads
    yield "output_norm", "model.norm", 1, d, 0, 0
    if not shape["tied"]:
        yield "output", "lm_head", VOCAB, d, 2.4 / d**0.5, 0


def write_model(path, name, quant, shape, others, norms, random):
    """The file, and the state of the transformers model."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"conform-{name}")
    add_keys(writer, shape)
    state, counts = {}, {}
    for tensor, hf, rows, columns, sigma, heads in tensors(shape):
        if tensor.endswith("norm"):
            kind = norms
            raw = gguf.quants.quantize((1 + 0.2 * random.uniform(-1, 1, columns)).astype(np.float32), TYPE[kind])
            values = gguf.quants.dequantize(raw, TYPE[kind]).astype(np.float32).reshape(columns)
        else:
            kind = next((other for part, other in others.items() if tensor == part or tensor.endswith("." + part)), quant)
            raw, values = random_tensor(TYPE[kind], rows, columns, sigma, random)
        if heads:  # the file has the two halves of a head's rows taking turns
            values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(f"{tensor}.weight", raw, raw_dtype=TYPE[kind])
        state[f"{hf}.weight"] = torch.from_numpy(np.ascontiguousarray(values))
        counts[kind] = counts.get(kind, 0) + 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if shape["tied"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state, counts


def hf_model(shape, state):
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=shape["dim"], intermediate_size=shape["hidden"], num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"], head_dim=shape["head_dim"], max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=shape["tied"],
        attn_implementation="eager")
    model = transformers.LlamaForCausalLM(config).to(torch.float32).eval()
    model.load_state_dict(state)
    return model


def margins(logits):
    best = logits.topk(2, dim=-1).values
    return [round(float(x), 5) for x in best[..., 0] - best[..., 1]]


def prompt_results(model, ids):
    run = lambda tokens: model(torch.tensor([tokens])).logits[0]
    logits = run(ids)
    likelihood = torch.log_softmax(logits.double(), -1)
    nll = [-float(likelihood[t, ids[t + 1]]) for t in range(len(ids) - 1)]
    greedy, margin = [], []
    for _ in range(24):
        row = run(ids + greedy)[-1]
        greedy.append(int(row.argmax()))
        margin += margins(row[None])
    return logits[-1].numpy(), dict(ids=ids, nll=[round(x, 6) for x in nll], mean_nll=float(np.mean(nll)) if nll else None, argmax=logits.argmax(-1).tolist(),
                                    argmax_margin=margins(logits), logits_std=float(logits[-1].std()), greedy=greedy, greedy_margin=margin)


def main():
    for n, (name, quant, shape, others, norms) in enumerate(MODELS):
        random = np.random.default_rng(100 + n)
        stem = f"{name}.{quant}"
        path = HERE / "models" / f"{stem}.gguf"
        state, counts = write_model(path, name, quant, shape, others, norms, random)
        with torch.no_grad():
            model = hf_model(shape, state)
            results = [prompt_results(model, random.integers(3, VOCAB, length).tolist()) for length in (1, 37, 100)]
        last = np.stack([row for row, _ in results])
        np.save(HERE / "golden" / f"{stem}.npy", last)
        golden = dict(name=name, quant=quant, arch="llama", hf_class="LlamaForCausalLM", gguf=f"models/{stem}.gguf", sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                      n_vocab=VOCAB, tensor_types=counts, last_logits=f"golden/{stem}.npy", transformers=transformers.__version__, torch=torch.__version__,
                      prompts=[prompt for _, prompt in results])
        (HERE / "golden" / f"{stem}.json").write_text(json.dumps(golden))
        print(stem, path.stat().st_size, counts, [round(p["logits_std"], 2) for _, p in results])


main()
