"""report.py RUNS.jsonl FOLDER: what bench/compare/run.sh measured, as a table of medians and ratios on standard output, and as FOLDER/compare.svg."""
import collections
import json
import os
import statistics
import sys

NAMES = {
    "ours_pocl": "tessera, PoCL", "ours_intel": "tessera, Intel's OpenCL for CPUs", "ours_lavapipe": "tessera, lavapipe",
    "llama_cpu": "llama.cpp, CPU, 2 threads", "llama_vulkan": "llama.cpp, Vulkan on lavapipe", "tinygrad_pocl": "tinygrad, PoCL",
}
# Ours, and the peer on the same device; llama.cpp's CPU backend has no driver between it and the cores.
PAIRS = [("ours_pocl", "llama_cpu"), ("ours_intel", "llama_cpu"), ("ours_lavapipe", "llama_vulkan"), ("ours_pocl", "tinygrad_pocl")]


def read(path):
    """{test: {program: {round: tok/s}}}, and the row of each program."""
    rates, rows = collections.defaultdict(lambda: collections.defaultdict(dict)), {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            program = row["program"]
            backend = row["backends"]
            if program == "llama_vulkan" and "Vulkan" not in backend:
                sys.exit(f"error: {program} ran on {backend}, not on Vulkan")
            if row.get("check") == "FAILED":
                sys.exit(f"error: {program} computes wrongly")
            test = f"pp{row['n_prompt']}" if row["n_gen"] == 0 else f"tg{row['n_gen']}"
            rates[test][program][row["round"]] = row["avg_ts"]
            rows.setdefault(program, row)
    return rates, rows


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(rates):
    tests = list(rates)
    print("| tok/s, median (least to greatest) | " + " | ".join(tests) + " |\n|---|" + "---|" * len(tests))
    for program, name in NAMES.items():
        if any(program in rates[test] for test in tests):
            print(f"| {name} | " + " | ".join(spread(list(rates[test][program].values()), 1) for test in tests) + " |")
    print("\n| ratio of the same round | " + " | ".join(tests) + " |\n|---|" + "---|" * len(tests))
    for ours, peer in PAIRS:
        cells = []
        for test in tests:
            a, b = rates[test].get(ours, {}), rates[test].get(peer, {})
            ratios = [a[round_] / b[round_] for round_ in a if round_ in b]
            cells.append(spread(ratios, 2) if ratios else "–")
        if any(cell != "–" for cell in cells):
            print(f"| {NAMES[ours]} ÷ {NAMES[peer]} | " + " | ".join(cells) + " |")


def starts(rows):
    for program, row in rows.items():
        if row.get("ttft_cold_ms"):
            print(f"{NAMES[program]}: start to first token behind {row['ttft_prompt']} tokens: cold {row['ttft_cold_ms']:.0f} ms, warm {row['ttft_warm_ms']:.0f} ms (one each); "
                  f"device {row['peak_device_bytes'] / 2**20:.1f} MiB; self-check {row['check']} ({row['check_agree']} of {row['check_tokens']})")


def plot(rates, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tessera"   # the same data, the same file
    from matplotlib import pyplot

    tests = list(rates)
    figure, axes = pyplot.subplots(1, len(tests), figsize=(5.2 * len(tests), 0.5 * len(NAMES) + 1.2), sharey=True, squeeze=False)
    programs = [p for p in reversed(NAMES) if any(p in rates[test] for test in tests)]
    for axis, test in zip(axes[0], tests):
        for place, program in enumerate(programs):
            values = list(rates[test].get(program, {}).values())
            if not values:
                continue
            middle = statistics.median(values)
            colour = "#1f6f8b" if program.startswith("ours") else "#c8c8c8"
            axis.barh(place, middle, xerr=[[middle - min(values)], [max(values) - middle]], color=colour, capsize=3, ecolor="#555555")
            axis.text(max(values), place, f" {middle:.0f}" if middle >= 10 else f" {middle:.1f}", va="center")
        axis.set_yticks(range(len(programs)), [NAMES[p] for p in programs])
        axis.set_title(("prompt of {} tokens" if test.startswith("pp") else "answer of {} tokens").format(test[2:]) + ", tok/s")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    data, folder = sys.argv[1:3]
    rates, rows = read(data)
    table(rates)
    print()
    starts(rows)
    plot(rates, os.path.join(folder, "compare.svg"))
    print(f"\nmedians of {max(len(r) for t in rates.values() for r in t.values())} rounds by turns; data: {data}; plot: {os.path.join(folder, 'compare.svg')}")


if __name__ == "__main__":
    main()
