// The text form of a graph, written. See text.h for the grammar.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>

#include "deepseek/graph.h"
#include "graph/text.h"
#include "ops/op.h"

namespace deepseek {
namespace {

constexpr std::int64_t kMaxListed = 16;  // elements of a constant that are written one by one

std::string quoted(std::string_view s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\x";
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string identifier(std::string_view s) {
  const bool plain = !s.empty() && std::all_of(s.begin(), s.end(), text::is_name_char) &&
                     s.find("//") == std::string_view::npos;
  return plain ? std::string(s) : quoted(s);
}

std::string number(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x).ptr;
  std::string out(buffer, end);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

std::string element(const Tensor& t, std::int64_t i) {
  if (t.dtype() == DType::I64) return std::to_string(t.as<std::int64_t>()[static_cast<std::size_t>(i)]);
  if (t.dtype() == DType::U64) return std::to_string(t.as<std::uint64_t>()[static_cast<std::size_t>(i)]);
  const double x = t.at(i);
  if (!is_float(t.dtype())) return std::to_string(static_cast<std::int64_t>(x));
  if (t.dtype() == DType::F64 || !std::isfinite(x)) return number(x);
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, static_cast<float>(x)).ptr;
  return {buffer, end};
}

// Whether the elements can be written as numbers and read back to the same bits.
bool has_plain_elements(const Tensor& t) {
  if (is_complex(t.dtype())) return false;
  if (!is_float(t.dtype())) return true;
  for (std::int64_t i = 0; i < t.numel(); ++i)
    if (std::isnan(t.at(i))) return false;
  return true;
}

bool is_splat(const Tensor& t) {
  if (bits(t.dtype()) < 8) return false;
  const auto* data = static_cast<const char*>(t.data());
  const auto width = static_cast<std::size_t>(bits(t.dtype())) / 8;
  return t.bytes() >= width && std::equal(data + width, data + t.bytes(), data);
}

std::string tensor(const Tensor& t) {
  std::string out = str(Type{t.dtype(), to_shape(t.dims())}) + " ";
  const bool splat = t.numel() > 1 && is_splat(t);
  if ((splat || t.numel() <= kMaxListed) && has_plain_elements(t)) {
    if (splat) return out + "splat " + element(t, 0);
    out += "{";
    for (std::int64_t i = 0; i < t.numel(); ++i) out += (i ? ", " : "") + element(t, i);
    return out + "}";
  }
  out += "hex \"";
  constexpr char kHex[] = "0123456789abcdef";
  for (const auto byte : t.as<unsigned char>()) {
    out += kHex[byte >> 4];
    out += kHex[byte & 15];
  }
  return out + "\"";
}

template <class T, class F>
std::string list(const std::vector<T>& values, F&& one) {
  std::string out = "[";
  for (std::size_t i = 0; i < values.size(); ++i) out += (i ? ", " : "") + one(values[i]);
  return out + "]";
}

std::string indented(const std::string& s, const std::string& by) {
  std::string out;
  for (const char c : s) {
    out += c;
    if (c == '\n') out += by;
  }
  return out;
}

struct AttrText {
  std::string operator()(bool b) const { return b ? "true" : "false"; }
  std::string operator()(std::int64_t i) const { return std::to_string(i); }
  std::string operator()(double x) const { return number(x); }
  std::string operator()(const std::string& s) const { return quoted(s); }
  std::string operator()(const std::vector<std::int64_t>& v) const {
    return list(v, [](std::int64_t i) { return std::to_string(i); });
  }
  std::string operator()(const std::vector<double>& v) const { return list(v, number); }
  std::string operator()(DType t) const { return std::string(name(t)); }
  std::string operator()(const Shape& s) const { return str(s); }
  std::string operator()(const Tensor& t) const { return t.defined() ? tensor(t) : "none"; }
  std::string operator()(const std::shared_ptr<const Graph>& g) const {
    return g ? indented(g->str(), "  ") : "none";
  }
};

std::string attr_text(const Attr& a) { return std::visit(AttrText{}, a); }

std::string value_text(const Value& v) {
  if (!v) return "_";
  return "%" + identifier(v.node->name) + (v.index == 0 ? "" : "#" + std::to_string(v.index));
}

std::string role_text(Role r) {
  if (r == Role::Parameter) return "parameter ";
  return r == Role::Constant ? "fixed " : "";
}

std::string statement(const Node& n) {
  std::string out = "%" + identifier(n.name) + " = ";
  if (n.is_constant()) return out + "constant " + tensor(n.data);
  if (n.is_input()) return out + "placeholder " + role_text(n.role) + str(n.outputs[0]);
  out += n.op->name + "(";
  std::string_view separator;
  const auto add = [&](const std::string& s) {
    out.append(separator).append(s);
    separator = ", ";
  };
  for (const Value& v : n.inputs) add(value_text(v));
  for (const AttrSpec& spec : n.op->attrs) {
    const auto it = n.attrs.find(spec.name);
    if (it == n.attrs.end()) continue;
    const std::string text = attr_text(it->second);
    if (!spec.default_value || attr_text(*spec.default_value) != text) add(spec.name + "=" + text);
  }
  out += ") : ";
  for (std::size_t i = 0; i < n.outputs.size(); ++i) out += (i ? ", " : "") + str(n.outputs[i]);
  return out;
}

}  // namespace

std::string Graph::str() const {
  std::string out = "graph {\n";
  for (const auto& n : nodes_) {
    out += "  " + statement(*n);
    if (!n->source.empty()) out += " at " + quoted(n->source);
    out += "\n";
  }
  for (const auto& [a, b, op, source] : equalities_) {
    out += "  equal " + a.str() + ", " + b.str();
    if (!op.empty()) out += ", " + op;
    if (!op.empty() && !source.empty()) out += " at " + quoted(source);
    out += "\n";
  }
  for (const Output& o : outputs_)
    out += "  output " + identifier(o.name) + " = " + value_text(o.value) + "\n";
  return out + "}";
}

}  // namespace deepseek
