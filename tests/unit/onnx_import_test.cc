#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "unit/onnx_model.h"

namespace deepseek {
namespace {

namespace fs = std::filesystem;
using onnx::TensorProto;
using testing::caught;
using testing::set_int;
using Model = testing::OnnxModel;

std::vector<std::string> ops_of(const Graph& g) {
  std::vector<std::string> names;
  for (const auto& n : g.nodes())
    if (n->op) names.emplace_back(n->op_name());
  return names;
}

TEST(OnnxImport, NodesBecomeOpsWithTheirSources) {
  Model m;
  m.input("x", {"batch", "4"}).output("y");
  m.add("Relu", {"x"}, {"y"}, "encoder/relu");
  const Graph g = m.import();
  EXPECT_EQ(ops_of(g), std::vector<std::string>{"relu"});
  const Value y = g.outputs().at(0).value;
  EXPECT_EQ(y.node->source, "encoder/relu");
  EXPECT_EQ(str(y.shape()), "[batch, 4]");
  EXPECT_EQ(g.outputs().at(0).name, "y");
}

TEST(OnnxImport, UnnamedDynamicDimsAreSymbolsOfTheirOwn) {
  Model m;
  m.input("x", {"?", "?"}).output("y");
  m.add("Relu", {"x"}, {"y"});
  const Shape shape = m.import().outputs().at(0).value.shape();
  EXPECT_FALSE(shape[0].is_static());
  EXPECT_FALSE(shape[0] == shape[1]);
}

TEST(OnnxImport, OptionsOverrideShapes) {
  Model m;
  m.input("x", {"batch", "4"}).output("y");
  m.add("Relu", {"x"}, {"y"});
  OnnxImportOptions options;
  options.shapes["x"] = {2, 4};
  EXPECT_EQ(str(m.import(options).outputs().at(0).value.shape()), "[2, 4]");
}

TEST(OnnxImport, ShapeArithmeticIsDoneWhileImporting) {
  Model m;
  m.input("x", {"batch", "6", "4"}).ints("zero", {0}).ints("minus", {-1}).output("y");
  m.add("Shape", {"x"}, {"shape"});
  m.add("Gather", {"shape", "zero"}, {"batch"});
  set_int(m.add("Concat", {"batch", "minus"}, {"target"}), "axis", 0);
  m.add("Reshape", {"x", "target"}, {"y"});
  const Graph g = m.import();
  EXPECT_EQ(ops_of(g), std::vector<std::string>{"reshape"});
  EXPECT_EQ(str(g.outputs().at(0).value.shape()), "[batch, 24]");
}

TEST(OnnxImport, Opset6BroadcastsFromAnAxisOn) {
  Model m(6);
  m.input("x", {"2", "3", "5"}).input("by", {"3"}).output("y");
  auto& add = m.add("Add", {"x", "by"}, {"sum"});
  set_int(add, "broadcast", 1);
  set_int(add, "axis", 1);
  m.add("PRelu", {"sum", "by"}, {"y"});
  const Graph g = m.import();
  EXPECT_EQ(ops_of(g), (std::vector<std::string>{"reshape", "add", "reshape", "prelu"}));
  EXPECT_EQ(str(g.nodes().at(2)->out().shape()), "[3, 1]");
  EXPECT_EQ(str(g.outputs().at(0).value.shape()), "[2, 3, 5]");
}

TEST(OnnxImport, ShapeInputsAreAskedForAndGraphsKeptByTheirValues) {
  Model m;
  m.input("x", {"2", "6"}).input("shape", {"2"}, TensorProto::INT64).output("y");
  m.add("Reshape", {"x", "shape"}, {"y"});
  EXPECT_EQ(caught([&] { m.import(); }).code(), Code::Unsupported);
  OnnxProgram program = m.program();
  EXPECT_EQ(program.shape_inputs(), std::vector<std::string>{"shape"});
  const auto with = [&](std::vector<std::int64_t> shape) {
    return program.graph_for([&](std::string_view name) {
      return name == "shape" ? std::optional(Tensor::of_int64(shape)) : std::nullopt;
    });
  };
  const auto first = with({3, 4});
  EXPECT_EQ(str(first->outputs().at(0).value.shape()), "[3, 4]");
  EXPECT_EQ(first->inputs().size(), 2u);
  EXPECT_EQ(with({3, 4}), first);
  EXPECT_EQ(str(with({4, -1})->outputs().at(0).value.shape()), "[4, 3]");
  EXPECT_EQ(caught([&] { with({5, -1}); }).code(), Code::InvalidArgument);
  EXPECT_EQ(caught([&] { program.graph_for({}); }).code(), Code::InvalidArgument);
  EXPECT_EQ(caught([&] { with({3}); }).code(), Code::InvalidArgument);
}

TEST(OnnxImport, DimsThatMustBeStaticComeFromTheShapesGiven) {
  Model m;
  m.input("x", {"n", "2"}).output("y");
  m.add("SplitToSequence", {"x"}, {"parts"});
  set_int(m.add("ConcatFromSequence", {"parts"}, {"y"}), "axis", 1);
  OnnxProgram program = m.program();
  EXPECT_EQ(program.shape_inputs(), std::vector<std::string>{"x"});
  const auto with = [&](std::int64_t n) {
    return program.graph_for([&](std::string_view) { return std::optional(Tensor(DType::F32, {n, 2})); });
  };
  EXPECT_EQ(str(with(3)->outputs().at(0).value.shape()), "[1, 6]");
  EXPECT_EQ(str(with(5)->outputs().at(0).value.shape()), "[1, 10]");
  EXPECT_EQ(with(3), with(3));
  EXPECT_EQ(caught([&] { m.import(); }).code(), Code::Unsupported);
}

TEST(OnnxImport, AShapeFromDataIsUnsupported) {
  Model m;
  m.input("x", {"1000000"}).input("data", {"4096"}, TensorProto::INT64).output("y");
  m.add("Reshape", {"x", "data"}, {"y"}, "bad");
  const Error e = caught([&] { m.program(); });
  EXPECT_EQ(e.code(), Code::Unsupported);
  EXPECT_EQ(e.op(), "Reshape");
  EXPECT_EQ(e.source(), "model: bad");
}

TEST(OnnxImport, BranchesThatAreKnownAreTakenAndLoopsUnrolled) {
  Model m;
  m.input("x", {"4"}).ints("trips", {3}).output("y");
  auto& loop = m.add("Loop", {"trips", "", "x"}, {"y"});
  auto* a = loop.add_attribute();
  a->set_name("body");
  a->set_type(onnx::AttributeProto::GRAPH);
  auto* body = a->mutable_g();
  for (const char* name : {"i", "go", "v"}) body->add_input()->set_name(name);
  auto* step = body->add_node();
  step->set_op_type("Add");
  step->add_input("v");
  step->add_input("x");
  step->add_output("w");
  for (const char* name : {"go", "w"}) body->add_output()->set_name(name);
  EXPECT_EQ(ops_of(m.import()), (std::vector<std::string>{"add", "add", "add"}));
}

TEST(OnnxImport, SequencesAreInputsAndOutputsByElement) {
  Model m;
  m.input("x", {"2"}).output("s");
  auto* list = m.graph().add_input();
  list->set_name("list");
  auto* element = list->mutable_type()->mutable_sequence_type()->mutable_elem_type()->mutable_tensor_type();
  element->set_elem_type(TensorProto::FLOAT);
  *m.graph().mutable_output(0)->mutable_type() = list->type();
  m.add("SequenceInsert", {"list", "x"}, {"s"});
  OnnxProgram program = m.program();
  EXPECT_EQ(program.inputs().at(1).kind, OnnxKind::Sequence);
  EXPECT_EQ(program.outputs().at(0).kind, OnnxKind::Sequence);
  std::map<std::string, Tensor, std::less<>> given;
  const auto graph = [&] {
    return program.graph_for([&](std::string_view name) {
      const auto it = given.find(name);
      return it == given.end() ? std::nullopt : std::optional(it->second);
    });
  };
  EXPECT_EQ(graph()->outputs().size(), 1u);
  given["list[0]"] = Tensor::zeros(DType::F32, {3});
  const auto one = graph();
  EXPECT_EQ(one->inputs().at(1)->name, "list[0]");
  EXPECT_EQ(one->outputs().at(1).name, "s[1]");
  EXPECT_EQ(graph(), one);
  given["list[0]"] = Tensor::zeros(DType::F32, {4});
  EXPECT_NE(graph(), one);
}

TEST(OnnxImport, FunctionsOfTheModelAreInlinedWithTheirAttributes) {
  Model m;
  m.proto.add_opset_import()->set_domain("mine");
  m.input("x", {"4", "2"}).output("y");
  auto& node = m.add("Twice", {"x"}, {"y"});
  node.set_domain("mine");
  set_int(node, "axis", 0);
  auto* f = m.proto.add_functions();
  f->set_name("Twice");
  f->set_domain("mine");
  f->add_input("a");
  f->add_output("b");
  f->add_attribute("axis");
  f->add_opset_import()->set_version(18);
  auto* inner = f->add_node();
  inner->set_op_type("Concat");
  inner->add_input("a");
  inner->add_input("a");
  inner->add_output("b");
  auto* attribute = inner->add_attribute();
  attribute->set_name("axis");
  attribute->set_ref_attr_name("axis");
  attribute->set_type(onnx::AttributeProto::INT);
  EXPECT_EQ(str(m.import().outputs().at(0).value.shape()), "[8, 2]");
}

TEST(OnnxImport, AFunctionThatCallsItselfIsAnError) {
  Model m;
  m.input("x", {"4"}).output("y");
  m.add("F", {"x"}, {"y"}).set_domain("mine");
  auto* f = m.proto.add_functions();
  f->set_name("F");
  f->set_domain("mine");
  f->add_input("a");
  f->add_output("b");
  auto* inner = f->add_node();
  inner->set_op_type("F");
  inner->set_domain("mine");
  inner->add_input("a");
  inner->add_output("b");
  EXPECT_EQ(caught([&] { m.import(); }).code(), Code::InvalidArgument);
}

// -- bad models ----------------------------------------------------------------------------------------------
TEST(OnnxImportErrors, NameOpNodeAndModel) {
  Model m;
  m.input("x", {"4"}).output("y");
  m.add("Frobnicate", {"x"}, {"y"}, "layer.3");
  OnnxImportOptions options;
  options.model = "net.onnx";
  const Error e = caught([&] { m.import(options); });
  EXPECT_EQ(e.code(), Code::Unsupported);
  EXPECT_EQ(e.op(), "Frobnicate");
  EXPECT_EQ(e.source(), "net.onnx: layer.3");
}

TEST(OnnxImportErrors, ACycleIsAnUndefinedInput) {
  Model m;
  m.input("x", {"4"}).output("y");
  m.add("Add", {"x", "z"}, {"y"}, "first");
  m.add("Relu", {"y"}, {"z"}, "second");
  const Error e = caught([&] { m.import(); });
  EXPECT_EQ(e.code(), Code::InvalidArgument);
  EXPECT_EQ(e.source(), "model: first");
  EXPECT_EQ(e.got(), "'z'");
}

TEST(OnnxImportErrors, WrongTypesAndShapes) {
  Model types;
  types.input("x", {"4"}).input("i", {"4"}, TensorProto::INT32).output("y");
  types.add("Add", {"x", "i"}, {"y"}, "sum");
  EXPECT_EQ(caught([&] { types.import(); }).source(), "model: sum");
  Model shapes;
  shapes.input("x", {"4"}).input("z", {"3"}).output("y");
  shapes.add("Add", {"x", "z"}, {"y"}, "sum");
  EXPECT_EQ(caught([&] { shapes.import(); }).op(), "Add");
  Model ranks;
  ranks.input("x", {"1", "2", "8", "8"}).input("rois", {"3", "4"}).output("y");
  ranks.input("batch", {"3", "1"}, TensorProto::INT64).add("RoiAlign", {"x", "rois", "batch"}, {"y"});
  EXPECT_EQ(caught([&] { ranks.import(); }).op(), "RoiAlign");
}

TEST(OnnxImportErrors, DimsThatOverflow) {
  Model m;
  m.input("x", {"4294967296", "4294967296"}).output("y");
  m.add("Relu", {"x"}, {"y"});
  EXPECT_EQ(caught([&] { m.import(); }).code(), Code::InvalidArgument);
  Model negative;
  negative.input("x", {"-3"}).output("y");
  negative.add("Relu", {"x"}, {"y"});
  EXPECT_EQ(caught([&] { negative.import(); }).code(), Code::InvalidArgument);
}

TEST(OnnxImportErrors, TruncatedAndEmptyModels) {
  Model m;
  m.input("x", {"4"}).ints("w", {1, 2, 3, 4}).output("y");
  m.add("Relu", {"x"}, {"y"});
  const std::string whole = m.bytes();
  const auto import = [](const std::string& b) { import_onnx(std::as_bytes(std::span(b))); };
  EXPECT_EQ(caught([&] { import(""); }).code(), Code::DataLoss);
  EXPECT_EQ(caught([&] { import(whole.substr(0, whole.size() - 3)); }).code(), Code::DataLoss);
  EXPECT_EQ(caught([&] { import("not a model"); }).code(), Code::DataLoss);
}

TEST(OnnxImportErrors, InitializersOfTheWrongSize) {
  Model m;
  m.input("x", {"4"}).ints("w", {1, 2, 3}).output("y");
  m.graph().mutable_initializer(0)->set_dims(0, 4);
  m.add("Reshape", {"x", "w"}, {"y"});
  const Error e = caught([&] { m.import(); });
  EXPECT_EQ(e.code(), Code::DataLoss);
  EXPECT_EQ(e.source(), "model: 'w'");
}

TEST(OnnxImportErrors, OldOpsets) {
  Model m(5);
  m.input("x", {"4"}).output("y");
  m.add("Relu", {"x"}, {"y"});
  EXPECT_EQ(caught([&] { m.import(); }).code(), Code::Unsupported);
}

TEST(OnnxImportErrors, TrainingInOpset6) {
  for (const char* type : {"Dropout", "BatchNormalization"}) {
    Model m(6);
    m.input("x", {"2", "4"}).input("c", {"4"}).output("y");
    m.add(type, {"x", "c", "c", "c", "c"}, {"y"});
    EXPECT_EQ(caught([&] { m.import(); }).expected(), "is_test = 1");
  }
}

// -- external data -------------------------------------------------------------------------------------------
class OnnxExternalData : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("deepseek-onnx-" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "model");
    const std::vector<float> values{1, 2, 3, 4};
    for (const fs::path& p : {folder_ / "model" / "weights.bin", folder_ / "outside.bin"})
      std::ofstream(p, std::ios::binary).write(reinterpret_cast<const char*>(values.data()), 16);
  }
  void TearDown() override { fs::remove_all(folder_); }

  Graph import(const std::string& location, const std::string& offset = "", const std::string& length = "") {
    Model m;
    m.input("x", {"4"}).output("y");
    auto* t = m.graph().add_initializer();
    t->set_name("w");
    t->set_data_type(TensorProto::FLOAT);
    t->add_dims(4);
    t->set_data_location(TensorProto::EXTERNAL);
    const auto entry = [&](const char* key, const std::string& value) {
      if (value.empty()) return;
      auto* e = t->add_external_data();
      e->set_key(key);
      e->set_value(value);
    };
    entry("location", location);
    entry("offset", offset);
    entry("length", length);
    m.add("Add", {"x", "w"}, {"y"});
    const fs::path path = folder_ / "model" / "m.onnx";
    std::ofstream(path, std::ios::binary) << m.bytes();
    return import_onnx(path);
  }
  Code code(const std::string& location, const std::string& offset = "", const std::string& length = "") {
    return caught([&] { import(location, offset, length); }).code();
  }
  fs::path folder_;
};

TEST_F(OnnxExternalData, IsReadFromTheModelsFolder) {
  const Graph g = import("weights.bin", "0", "16");
  for (const auto& n : g.nodes())
    if (n->is_constant()) EXPECT_EQ(n->data.as<float>()[3], 4.0f);
}

TEST_F(OnnxExternalData, NeverLeavesTheFolder) {
  EXPECT_EQ(code("../outside.bin"), Code::InvalidArgument);
  EXPECT_EQ(code((folder_ / "outside.bin").string()), Code::InvalidArgument);
  EXPECT_EQ(code("sub/../../outside.bin"), Code::InvalidArgument);
  fs::create_symlink(folder_ / "outside.bin", folder_ / "model" / "link.bin");
  EXPECT_EQ(code("link.bin"), Code::InvalidArgument);
  fs::create_directory_symlink(folder_, folder_ / "model" / "up");
  EXPECT_EQ(code("up/outside.bin"), Code::InvalidArgument);
}

TEST_F(OnnxExternalData, StaysWithinTheFile) {
  EXPECT_EQ(code("weights.bin", "4"), Code::DataLoss);
  EXPECT_EQ(code("weights.bin", "18446744073709551615"), Code::DataLoss);
  EXPECT_EQ(code("weights.bin", "0", "12"), Code::DataLoss);
  EXPECT_EQ(code("weights.bin", "-1"), Code::InvalidArgument);
  EXPECT_EQ(code("none.bin"), Code::NotFound);
}

TEST(OnnxExternalDataOfBytes, IsAnError) {
  Model m;
  m.input("x", {"4"}).output("y");
  auto* t = m.graph().add_initializer();
  t->set_name("w");
  t->set_data_type(TensorProto::FLOAT);
  t->add_dims(4);
  t->set_data_location(TensorProto::EXTERNAL);
  auto* e = t->add_external_data();
  e->set_key("location");
  e->set_value("weights.bin");
  m.add("Add", {"x", "w"}, {"y"});
  EXPECT_EQ(caught([&] { m.import(); }).code(), Code::InvalidArgument);
}

}  // namespace
}  // namespace deepseek
