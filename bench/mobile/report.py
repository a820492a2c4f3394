#!/usr/bin/env python3
"""What Mesa's compilers for Adreno and Mali make of every program that the plans choose for eight GPUs: a table, budgets, machine code. See run.sh."""
import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

from compilers import GPUS, Compilers, Shader
from llama_shaders import LlamaShaders, version_of

HERE = Path(__file__).resolve().parent
WORSE_WHEN_MORE = ("instructions", "registers", "spills", "cycles", "load_store", "loop")
JOBS = [("q4_0", "llama-1b q4_0"), ("q4_1", "smollm2-135m q4_1"), ("q4_k", "llama-3b q4_k")]


def shader_of(folder: Path, kernel: dict) -> Shader:
    """With what is known of the loops in kernels/gemv*.kernel and gemm*.kernel: they walk K in groups, in the last loop; gemm walks a group's words in a loop inside."""
    consts, name = kernel["consts"], kernel["kernel"].split()[1]
    path = str(folder / kernel["file"])
    if not name.startswith(("gemv", "gemm")):
        return Shader(path)
    macs = consts["GROUP"] * kernel["width"] * consts.get("TM", 1)
    return Shader(path, (), macs, (consts["GROUP"] // 4 // consts["FOURS"],) if name == "gemm" else (1,), innermost=name.startswith("gemv"))


def our_kernels(folder: Path) -> dict:
    """(gpu, model, kernel) → (Gpu, Shader); what a step shares with the one before it is left out."""
    kernels = {}
    described = json.loads((folder / "kernels.json").read_text())
    for gpu in GPUS:
        for model, some in described[gpu.profile].items():
            seen = set()
            for kernel in some:
                if kernel["file"] not in seen:
                    kernels[gpu, model, kernel["kernel"]] = (gpu, shader_of(folder, kernel))
                seen.add(kernel["file"])
    return kernels


def budget_of(figures) -> dict:
    values = dict(figures.values)
    if figures.per_mac:
        values["loop"] = round(32 * figures.per_mac, 2)
    return values


# --- budgets ------------------------------------------------------------------------------------------------------------------------


def write_budgets(path: Path, version: str, measured: dict) -> None:
    lines = ["# Limits of tests/CMakeLists.txt's mobile/budgets, a line a program: what Mesa's compilers made of it. Rewritten by `bash bench/mobile/run.sh --update`.",
             "# loop: instructions in the loop over K for 32 multiply-accumulates. waves: of 64 lanes, that a core of Adreno holds (16 at most); of Mali, 2 with at most 32 registers a lane.", f"mesa {version}"]
    for (gpu, model, kernel), figures in sorted(measured.items(), key=lambda item: (item[0][0].name, *item[0][1:])):
        lines.append(f"{gpu.name} | {model} | {kernel} | " + " ".join(f"{name} {value:g}" for name, value in budget_of(figures).items()))
    path.write_text("\n".join(lines) + "\n")


def read_budgets(path: Path) -> tuple:
    version, budgets = "", {}
    for line in path.read_text().splitlines():
        if line.startswith("mesa "):
            version = line[5:]
        elif line and not line.startswith("#"):
            gpu, model, kernel, values = (part.strip() for part in line.split("|"))
            words = values.split()
            budgets[gpu, model, kernel] = {name: float(value) for name, value in zip(words[::2], words[1::2])}
    return version, budgets


def check_budgets(path: Path, version: str, measured: dict) -> int:
    made_with, budgets = read_budgets(path)
    if made_with != version:
        print(f"skipped: the budgets are of Mesa {made_with}, and this is {version}; what one compiler makes does not bind another")
        return 77
    worse, better = [], 0
    found = {(gpu.name, model, kernel): budget_of(figures) for (gpu, model, kernel), figures in measured.items()}
    for key in sorted(found.keys() | budgets.keys()):
        name = " | ".join(key)
        if key not in budgets or key not in found:
            worse.append(f"  {name}: " + ("new, without a budget" if key not in budgets else "has a budget and is no more"))
            continue
        limits, values = budgets[key], found[key]
        rows = [(what, limits.get(what, 0), values.get(what, 0)) for what in sorted(limits.keys() | values.keys())]
        bad = [row for row in rows if (row[2] > row[1] if row[0] in WORSE_WHEN_MORE else row[2] < row[1])]
        better += not bad and any(row[1] != row[2] for row in rows)
        if bad:
            worse.append(f"  {name}: " + ", ".join(f"{what} {limit:g} -> {value:g}" for what, limit, value in bad))
    if better:
        print(f"{better} programs became better than their budgets: bash bench/mobile/run.sh --update keeps that")
    if not worse:
        print(f"{len(found)} programs are within their budgets")
        return 0
    print(f"{len(worse)} programs are worse than {path.name} allows (limit -> found):\n" + "\n".join(worse))
    print("Mend what made them so, or, where it is worth that, accept it: bash bench/mobile/run.sh --update")
    return 1


# --- the table ----------------------------------------------------------------------------------------------------------------------


def cell(gpu, figures) -> list:
    values = figures.values
    share = f"{values['waves']}/{gpu.most_waves}"
    return [f"{32 * figures.per_mac:.0f}", str(values["registers"]), share, str(values["spills"]), f"{values['load_store']:.0f}" if "load_store" in values else ""]


def print_table(measured: dict, llama: dict, all_jobs: bool) -> None:
    for kind, model in JOBS if all_jobs else JOBS[:1]:
        for step, forms in (("decode", ("gemv", "gemv_int8")), ("prefill", ("gemm", "gemm_int8"))):
            print(f"\n| {step}, {kind} | our kernel | instructions for 32 products: ours, llama.cpp's, ratio | registers | waves | spills | load/store cycles |")
            print("|---|---|---|---|---|---|---|")
            for gpu in GPUS:
                name, ours = next((key[2], figures) for key, figures in measured.items() if key[0] == gpu and key[1] == model and key[2].startswith(f"{step} gem") and "ffn_down" in key[2])
                theirs = min((llama[gpu, form, kind] for form in forms), key=lambda figures: figures.per_mac)
                mark = "\\*" if theirs.needs else ""
                a, b = cell(gpu, ours), cell(gpu, theirs)
                others = " | ".join(f"{x}, {y}" if x else "" for x, y in zip(a[1:], b[1:]))
                print(f"| {gpu.name} | `{name.split()[1]}` | {a[0]}, {b[0]}{mark}, {ours.per_mac / theirs.per_mac:.2f} | {others} |")


def print_targets(measured: dict, llama: dict) -> None:
    print("\ntargets:")
    spilling = [f"{gpu.name} {model} {kernel}: {figures.values['spills']}" for (gpu, model, kernel), figures in measured.items() if figures.values["spills"]]
    print(f"  spills 0 everywhere: {'yes' if not spilling else f'no, {len(spilling)} programs of {len(measured)}'}")
    for line in sorted(spilling):
        print("    " + line)
    for what, gemm, least in (("GEMM", True, 0.25), ("the others", False, 0.5), ("GEMM (goal)", True, 0.5)):
        few = [f"{gpu.name} {model} {kernel}: {figures.values['waves']}/{gpu.most_waves}" for (gpu, model, kernel), figures in measured.items()
               if gpu.adreno and (" gemm" in kernel) == gemm and figures.values["waves"] < least * gpu.most_waves]
        print(f"  waves of {what} on Adreno at least {least:g} of the most: {'yes' if not few else f'no, {len(few)} programs'}")
        for line in sorted(few):
            print("    " + line)
    ratios = []
    for kind, model in JOBS:
        for (gpu, of, kernel), figures in measured.items():
            if of == model and kernel.startswith("decode gemv") and "ffn_down" in kernel:
                theirs = min(llama[gpu, form, kind].per_mac for form in ("gemv", "gemv_int8"))
                ratios.append((figures.per_mac / theirs, f"{gpu.name} {kind}"))
    print(f"  GEMV loop against llama.cpp's, at most 0.8 (goal 0.5): greatest {max(ratios)[0]:.2f} ({max(ratios)[1]}), least {min(ratios)[0]:.2f} ({min(ratios)[1]})")
    plain = sorted({f"{gpu.name} {kernel}" for (gpu, _, kernel), figures in measured.items() if "_int8 " in kernel and not re.search(r"\bdp[24]acc", figures.assembly)})
    print(f"  packed dots are native instructions in every program that has them: {'yes' if not plain else 'no'}")
    for line in plain:
        print("    " + line)
    missing = sorted({f"{gpu.name} {kernel}: {', '.join(figures.needs)}" for (gpu, _, kernel), figures in measured.items() if figures.needs})
    print(f"  no program needs what its GPU lacks: {'yes' if not missing else 'no'}")
    for line in missing:
        print("    " + line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=Path, required=True)
    parser.add_argument("--compile", type=Path, required=True, help="the program mobile_compile")
    parser.add_argument("--kernels", type=Path, required=True, help="what mobile_kernels wrote")
    parser.add_argument("--cache", type=Path, required=True, help="where what compilers said is kept")
    parser.add_argument("--llama", type=Path, help="llama.cpp's folder vulkan-shaders, for the table")
    parser.add_argument("--budgets", type=Path, default=HERE / "budgets.txt")
    parser.add_argument("--check", action="store_true", help="compare with the budgets; 1 when something is worse, 77 when they are another compiler's")
    parser.add_argument("--update", action="store_true", help="rewrite the budgets")
    parser.add_argument("--all", action="store_true", help="the table for all weight types")
    parser.add_argument("--list", metavar="TEXT", help="the figures of programs whose line has TEXT in it ('' for all)")
    parser.add_argument("--ir", metavar="TEXT", help="the machine code of programs whose line has TEXT in it")
    arguments = parser.parse_args()
    said = [time.monotonic()]

    def say(text: str) -> None:
        if time.monotonic() - said[0] > 5:
            print(text, file=sys.stderr, flush=True)
            said[0] = time.monotonic()

    compilers = Compilers(arguments.drivers, arguments.compile, arguments.cache)
    upstream = compilers.version.split("-")[0]   # what Debian mends in a version is not its compilers
    kernels = our_kernels(arguments.kernels)
    made = compilers.compile(list(set(kernels.values())), say)
    measured = {key: made[pair] for key, pair in kernels.items()}
    for (gpu, model, kernel), figures in measured.items():
        line = f"{gpu.name} | {model} | {kernel}"
        if arguments.list is not None and arguments.list in line:
            print(line + " | " + " ".join(f"{name} {value:g}" for name, value in budget_of(figures).items()) + ("; needs " + ", ".join(figures.needs) if figures.needs else ""))
        if arguments.ir and arguments.ir in line:
            print(f"=== {line}\n{figures.assembly}")
    if arguments.update:
        write_budgets(arguments.budgets, upstream, measured)
        print(f"wrote {arguments.budgets}")
    if arguments.llama:
        shaders = LlamaShaders(arguments.llama, arguments.cache / "llama")
        pairs = {(gpu, form, kind): (gpu, getattr(shaders, form)(gpu, kind)) for gpu in GPUS for kind, _ in JOBS for form in ("gemv", "gemv_int8", "gemm", "gemm_int8")}
        made = compilers.compile(list(set(pairs.values())), say)
        llama = {key: made[pair] for key, pair in pairs.items()}
        print(f"Mesa {compilers.version}, {version_of(arguments.llama)}; \\*: a shader that needs what this GPU's driver does not report")
        print_table(measured, llama, arguments.all)
        print_targets(measured, llama)
    return check_budgets(arguments.budgets, upstream, measured) if arguments.check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os._exit(0)
