// Attributes and dims on which size arithmetic trips, and parts that are not there: each gives one Error. Where the
// arithmetic is only harmless by luck, the sanitizers tell.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "unit/onnx_model.h"

namespace deepseek {
namespace {

using onnx::TensorProto;
using testing::caught;
using testing::OnnxModel;
using testing::set_int;
using testing::set_ints;
using testing::set_string;

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max(),
                       kLeast = std::numeric_limits<std::int64_t>::min();

struct Case {
  const char* name;
  std::function<void(OnnxModel&)> build;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

onnx::GraphProto& body(onnx::NodeProto& n) {
  auto* a = n.add_attribute();
  a->set_name("body");
  a->set_type(onnx::AttributeProto::GRAPH);
  return *a->mutable_g();
}

// One scanned input [3, 2] whose rows come out again, stacked along `axis`.
onnx::NodeProto& scan(OnnxModel& m, std::int64_t inputs, std::int64_t axis) {
  m.input("x", {"3", "2"});
  auto& n = m.add("Scan", {"x"}, {"y"});
  set_int(n, "num_scan_inputs", inputs);
  set_ints(n, "scan_output_axes", {axis});
  auto& g = body(n);
  g.add_input()->set_name("row");
  auto* same = g.add_node();
  same->set_op_type("Neg");
  same->add_input("row");
  same->add_output("out");
  g.add_output()->set_name("out");
  return n;
}

const Case kCases[] = {
    {"BlockSize",
     [](OnnxModel& m) {
       m.input("x", {"1", "4", "2", "2"});
       set_int(m.add("DepthToSpace", {"x"}, {"y"}), "blocksize", kMost);
     }},
    {"SpaceBlockSize",
     [](OnnxModel& m) {
       m.input("x", {"1", "4", "2", "2"});
       set_int(m.add("SpaceToDepth", {"x"}, {"y"}), "blocksize", std::int64_t{1} << 32);
     }},
    {"ConvReach",
     [](OnnxModel& m) {
       m.input("x", {"1", "1", "4"}).input("w", {"1", "1", std::to_string(std::int64_t{1} << 40)});
       set_ints(m.add("Conv", {"x", "w"}, {"y"}), "dilations", {std::int64_t{1} << 31});
     }},
    {"ConvTransposePads",
     [](OnnxModel& m) {
       m.input("x", {"1", "1", "4"}).input("w", {"1", "1", "3"});
       set_ints(m.add("ConvTranspose", {"x", "w"}, {"y"}), "pads", {kLeast, kLeast});
     }},
    {"ConvTransposeShape",
     [](OnnxModel& m) {
       m.input("x", {"1", "1", "4"}).input("w", {"1", "1", "3"});
       set_ints(m.add("ConvTranspose", {"x", "w"}, {"y"}), "output_shape", {kLeast});
     }},
    {"ConvTransposeSame",
     [](OnnxModel& m) {
       m.input("x", {"1", "1", std::to_string(std::int64_t{1} << 48)}).input("w", {"1", "1", "3"});
       auto& n = m.add("ConvTranspose", {"x", "w"}, {"y"});
       set_string(n, "auto_pad", "SAME_UPPER");
       set_ints(n, "strides", {std::int64_t{1} << 31});
     }},
    {"DeformConvTaps",
     [](OnnxModel& m) {
       const std::string large = std::to_string(std::int64_t{1} << 31);
       m.input("x", {"1", "0", "4", "4"}).input("w", {"1", "0", large, large});
       m.input("offset", {"1", "0", "1", "1"});
       m.add("DeformConv", {"x", "w", "offset"}, {"y"});
     }},
    {"RoiAlignSize",
     [](OnnxModel& m) {
       m.input("x", {"1", "1", "4", "4"}).input("rois", {"1", "4"}).input("batch", {"1"}, TensorProto::INT64);
       auto& n = m.add("RoiAlign", {"x", "rois", "batch"}, {"y"});
       set_int(n, "output_height", kMost);
       set_int(n, "sampling_ratio", 2);
     }},
    {"MaxUnpoolRank",
     [](OnnxModel& m) {
       m.input("x", {"1", "1", "2"}).input("i", {"1", "1", "2"}, TensorProto::INT64);
       m.ints("shape", {1, 1, 4, 4, 4});
       set_ints(m.add("MaxUnpool", {"x", "i", "shape"}, {"y"}), "kernel_shape", {2});
     }},
    {"NgramIndex",
     [](OnnxModel& m) {
       m.input("x", {"4"}, TensorProto::INT64);
       auto& n = m.add("TfIdfVectorizer", {"x"}, {"y"});
       for (const char* name : {"max_skip_count", "min_gram_length", "max_gram_length"}) set_int(n, name, 1);
       set_ints(n, "pool_int64s", {1});
       set_ints(n, "ngram_counts", {0});
       set_ints(n, "ngram_indexes", {0, kMost});
     }},
    {"ScanInputs", [](OnnxModel& m) { scan(m, kLeast, 0); }},
    {"ScanAxis", [](OnnxModel& m) { scan(m, 1, 5); }},
    {"ScanAxisFromEnd", [](OnnxModel& m) { scan(m, 1, -4); }},
    {"ScatteredScalar",
     [](OnnxModel& m) {
       m.input("x", {"2", "3"}).input("u", {}).input("at", {"2"}, TensorProto::INT64);
       m.add("TensorScatter", {"x", "u", "at"}, {"y"});
     }},
    {"ConcatOfNothing",
     [](OnnxModel& m) {
       m.ints("a", {1, 2});
       set_int(m.add("Concat", {"a", ""}, {"y"}), "axis", 0);
     }},
    {"QuantisedToFloat",
     [](OnnxModel& m) {
       m.input("a", {"2", "2"}, TensorProto::UINT8).input("zero", {}, TensorProto::UINT8);
       m.input("s", {}).input("float_zero", {});
       m.add("QLinearMatMul", {"a", "s", "zero", "a", "s", "zero", "s", "float_zero"}, {"y"});
     }},
    {"Rank",
     [](OnnxModel& m) {
       m.input("x", {"1"}).ints("shape", std::vector<std::int64_t>(65, 1));
       m.add("Reshape", {"x", "shape"}, {"y"});
     }},
    {"EndlessLoop",
     [](OnnxModel& m) {
       auto* go = m.graph().add_initializer();
       go->set_name("go");
       go->set_data_type(TensorProto::BOOL);
       go->add_int32_data(1);
       m.input("x", {"2"});
       auto& g = body(m.add("Loop", {"", "go", "x"}, {"y"}));
       for (const char* name : {"i", "going", "state"}) g.add_input()->set_name(name);
       for (const char* name : {"going", "state"}) g.add_output()->set_name(name);
     }},
};

class OnnxNumbers : public ::testing::TestWithParam<Case> {};

TEST_P(OnnxNumbers, AreRefused) {
  OnnxModel m;
  GetParam().build(m);
  m.output("y");
  const Error e = caught([&] { m.import(); });
  EXPECT_TRUE(e.code() == Code::InvalidArgument || e.code() == Code::Unsupported) << e.what();
  EXPECT_FALSE(e.op().empty()) << e.what();
}

INSTANTIATE_TEST_SUITE_P(Models, OnnxNumbers, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

// What would make a graph or a table without end says so: loops, sequences, resampling and transforms.
TEST(OnnxNumbersOfNodes, AreLimited) {
  const auto refused = [](const std::function<void(OnnxModel&)>& build) {
    OnnxModel m;
    build(m);
    m.output("y");
    const std::string bytes = m.bytes();
    const Error e = caught([&] { import_onnx(std::as_bytes(std::span(bytes)), {.max_nodes = 100}); });
    EXPECT_EQ(e.code(), Code::ResourceExhausted) << e.what();
  };
  refused([](OnnxModel& m) {
    m.input("x", {"1000", "1"});
    m.add("SplitToSequence", {"x"}, {"parts"});
    set_int(m.add("ConcatFromSequence", {"parts"}, {"y"}), "axis", 0);
  });
  refused([](OnnxModel& m) {
    m.input("x", {"1000", "1"});
    for (int i = 0; i <= 100; ++i)
      m.add("Neg", {i == 0 ? "x" : "x" + std::to_string(i)}, {i == 100 ? "y" : "x" + std::to_string(i + 1)});
  });
  refused([](OnnxModel& m) {
    m.input("x", {"1", "8", "1"}).ints("axis", {1});
    m.ints("length", {1024});
    m.add("DFT", {"x", "length"}, {"y"});
  });
  refused([](OnnxModel& m) {
    m.input("x", {"4000", "1"}).ints("sizes", {1000, 1});
    auto& n = m.add("Resize", {"x", "", "", "sizes"}, {"y"});
    set_string(n, "mode", "linear");
    set_int(n, "antialias", 1);
  });
}

// Steps beyond the end take the first element alone.
TEST(OnnxNumbersOfSlices, FarStepsAreFolded) {
  OnnxModel m;
  m.input("x", {"5"}).output("y");
  m.ints("shape", {1, 5}).ints("from", {0}).ints("to", {2}).ints("axes", {0}).ints("by", {kMost});
  m.add("Slice", {"shape", "from", "to", "axes", "by"}, {"first"});
  m.ints("rest", {5});
  set_int(m.add("Concat", {"first", "rest"}, {"all"}), "axis", 0);
  m.add("Reshape", {"x", "all"}, {"y"});
  EXPECT_EQ(str(m.import().outputs().at(0).value.shape()), "[1, 5]");
}

// Nothing, taken backwards, is nothing (found by fuzzing).
TEST(OnnxNumbersOfSlices, NothingIsFoldedBackwards) {
  for (const std::int64_t by : {-1, -2}) {
    OnnxModel m;
    m.input("x", {"5"}).input("scalar", {}).output("y");
    m.add("Shape", {"scalar"}, {"none"});
    m.ints("from", {-1}).ints("to", {kLeast}).ints("axes", {0}).ints("by", {by}).ints("rest", {5, 1});
    m.add("Slice", {"none", "from", "to", "axes", "by"}, {"nothing"});
    set_int(m.add("Concat", {"nothing", "rest"}, {"all"}), "axis", 0);
    m.add("Reshape", {"x", "all"}, {"y"});
    EXPECT_EQ(str(m.import().outputs().at(0).value.shape()), "[5, 1]") << by;
  }
}

}  // namespace
}  // namespace deepseek
