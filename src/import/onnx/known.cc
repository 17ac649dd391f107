#include "import/onnx/known.h"

#include <algorithm>

namespace deepseek::onnx_import {

Known::Known(DType t, Dims d) : dtype(t), dims(std::move(d)) {
  const auto count = static_cast<std::size_t>(deepseek::numel(dims));
  if (real())
    reals.resize(count);
  else
    ints.resize(count);
}

std::optional<Known> Known::of(const Tensor& t) {
  if (!t.defined() || is_complex(t.dtype()) || t.dtype() == DType::String || t.numel() > kMaxKnown)
    return std::nullopt;
  Known k(t.dtype(), t.dims());
  if (k.real()) {
    for (std::size_t i = 0; i < k.reals.size(); ++i) k.reals[i] = t.at(static_cast<std::int64_t>(i));
  } else {
    const auto values = t.to_int64();
    std::copy(values.begin(), values.end(), k.ints.begin());
  }
  return k;
}

Known Known::vector(std::vector<Dim> values) {
  Known k(DType::I64, {static_cast<std::int64_t>(values.size())});
  k.ints = std::move(values);
  return k;
}

Known Known::scalar(DType t, double value) {
  Known k(t, {});
  if (k.real())
    k.reals[0] = value;
  else
    k.ints[0] = static_cast<std::int64_t>(value);
  return k;
}

bool Known::is_static() const {
  return std::all_of(ints.begin(), ints.end(), [](const Dim& d) { return d.is_static(); });
}

void Known::set(std::size_t i, const Known& from, std::size_t j) {
  if (real())
    reals[i] = from.reals.at(j);
  else
    ints[i] = from.ints.at(j);
}

Tensor Known::tensor() const {
  Tensor t(dtype, dims);
  const auto store = [&]<class T>(T) {
    const auto span = t.as<T>();
    for (std::size_t i = 0; i < ints.size(); ++i) span[i] = static_cast<T>(ints[i].value());
  };
  switch (dtype) {
    case DType::I64:
      store(std::int64_t{});
      break;
    case DType::U64:
      store(std::uint64_t{});
      break;
    case DType::I32:
      store(std::int32_t{});
      break;
    case DType::U32:
      store(std::uint32_t{});
      break;
    default:
      for (std::int64_t i = 0; i < numel(); ++i) t.set(i, at(static_cast<std::size_t>(i)));
  }
  return t;
}

namespace {

// Whether every term with a symbol has a coefficient of this sign and only factors that cannot be negative.
bool monotone(const Dim& d, bool positive) {
  for (const Dim::Term& t : d.terms()) {
    if (t.factors.empty()) continue;
    if ((t.coefficient > 0) != positive) return false;
    for (const auto& f : t.factors)
      if (f->kind != Dim::Atom::Kind::Symbol) return false;
  }
  return true;
}

std::int64_t constant_term(const Dim& d) {
  for (const Dim::Term& t : d.terms())
    if (t.factors.empty()) return t.coefficient;
  return 0;
}

}  // namespace

std::optional<int> compare(const Dim& a, const Dim& b) {
  const Dim d = a - b;
  if (d.is_static()) return d.value() < 0 ? -1 : d.value() > 0;
  if (monotone(d, true) && constant_term(d) > 0) return 1;
  if (monotone(d, false) && constant_term(d) < 0) return -1;
  return std::nullopt;
}

}  // namespace deepseek::onnx_import
