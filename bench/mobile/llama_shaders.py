"""llama.cpp's Vulkan shaders for the products that ours are compared with, as llama.cpp compiles and chooses them on each GPU.

Which shader, which macros and which specialization constants is read from ggml-vulkan.cpp and vulkan-shaders-gen.cpp of the version that bench/compare fetches
(kLlamaPackage there): decode of one row with f32 activations, prefill of 128.
"""
import re
import subprocess
from pathlib import Path

from compilers import Gpu, Shader

FLOATS = {"FLOAT_TYPE": "float", "FLOAT_TYPEV2": "vec2", "FLOAT_TYPEV4": "vec4", "FLOAT_TYPEV8": "mat2x4"}
HALVES = {"FLOAT16": "1", "FLOAT_TYPE": "float16_t", "FLOAT_TYPEV2": "f16vec2", "FLOAT_TYPEV4": "f16vec4", "FLOAT_TYPEV8": "f16mat2x4"}
TYPE_IDS = {"q4_0": 2, "q4_1": 3, "q4_k": 12}   # ggml_type_ids.glsl

# glslang of Debian 12 does not know GL_EXT_integer_dot_product yet. Its one function that these shaders use is the SPIR-V instruction OpSDot, declared by hand.
DOT_BY_HAND = """#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450) int tessera_dot(int a, int b, spirv_literal int format);
#define dotPacked4x8EXT(a, b) tessera_dot(a, b, 0)
"""


def text_of(folder: Path, name: str) -> str:
    """The text of a shader, with the dot's extension replaced."""
    return (folder / name).read_text().replace("#extension GL_EXT_integer_dot_product : require\n", DOT_BY_HAND)


class LlamaShaders:
    def __init__(self, source: Path, out: Path):
        self.source, self.out = source, out
        self.made = {}
        out.mkdir(parents=True, exist_ok=True)

    def _spirv(self, file: str, defines: dict) -> str:
        key = (file, tuple(sorted(defines.items())))
        if key not in self.made:
            stem = file.split(".")[0]
            path = self.out / f"{stem}-{len(self.made)}.spv"
            text = text_of(self.source, file)
            run = subprocess.run(["glslc", "-fshader-stage=compute", "--target-env=vulkan1.2", "-O", "-I", str(self.source), *(f"-D{name}={value}" for name, value in defines.items()), "-", "-o", str(path)],
                                 input=text, capture_output=True, text=True)
            if run.returncode != 0:
                raise RuntimeError(f"glslc does not compile llama.cpp's {file}:\n" + "\n".join(run.stderr.splitlines()[:8]))
            self.made[key] = str(path)
        return self.made[key]

    def gemv(self, gpu: Gpu, kind: str) -> Shader:
        """pipeline_dequant_mul_mat_vec_f32_f32: a subgroup a workgroup (32 lanes where there is none), 2 rows; 64 weights of them a round of the unrolled loop."""
        reduction = {"USE_SUBGROUP_ADD_NO_SHMEM": "1"} if gpu.subgroup else {}
        defines = {f"DATA_A_{kind.upper()}": "1", "B_TYPE": "float", "B_TYPEV2": "vec2", "B_TYPEV4": "vec4", "D_TYPE": "float", "FLOAT_TYPE": "float", "FLOAT_TYPEV2": "vec2"} | reduction
        lanes = max(gpu.subgroup, 8)
        rows = 2
        options = ((f"subgroup={gpu.subgroup}",) if gpu.adreno else ()) + (f"0={lanes}", f"1={rows}", "2=1")
        if kind == "q4_k":
            return Shader(self._spirv("mul_mat_vec_q4_k.comp", defines), options, 16 * rows, loop=0)
        return Shader(self._spirv("mul_mat_vec.comp", defines), options, 4 * 8 * rows, loop=0)

    def gemv_int8(self, gpu: Gpu, kind: str) -> Shader:
        """pipeline_dequant_mul_mat_vec_q8_1_f32: 1 row, 4 times 8 weights of it a round."""
        reduction = {"USE_SUBGROUP_ADD_NO_SHMEM": "1"} if gpu.subgroup else {}
        defines = {f"DATA_A_{kind.upper()}": "1", "D_TYPE": "float", "FLOAT_TYPE": "float", "FLOAT_TYPEV2": "vec2", "ACC_TYPE": "float"} | reduction
        lanes = max(gpu.subgroup, 8)
        options = ((f"subgroup={gpu.subgroup}",) if gpu.adreno else ()) + (f"0={lanes}", "1=1", "2=1")
        return Shader(self._spirv("mul_mat_vecq.comp", defines), options, 4 * (16 if kind == "q4_k" else 8), loop=0)

    def _tile(self, gpu: Gpu, tn: int) -> tuple:
        """m_warptile_mmq: constants 0 to 10, and the multiply-accumulates of a lane for 32 of K. (On Mali llama.cpp takes the large tile for large products;
        Mesa's compiler had not finished that in 10 minutes.)"""
        warp = min(max(gpu.subgroup, 8), 64)
        values = (128, 64, 64, 32, warp, 32, 2, 4 if tn == 4 else 2, 2, 1, warp)
        return tuple(f"{n}={value}" for n, value in enumerate(values)), 64 * 64 * 32 // 128

    def gemm(self, gpu: Gpu, kind: str) -> Shader:
        """matmul_quant_f32, with sums in halves where the GPU computes in them; a round is 32 of K."""
        tile, macs = self._tile(gpu, 4)
        types = HALVES | {"ACC_TYPE": "float16_t", "ACC_TYPEV2": "f16vec2", "ACC_TYPE_VEC4": "f16vec4", "ACC_TYPE_MAX": "float16_t(65504.0)", "LOAD_VEC_B": "8", "B_TYPE": "mat2x4"} if gpu.halves else \
            FLOATS | {"ACC_TYPE": "float", "ACC_TYPEV2": "vec2", "ACC_TYPE_VEC4": "vec4", "LOAD_VEC_B": "4", "B_TYPE": "vec4"}
        defines = types | {"MULMAT_QUANT": "1", "B_TYPE_SCALAR": "float", "B_TYPEV4": "vec4", "D_TYPE": "float"}
        return Shader(self._spirv("mul_mm.comp", defines), tile + ("11=1", f"12={TYPE_IDS[kind]}"), macs)

    def gemm_int8(self, gpu: Gpu, kind: str) -> Shader:
        """matmul_…_q8_1; a round is 4 times 32 of K, in a loop of 4 behind two that fetch."""
        tile, macs = self._tile(gpu, 2)
        types = (HALVES if gpu.halves else FLOATS) | {"ACC_TYPE": "float", "ACC_TYPEV2": "vec2", "ACC_TYPE_VEC4": "vec4"}
        defines = types | {f"DATA_A_{kind.upper()}": "1", "D_TYPE": "float"}
        return Shader(self._spirv("mul_mmq.comp", defines), tile, 4 * macs, inner_rounds=(1 if kind == "q4_k" else 2, 1, 4))


def version_of(source: Path) -> str:
    """llama_cpp_python-0.3.36, of which `source` is a part."""
    match = re.search(r"llama_cpp_python-[^/]*", str(source))
    return match[0] if match else "llama.cpp"
