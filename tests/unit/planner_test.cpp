// Plans of a small llama: how many dispatches, which storages, what is said when nothing fits. No device.
#include "tessera/plan/planner.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tessera/model/arch_llama.hpp"
#include "tessera/plan/dump.hpp"

namespace tessera {
namespace {

constexpr int kLayers = 3;

ModelConfig config() {
  ModelConfig c;
  c.architecture = "llama";
  c.n_layers = kLayers;
  c.dim = 64;
  c.hidden_dim = 96;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = c.n_rot = 16;
  c.vocab_size = 320;
  c.context_length = 128;
  return c;
}

std::vector<WeightRef> weights(bool biases = false) {
  std::vector<WeightRef> refs = {{"token_embd.weight", WeightType::kQ8_0, 320, 64, {}}, {"output_norm.weight", WeightType::kF32, 1, 64, {}}, {"output.weight", WeightType::kQ4_0, 320, 64, {}}};
  for (int layer = 0; layer < kLayers; ++layer) {
    const auto add = [&](const char* name, int64_t rows, int64_t columns) { refs.push_back({cat("blk.", layer, ".", name, ".weight"), rows == 1 ? WeightType::kF32 : WeightType::kQ4_0, rows, columns, {}}); };
    add("attn_norm", 1, 64);
    add("attn_q", 64, 64);
    add("attn_k", 32, 64);
    add("attn_v", 32, 64);
    add("attn_output", 64, 64);
    add("ffn_norm", 1, 64);
    add("ffn_gate", 96, 64);
    add("ffn_up", 96, 64);
    add("ffn_down", 64, 96);
    const std::pair<const char*, int64_t> kBiases[] = {{"attn_q", 64}, {"attn_k", 32}, {"attn_v", 32}, {"attn_output", 64}, {"ffn_gate", 96}, {"ffn_up", 96}, {"ffn_down", 64}};
    for (const auto& [name, rows] : kBiases)
      if (biases) refs.push_back({cat("blk.", layer, ".", name, ".bias"), WeightType::kF32, 1, rows, {}});
  }
  return refs;
}

DeviceInfo device() {
  DeviceInfo info;
  info.name = "a device of the test";
  info.max_allocation_bytes = info.max_binding_bytes = 1 << 26;
  info.shared_memory_bytes = 32768;
  info.buffer_offset_alignment = 64;
  info.max_image_width = info.max_image_height = 16384;
  info.max_image_buffer_texels = 1 << 26;
  info.max_image_layers = info.max_image3d_width = info.max_image3d_height = info.max_image3d_depth = 2048;
  info.image3d_writes = true;
  return info;
}

Graph llama(const StepShape& shape, bool biases = false) {
  const ModelConfig c = config();
  const std::vector<WeightRef> refs = weights(biases);
  auto graph = build_llama({.config = &c, .weights = &refs, .shape = shape, .pages = 8, .page_tokens = 16, .kv_type = DType::kF32, .context_pages = 8});
  EXPECT_TRUE(graph) << graph.error().message();
  return std::move(*graph);
}

Result<Plan> plan(const StepShape& shape, const DeviceInfo& info = device(), const Tuning& tuning = {}) { return Planner(info, tuning).plan(llama(shape), shape); }

std::vector<std::string> kernels(const Plan& plan) {
  std::vector<std::string> names;
  for (const Dispatch& dispatch : plan.dispatches) names.push_back(dispatch.variant.kernel);
  return names;
}

using Names = std::vector<std::string>;
Names repeated(Names head, const Names& layer, const Names& tail) {
  for (int i = 0; i < kLayers; ++i) head.insert(head.end(), layer.begin(), layer.end());
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

TEST(Planner, DecodeTakesFiveDispatchesALayerAndSixBehindALongContext) {
  const auto p = plan({1, LogitRows::kLast}), behind = plan({1, LogitRows::kLast, true});
  ASSERT_TRUE(p && behind);
  EXPECT_EQ(kernels(*p), repeated({"embed"}, {"gemv", "attention", "gemv", "gemv", "gemv"}, {"gemv", "adjust_logits", "sample"})) << dump(*p);
  EXPECT_EQ(kernels(*behind), repeated({"embed"}, {"gemv", "attention", "attention_combine", "gemv", "gemv", "gemv"}, {"gemv", "adjust_logits", "sample"})) << dump(*behind);
}

TEST(Planner, PrefillNormsOnItsOwn) {
  const auto p = plan({32, LogitRows::kLast});
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(kernels(*p), repeated({"embed"}, {"rms_norm", "gemm", "rope_kv", "attention_tiled", "gemm", "rms_norm", "gemm", "gemm"}, {"take_row", "gemv", "adjust_logits", "sample"})) << dump(*p);
}

TEST(Planner, BiasesTakeNoDispatches) {
  const DeviceInfo info = device();
  const Tuning tuning;
  for (const int64_t tokens : {1, 32}) {
    const StepShape shape{tokens, LogitRows::kLast};
    const auto with = Planner(info, tuning).plan(llama(shape, true), shape), without = plan(shape);
    ASSERT_TRUE(with && without);
    EXPECT_EQ(kernels(*with), kernels(*without));
    std::set<std::string> bound;
    for (const Dispatch& dispatch : with->dispatches)
      for (const PlanBinding& binding : dispatch.bindings)
        if (binding.slot == "bias") bound.insert(with->objects[static_cast<size_t>(binding.object)].weight_key);
    EXPECT_EQ(bound.size(), size_t{4} * kLayers);   // of Q, K and V together, of the output projection, of gate and up, of down
  }
}

TEST(Planner, AChunkWithoutLogitsEndsWithItsLastKvWrite) {
  const auto p = plan({32, LogitRows::kNone});
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(p->dispatches.back().variant.kernel, "rope_kv");
  EXPECT_EQ(p->dispatches.size(), 1u + 8u * (kLayers - 1) + 3u);
}

// Programs do not depend on how many tokens a chunk has; but for attention, which few rows do without tiles.
TEST(Planner, ChunksOfEveryLengthShareTheirPrograms) {
  const auto a = plan({32, LogitRows::kLast}), b = plan({128, LogitRows::kLast});
  ASSERT_TRUE(a && b);
  ASSERT_EQ(a->dispatches.size(), b->dispatches.size());
  for (size_t d = 0; d < a->dispatches.size(); ++d) EXPECT_EQ(a->dispatches[d].variant, b->dispatches[d].variant) << a->dispatches[d].label;
}

// Every byte of the arena that a dispatch uses is its own while it is alive, and inside the arena.
TEST(Planner, ArenaObjectsLieApart) {
  for (const int64_t tokens : {1, 32}) {
    const auto p = plan({tokens, LogitRows::kLast});
    ASSERT_TRUE(p);
    EXPECT_GE(p->arena_bytes, p->arena_lower_bound);
    EXPECT_GT(p->arena_lower_bound, 0);
    for (const Dispatch& dispatch : p->dispatches) {
      std::set<int> objects;
      for (const PlanBinding& binding : dispatch.bindings)
        if (p->objects[static_cast<size_t>(binding.object)].home == Home::kArenaBuffer) objects.insert(binding.object);
      for (const int i : objects) {
        const PlanObject& a = p->objects[static_cast<size_t>(i)];
        EXPECT_EQ(a.offset % 64, 0);
        EXPECT_LE(a.offset + a.layout.object_bytes(), p->arena_bytes);
        for (const int j : objects) {
          const PlanObject& b = p->objects[static_cast<size_t>(j)];
          EXPECT_TRUE(i == j || a.offset + a.layout.object_bytes() <= b.offset || b.offset + b.layout.object_bytes() <= a.offset) << dispatch.label << ": " << a.name << " and " << b.name;
        }
      }
    }
  }
}

// Which storages the tensors of some homes have. Vectors are left out: they are always buffers.
std::set<Storage> storages(const Plan& plan, std::set<Home> homes) {
  std::set<Storage> found;
  for (const PlanObject& object : plan.objects)
    if (homes.contains(object.home) && (object.home != Home::kWeight || object.plane != Plane::kWhole)) found.insert(object.layout.storage);
  return found;
}

Tuning images(StorageChoice choice = Storage::kImage2D) {
  Tuning tuning;
  tuning.weight_storage = tuning.activation_storage = choice;
  return tuning;
}

TEST(Planner, PutsTensorsWhereTheTuningSays) {
  for (size_t s = 1; s < kStorageRows.size(); ++s) {
    const auto storage = static_cast<Storage>(s);
    SCOPED_TRACE(name_of(storage));
    const auto p = plan({32, LogitRows::kLast}, device(), images(storage));
    ASSERT_TRUE(p) << p.error().message();
    EXPECT_EQ(storages(*p, {Home::kWeight}), std::set{storage});
    EXPECT_EQ(storages(*p, {Home::kArenaBuffer, Home::kArenaImage}), std::set{storage});
    EXPECT_EQ(storages(*p, {Home::kState, Home::kInput, Home::kOutput}), std::set{Storage::kBuffer});
    EXPECT_EQ(p->arena_bytes, 0);
  }
}

// With f16 activations, what layers add to (the embedding, the two sums of a layer) and the logits stay f32, and the rest shrinks.
TEST(Planner, HalvesActivationsButWhatLayersAddTo) {
  Tuning tuning;
  tuning.activation_type = DType::kF16;
  const StepShape shape{32, LogitRows::kLast};
  const auto halves = plan(shape, device(), tuning), floats = plan(shape, device(), {});
  ASSERT_TRUE(halves && floats);
  for (const Dispatch& dispatch : halves->dispatches)
    for (const PlanBinding& binding : dispatch.bindings) {
      const PlanObject& object = halves->objects[static_cast<size_t>(binding.object)];
      if (object.home != Home::kArenaBuffer && object.home != Home::kOutput) continue;
      const std::string& kernel = dispatch.variant.kernel;
      const bool writes_residual = dispatch.variant.tensors.contains("residual") && binding.slot == "y";
      const bool residual = binding.slot == "residual" || writes_residual || kernel == "embed" || kernel == "take_row" || (dispatch.variant.tensors.contains("gamma") && binding.slot == "x");
      const bool logits = object.home == Home::kOutput;
      EXPECT_EQ(object.layout.element, residual || logits ? DType::kF32 : DType::kF16) << dispatch.label << " " << binding.slot;
    }
  EXPECT_LT(halves->arena_bytes, floats->arena_bytes);
}

// Where a device cannot do a storage, the one before it stands in: image3d, image2d_array, image2d, image_buffer, buffer.
TEST(Planner, FallsBackInTheStatedOrder) {
  struct Loss {
    void (*lose)(DeviceInfo&);
    Storage weights, activations;
  };
  const Loss losses[] = {{[](DeviceInfo&) {}, Storage::kImage3D, Storage::kImage3D},
                         {[](DeviceInfo& d) { d.image3d_writes = false; }, Storage::kImage3D, Storage::kImage2DArray},  // weights are only read
                         {[](DeviceInfo& d) { d.max_image3d_width = 0; }, Storage::kImage2DArray, Storage::kImage2DArray},
                         {[](DeviceInfo& d) { d.max_image_layers = 0; }, Storage::kImage2D, Storage::kImage2D},
                         {[](DeviceInfo& d) { d.max_image_width = 4; }, Storage::kImageBuffer, Storage::kImageBuffer},
                         {[](DeviceInfo& d) { d.max_image_buffer_texels = 4; }, Storage::kBuffer, Storage::kBuffer}};
  DeviceInfo info = device();
  for (const Loss& loss : losses) {
    loss.lose(info);
    const auto p = plan({32, LogitRows::kLast}, info, images(Storage::kImage3D));
    ASSERT_TRUE(p) << p.error().message();
    EXPECT_EQ(storages(*p, {Home::kWeight}), std::set{loss.weights});
    EXPECT_EQ(storages(*p, {Home::kArenaBuffer, Home::kArenaImage}), std::set{loss.activations});
  }
}

// A user who asks for a storage gets it, or is told why not.
TEST(Planner, RefusesAFixedStorageThatCannotBe) {
  DeviceInfo none = device();
  none.max_image3d_width = 0;
  const auto absent = plan({32, LogitRows::kLast}, none, images({Storage::kImage3D, true}));
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(absent.error().message().find("storage image3d, which was asked for: the device has no image3d"), std::string::npos) << absent.error().message();

  DeviceInfo narrow = device();
  narrow.max_image_width = 12;  // holds 8 texels of quants, not a row of 64 channels
  Tuning tuning = images({Storage::kImage2D, true});
  tuning.weight_storage = Storage::kBuffer;
  const auto too_wide = plan({32, LogitRows::kLast}, narrow, tuning);
  ASSERT_FALSE(too_wide);
  EXPECT_EQ(too_wide.error().code(), ErrorCode::kLimit);
  for (const char* part : {"image2d", "16 x 32", "12 x 16384"}) EXPECT_NE(too_wide.error().message().find(part), std::string::npos) << too_wide.error().message();

  DeviceInfo read_only = device();
  read_only.image3d_writes = false;
  const auto unwritable = plan({32, LogitRows::kLast}, read_only, images({Storage::kImage3D, true}));
  ASSERT_FALSE(unwritable);
  EXPECT_EQ(unwritable.error().code(), ErrorCode::kUnsupported);
}

// Several objects a weight: as many as the tuning says at least, each with dispatches of its own.
TEST(Planner, CutsWeightsIntoTheTuningsParts) {
  Tuning tuning = images();
  tuning.weight_parts = 4;
  const auto p = plan({32, LogitRows::kLast}, device(), tuning);
  ASSERT_TRUE(p) << p.error().message();
  for (const auto& [key, weight] : p->weights)
    EXPECT_EQ(weight.placement.parts.size(), weight.placement.parts.empty() ? 0u : 4u) << key;  // vectors have none
}

// Programs serve every number of tokens: a kernel of one step shape is lowered to the same text in another.
TEST(Planner, KernelTextDoesNotDependOnTheTokens) {
  for (size_t s = 0; s < kStorageRows.size(); ++s) {
    const auto few = plan({32, LogitRows::kLast}, device(), images(static_cast<Storage>(s))), many = plan({128, LogitRows::kLast}, device(), images(static_cast<Storage>(s)));
    ASSERT_TRUE(few && many);
    ASSERT_EQ(few->dispatches.size(), many->dispatches.size());
    for (size_t d = 0; d < few->dispatches.size(); ++d)
      EXPECT_TRUE(few->dispatches[d].variant == many->dispatches[d].variant) << name_of(static_cast<Storage>(s)) << ": " << few->dispatches[d].label;
  }
}

TEST(Planner, FallsBackToBuffersWhereImagesAreTooSmall) {
  DeviceInfo small = device();
  small.max_image_buffer_texels = 0;
  small.max_image_width = 4;  // a block of quants of 64 columns takes 8 texels, a row of 64 channels 16
  const auto p = plan({32, LogitRows::kLast}, small, images());
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(storages(*p, {Home::kWeight}), std::set{Storage::kBuffer});
  EXPECT_EQ(storages(*p, {Home::kArenaBuffer, Home::kArenaImage}), std::set{Storage::kBuffer});
}

TEST(Planner, FoldsHighWeightsButNeverActivations) {
  DeviceInfo low = device();
  low.max_image_height = 16;
  const auto p = plan({32, LogitRows::kLast}, low, images());
  ASSERT_TRUE(p) << p.error().message();
  bool folded = false;
  for (const PlanObject& object : p->objects) {
    if (object.home == Home::kWeight) folded = folded || object.layout.fold == 16;
    else EXPECT_EQ(object.layout.fold, 0) << object.name;
  }
  EXPECT_TRUE(folded);
}

TEST(Planner, NamesTheWeightThatFitsNowhere) {
  DeviceInfo tiny = device();
  tiny.max_binding_bytes = tiny.max_allocation_bytes = 16;
  const auto p = plan({1, LogitRows::kLast}, tiny);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), ErrorCode::kLimit);
  EXPECT_NE(p.error().message().find("token_embd.weight"), std::string::npos) << p.error().message();
}

TEST(Planner, NamesTheStateThatFitsNowhere) {
  DeviceInfo tiny = device();
  tiny.max_binding_bytes = 9000;   // weights come in parts, 8 pages of K take 8 · 2 · 16 · 16 · 4 bytes
  const auto p = plan({1, LogitRows::kLast}, tiny);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), ErrorCode::kLimit);
  EXPECT_NE(p.error().message().find("k.0"), std::string::npos) << p.error().message();
}

TEST(Planner, RefusesAGridBeyondTheDevices) {
  DeviceInfo narrow = device();
  narrow.max_grid = {2, 2, 2};
  const auto p = plan({128, LogitRows::kLast}, narrow);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), ErrorCode::kLimit);
}

TEST(Planner, RefusesAnOpThatDoesNotExist) {
  GraphBuilder g;
  g.node({"convolve", {}, {{"y", g.output("y", 1, 4)}}, {}});
  const DeviceInfo info = device();
  const Tuning tuning;
  const auto p = Planner(info, tuning).plan(std::move(g.graph()), {});
  ASSERT_FALSE(p);
  EXPECT_NE(p.error().message().find("convolve"), std::string::npos);
}

// A matrix of one row is a matrix: it multiplies.
TEST(Planner, PlansAMatmulOfOneRow) {
  GraphBuilder g;
  ops::matmul_into(g, g.activation("x", 1, 64), g.weight({"w", WeightType::kF32, 1, 64}), g.output("y", 1, 1));
  const DeviceInfo info = device();
  const Tuning tuning;
  const auto p = Planner(info, tuning).plan(std::move(g.graph()), {});
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(p->dispatches.size(), 1u);
}

}  // namespace
}  // namespace tessera
