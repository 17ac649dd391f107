#include "kernels/contraction.h"

#include <algorithm>

namespace deepseek::kernels {

using namespace loops;

namespace {

Expr guarded(Scope& scope, Value v, std::span<const Expr> coords, const Expr& valid) {
  if (valid.get() == nullptr) return scope.at(v, coords);
  if (valid.int_value() == 1) return scope.at(v, coords);
  const Expr x = scope.at(v, coords, valid);
  return x.op() == Op::Load && x->args.size() == 3 && same(x->args[1], valid)
             ? x
             : select(valid, x, zero(x.type()));
}

Contraction matmul_of(const Node& n) {
  const Value a = n.in(0), b = n.in(1);
  const Shape& out = n.outputs[0].shape;
  const std::size_t rank = out.size();
  const std::size_t batch_rank = rank - 2;
  bool shared_right = true;  // one right operand for every batch: its dims join the rows
  for (int i = 0; i + 2 < b.rank(); ++i) shared_right = shared_right && b.dim(i) == Dim(1);

  Contraction c;
  for (std::size_t i = 0; i < batch_rank; ++i) (shared_right ? c.m : c.batch).push_back(out[i]);
  c.m.push_back(out[rank - 2]);
  c.n = {out[rank - 1]};
  c.k = {a.dim(-1)};

  const auto operand = [](Value v, std::span<const Expr> batch, Expr row, Expr column) {
    std::vector<Expr> coords;
    const std::size_t own = v.shape().size() - 2;
    for (std::size_t i = 0; i < own; ++i)
      coords.push_back(v.shape()[i] == Dim(1) ? Expr(0) : batch[batch.size() - own + i]);
    coords.push_back(std::move(row));
    coords.push_back(std::move(column));
    return coords;
  };
  c.left = [=](Scope& s, Contraction::Coords batch, Contraction::Coords m, Contraction::Coords k,
               const Expr& valid) {
    const auto coords = operand(a, shared_right ? m.first(m.size() - 1) : batch, m.back(), k[0]);
    return guarded(s, a, coords, valid);
  };
  c.right = [=](Scope& s, Contraction::Coords batch, Contraction::Coords nn, Contraction::Coords k,
                const Expr& valid) {
    const std::vector<Expr> none(batch_rank, Expr(0));
    return guarded(s, b, operand(b, shared_right ? std::span<const Expr>(none) : batch, k[0], nn[0]), valid);
  };
  c.result = [](Contraction::Coords batch, Contraction::Coords m, Contraction::Coords nn) {
    std::vector<Expr> coords(batch.begin(), batch.end());
    coords.insert(coords.end(), m.begin(), m.end());
    coords.push_back(nn[0]);
    return coords;
  };
  return c;
}

struct ConvAttrs {
  std::vector<std::int64_t> strides, pad_low, input_dilation, kernel_dilation;
  std::int64_t groups;
  std::string input, kernel, output;  // layouts
};

Contraction conv_of(const Node& n) {
  const Value x = n.in(0), w = n.in(1);
  const ConvAttrs t{n.attr<std::vector<std::int64_t>>("strides"),
                    n.attr<std::vector<std::int64_t>>("pad_low"),
                    n.attr<std::vector<std::int64_t>>("input_dilation"),
                    n.attr<std::vector<std::int64_t>>("kernel_dilation"),
                    n.attr<std::int64_t>("feature_groups"),
                    n.attr<std::string>("input_layout"),
                    n.attr<std::string>("kernel_layout"),
                    n.attr<std::string>("output_layout")};
  const Shape& out = n.outputs[0].shape;
  const auto dim_of = [](const std::string& layout, const Shape& shape, char letter) {
    return shape[layout.find(letter)];
  };
  const Dim channels = floordiv(dim_of(t.input, x.shape(), 'C'), t.groups);
  const Dim filters = floordiv(dim_of(t.kernel, w.shape(), 'O'), t.groups);

  Contraction c;
  if (t.groups > 1) c.batch = {t.groups};
  std::string rows, depth;  // which letter each m and k loop stands for
  for (const char l : t.output)
    if (l != 'C') {
      rows += l;
      c.m.push_back(dim_of(t.output, out, l));
    }
  c.n = {filters};
  for (const char l : t.input)
    if (l != 'N') {
      depth += l;
      c.k.push_back(l == 'C' ? channels : dim_of(t.kernel, w.shape(), l));
    }

  // Where element k of window m begins, before padding is taken off and dilation divided out.
  const auto position = [=](Contraction::Coords batch, Contraction::Coords m, Contraction::Coords k) {
    std::vector<Expr> coords;
    for (const char l : t.input) {
      if (l == 'N') {
        coords.push_back(m[rows.find('N')]);
      } else if (l == 'C') {
        const Expr own = k[depth.find('C')];
        coords.push_back(batch.empty() ? own : batch[0] * expr_of(channels) + own);
      } else {
        const auto d = static_cast<std::size_t>(l - '0');
        coords.push_back(m[rows.find(l)] * t.strides[d] + k[depth.find(l)] * t.kernel_dilation[d]);
      }
    }
    return coords;
  };
  const auto element = [=](Scope& s, std::vector<Expr> coords, Expr inside) {
    const auto require = [&](const Expr& e) {
      if (e.int_value() != 1) inside = inside ? inside && e : e;
    };
    for (std::size_t i = 0; i < t.input.size(); ++i) {
      if (t.input[i] == 'N' || t.input[i] == 'C') continue;
      const auto d = static_cast<std::size_t>(t.input[i] - '0');
      Expr at = coords[i] - t.pad_low[d];
      if (t.input_dilation[d] != 1) {
        require(mod(at, t.input_dilation[d]) == 0);
        at = floordiv(at, t.input_dilation[d]);
      }
      require(at >= 0);
      require(at < expr_of(x.shape()[i]));
      coords[i] = at;
    }
    return guarded(s, x, coords, inside);
  };
  c.left = [=](Scope& s, Contraction::Coords batch, Contraction::Coords m, Contraction::Coords k,
               const Expr& valid) { return element(s, position(batch, m, k), valid); };
  Bordered bordered{{},
                    [=](Scope& s, Contraction::Coords at) {
                      return element(s, std::vector<Expr>(at.begin(), at.end()), {});
                    },
                    position};
  for (std::size_t i = 0; i < t.input.size(); ++i) {
    const char l = t.input[i];
    const Dim size = x.shape()[i];
    if (l == 'N' || l == 'C') {
      bordered.shape.push_back(size);
    } else {
      const auto d = static_cast<std::size_t>(l - '0');
      bordered.shape.push_back((dim_of(t.output, out, l) - 1) * t.strides[d] +
                               (dim_of(t.kernel, w.shape(), l) - 1) * t.kernel_dilation[d] + 1);
    }
  }
  c.bordered = std::move(bordered);
  c.right = [=](Scope& s, Contraction::Coords batch, Contraction::Coords nn, Contraction::Coords k,
                const Expr& valid) {
    std::vector<Expr> coords;
    for (const char l : t.kernel) {
      if (l == 'O') {
        coords.push_back(batch.empty() ? nn[0] : batch[0] * expr_of(filters) + nn[0]);
      } else {
        coords.push_back(k[depth.find(l == 'I' ? 'C' : l)]);
      }
    }
    return guarded(s, w, coords, valid);
  };
  c.result = [=](Contraction::Coords batch, Contraction::Coords m, Contraction::Coords nn) {
    std::vector<Expr> coords;
    for (const char l : t.output) {
      if (l == 'C') {
        coords.push_back(batch.empty() ? nn[0] : batch[0] * expr_of(filters) + nn[0]);
      } else {
        coords.push_back(m[rows.find(l)]);
      }
    }
    return coords;
  };
  return c;
}

}  // namespace

Dim product_of(const std::vector<Dim>& dims) {
  Dim p = 1;
  for (const Dim& d : dims) p = p * d;
  return p;
}

Contraction contraction_of(const Node& n) { return n.op->name == "matmul" ? matmul_of(n) : conv_of(n); }

}  // namespace deepseek::kernels
