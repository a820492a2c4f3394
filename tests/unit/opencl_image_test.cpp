#include <cstring>
#include <string>

#include "opencl_fixture.hpp"
#include "tessera/base/half.hpp"

namespace tessera::gpu {
namespace {

// Adds 1 to every float of an image texel by texel and writes to another image.
LoweredKernel image_kernel(Storage storage) {
  constexpr const char* kTypes[] = {"", "image1d_buffer_t", "image2d_t", "image2d_array_t", "image3d_t"};
  const std::string type = kTypes[static_cast<size_t>(storage)], x = "(int)get_global_id(0)", y = "(int)get_global_id(1)";
  const std::string at = storage == Storage::kImageBuffer ? x : storage == Storage::kImage2D ? "(int2)(" + x + ", " + y + ")" : "(int4)(" + x + ", " + y + ", (int)get_global_id(2), 0)";
  return {.entry = "increment",
          .text = "#pragma OPENCL EXTENSION cl_khr_3d_image_writes : enable\n__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void increment(__read_only " + type + " x, __write_only " + type +
                  " y) {\n  write_imagef(y, " + at + ", read_imagef(x, " + at + ") + 1.0f);\n}",
          .workgroup = {1, 1, 1},
          .slots = {{"x", storage, false}, {"y", storage, true}},
          .args = {}};
}
struct ImageCase {
  Storage storage;
  DType element;
  int lanes;
  std::vector<int64_t> grid;
  int64_t fold;
};

std::string image_name(const testing::TestParamInfo<ImageCase>& info) {
  return std::string(name_of(info.param.storage)) + "_" + std::string(name_of(info.param.element)) + "x" + std::to_string(info.param.lanes) +
         (info.param.fold != 0 ? "_fold" + std::to_string(info.param.fold) : "");
}

class OpenClImageTest : public OpenClDeviceTest, public testing::WithParamInterface<ImageCase> {
 protected:
  void SetUp() override {
    OpenClDeviceTest::SetUp();
    if (device && device->info().max_image_width == 0) GTEST_SKIP() << "this OpenCL device has no images";
  }
};

TEST_P(OpenClImageTest, RowsRoundTrip) {
  const ImageCase& c = GetParam();
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
    Layouts, OpenClImageTest,
    testing::Values(ImageCase{Storage::kImage2D, DType::kF32, 4, {5, 3}, 0}, ImageCase{Storage::kImage2D, DType::kF16, 4, {5, 3}, 0},
                    ImageCase{Storage::kImage2D, DType::kU32, 4, {5, 3}, 0}, ImageCase{Storage::kImage2D, DType::kF32, 1, {5, 3}, 0},
                    ImageCase{Storage::kImage2D, DType::kF32, 2, {5, 3}, 0}, ImageCase{Storage::kImage2D, DType::kF32, 16, {5, 3}, 0},
                    ImageCase{Storage::kImage2D, DType::kF32, 4, {7, 3}, 4}, ImageCase{Storage::kImage2D, DType::kI8, 4, {5, 3}, 0},
                    ImageCase{Storage::kImageBuffer, DType::kF32, 4, {2, 5, 3}, 0}, ImageCase{Storage::kImageBuffer, DType::kF16, 4, {5, 3}, 0},
                    ImageCase{Storage::kImageBuffer, DType::kU32, 1, {5, 3}, 0}, ImageCase{Storage::kImageBuffer, DType::kF32, 8, {5, 3}, 0},
                    ImageCase{Storage::kImage2DArray, DType::kF32, 4, {7, 3}, 0}, ImageCase{Storage::kImage2DArray, DType::kF16, 8, {7, 3}, 2},
                    ImageCase{Storage::kImage2DArray, DType::kU32, 4, {7, 3}, 7}, ImageCase{Storage::kImage3D, DType::kF32, 4, {7, 3}, 0},
                    ImageCase{Storage::kImage3D, DType::kF16, 8, {7, 3}, 2}, ImageCase{Storage::kImage3D, DType::kU32, 4, {7, 3}, 7}),
    image_name);

class OpenClImageKernelTest : public OpenClDeviceTest, public testing::WithParamInterface<std::pair<Storage, DType>> {};

TEST_P(OpenClImageKernelTest, KernelsSeeWhatRowsWriteAndTheReverse) {
  const auto [storage, element] = GetParam();
  if (device->info().max_image_width == 0) GTEST_SKIP() << "this OpenCL device has no images";
  const Layout layout{storage, element, 4, {6, 5}, row_of(storage).form == StorageForm::kLayers ? 2 : 0};
  auto x = device->create_image(layout), y = device->create_image(layout);
  ASSERT_TRUE(x && y) << x.error().message();
  const auto program = kernel(image_kernel(storage));

  std::vector<std::byte> sent(static_cast<size_t>(layout.object_bytes())), got(sent.size());
  const auto store = [&](size_t i, float value) {
    const uint16_t half = float_to_half(value);
    element == DType::kF16 ? std::memcpy(&sent[i * 2], &half, 2) : std::memcpy(&sent[i * 4], &value, 4);
  };
  for (size_t i = 0; i < 120; ++i) store(i, static_cast<float>(i));
  ASSERT_TRUE(device->write_rows(**x, 0, 6, sent));
  auto list = std::move(*device->create_list());
  const std::array<int64_t, 3> workgroups{layout.extent().width, layout.extent().height, layout.extent().depth};
  ASSERT_TRUE(list->dispatch({program.get(), {{.image = x->get()}, {.image = y->get()}}, {}, workgroups, {}}));
  ASSERT_TRUE(list->finish());
  run(*list);
  ASSERT_TRUE(device->read_rows(**y, 0, 6, got));
  for (size_t i = 0; i < 120; ++i) store(i, static_cast<float>(i + 1));
  EXPECT_EQ(got, sent);
}

INSTANTIATE_TEST_SUITE_P(Storages, OpenClImageKernelTest,
                         testing::Values(std::pair{Storage::kImage2D, DType::kF32}, std::pair{Storage::kImage2D, DType::kF16},
                                         std::pair{Storage::kImageBuffer, DType::kF32}, std::pair{Storage::kImageBuffer, DType::kF16},
                                         std::pair{Storage::kImage2DArray, DType::kF32}, std::pair{Storage::kImage2DArray, DType::kF16},
                                         std::pair{Storage::kImage3D, DType::kF32}, std::pair{Storage::kImage3D, DType::kF16}),
                         [](const auto& made) { return std::string(name_of(made.param.first)) + "_" + std::string(name_of(made.param.second)); });

TEST_F(OpenClDeviceTest, WrongImagesAreRefused) {
  if (device->info().max_image_width == 0) GTEST_SKIP() << "this OpenCL device has no images";
  const DeviceInfo& info = device->info();
  EXPECT_EQ(device->create_image({Storage::kBuffer, DType::kF32, 4, {4, 4}, 0}).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(device->create_image({Storage::kImage2DArray, DType::kF32, 4, {info.max_image_layers + 1, 2}, 1}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImage3D, DType::kF32, 4, {2, info.max_image3d_width + 1}, 1}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {0, 4}, 0}).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {2, info.max_image_width + 1}, 0}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {info.max_image_height + 1, 2}, 0}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->create_image({Storage::kImageBuffer, DType::kF32, 4, {info.max_image_buffer_texels + 1}, 0}).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->counters().images_created, 0u);

  const auto program = kernel(image_kernel(Storage::kImage2D));
  auto flat = std::move(*device->create_image({Storage::kImageBuffer, DType::kF32, 4, {2, 2}, 0}));
  auto image = std::move(*device->create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}));
  const auto memory = buffer(64);
  auto list = std::move(*device->create_list());
  for (const Binding& wrong : {Binding{.image = flat.get()}, Binding{memory.get(), 0, 64}, Binding{.image = image.get()}}) {
    const Status status = list->dispatch({program.get(), {wrong, {.image = image.get()}}, {}, {1, 1, 1}, {}});
    ASSERT_FALSE(status);  // the third one reads and writes one image
    EXPECT_EQ(status.error().code(), ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera::gpu
