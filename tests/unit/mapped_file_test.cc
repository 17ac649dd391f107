// Constants that lie in a file: large ones stay there, small ones leave it.
#include "runtime/mapped_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/builder.h"
#include "runtime/executable.h"
#include "unit/test_kernels.h"

namespace deepseek {
namespace {

using namespace test_kernels;

constexpr Dim64 kLarge = 1 << 20;  // floats

class MappedFile : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(::testing::TempDir()) / ("mapped_" + std::to_string(::getpid()));
    std::vector<float> values(static_cast<std::size_t>(kLarge + 4));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // `count` floats of the file from `first` on.
  Tensor piece(Dim64 first, Dim64 count) {
    if (!file_) file_ = map_file(path_, "test");
    auto* data = reinterpret_cast<float*>(const_cast<std::byte*>(file_->data())) + first;
    return Tensor::wrap(DType::F32, {count}, data,
                        std::const_pointer_cast<std::span<const std::byte>>(file_));
  }

  std::filesystem::path path_;
  std::shared_ptr<const std::span<const std::byte>> file_;
};

TEST_F(MappedFile, ReadsAgainWhatWasDropped) {
  const Tensor t = piece(1, 8);
  EXPECT_TRUE(is_mapped(t));
  EXPECT_FALSE(is_mapped(Tensor(DType::F32, {8})));
  EXPECT_EQ(t.at(7), 8);
  drop_mapped_pages(t);
  EXPECT_EQ(t.at(7), 8);
  EXPECT_THROW(map_file(path_ / "none", "test"), Error);
}

TEST_F(MappedFile, LargeConstantsStayAndSmallOnesLeave) {
  ExecutableBuilder b;
  const ValueId weight = b.constant(piece(kLarge, 2)), table = b.constant(piece(0, kLarge)),
                bias = b.constant(piece(kLarge + 2, 2));
  file_.reset();
  const ValueId packed = b.temp({DType::F32, {2}});
  b.kernel(Phase::Prepare, info("pack"), {unary([](float v) { return 2 * v; }), {2}, {weight, packed}, {}});
  b.output("packed", packed);
  b.output("table", table);
  b.output("bias", bias);
  const Executable e = b.finish();
  int mapped = 0;
  for (const Tensor& t : e.data().constants) mapped += is_mapped(t);
  EXPECT_EQ(mapped, 1);
  const auto y = e.run(NamedTensors{});
  EXPECT_EQ(list(y.at("packed")), (std::vector<float>{2 * kLarge, 2 * kLarge + 2}));
  EXPECT_EQ(list(y.at("bias")), (std::vector<float>{kLarge + 2, kLarge + 3}));
  EXPECT_EQ(y.at("table").at(kLarge - 1), kLarge - 1);
}

}  // namespace
}  // namespace deepseek
