"""Mesa's compilers for Adreno and Mali: which GPUs there are, and what is made of a shader (figures, and the loops of the machine code)."""
import concurrent.futures
import gzip
import hashlib
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    name: str
    profile: str        # of tests/data/devices
    chip: str           # what the kernel shim is told
    most_waves: int     # that a core holds: of Adreno, of 64 lanes; of Mali, threads: 2 with up to 32 registers a lane, else 1
    subgroup: int       # lanes; 0: none reported
    halves: bool        # computes in halves
    signed_dot: bool    # integerDotProduct4x8BitPackedSignedAccelerated

    @property
    def adreno(self) -> bool:
        return self.name.startswith("a")


GPUS = [
    Gpu("a630", "adreno-630", "630", 16, 128, True, False),
    Gpu("a650", "adreno-650", "650", 16, 128, True, False),
    Gpu("a660", "adreno-660", "660", 16, 128, True, False),
    Gpu("a730", "adreno-730", "730", 16, 128, True, False),
    Gpu("a740", "adreno-740", "740", 16, 128, True, False),
    Gpu("a750", "adreno-750", "750", 16, 128, True, False),
    Gpu("g52", "mali-g52", "7212", 2, 0, False, False),
    Gpu("g610", "mali-g610", "a867", 2, 16, True, True),
]


@dataclass(frozen=True)
class Shader:
    path: str
    options: tuple = ()      # "subgroup=128", "0=64": a specialization constant
    macs: int = 0            # multiply-accumulates of a lane in one round of the loop over K; 0: not a product
    inner_rounds: tuple = (1,)   # of the loops inside that loop, in order; the last number is for all that follow
    loop: int = -1           # which of the outermost loops is the loop over K
    innermost: bool = False  # it has no loop inside: which of those


@dataclass
class Figures:
    """What a compiler says of one shader."""

    values: dict = field(default_factory=dict)   # instructions, registers, waves, spills, stalls, cycles, load_store
    needs: list = field(default_factory=list)    # SPIR-V capabilities that the GPU lacks
    per_mac: float = 0.0                         # instructions in the loop over K, a multiply-accumulate
    assembly: str = ""


def environment(gpu: Gpu, drivers: Path) -> dict:
    family = "freedreno" if gpu.adreno else "panfrost"
    own = {"LD_PRELOAD": str(drivers / f"lib{family}_noop_drm_shim.so"), "MESA_SHADER_CACHE_DISABLE": "true"}
    if gpu.adreno:
        own["FD_GPU_ID"] = gpu.chip
    else:
        own |= {"PAN_GPU_ID": gpu.chip, "PAN_I_WANT_A_BROKEN_VULKAN_DRIVER": "1", "BIFROST_MESA_DEBUG": "shaderdb"}
    return os.environ | own


# --- machine code -------------------------------------------------------------------------------------------------------------------
# Each parser gives (cost, jump) a line of code: cost in instructions, jump the index of the line it may go to, or None.


def adreno_code(text: str) -> list:
    """As ir3's own count has it: repeats and waits are instructions. `br p0.x, #l480` goes to the line `l480:`."""
    lines, labels = [], {}
    for line in text.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"(l\d+):", line):
            labels[match[1]] = len(lines)
        elif line and line[0] not in ";@" and not line.startswith("Native code"):
            lines.append(line)
    code = []
    for line in lines:
        cost = 1 + sum(int(n) for n in re.findall(r"\((?:rpt|nop)(\d+)\)", line))
        target = re.search(r"#(l\d+)", line)
        code.append((cost, labels.get(target[1]) if target else None))
    return code


def valhall_code(text: str) -> list:
    """`BRANCHZ.eq r1, offset:-476` counts from the line behind it."""
    code = []
    for line in text.splitlines():
        if not line.startswith("   "):
            continue
        target = re.search(r"offset:(-?\d+)", line)
        code.append((1, len(code) + 1 + int(target[1]) if target else None))
    return code


def bifrost_code(text: str) -> list:
    """Pairs of an operation for each of two units, * and +, of which one may be NOP; `JUMP t1, clause_7` goes to the clause."""
    code, clauses, jumps = [], {}, {}
    for line in text.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"(clause_\d+):", line):
            clauses[match[1]] = len(code)
        elif line[:1] in ("*", "+"):
            if target := re.search(r"(clause_\d+)", line):
                jumps[len(code)] = target[1]
            code.append([0 if line[1:].startswith("NOP") else 1, None])
    for at, clause in jumps.items():
        code[at][1] = clauses.get(clause)
    return [tuple(line) for line in code]


def loop_cost(code: list, shader: Shader) -> int:
    """Instructions of one round of the loop over K. Loops directly inside it run inner_rounds times, loops inside these once."""
    ends = {}
    for at, (_, target) in enumerate(code):
        if target is not None and target <= at:
            ends[target] = max(ends.get(target, 0), at)
    loops = sorted(ends.items())

    def outermost(spans):
        return [span for span in spans if not any(other[0] <= span[0] and span[1] <= other[1] and other != span for other in spans)]

    def cost(span):
        return sum(cost for cost, _ in code[span[0]:span[1] + 1])

    if not loops:
        return 0
    leaves = [span for span in loops if not any(span[0] <= other[0] and other[1] <= span[1] and other != span for other in loops)]
    chosen = (leaves if shader.innermost else outermost(loops))[shader.loop]
    inside = outermost([span for span in loops if chosen[0] <= span[0] and span[1] <= chosen[1] and span != chosen])
    rounds = [shader.inner_rounds[min(n, len(shader.inner_rounds) - 1)] for n in range(len(inside))]
    return cost(chosen) + sum((n - 1) * cost(span) for n, span in zip(rounds, inside))


# --- what a compiler printed --------------------------------------------------------------------------------------------------------


def parse(gpu: Gpu, shader: Shader, text: str) -> Figures:
    if error := re.search(r"^error=(.*)", text, re.M):
        raise RuntimeError(f"{gpu.name}: {Path(shader.path).name}: {error[1]}")
    figures = Figures(needs=re.findall(r"^needs=(.*)", text, re.M))
    assembly = re.search(r"^text (?:IR3 )?Assembly\n(.*?)^end$", text, re.M | re.S)
    figures.assembly = assembly[1] if assembly else ""
    number = lambda name: int(re.search(rf"^{name}=(\d+)", text, re.M)[1])
    if gpu.adreno:
        figures.values = {
            "instructions": number("Instruction Count"),
            "registers": number("Registers used") + (number("Half-registers used") + 1) // 2,
            "waves": min(gpu.most_waves, number("Max Waves Per Core") * number("Subgroup") // 64),   # a wave of 128 lanes is two
            "spills": number("STP Count") + number("LDP Count"),
        }
        code = adreno_code(figures.assembly)
    else:
        line = re.search(r"SHADER-DB: .*COMPUTE shader: (.*)", text)
        if not line:
            raise RuntimeError(f"{gpu.name}: {Path(shader.path).name}: the compiler printed no statistics")
        counts = {unit: float(value) for value, unit in re.findall(r"([\d.]+) ([a-z]+)", line[1])}
        stores, loads = re.search(r"(\d+):(\d+) spills:fills", line[1]).groups()
        valhall = "fma" in counts
        registers = set(re.findall(r"\br\d+\b", figures.assembly))   # of 64; r48 to r63 are given too, so the greatest number says nothing
        figures.values = {
            "instructions": int(counts["inst"]),
            "registers": len(registers),
            "waves": int(counts["threads"]),
            "spills": int(stores) + int(loads),
            "cycles": counts["cycles"],
            "load_store": counts["ls" if valhall else "ldst"],
        }
        code = (valhall_code if valhall else bifrost_code)(figures.assembly)
    if shader.macs:
        figures.per_mac = loop_cost(code, shader) / shader.macs
    return figures


class Compilers:
    """Runs the drivers' compilers, a process a GPU and batch, and keeps what they printed in `cache`."""

    def __init__(self, drivers: Path, program: Path, cache: Path):
        self.drivers, self.program = drivers, program
        self.version = (drivers / "version").read_text().strip()
        asked = hashlib.sha256((Path(__file__).parent / "mobile_compile.cpp").read_bytes()).hexdigest()[:8]
        self.cache = cache / f"{self.version}-{asked}"
        self.digests = {}

    def _kept(self, gpu: Gpu, shader: Shader) -> Path:
        if shader.path not in self.digests:
            self.digests[shader.path] = hashlib.sha256(Path(shader.path).read_bytes()).hexdigest()
        key = self.digests[shader.path] + " ".join(shader.options)
        return self.cache / gpu.name / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".gz")

    def _run(self, gpu: Gpu, shaders: list) -> None:
        lines = "".join(" ".join((shader.path, *shader.options)) + "\n" for shader in shaders)
        run = subprocess.run([self.program, self.drivers / ("libvulkan_freedreno.so" if gpu.adreno else "libvulkan_panfrost.so")], env=environment(gpu, self.drivers),
                             input=lines, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=900)
        parts = re.split(r"^shader .*\n", run.stdout, flags=re.M)[1:]
        if run.returncode != 0 or len(parts) != len(shaders):
            at = shaders[max(0, len(parts) - 1)].path
            raise RuntimeError(f"{gpu.name}: the compiler ended with {run.returncode} at {at}:\n" + "\n".join(run.stdout.splitlines()[-5:]))
        for shader, part in zip(shaders, parts):
            kept = self._kept(gpu, shader)
            kept.parent.mkdir(parents=True, exist_ok=True)
            # Of the texts the last, the machine code, is what is read.
            part = re.sub(r"^text (?!IR3 Assembly|Assembly).*?^end$\n", "", part, flags=re.M | re.S)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(gzip.compress(part.encode(), 5))
            temporary.replace(kept)

    def compile(self, wanted: list, say=lambda text: None) -> dict:
        """wanted: (Gpu, Shader) pairs; gives Figures by pair."""
        missing = {}
        for gpu, shader in wanted:
            if not self._kept(gpu, shader).exists():
                missing.setdefault(gpu, {})[self._kept(gpu, shader)] = shader
        batches = []
        for gpu, shaders in missing.items():
            todo = list(shaders.values())
            batches += [(gpu, todo[at:at + 16]) for at in range(0, len(todo), 16)]
        total = sum(len(batch) for _, batch in batches)
        done = 0
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
            for future in concurrent.futures.as_completed([pool.submit(lambda g=gpu, b=batch: self._run(g, b) or len(b)) for gpu, batch in batches]):
                done += future.result()
                say(f"compiled {done} of {total} shaders")
        return {(gpu, shader): parse(gpu, shader, gzip.decompress(self._kept(gpu, shader).read_bytes()).decode()) for gpu, shader in wanted}
