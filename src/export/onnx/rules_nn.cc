// Products, convolutions, normalisations, recurrent layers.
#include <algorithm>

#include "export/onnx/layout.h"

namespace deepseek::onnx_export {

std::string batch_first(int rank) {
  std::string layout = "NC";
  for (int i = 0; i < rank - 2; ++i) layout += static_cast<char>('0' + i);
  return layout;
}

std::string kernel_first(int rank) {
  std::string layout = batch_first(rank);
  layout.replace(0, 2, "OI");
  return layout;
}

Ints between(const std::string& from, const std::string& to) {
  Ints perm;
  for (const char c : to) perm.push_back(static_cast<std::int64_t>(from.find(c)));
  return perm;
}

Shape shape_in(const Shape& shape, const std::string& from, const std::string& to) {
  Shape result;
  for (const std::int64_t axis : between(from, to))
    result.push_back(shape.at(static_cast<std::size_t>(axis)));
  return result;
}

std::string padded(Writer& w, const std::string& x, int rank, const Ints& low, const Ints& high,
                   const std::string& value) {
  Ints pads(static_cast<std::size_t>(2 * rank), 0);
  std::copy(low.begin(), low.end(), pads.begin() + rank - static_cast<int>(low.size()));
  std::copy(high.begin(), high.end(), pads.end() - static_cast<int>(high.size()));
  return w.add("Pad", {x, w.ints(pads), value});
}

Ints joined(const Ints& low, const Ints& high) {
  Ints all = low;
  all.insert(all.end(), high.begin(), high.end());
  return all;
}

bool all_zero(const Ints& v) {
  return std::all_of(v.begin(), v.end(), [](std::int64_t i) { return i == 0; });
}

namespace {

// -- products
Names matmul(Writer& w, const Node& n) {
  const DType a = n.in(0).dtype(), b = n.in(1).dtype();
  if (a != b) return {w.add("MatMulInteger", w.all(n))};
  const DType wide = wide_integer(a);
  if (a == wide) return {w.add("MatMul", w.all(n))};
  return {w.cast(w.add("MatMul", {w.cast(w.in(n, 0), wide), w.cast(w.in(n, 1), wide)}), a)};
}

Names gemm(Writer& w, const Node& n) {
  return {w.add("Gemm", w.all(n),
                {{"alpha", n.attr<double>("alpha")},
                 {"beta", n.attr<double>("beta")},
                 {"transA", std::int64_t{n.attr<bool>("transpose_a")}},
                 {"transB", std::int64_t{n.attr<bool>("transpose_b")}}})};
}

// Differences of every row of a with every row of b, squared and summed.
Names squared_distance(Writer& w, const Node& n) {
  const std::string d = w.add("Sub", {w.unsqueeze(w.in(n, 0), {-2}), w.unsqueeze(w.in(n, 1), {-3})});
  return {w.add("ReduceSum", {w.add("Mul", {d, d}), w.ints({-1})}, {{"keepdims", std::int64_t{0}}})};
}

// -- convolutions
Names conv(Writer& w, const Node& n) {
  const int rank = n.in(0).rank();
  const DType t = n.in(0).dtype();
  const bool bytes = t != n.in(1).dtype();
  if (!bytes && !is_float(t))
    unsupported("a convolution of floats, or of uint8 by int8", std::string(name(t)));
  const std::string &from = n.attr<std::string>("input_layout"),
                    &of_kernel = n.attr<std::string>("kernel_layout"),
                    &to = n.attr<std::string>("output_layout");
  Shape shape = shape_in(n.in(0).shape(), from, batch_first(rank));
  std::string x = w.transpose(w.in(n, 0), between(from, batch_first(rank)));
  const std::string kernel = w.transpose(w.in(n, 1), between(of_kernel, kernel_first(rank)));
  const Ints& dilation = n.attr<Ints>("input_dilation");
  for (std::size_t i = 0; i < dilation.size(); ++i)
    x = spread(w, x, shape, static_cast<int>(2 + i), dilation[i] - 1, w.scalar(0, t));
  Ints low = n.attr<Ints>("pad_low"), high = n.attr<Ints>("pad_high"), cut_low(low.size()),
       cut_high(high.size());
  for (std::size_t i = 0; i < low.size(); ++i) {
    cut_low[i] = std::min<std::int64_t>(low[i], 0);
    cut_high[i] = std::min<std::int64_t>(high[i], 0);
    low[i] -= cut_low[i];
    high[i] -= cut_high[i];
  }
  if (!all_zero(cut_low) || !all_zero(cut_high)) x = padded(w, x, rank, cut_low, cut_high, w.scalar(0, t));
  const auto product = [&](const std::string& a, const std::string& b) {
    return w.add(bytes ? "ConvInteger" : "Conv", {a, b},
                 {{"strides", n.attr<Ints>("strides")},
                  {"pads", joined(low, high)},
                  {"dilations", n.attr<Ints>("kernel_dilation")},
                  {"group", n.attr<std::int64_t>("feature_groups")}});
  };
  const std::int64_t groups = n.attr<std::int64_t>("batch_groups");
  std::string y;
  if (groups == 1) {
    y = product(x, kernel);
  } else {
    const auto parts = [&](const std::string& v) {
      return w.add_many("Split", {v}, {{"axis", std::int64_t{0}}, {"num_outputs", groups}},
                        static_cast<int>(groups));
    };
    const Names batches = parts(x), kernels = parts(kernel);
    Names results;
    for (std::size_t i = 0; i < batches.size(); ++i) results.push_back(product(batches[i], kernels[i]));
    y = w.add("Concat", results, {{"axis", std::int64_t{1}}});
  }
  return {w.transpose(y, between(batch_first(rank), to))};
}

Names conv_transpose(Writer& w, const Node& n) {
  return {w.add("ConvTranspose", w.all(n),
                {{"strides", n.attr<Ints>("strides")},
                 {"pads", joined(n.attr<Ints>("pad_low"), n.attr<Ints>("pad_high"))},
                 {"output_padding", n.attr<Ints>("output_padding")},
                 {"dilations", n.attr<Ints>("dilation")},
                 {"group", n.attr<std::int64_t>("groups")}})};
}

bool plain_transposed(const Node& n) {
  const auto below = [](const Ints& v, const Ints& limits) {
    for (std::size_t i = 0; i < v.size(); ++i)
      if (v[i] < 0 || v[i] >= limits[i]) return false;
    return true;
  };
  const auto positive = [](const Ints& v) {
    return std::all_of(v.begin(), v.end(), [](std::int64_t i) { return i >= 0; });
  };
  return is_float(n.in(0).dtype()) && below(n.attr<Ints>("output_padding"), n.attr<Ints>("strides")) &&
         positive(n.attr<Ints>("pad_low")) && positive(n.attr<Ints>("pad_high"));
}

// -- normalisations
// Input i, or as many of `value` as the type says.
std::string vector_or(Writer& w, const Node& n, int i, double value, const Dim& size, DType t) {
  if (n.has(i)) return w.in(n, i);
  return w.full({t, {size}}, value);
}

Names batch_norm(Writer& w, const Node& n) {
  const Dim& channels = n.in(0).dim(1);
  const DType t = n.in(0).dtype();
  return {w.add("BatchNormalization",
                {w.in(n, 0), vector_or(w, n, 1, 1, channels, t), vector_or(w, n, 2, 0, channels, t),
                 w.in(n, 3), w.in(n, 4)},
                {{"epsilon", n.attr<double>("epsilon")}})};
}

bool channels_second(const Node& n) {
  const DType t = n.in(0).dtype();
  for (const Value& v : n.inputs)
    if (v && v.dtype() != t) return false;
  const std::int64_t axis = n.attr<std::int64_t>("axis");
  return n.in(0).rank() >= 2 && (axis == 1 || axis + n.in(0).rank() == 1);
}

Names layer_norm(Writer& w, const Node& n) {
  return w.add_many("LayerNormalization", w.all(n),
                    {{"axis", n.attr<std::int64_t>("axis")}, {"epsilon", n.attr<double>("epsilon")}}, 3);
}

bool has_scale_of_floats(const Node& n) {
  return n.has(1) && n.in(0).dtype() == DType::F32 && n.in(1).dtype() == DType::F32;
}

// -- recurrent layers
std::string activation(const std::string& ours) {
  for (const auto& [name, onnx] :
       std::initializer_list<std::pair<const char*, const char*>>{{"tanh", "Tanh"},
                                                                  {"relu", "Relu"},
                                                                  {"sigmoid", "Sigmoid"},
                                                                  {"softsign", "Softsign"},
                                                                  {"softplus", "Softplus"}})
    if (ours == name) return onnx;
  return {};
}

Attributes recurrent_attributes(const Node& n) {
  return {{"hidden_size", n.in(2).dim(-1).value()}, {"direction", n.attr<std::string>("direction")}};
}

Names recurrent_inputs(Writer& w, const Node& n) {
  Names inputs = w.all(n);
  if (n.has(4) && n.in(4).dtype() != DType::I32) inputs[4] = w.cast(inputs[4], DType::I32);
  return inputs;
}

bool known_size(const Node& n) {
  const DType t = n.in(0).dtype();
  return n.in(2).dim(-1).is_static() && (t == DType::F32 || t == DType::F64 || t == DType::F16);
}

}  // namespace

void add_nn_rules(Rules& r) {
  r.add("matmul", matmul);
  r.add("gemm", gemm);
  r.add("squared_distance", squared_distance);
  r.add("conv", conv);
  r.add("conv_transpose", conv_transpose, plain_transposed);
  r.add("batch_norm", batch_norm, channels_second);
  r.add("layer_norm", layer_norm, has_scale_of_floats);
  r.add(
      "lrn",
      [](Writer& w, const Node& n) {
        return Names{w.add("LRN", {w.in(n, 0)},
                           {{"size", n.attr<std::int64_t>("size")},
                            {"alpha", n.attr<double>("alpha")},
                            {"beta", n.attr<double>("beta")},
                            {"bias", n.attr<double>("k")}})};
      },
      [](const Node& n) {  // all that ONNX Runtime takes
        return n.in(0).rank() == 4 && n.attr<std::int64_t>("size") % 2 == 1;
      });
  r.add(
      "lstm",
      [](Writer& w, const Node& n) {
        return w.add_many("LSTM", recurrent_inputs(w, n), recurrent_attributes(n), 3);
      },
      known_size);
  r.add(
      "gru",
      [](Writer& w, const Node& n) {
        Attributes attributes = recurrent_attributes(n);
        attributes.emplace_back("linear_before_reset", std::int64_t{n.attr<bool>("linear_before_reset")});
        return w.add_many("GRU", recurrent_inputs(w, n), std::move(attributes), 2);
      },
      known_size);
  r.add(
      "rnn",
      [](Writer& w, const Node& n) {
        Attributes attributes = recurrent_attributes(n);
        const bool both = n.attr<std::string>("direction") == "bidirectional";
        attributes.emplace_back("activations",
                                Names(both ? 2 : 1, activation(n.attr<std::string>("activation"))));
        return w.add_many("RNN", recurrent_inputs(w, n), std::move(attributes), 2);
      },
      [](const Node& n) { return known_size(n) && !activation(n.attr<std::string>("activation")).empty(); });
}

}  // namespace deepseek::onnx_export
