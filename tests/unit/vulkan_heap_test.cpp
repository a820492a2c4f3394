// How Vulkan memory is cut into pieces, on a driver that is all made up: no loader and no device is needed.
#include "../../src/vulkan/vulkan_heap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "tessera/base/text.hpp"

namespace tessera::vulkan {
namespace {

constexpr VkDeviceSize kMiB = VkDeviceSize{1} << 20;
constexpr VkDeviceSize kBlock = 16 * kMiB;   // the heap's own block, which small pieces share

struct Allocation {
  VkDeviceSize bytes;
  uint32_t type;
};

// The driver's state. Vulkan's functions carry no user data, so there is one.
struct FakeMemory {
  std::vector<VkMemoryPropertyFlags> types;
  std::map<uint64_t, Allocation> live;
  std::map<uint32_t, VkDeviceSize> room;     // by type; absent: no end to it
  VkResult failure = VK_ERROR_OUT_OF_DEVICE_MEMORY;
  bool maps = true;
  uint64_t last = 0;
  int allocations = 0;

  VkDeviceSize used(uint32_t type) const {
    VkDeviceSize sum = 0;
    for (const auto& [id, allocation] : live) sum += allocation.type == type ? allocation.bytes : 0;
    return sum;
  }
};
FakeMemory fake;
std::byte* const kMapped = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);   // never looked into

template <class T>
T handle(uint64_t id) {
  T made{};
  std::memcpy(&made, &id, sizeof made);
  return made;
}
template <class T>
uint64_t id_of(T made) {
  uint64_t id = 0;
  std::memcpy(&id, &made, sizeof id);
  return id;
}

VkResult allocate(VkDevice, const VkMemoryAllocateInfo* info, const VkAllocationCallbacks*, VkDeviceMemory* made) {
  const uint32_t type = info->memoryTypeIndex;
  if (fake.room.contains(type) && fake.used(type) + info->allocationSize > fake.room.at(type)) return fake.failure;
  ++fake.allocations;
  fake.live[++fake.last] = {info->allocationSize, type};
  *made = handle<VkDeviceMemory>(fake.last);
  return VK_SUCCESS;
}

void free_memory(VkDevice, VkDeviceMemory memory, const VkAllocationCallbacks*) { EXPECT_EQ(fake.live.erase(id_of(memory)), 1u); }

VkResult map_memory(VkDevice, VkDeviceMemory, VkDeviceSize, VkDeviceSize, VkMemoryMapFlags, void** at) {
  *at = kMapped;
  return fake.maps ? VK_SUCCESS : VK_ERROR_MEMORY_MAP_FAILED;
}

void memory_properties(VkPhysicalDevice, VkPhysicalDeviceMemoryProperties* properties) {
  *properties = {};
  properties->memoryTypeCount = static_cast<uint32_t>(fake.types.size());
  for (size_t i = 0; i < fake.types.size(); ++i) properties->memoryTypes[i].propertyFlags = fake.types[i];
}

VulkanApi fake_api() {
  VulkanApi api;
  api.GetPhysicalDeviceProperties = [](VkPhysicalDevice, VkPhysicalDeviceProperties* properties) { *properties = {}; };
  api.GetPhysicalDeviceMemoryProperties = memory_properties;
  api.CreateDevice = [](VkPhysicalDevice, const VkDeviceCreateInfo*, const VkAllocationCallbacks*, VkDevice* made) -> VkResult {
    *made = handle<VkDevice>(1);
    return VK_SUCCESS;
  };
  api.GetDeviceProcAddr = [](VkDevice, const char*) -> PFN_vkVoidFunction { return [] { ADD_FAILURE() << "a call that the heap has no reason to make"; }; };
  api.DestroyDevice = [](VkDevice, const VkAllocationCallbacks*) {};
  api.GetDeviceQueue = [](VkDevice, uint32_t, uint32_t, VkQueue*) {};
  api.CreateCommandPool = [](VkDevice, const VkCommandPoolCreateInfo*, const VkAllocationCallbacks*, VkCommandPool* made) -> VkResult {
    *made = handle<VkCommandPool>(2);
    return VK_SUCCESS;
  };
  api.DestroyCommandPool = [](VkDevice, VkCommandPool, const VkAllocationCallbacks*) {};
  api.AllocateMemory = allocate;
  api.FreeMemory = free_memory;
  api.MapMemory = map_memory;
  return api;
}

constexpr VkMemoryPropertyFlags kLocal = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr VkMemoryPropertyFlags kSeen = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr VkMemoryPropertyFlags kCached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

class VulkanHeapTest : public testing::Test {
 protected:
  void SetUp() override { make({kLocal | kSeen}); }
  void TearDown() override {
    heap.reset();
    driver.reset();
    EXPECT_TRUE(fake.live.empty());
  }

  // A device with these types of memory.
  void make(std::vector<VkMemoryPropertyFlags> types) {
    heap.reset();
    fake = FakeMemory();
    fake.types = std::move(types);
    FoundDevice found;
    found.info.name = "a device of the test";
    auto opened = Driver::open(nullptr, fake_api(), found);
    ASSERT_TRUE(opened) << opened.error().message();
    driver = std::move(*opened);
    heap = std::make_unique<Heap>(*driver);
  }
  Result<Memory> take(VkDeviceSize bytes, VkDeviceSize alignment = 256, Content content = Content::kBuffers, bool host = false, uint32_t types = ~0u) {
    return heap->allocate({bytes, alignment, types}, content, host);
  }
  Memory taken(VkDeviceSize bytes, VkDeviceSize alignment = 256, Content content = Content::kBuffers) {
    auto made = take(bytes, alignment, content);
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }
  static uint32_t type_of(const Memory& memory) { return fake.live.at(id_of(memory.object())).type; }

  std::unique_ptr<Driver> driver;
  std::unique_ptr<Heap> heap;
};

TEST_F(VulkanHeapTest, SmallPiecesShareABlock) {
  const Memory a = taken(1000), b = taken(1000), c = taken(4 * kMiB);
  EXPECT_EQ(fake.allocations, 1);
  EXPECT_EQ(fake.live.begin()->second.bytes, kBlock);
  EXPECT_EQ(a.object(), b.object());
  EXPECT_EQ(a.offset(), 0u);
  EXPECT_EQ(b.offset(), 1024u);
  EXPECT_EQ(c.offset(), 2048u);
  EXPECT_EQ(b.mapped(), kMapped + 1024);
}

TEST_F(VulkanHeapTest, LargePiecesAreAllocationsOfTheirOwn) {
  const Memory small = taken(1000);
  for (const VkDeviceSize bytes : {4 * kMiB + 1, kBlock, 100 * kMiB}) {
    const Memory large = taken(bytes);
    EXPECT_EQ(fake.live.at(id_of(large.object())).bytes, bytes);
    EXPECT_EQ(large.offset(), 0u);
    const Memory other = taken(1000);
    EXPECT_EQ(other.object(), small.object()) << "it lies beside " << bytes;
  }
  EXPECT_EQ(fake.live.size(), 1u);
}

TEST_F(VulkanHeapTest, FreedPlacesAreTakenAgain) {
  std::vector<Memory> pieces;
  for (int i = 0; i < 4; ++i) pieces.push_back(taken(kMiB));
  pieces[1] = Memory();
  EXPECT_EQ(taken(kMiB / 2).offset(), kMiB);
  EXPECT_EQ(taken(kMiB).offset(), kMiB);
  EXPECT_EQ(taken(kMiB + 1).offset(), 4 * kMiB);   // too wide for the gap
  EXPECT_EQ(fake.allocations, 1);
}

TEST_F(VulkanHeapTest, AFullBlockIsFollowedByAnother) {
  std::vector<Memory> pieces;
  for (int i = 0; i < 4; ++i) pieces.push_back(taken(4 * kMiB));   // the last one ends where the block does
  EXPECT_EQ(fake.allocations, 1);
  const Memory next = taken(1);
  EXPECT_EQ(fake.allocations, 2);
  EXPECT_NE(next.object(), pieces.front().object());
}

TEST_F(VulkanHeapTest, EmptyBlocksAreGivenBack) {
  {
    const Memory a = taken(1000);
    { const Memory b = taken(1000), large = taken(50 * kMiB); }
    EXPECT_EQ(fake.live.size(), 1u);
  }
  EXPECT_TRUE(fake.live.empty());
}

// Where images of optimal tiling and buffers meet, devices want distances of their own (bufferImageGranularity).
TEST_F(VulkanHeapTest, BuffersAndImagesLieInDifferentBlocks) {
  const Memory buffer = taken(1000, 256, Content::kBuffers), image = taken(1000, 256, Content::kImages), another = taken(1000, 256, Content::kImages);
  EXPECT_NE(buffer.object(), image.object());
  EXPECT_EQ(image.object(), another.object());
}

TEST_F(VulkanHeapTest, MemoryThatMoves) {
  Memory a = taken(1000);
  Memory b = std::move(a);
  EXPECT_EQ(a.mapped(), nullptr);
  EXPECT_EQ(b.mapped(), kMapped);
  b = taken(2000);
  EXPECT_EQ(fake.live.size(), 1u);
  a = std::move(b);
  EXPECT_NE(a.mapped(), nullptr);
}

TEST_F(VulkanHeapTest, TheBestMemoryIsTheDevicesOwnThatTheHostSees) {
  make({kSeen, kLocal, kSeen | kCached, kLocal | kSeen, kLocal | kSeen | kCached});
  EXPECT_EQ(type_of(taken(1000)), 4u);
  EXPECT_EQ(type_of(*take(1000, 256, Content::kBuffers, false, 0b01111)), 3u);
  EXPECT_EQ(type_of(*take(1000, 256, Content::kBuffers, false, 0b00111)), 1u);   // the device's own before what the host sees
  EXPECT_EQ(type_of(*take(1000, 256, Content::kBuffers, true, 0b00111)), 2u);
  EXPECT_EQ(type_of(*take(1000, 256, Content::kBuffers, true, 0b00011)), 0u);
  const auto none = take(1000, 256, Content::kBuffers, true, 0b00010);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(take(1000, 256, Content::kBuffers, false, 0b00010)->mapped(), nullptr);
}

// Memory for tiles of a frame, for protected content, and AMD's for debugging has rules of its own; what is not coherent would have to be flushed.
TEST_F(VulkanHeapTest, StrangeMemoryIsNotTaken) {
  make({kLocal | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT, kLocal | kSeen | VK_MEMORY_PROPERTY_PROTECTED_BIT, kLocal | kSeen | VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD,
        kLocal | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT});
  EXPECT_EQ(type_of(taken(1000)), 3u);
  EXPECT_EQ(taken(1000).mapped(), nullptr);
  EXPECT_FALSE(take(1000, 256, Content::kBuffers, true));
}

TEST_F(VulkanHeapTest, AKindThatIsFullFallsBackToTheNext) {
  make({kLocal | kSeen, kSeen});
  fake.room[0] = 40 * kMiB;
  std::vector<Memory> pieces;
  for (int i = 0; i < 4; ++i) pieces.push_back(taken(15 * kMiB));
  EXPECT_EQ(type_of(pieces[1]), 0u);
  EXPECT_EQ(type_of(pieces[2]), 1u);
  fake.room[1] = 30 * kMiB;
  const auto full = take(15 * kMiB);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(full.error().message().find(bytes_text(15 * kMiB)), std::string::npos) << full.error().message();
  pieces.pop_back();
  EXPECT_TRUE(take(15 * kMiB));
}

// The last of the memory: no room for a whole block, but for the piece.
TEST_F(VulkanHeapTest, WhereABlockDoesNotFitThePieceMay) {
  fake.room[0] = 2 * kMiB;
  const Memory a = taken(kMiB);
  EXPECT_EQ(fake.live.at(id_of(a.object())).bytes, kMiB);
  const Memory b = taken(kMiB);
  EXPECT_NE(a.object(), b.object());
  EXPECT_FALSE(take(1));
}

TEST_F(VulkanHeapTest, MemoryThatCannotBeMappedIsGivenBack) {
  fake.maps = false;
  const auto made = take(1000);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_TRUE(fake.live.empty());
}

TEST_F(VulkanHeapTest, OtherErrorsAreNotPapered) {
  make({kLocal | kSeen, kSeen});
  fake.room[0] = 0;
  fake.failure = VK_ERROR_DEVICE_LOST;
  EXPECT_EQ(take(1000).error().code(), ErrorCode::kDeviceLost);
  EXPECT_TRUE(fake.live.empty());
}

// Any order of taking and giving back: pieces are aligned, inside their allocation, and never overlap.
TEST_F(VulkanHeapTest, PiecesNeverOverlap) {
  struct Piece {
    Memory memory;
    VkDeviceSize bytes, alignment;
    Content content;
  };
  std::mt19937 random(7);
  const auto below = [&](uint64_t end) { return random() % end; };
  std::vector<Piece> pieces;
  for (int step = 0; step < 3000; ++step) {
    if (!pieces.empty() && (below(100) < 45 || pieces.size() > 60)) {
      std::swap(pieces[below(pieces.size())], pieces.back());
      pieces.pop_back();
    } else {
      const VkDeviceSize bytes = 1 + below(below(4) == 0 ? 6 * kMiB : 200000), alignment = VkDeviceSize{1} << below(17);
      const Content content = below(3) == 0 ? Content::kImages : Content::kBuffers;
      pieces.push_back({taken(bytes, alignment, content), bytes, alignment, content});
    }
    if (pieces.empty()) continue;
    const Piece& last = pieces.back();
    ASSERT_EQ(last.memory.offset() % last.alignment, 0u);
    ASSERT_LE(last.memory.offset() + last.bytes, fake.live.at(id_of(last.memory.object())).bytes);
    for (const Piece& other : pieces) {
      if (&other == &last || other.memory.object() != last.memory.object()) continue;
      ASSERT_EQ(other.content, last.content);
      ASSERT_TRUE(other.memory.offset() + other.bytes <= last.memory.offset() || last.memory.offset() + last.bytes <= other.memory.offset()) << "step " << step;
    }
  }
  VkDeviceSize used = 0;
  for (const Piece& piece : pieces) used += piece.bytes;
  EXPECT_LT(fake.used(0), 4 * used + 4 * kBlock);
  pieces.clear();
}

}  // namespace
}  // namespace tessera::vulkan
