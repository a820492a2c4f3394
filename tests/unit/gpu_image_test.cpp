// Images: rows in and out, and kernels that see them.
#include <cstring>
#include <string>
#include <tuple>

#include "gpu_fixture.hpp"
#include "tessera/base/half.hpp"
#include "tessera/base/text.hpp"

namespace tessera::gpu {
namespace {

// Adds 1 to every texel of an image and writes to another one.
LoweredKernel increment_kernel(const Layout& layout, Target target) {
  return dialect_kernel("increment", R"(tensor in  float4 x [row, slice];
tensor out float4 y [row, slice];
kernel increment(1, 1, 1) {
  const int row = group_id(0);
  const int slice = group_id(1);
  y.write(x.read(row, slice) + float4(1.0f), row, slice);
})",
                        {{"x", layout}, {"y", layout}}, target);
}

struct ImageCase {
  Storage storage;
  DType element;
  int lanes;
  std::vector<int64_t> grid;
  int64_t fold;
};

using ApiAndImage = std::tuple<Api, ImageCase>;

std::string image_name(const testing::TestParamInfo<ApiAndImage>& info) {
  const auto& [api, image] = info.param;
  return cat(name_of(api), "_", name_of(image.storage), "_", name_of(image.element), "x", image.lanes, image.fold != 0 ? cat("_fold", image.fold) : "");
}

// A device that has images.
class GpuWithImages : public GpuTest {
 protected:
  void open_with_images(Api api) {
    open(api);
    if (device && device->info().max_image_width == 0) GTEST_SKIP() << device->info().name << " has no images";
  }
};

class GpuImageRowsTest : public GpuWithImages, public testing::WithParamInterface<ApiAndImage> {
 protected:
  void SetUp() override { open_with_images(std::get<Api>(GetParam())); }
};

TEST_P(GpuImageRowsTest, RowsRoundTrip) {
  const ImageCase& c = std::get<ImageCase>(GetParam());
  const Layout layout{c.storage, c.element, c.lanes, c.grid, c.fold};
  auto made = device->create_image(layout);
  if (!made && made.error().code() == ErrorCode::kUnsupported) GTEST_SKIP() << made.error().message();
  ASSERT_TRUE(made) << made.error().message();
  Image& image = **made;
  EXPECT_EQ(image.layout(), layout);
  EXPECT_EQ(device->counters().device_bytes, static_cast<uint64_t>(layout.object_bytes()));

  std::vector<uint8_t> sent(static_cast<size_t>(layout.object_bytes()));
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<uint8_t>(i % 2 == 1 ? i % 0x40 : i * 13);  // no NaN as f32 or f16
  const int64_t rows = layout.lines();
  const size_t row_bytes = sent.size() / static_cast<size_t>(rows);
  const auto first = std::as_bytes(std::span(sent)).first(row_bytes), rest = std::as_bytes(std::span(sent)).subspan(row_bytes);
  ASSERT_TRUE(device->write_rows(image, 1, rows - 1, rest));
  ASSERT_TRUE(device->write_rows(image, 0, 1, first));
  std::vector<uint8_t> got(sent.size());
  ASSERT_TRUE(device->read_rows(image, 0, rows, std::as_writable_bytes(std::span(got))));
  EXPECT_EQ(got, sent);
  std::vector<uint8_t> one(row_bytes);
  ASSERT_TRUE(device->read_rows(image, rows - 1, 1, std::as_writable_bytes(std::span(one))));
  EXPECT_TRUE(std::equal(one.begin(), one.end(), sent.end() - static_cast<int64_t>(row_bytes)));

  EXPECT_EQ(device->write_rows(image, rows, 1, first).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->write_rows(image, -1, 1, first).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->write_rows(image, 0, 2, first).error().code(), ErrorCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, GpuImageRowsTest,
    testing::Combine(testing::ValuesIn(apis()),
                     testing::Values(ImageCase{Storage::kImage2D, DType::kF32, 4, {5, 3}, 0}, ImageCase{Storage::kImage2D, DType::kF16, 4, {5, 3}, 0},
                                     ImageCase{Storage::kImage2D, DType::kU32, 4, {5, 3}, 0}, ImageCase{Storage::kImage2D, DType::kF32, 16, {5, 3}, 0},
                                     ImageCase{Storage::kImage2D, DType::kF32, 4, {7, 3}, 4}, ImageCase{Storage::kImage2D, DType::kI8, 4, {5, 3}, 0},
                                     ImageCase{Storage::kImageBuffer, DType::kF32, 4, {2, 5, 3}, 0}, ImageCase{Storage::kImageBuffer, DType::kF16, 4, {5, 3}, 0},
                                     ImageCase{Storage::kImageBuffer, DType::kF32, 8, {5, 3}, 0}, ImageCase{Storage::kImage2DArray, DType::kF32, 4, {7, 3}, 0},
                                     ImageCase{Storage::kImage2DArray, DType::kF16, 8, {7, 3}, 2}, ImageCase{Storage::kImage2DArray, DType::kU32, 4, {7, 3}, 7},
                                     ImageCase{Storage::kImage3D, DType::kF32, 4, {7, 3}, 0}, ImageCase{Storage::kImage3D, DType::kF16, 8, {7, 3}, 2},
                                     ImageCase{Storage::kImage3D, DType::kU32, 4, {7, 3}, 7})),
    image_name);

// Kernels reach images by texels of 4 lanes and more. OpenCL's narrower ones are images too; the Vulkan backend refuses them.
INSTANTIATE_TEST_SUITE_P(NarrowTexels, GpuImageRowsTest,
                         testing::Combine(testing::Values(Api::kOpenCL),
                                          testing::Values(ImageCase{Storage::kImage2D, DType::kF32, 1, {5, 3}, 0}, ImageCase{Storage::kImage2D, DType::kF32, 2, {5, 3}, 0},
                                                          ImageCase{Storage::kImageBuffer, DType::kU32, 1, {5, 3}, 0})),
                         image_name);

class GpuImageKernelTest : public GpuWithImages, public testing::WithParamInterface<std::tuple<Api, Storage, DType>> {
 protected:
  void SetUp() override { open_with_images(std::get<Api>(GetParam())); }
};

TEST_P(GpuImageKernelTest, KernelsSeeWhatRowsWriteAndTheReverse) {
  const Storage storage = std::get<Storage>(GetParam());
  const DType element = std::get<DType>(GetParam());
  const Layout layout{storage, element, 4, {6, 5}, row_of(storage).form == StorageForm::kLayers ? 2 : 0};
  auto x = device->create_image(layout), y = device->create_image(layout);
  ASSERT_TRUE(x && y) << x.error().message();
  const auto program = kernel(increment_kernel(layout, device->target()));

  std::vector<std::byte> sent(static_cast<size_t>(layout.object_bytes())), got(sent.size());
  const auto store = [&](size_t i, float value) {
    const uint16_t half = float_to_half(value);
    element == DType::kF16 ? std::memcpy(&sent[i * 2], &half, 2) : std::memcpy(&sent[i * 4], &value, 4);
  };
  for (size_t i = 0; i < 120; ++i) store(i, static_cast<float>(i));
  ASSERT_TRUE(device->write_rows(**x, 0, 6, sent));
  const auto list = new_list();
  ASSERT_TRUE(list->dispatch({program.get(), {{.image = x->get()}, {.image = y->get()}}, {}, {6, 5, 1}, {}}));
  ASSERT_TRUE(list->finish());
  run(*list);
  ASSERT_TRUE(device->read_rows(**y, 0, 6, got));
  for (size_t i = 0; i < 120; ++i) store(i, static_cast<float>(i + 1));
  EXPECT_EQ(got, sent);
}

std::string kernel_name(const testing::TestParamInfo<std::tuple<Api, Storage, DType>>& info) {
  const auto& [api, storage, element] = info.param;
  return cat(name_of(api), "_", name_of(storage), "_", name_of(element));
}

INSTANTIATE_TEST_SUITE_P(Storages, GpuImageKernelTest,
                         testing::Combine(testing::ValuesIn(apis()), testing::Values(Storage::kImage2D, Storage::kImageBuffer, Storage::kImage2DArray, Storage::kImage3D),
                                          testing::Values(DType::kF32, DType::kF16)),
                         kernel_name);

class GpuImageTest : public GpuWithImages, public testing::WithParamInterface<Api> {
 protected:
  void SetUp() override { open_with_images(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Apis, GpuImageTest, testing::ValuesIn(apis()), api_name);

TEST_P(GpuImageTest, WrongImagesAreRefused) {
  const DeviceInfo& info = device->info();
  EXPECT_EQ(device->create_image({Storage::kBuffer, DType::kF32, 4, {4, 4}, 0}).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(device->create_image({Storage::kImage2DArray, DType::kF32, 4, {info.max_image_layers + 1, 2}, 1}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImage3D, DType::kF32, 4, {2, info.max_image3d_width + 1}, 1}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {0, 4}, 0}).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {2, info.max_image_width + 1}, 0}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {info.max_image_height + 1, 2}, 0}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImageBuffer, DType::kF32, 4, {info.max_image_buffer_texels + 1}, 0}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->counters().images_created, 0u);

  const auto program = kernel(increment_kernel({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}, device->target()));
  auto flat = std::move(*device->create_image({Storage::kImageBuffer, DType::kF32, 4, {2, 2}, 0}));
  auto image = std::move(*device->create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}));
  const auto memory = buffer(64);
  const auto list = new_list();
  for (const Binding& wrong : {Binding{.image = flat.get()}, Binding{memory.get(), 0, 64}, Binding{.image = image.get()}}) {
    const Status status = list->dispatch({program.get(), {wrong, {.image = image.get()}}, {}, {1, 1, 1}, {}});
    ASSERT_FALSE(status);  // the third one reads and writes one image
    EXPECT_EQ(status.error().code(), ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera::gpu
