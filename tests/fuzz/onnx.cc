// ONNX models from any bytes: what imports verifies, compiles and runs. Errors are the only exceptions. Mutations keep
// the protobuf's structure most of the time.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "deepseek/import_onnx.h"
#include "onnx-ml.pb.h"
#include "run.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using namespace deepseek;

constexpr std::size_t kMaxNodes = 2048;  // once loops are unrolled
constexpr std::int64_t kMaxSample = 1
                                    << 20;  // elements of an input that a model asks for while it is imported

// What the model gets for an input, or for an element of a sequence: sequences have two, each of a shape made up here.
std::optional<Tensor> value_of(const std::vector<OnnxInput>& inputs, std::string_view name, unsigned seed) {
  static const Dims kShapes[] = {{}, {3}, {2, 3}, {3, 3}, {2, 3, 4}, {1, 2, 2, 3}};
  const Dims& made_up = kShapes[seed % std::size(kShapes)];
  for (const OnnxInput& input : inputs) {
    if (input.kind == OnnxKind::Tensor || input.kind == OnnxKind::Optional) {
      if (input.name != name) continue;
      const bool declared = input.kind == OnnxKind::Tensor;
      const Dims dims = declared ? eval(input.type.shape, fuzz::bind(input.type.shape, seed)) : made_up;
      if (numel(dims) > kMaxSample) return std::nullopt;
      return fuzz::sample(input.type.dtype, dims, seed);
    }
    if (name == input.name + "[0]" || name == input.name + "[1]")
      return fuzz::sample(input.type.dtype, made_up, seed);
  }
  return std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  unsigned seed = 0;
  for (std::size_t i = 0; i < size; ++i) seed = seed * 31 + data[i];
  try {
    OnnxProgram program(std::as_bytes(std::span(data, size)), {.max_nodes = kMaxNodes});
    const auto graph =
        program.graph_for([&](std::string_view name) { return value_of(program.inputs(), name, seed); });
    graph->verify();
    fuzz::compile_and_run(*graph, seed);
  } catch (const Error& e) {
    if (e.code() == Code::Internal) {
      std::fprintf(stderr, "%s\n", e.what());
      std::abort();
    }
  }
  return 0;
}

// -- mutation ------------------------------------------------------------------------------------------------
namespace {

using Random = std::minstd_rand;

const onnx::NodeProto* any_node(const onnx::GraphProto& g, Random& r) {
  return g.node_size() == 0 ? nullptr : &g.node(static_cast<int>(r() % static_cast<unsigned>(g.node_size())));
}

// Numbers on which size arithmetic trips.
std::int64_t odd_number(Random& r) {
  static constexpr std::int64_t kNumbers[] = {
      0, 1, -1, 2, 3, -2, 7, 1000, 65536, 1LL << 31, -(1LL << 31), 1LL << 62, INT64_MAX, INT64_MIN};
  return kNumbers[r() % std::size(kNumbers)];
}

void mutate_attribute(onnx::NodeProto& n, Random& r) {
  if (n.attribute_size() == 0 || r() % 8 == 0) {
    static const char* const kNames[] = {"axis", "keepdims", "axes", "perm",   "group",
                                         "mode", "to",       "pads", "strides"};
    auto* a = n.add_attribute();
    a->set_name(kNames[r() % std::size(kNames)]);
    a->set_type(onnx::AttributeProto::INT);
    a->set_i(odd_number(r));
    return;
  }
  auto& a = *n.mutable_attribute(static_cast<int>(r() % static_cast<unsigned>(n.attribute_size())));
  switch (a.type()) {
    case onnx::AttributeProto::INT:
      a.set_i(odd_number(r));
      break;
    case onnx::AttributeProto::FLOAT:
      a.set_f(static_cast<float>(odd_number(r)) / 2);
      break;
    case onnx::AttributeProto::INTS:
      if (a.ints_size() == 0 || r() % 4 == 0)
        a.add_ints(odd_number(r));
      else
        a.set_ints(static_cast<int>(r() % static_cast<unsigned>(a.ints_size())), odd_number(r));
      break;
    default:
      n.mutable_attribute()->RemoveLast();
  }
}

void mutate_model(onnx::ModelProto& m, Random& r) {
  auto& g = *m.mutable_graph();
  auto* node = const_cast<onnx::NodeProto*>(any_node(g, r));
  switch (r() % 8) {
    case 0:
    case 1:
      if (node) mutate_attribute(*node, r);
      break;
    case 2: {  // another op for the same inputs
      const auto* other = any_node(g, r);
      if (node && other) node->set_op_type(other->op_type());
      break;
    }
    case 3:  // other wiring
      if (node && node->input_size() > 0) {
        const auto* other = any_node(g, r);
        const std::string name =
            g.input_size() > 0 && r() % 2 == 0
                ? g.input(static_cast<int>(r() % static_cast<unsigned>(g.input_size()))).name()
            : other->output_size() > 0 ? other->output(0)
                                       : std::string();
        node->set_input(static_cast<int>(r() % static_cast<unsigned>(node->input_size())), name);
      }
      break;
    case 4:  // another shape or dtype
      if (g.input_size() > 0) {
        auto* t = g.mutable_input(static_cast<int>(r() % static_cast<unsigned>(g.input_size())))
                      ->mutable_type()
                      ->mutable_tensor_type();
        if (r() % 3 == 0) t->set_elem_type(static_cast<int>(r() % 27));
        auto* shape = t->mutable_shape();
        if (shape->dim_size() == 0 || r() % 8 == 0)
          shape->add_dim()->set_dim_value(static_cast<std::int64_t>(r() % 4));
        else if (r() % 8 == 0)
          shape->mutable_dim()->RemoveLast();
        else if (r() % 4 == 0)
          shape->mutable_dim(static_cast<int>(r() % static_cast<unsigned>(shape->dim_size())))
              ->set_dim_param(r() % 2 == 0 ? "n" : "m");
        else
          shape->mutable_dim(static_cast<int>(r() % static_cast<unsigned>(shape->dim_size())))
              ->set_dim_value(r() % 6 == 0 ? odd_number(r) : r() % 6);
      }
      break;
    case 5:  // an input becomes a constant
      if (g.input_size() > 0) {
        auto* t = g.add_initializer();
        const auto& input = g.input(static_cast<int>(r() % static_cast<unsigned>(g.input_size())));
        t->set_name(input.name());
        t->set_data_type(input.type().tensor_type().elem_type());
        const int count = static_cast<int>(r() % 4);
        t->add_dims(count);
        for (int i = 0; i < count; ++i) {
          t->add_int64_data(odd_number(r));
          t->add_float_data(static_cast<float>(r() % 5));
          t->add_int32_data(static_cast<std::int32_t>(r() % 5));
        }
      }
      break;
    case 6:
      if (m.opset_import_size() > 0) m.mutable_opset_import(0)->set_version(1 + r() % 27);
      break;
    default:
      if (node) *g.add_node() = onnx::NodeProto(*node);
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  Random r(seed);
  onnx::ModelProto m;
  if (r() % 4 == 0 || !m.ParseFromArray(data, static_cast<int>(size)))
    return LLVMFuzzerMutate(data, size, max_size);
  for (unsigned i = 0; i <= r() % 3; ++i) mutate_model(m, r);
  const std::string bytes = m.SerializeAsString();
  if (bytes.size() > max_size) return size;
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}
