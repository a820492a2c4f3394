"""Makes transformers.txt: what Hugging Face transformers' logits processors make of random logits, to compare the sampler chain with.

    python make.py >transformers.txt        (made with transformers 5.23.0 and torch 2.15.0, in float64)

A case: its name, the options that differ from their defaults, the history, the logits, and the tokens that are left with their probabilities.
The processors are put in the order of include/tessera/engine/sampler.hpp. transformers has no presence and frequency penalty; these two are
written here as OpenAI's API reference defines them (mu[j] -= c[j] * frequency + (c[j] > 0) * presence).
"""
import random

import numpy
import torch
from transformers import (LogitsProcessor, LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor,
                          TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper)

VOCAB = 40


def single(x):
    """The float32 next to x, which is what the library is given: its shortest text, and its exact value."""
    return str(numpy.float32(x)), float(numpy.float32(x))


class PresenceFrequency(LogitsProcessor):
    def __init__(self, presence, frequency):
        self.presence, self.frequency = presence, frequency

    def __call__(self, input_ids, scores):
        counts = torch.bincount(input_ids[0], minlength=VOCAB).to(scores.dtype)
        return scores - counts * self.frequency - (counts > 0) * self.presence


def processors(o):
    steps = LogitsProcessorList()
    if "bias" in o: steps.append(SequenceBiasLogitsProcessor([[[token], value] for token, value in o["bias"].items()]))
    if "repetition_penalty" in o: steps.append(RepetitionPenaltyLogitsProcessor(o["repetition_penalty"]))
    if "presence_penalty" in o or "frequency_penalty" in o:
        steps.append(PresenceFrequency(o.get("presence_penalty", 0.0), o.get("frequency_penalty", 0.0)))
    if "top_k" in o: steps.append(TopKLogitsWarper(o["top_k"]))
    if "typical_p" in o: steps.append(TypicalLogitsWarper(o["typical_p"]))
    if "top_p" in o: steps.append(TopPLogitsWarper(o["top_p"]))
    if "min_p" in o: steps.append(MinPLogitsWarper(o["min_p"]))
    steps.append(TemperatureLogitsWarper(o["temperature"]))
    return steps


def write_case(name, o, history, logits):
    o = {"temperature": 1.0} | o
    texts, values = zip(*(single(x) for x in logits))
    exact = {k: single(v)[1] if isinstance(v, float) else {t: single(b)[1] for t, b in v.items()} if k == "bias" else v for k, v in o.items()}
    window = o.get("repeat_last_n", 64)
    recent = history if window < 0 else history[len(history) - min(window, len(history)):]
    scores = torch.tensor(values, dtype=torch.float64)[None]
    # An empty window is off; the processors want at least one token, which a penalty must then not touch.
    applied = {k: v for k, v in exact.items() if recent or not k.endswith("_penalty")}
    probabilities = processors(applied)(torch.tensor([recent or [0]]), scores).softmax(-1)[0]
    print("case", name)
    for key, value in o.items():
        if key == "bias":
            for token, bias in value.items(): print("bias", token, bias)
        else:
            print(key, value)
    print("history", len(history), *history)
    print("logits", *texts)
    left = [(token, p) for token, p in enumerate(probabilities.tolist()) if p > 0]
    print("left", len(left), *(f"{token} {p:.15g}" for token, p in left))


def main():
    numbers, choice = numpy.random.default_rng(20240607), random.Random(7)

    def logits(spread):
        return numbers.normal(0, spread, VOCAB)

    def history(length):
        return numbers.integers(0, VOCAB, length).tolist()

    alone = [{"temperature": t} for t in (0.3, 0.7, 1.0, 2.5)]
    alone += [{"top_k": k} for k in (1, 7, 39, 40, 500)]
    alone += [{"top_p": p} for p in (0.01, 0.5, 0.9, 0.999)]
    alone += [{"min_p": p} for p in (0.001, 0.05, 0.4, 1.0)]
    alone += [{"typical_p": p} for p in (0.05, 0.3, 0.8, 0.98)]
    alone += [{"repetition_penalty": r, "repeat_last_n": n} for r, n in ((1.1, 64), (1.3, 8), (0.5, -1), (4.0, 0))]
    alone += [{"presence_penalty": p, "repeat_last_n": n} for p, n in ((0.5, 64), (-1.5, 5))]
    alone += [{"frequency_penalty": f, "repeat_last_n": n} for f, n in ((0.25, 64), (-0.2, -1))]
    alone += [{"bias": {3: 2.5, 17: -4.0, 39: 0.125}}, {"bias": {0: float("-inf"), 5: float("-inf")}}]
    for i, o in enumerate(alone): write_case(f"alone_{i}", o, history(20 if i % 2 else 90), logits(2.0))
    for i in range(16):
        o = {"bias": {choice.randrange(VOCAB): round(choice.uniform(-3, 3), 3)}, "repetition_penalty": round(choice.uniform(1.01, 1.5), 3),
             "presence_penalty": round(choice.uniform(0, 1), 3), "frequency_penalty": round(choice.uniform(0, 0.5), 3), "repeat_last_n": choice.choice([-1, 4, 16, 64]),
             "top_k": choice.randrange(8, 40), "typical_p": round(choice.uniform(0.6, 0.99), 3), "top_p": round(choice.uniform(0.5, 0.99), 3),
             "min_p": round(choice.uniform(0.001, 0.2), 4), "temperature": round(choice.uniform(0.3, 2), 3)}
        # Some links of the chain left out, to see each pair of neighbours that can be.
        for key in list(o):
            if key != "temperature" and i >= 4 and choice.random() < 0.3: del o[key]
        write_case(f"chain_{i}", o, history(30), logits(choice.choice([0.5, 1.0, 3.0])))


main()
