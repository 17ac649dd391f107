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

// Every s-th result along a dim whose input has s - 1 zeros between neighbours reads every s-th tap and no zeros, so the
// results of each of s phases are a dense convolution of their own. With low = begin * s + first, result p * s + r adds
// up x[p + j + late - begin] * w[first - r + (j + late) * s] where that tap exists; late is 1 where r > first.
struct Phases {
  std::int64_t count = 1, first = 0;
  Expr late(const Expr& r) const {
    return first == count - 1 ? Expr(0) : select(r > Expr(first), Expr(1), Expr(0));
  }
};

// Of a dim of a convolution; changes `t` to what each phase is.
Phases split_in_phases(ConvAttrs& t, std::size_t d, const Dim& results, const Dim& taps) {
  const std::int64_t s = t.input_dilation[d], low = t.pad_low[d];
  const bool can = t.groups == 1 && t.strides[d] == 1 && t.kernel_dilation[d] == 1 && taps.is_static() &&
                   mod(results, s) == Dim(0);
  if (s == 1 || !can) return {};
  const std::int64_t first = ((low % s) + s) % s;
  t.pad_low[d] = (low - first) / s;
  t.input_dilation[d] = 1;
  return {s, first};
}

Contraction conv_of(const Node& n) {
  const Value x = n.in(0), w = n.in(1);
  ConvAttrs t{n.attr<std::vector<std::int64_t>>("strides"),
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
  std::string rows, depth, phased;  // which letter each m, k and (of several phases) batch loop stands for
  std::vector<Phases> phases(t.strides.size());
  if (t.groups > 1) c.batch = {t.groups};
  for (const char l : t.output)
    if (l != 'C') {
      rows += l;
      c.m.push_back(dim_of(t.output, out, l));
      if (l == 'N') continue;
      const auto d = static_cast<std::size_t>(l - '0');
      phases[d] = split_in_phases(t, d, c.m.back(), dim_of(t.kernel, w.shape(), l));
      if (phases[d].count == 1) continue;
      c.m.back() = floordiv(c.m.back(), phases[d].count);
      c.batch.emplace_back(phases[d].count);
      phased += l;
    }
  c.n = {filters};
  for (const char l : t.input)
    if (l != 'N') {
      depth += l;
      c.k.push_back(l == 'C' ? channels
                             : ceildiv(dim_of(t.kernel, w.shape(), l),
                                       phases[static_cast<std::size_t>(l - '0')].count));
    }
  const auto group_of = [grouped = t.groups > 1](Contraction::Coords batch) {
    return grouped ? batch[0] : Expr(0);
  };

  // Where element k of window m begins, before padding is taken off and dilation divided out.
  const auto position = [=](Contraction::Coords batch, Contraction::Coords m, Contraction::Coords k) {
    std::vector<Expr> coords;
    for (const char l : t.input) {
      if (l == 'N') {
        coords.push_back(m[rows.find('N')]);
      } else if (l == 'C') {
        coords.push_back(group_of(batch) * expr_of(channels) + k[depth.find('C')]);
      } else {
        const auto d = static_cast<std::size_t>(l - '0');
        Expr at = m[rows.find(l)] * t.strides[d] + k[depth.find(l)] * t.kernel_dilation[d];
        if (phases[d].count > 1) at = at + phases[d].late(batch[phased.find(l)]);
        coords.push_back(std::move(at));
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
    if (l == 'N' || l == 'C') {
      bordered.shape.push_back(x.shape()[i]);
    } else {
      const auto d = static_cast<std::size_t>(l - '0');
      const std::int64_t latest = phases[d].first + 1 < phases[d].count ? 1 : 0;
      bordered.shape.push_back((c.m[rows.find(l)] - 1) * t.strides[d] +
                               (c.k[depth.find(l)] - 1) * t.kernel_dilation[d] + 1 + latest);
    }
  }
  c.bordered = std::move(bordered);
  c.right = [=](Scope& s, Contraction::Coords batch, Contraction::Coords nn, Contraction::Coords k,
                Expr valid) {
    std::vector<Expr> coords;
    for (std::size_t i = 0; i < t.kernel.size(); ++i) {
      const char l = t.kernel[i];
      if (l == 'O') {
        coords.push_back(group_of(batch) * expr_of(filters) + nn[0]);
        continue;
      }
      Expr at = k[depth.find(l == 'I' ? 'C' : l)];
      if (const std::size_t place = phased.find(l); place != std::string::npos) {
        const Phases& p = phases[static_cast<std::size_t>(l - '0')];
        const Dim taps = w.shape()[i];
        at = (at + p.late(batch[place])) * p.count + (Expr(p.first) - batch[place]);
        if (taps.value() % p.count != 0) valid = valid ? valid && at < expr_of(taps) : at < expr_of(taps);
      }
      coords.push_back(std::move(at));
    }
    return guarded(s, w, coords, valid);
  };
  c.result = [=](Contraction::Coords batch, Contraction::Coords m, Contraction::Coords nn) {
    std::vector<Expr> coords;
    for (const char l : t.output) {
      if (l == 'C') {
        coords.push_back(group_of(batch) * expr_of(filters) + nn[0]);
        continue;
      }
      Expr at = m[rows.find(l)];
      if (const std::size_t place = phased.find(l); place != std::string::npos)
        at = at * phases[static_cast<std::size_t>(l - '0')].count + batch[place];
      coords.push_back(std::move(at));
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

bool is_centred(const Group& group) {
  return std::any_of(group.members.begin(), group.members.end(), [&](const Node* n) {
    return n->op->name == "sub" && memory_of(n->in(0)).node == group.anchor;
  });
}

}  // namespace deepseek::kernels
