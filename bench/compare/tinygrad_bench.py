"""tinygrad_bench.py MODEL N_PROMPT N_GEN REPETITIONS: the speed of tinygrad's own language model program on a GGUF file, as lines with llama-bench's keys.

The repetitions are one process, as loading and compiling take tinygrad minutes here. What its JIT needs to see twice is run before anything counts.
"""
import json
import os
import statistics
import sys
import time

import tinygrad
from tinygrad.llm.model import Transformer


def prompt_of(length, seed, vocabulary=49152):
    # Begins differently each time: tinygrad keeps what two prompts in a row begin with.
    return [(i * 7919 + seed * 104729 + 31) % vocabulary for i in range(length)]


def run(model, seed, n_prompt, n_gen):
    """Seconds of the prompt (to its first token) and of the tokens after it."""
    start = time.perf_counter()
    ids = model.generate(prompt_of(n_prompt, seed))
    next(ids)
    answered = time.perf_counter()
    for _ in range(n_gen):
        next(ids)
    return answered - start, time.perf_counter() - answered


def row(test, path, n_prompt, n_gen, seconds):
    rates = [(n_prompt + n_gen) / s for s in seconds]
    spread = statistics.stdev if len(seconds) > 1 else lambda _: 0.0
    return {
        "build_commit": "tinygrad", "backends": os.environ.get("DEV", "default"), "model_filename": path, "n_prompt": n_prompt, "n_gen": n_gen, "n_depth": 0, "test": test,
        "avg_ns": round(1e9 * statistics.mean(seconds)), "stddev_ns": round(1e9 * spread(seconds)), "avg_ts": statistics.mean(rates), "stddev_ts": spread(rates),
        "samples_ns": [round(1e9 * s) for s in seconds], "samples_ts": rates,
    }


def main():
    path, n_prompt, n_gen, repetitions = sys.argv[1], *map(int, sys.argv[2:5])
    model, _ = Transformer.from_gguf(path, n_prompt + n_gen + 2)
    for seed in range(3):
        run(model, seed, min(n_prompt, 64), 3)
    timed = [run(model, 100 + seed, n_prompt, n_gen) for seed in range(repetitions)]
    print(json.dumps(row(f"pp{n_prompt}", path, n_prompt, 0, [prompt for prompt, _ in timed])))
    print(json.dumps(row(f"tg{n_gen}", path, 0, n_gen, [answer for _, answer in timed])))


if __name__ == "__main__":
    main()
