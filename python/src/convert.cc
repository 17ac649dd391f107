#include "convert.h"

#include <cstring>

namespace deepseek::python {
namespace {

[[noreturn]] void wrong(std::string expected, nb::handle got) {
  throw Error(Code::InvalidArgument, "", "", std::move(expected), nb::cast<std::string>(nb::repr(got)));
}

// DLPack's codes of 8-bit floats and 4-bit floats (dlpack.h, version 1.1).
constexpr std::uint8_t kDlF8E4M3 = 10, kDlF8E4M3FNUZ = 11, kDlF8E5M2 = 12, kDlF8E5M2FNUZ = 13, kDlF8E8M0 = 14,
                       kDlF4E2M1 = 17;

std::optional<DType> dtype_of(nb::dlpack::dtype d) {
  using Code = nb::dlpack::dtype_code;
  if (d.lanes != 1) return std::nullopt;
  const auto pick = [&](std::initializer_list<std::pair<int, DType>> choices) -> std::optional<DType> {
    for (const auto& [bits, t] : choices)
      if (bits == d.bits) return t;
    return std::nullopt;
  };
  switch (d.code) {
    case static_cast<std::uint8_t>(Code::Bool):
      return pick({{8, DType::Bool}});
    case static_cast<std::uint8_t>(Code::Int):
      return pick({{8, DType::I8}, {16, DType::I16}, {32, DType::I32}, {64, DType::I64}});
    case static_cast<std::uint8_t>(Code::UInt):
      return pick({{8, DType::U8}, {16, DType::U16}, {32, DType::U32}, {64, DType::U64}});
    case static_cast<std::uint8_t>(Code::Float):
      return pick({{16, DType::F16}, {32, DType::F32}, {64, DType::F64}});
    case static_cast<std::uint8_t>(Code::Bfloat):
      return pick({{16, DType::BF16}});
    case static_cast<std::uint8_t>(Code::Complex):
      return pick({{64, DType::C64}, {128, DType::C128}});
    case kDlF8E4M3:
      return DType::F8E4M3;
    case kDlF8E5M2:
      return DType::F8E5M2;
    case kDlF8E4M3FNUZ:
      return DType::F8E4M3FNUZ;
    case kDlF8E5M2FNUZ:
      return DType::F8E5M2FNUZ;
    case kDlF8E8M0:
      return DType::F8E8M0;
    default:
      return std::nullopt;
  }
}

// Row-major elements of `size` bytes from a strided array.
void gather(const AnyArray& a, std::size_t size, std::size_t axis, const std::byte* from, std::byte*& to) {
  if (axis == a.ndim()) {
    std::memcpy(to, from, size);
    to += size;
    return;
  }
  for (std::size_t i = 0; i < a.shape(axis); ++i)
    gather(a, size, axis + 1,
           from + static_cast<std::int64_t>(i) * a.stride(axis) * static_cast<std::int64_t>(size), to);
}

bool row_major(const AnyArray& a) {
  std::int64_t expected = 1;
  for (std::size_t i = a.ndim(); i-- > 0;) {
    if (a.shape(i) != 1 && a.stride(i) != expected) return false;
    expected *= static_cast<std::int64_t>(a.shape(i));
  }
  return true;
}

// One byte per element to packed elements, low bits first, and back.
Tensor pack(const Tensor& loose, DType t) {
  Tensor packed = Tensor::zeros(t, loose.dims());
  const auto from = loose.as<std::uint8_t>();
  const auto to = packed.as<std::uint8_t>();
  const int width = bits(t), per_byte = 8 / width;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const int shift = static_cast<int>(i % static_cast<std::size_t>(per_byte)) * width;
    to[i / static_cast<std::size_t>(per_byte)] |=
        static_cast<std::uint8_t>((from[i] & ((1u << width) - 1)) << shift);
  }
  return packed;
}

Tensor unpack(const Tensor& packed) {
  const DType t = packed.dtype();
  Tensor loose(array_dtype(t), packed.dims());
  const auto from = packed.as<std::uint8_t>();
  const auto to = loose.as<std::uint8_t>();
  const int width = bits(t), per_byte = 8 / width;
  const bool extend = is_integer(t) && is_signed(t);
  for (std::size_t i = 0; i < to.size(); ++i) {
    const int shift = static_cast<int>(i % static_cast<std::size_t>(per_byte)) * width;
    unsigned value = (from[i / static_cast<std::size_t>(per_byte)] >> shift) & ((1u << width) - 1);
    if (extend && (value >> (width - 1)) != 0) value |= ~0u << width;
    to[i] = static_cast<std::uint8_t>(value);
  }
  return loose;
}

template <class Framework>
nb::object export_array(const Tensor& t, DType as) {
  auto* held = new Tensor(t);  // NOLINT: the capsule deletes it
  const nb::capsule owner(held, [](void* p) noexcept { delete static_cast<Tensor*>(p); });
  std::vector<std::size_t> shape(t.dims().begin(), t.dims().end());
  nb::ndarray<Framework, nb::device::cpu> array(t.data(), shape.size(), shape.data(), owner, nullptr,
                                                dlpack_dtype(as));
  return nb::cast(array, nb::rv_policy::reference);
}

}  // namespace

DType dtype_from(std::string_view name) {
  if (const auto t = parse_dtype(name)) return *t;
  throw Error(Code::InvalidArgument, "", "", "the name of a dtype", "'" + std::string(name) + "'");
}

std::string dtype_to(DType t) { return std::string(name(t)); }

Dim dim_from(nb::handle h) {
  if (nb::isinstance<nb::str>(h)) return Dim::parse(nb::cast<std::string>(h));
  std::int64_t value = 0;
  if (!nb::try_cast(h, value)) wrong("a dim: an int, or text such as \"batch\" or \"2*N+1\"", h);
  return value;
}

nb::object dim_to(const Dim& d) {
  if (d.is_static()) return nb::int_(d.value());
  const std::string text = d.str();
  return nb::str(text.c_str(), text.size());
}

Shape shape_from(nb::handle sequence) {
  if (nb::isinstance<nb::str>(sequence) || !PySequence_Check(sequence.ptr()))
    wrong("a shape: a list of dims", sequence);
  Shape s;
  for (const nb::handle h : nb::borrow<nb::object>(sequence)) s.push_back(dim_from(h));
  return s;
}

nb::tuple shape_to(const Shape& s) {
  nb::list items;
  for (const Dim& d : s) items.append(dim_to(d));
  return nb::tuple(items);
}

nb::tuple dims_to(const Dims& d) { return shape_to(to_shape(d)); }

Dims dims_from(nb::handle sequence) {
  Dims d;
  for (const nb::handle h : nb::borrow<nb::object>(sequence)) d.push_back(nb::cast<std::int64_t>(h));
  return d;
}

nb::dlpack::dtype dlpack_dtype(DType t) {
  using Code = nb::dlpack::dtype_code;
  const auto make = [&](Code code) {
    return nb::dlpack::dtype{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(bits(t)), 1};
  };
  if (t == DType::Bool) return make(Code::Bool);
  if (t == DType::BF16) return make(Code::Bfloat);
  if (t == DType::F8E4M3) return {kDlF8E4M3, 8, 1};
  if (t == DType::F8E5M2) return {kDlF8E5M2, 8, 1};
  if (t == DType::F8E4M3FNUZ) return {kDlF8E4M3FNUZ, 8, 1};
  if (t == DType::F8E5M2FNUZ) return {kDlF8E5M2FNUZ, 8, 1};
  if (t == DType::F8E8M0) return {kDlF8E8M0, 8, 1};
  if (t == DType::F4E2M1) return {kDlF4E2M1, 4, 1};
  if (is_complex(t)) return make(Code::Complex);
  if (is_float(t)) return make(Code::Float);
  return make(is_signed(t) ? Code::Int : Code::UInt);
}

DType array_dtype(DType t) {
  if (t == DType::BF16) return DType::U16;
  if (bits(t) < 8) return is_integer(t) && is_signed(t) ? DType::I8 : DType::U8;
  if (is_float(t) && bits(t) == 8) return DType::U8;
  return t;
}

Tensor tensor_from(const AnyArray& array, DType t, bool copy) {
  const auto came = dtype_of(array.dtype());
  if (!came || (*came != array_dtype(t) && *came != t))
    throw Error(Code::InvalidArgument, "", "", "an array of " + dtype_to(t),
                came ? dtype_to(*came) : "a dtype that this has no name for");
  Dims dims;
  for (std::size_t i = 0; i < array.ndim(); ++i) dims.push_back(static_cast<std::int64_t>(array.shape(i)));
  const DType stored = bits(t) < 8 ? array_dtype(t) : t;
  Tensor result;
  if (!copy && row_major(array)) {
    // Whoever drops the last reference may be a thread without the interpreter's lock, or come after its end.
    std::shared_ptr<void> owner(new AnyArray(array), [](void* p) {
      if (!Py_IsInitialized()) return;
      const nb::gil_scoped_acquire lock;
      delete static_cast<AnyArray*>(p);
    });
    result = Tensor::wrap(stored, dims, const_cast<void*>(array.data()),
                          std::move(owner));  // NOLINT: inputs are read
  } else {
    result = Tensor(stored, dims);
    auto* to = static_cast<std::byte*>(result.data());
    if (row_major(array)) {
      if (result.bytes() > 0) std::memcpy(to, array.data(), result.bytes());
    } else if (result.numel() > 0) {
      gather(array, static_cast<std::size_t>(bits(stored)) / 8, 0,
             static_cast<const std::byte*>(array.data()), to);
    }
  }
  return bits(t) < 8 ? pack(result, t) : result;
}

Tensor tensor_from(nb::handle h, DType t, bool copy) {
  if (nb::isinstance<Tensor>(h)) {
    const Tensor& held = *nb::inst_ptr<Tensor>(h);
    if (held.dtype() != t)
      throw Error(Code::InvalidArgument, "", "", "an array of " + dtype_to(t), dtype_to(held.dtype()));
    return held;
  }
  AnyArray array;
  if (!nb::try_cast(h, array)) wrong("an array of " + dtype_to(t), h.type());
  return tensor_from(array, t, copy);
}

nb::object tensor_to_numpy(const Tensor& t) {
  const Tensor shown = bits(t.dtype()) < 8 ? unpack(t) : t;
  return export_array<nb::numpy>(shown, array_dtype(t.dtype()));
}

Attr attr_from(const OpAttrInfo& info, nb::handle h) {
  const auto scalar = [&]<class T>(const char* what) -> T {
    T value{};
    if (!nb::try_cast(h, value)) wrong("attribute " + info.name + ": " + what, h);
    return value;
  };
  const auto list = [&]<class T>(const char* what) -> std::vector<T> {
    if (nb::isinstance<nb::str>(h) || !PySequence_Check(h.ptr()))
      wrong("attribute " + info.name + ": " + what, h);
    std::vector<T> values;
    for (const nb::handle item : nb::borrow<nb::object>(h)) {
      T value{};
      if (!nb::try_cast(item, value)) wrong("attribute " + info.name + ": " + what, h);
      values.push_back(value);
    }
    return values;
  };
  switch (info.kind) {
    case AttrKind::Bool:
      return scalar.operator()<bool>("a bool");
    case AttrKind::Int:
      return scalar.operator()<std::int64_t>("an int");
    case AttrKind::Float:
      return scalar.operator()<double>("a float");
    case AttrKind::String:
      if (!nb::isinstance<nb::str>(h)) wrong("attribute " + info.name + ": text", h);
      return nb::cast<std::string>(h);
    case AttrKind::Ints:
      return list.operator()<std::int64_t>("a list of ints");
    case AttrKind::Floats:
      return list.operator()<double>("a list of floats");
    case AttrKind::DType:
      if (!nb::isinstance<nb::str>(h)) wrong("attribute " + info.name + ": the name of a dtype", h);
      return dtype_from(nb::cast<std::string>(h));
    case AttrKind::Shape:
      return shape_from(h);
    case AttrKind::Tensor:
      if (!nb::isinstance<Tensor>(h)) wrong("attribute " + info.name + ": a Tensor", h);
      return *nb::inst_ptr<Tensor>(h);
    case AttrKind::Graph:
      if (!nb::isinstance<PyGraph>(h)) wrong("attribute " + info.name + ": a Graph", h);
      return std::shared_ptr<const Graph>(nb::inst_ptr<PyGraph>(h)->graph);
  }
  wrong("attribute " + info.name, h);
}

nb::object attr_to(const Attr& a) {
  return std::visit(
      [](const auto& v) -> nb::object {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, DType>) {
          return nb::cast(dtype_to(v));
        } else if constexpr (std::is_same_v<T, Shape>) {
          return nb::list(shape_to(v));
        } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>> ||
                             std::is_same_v<T, std::vector<double>>) {
          nb::list items;
          for (const auto& x : v) items.append(x);
          return items;
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const Graph>>) {
          return nb::none();
        } else if constexpr (std::is_same_v<T, std::string>) {
          return nb::str(v.c_str(), v.size());
        } else if constexpr (std::is_same_v<T, bool>) {
          return nb::bool_(v);
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          return nb::int_(v);
        } else if constexpr (std::is_same_v<T, double>) {
          return nb::float_(v);
        } else {
          return nb::cast(v);
        }
      },
      a);
}

std::string user_source() {
  // The package's own files: this module is one of them.
  static const std::string* package = [] {
    const auto file = nb::cast<std::string>(nb::module_::import_("deepseek").attr("__file__"));
    return new std::string(file.substr(0, file.rfind('/') + 1));  // NOLINT: kept for the process
  }();
  for (nb::object frame = nb::borrow<nb::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
       frame.is_valid();) {
    auto* f = reinterpret_cast<PyFrameObject*>(frame.ptr());
    const nb::object code = nb::steal<nb::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(f)));
    const auto file = nb::cast<std::string>(code.attr("co_filename"));
    if (file.compare(0, package->size(), *package) != 0)
      return file + ":" + std::to_string(PyFrame_GetLineNumber(f));
    frame = nb::steal<nb::object>(reinterpret_cast<PyObject*>(PyFrame_GetBack(f)));
  }
  return "";
}

void bind_tensor(nb::module_& m) {
  nb::class_<Tensor>(m, "Array", "Row-major memory with a dtype and a shape; what deepseek.Tensor holds.")
      .def_static(
          "of",
          [](const AnyArray& array, const std::string& dtype, bool copy) {
            return tensor_from(array, dtype_from(dtype), copy);
          },
          nb::arg("array"), nb::arg("dtype"), nb::arg("copy") = false,
          "An array of that dtype; narrow types come as unsigned integers of their size. Shares memory "
          "unless `copy`.")
      .def_static(
          "from_dlpack",
          [](const AnyArray& array) {
            const auto t = dtype_of(array.dtype());
            if (!t)
              throw Error(Code::Unsupported, "from_dlpack", "", "a dtype that deepseek has", "another one");
            return tensor_from(array, *t);
          },
          nb::arg("array"), "Shares the memory of any array that speaks DLPack or the buffer protocol.")
      .def("numpy", &tensor_to_numpy, nb::sig("def numpy(self) -> NDArray"),
           "The memory as a NumPy array (narrow types as unsigned integers of their size).")
      .def_prop_ro("dtype", [](const Tensor& t) { return dtype_to(t.dtype()); })
      .def_prop_ro(
          "shape", [](const Tensor& t) { return dims_to(t.dims()); },
          nb::sig("def shape(self) -> tuple[int, ...]"))
      .def(
          "__dlpack__",
          [](const Tensor& t, const nb::kwargs& kwargs) {
            if (bits(t.dtype()) < 8 || t.dtype() == DType::String)
              throw Error(Code::Unsupported, "__dlpack__", "", "elements of whole bytes",
                          dtype_to(t.dtype()));
            return nb::object(export_array<nb::array_api>(t, t.dtype()).attr("__dlpack__")(**kwargs));
          },
          nb::sig("def __dlpack__(self, **kwargs: object) -> object"))
      .def(
          "__dlpack_device__", [](const Tensor&) { return nb::make_tuple(1, 0); },
          nb::sig("def __dlpack_device__(self) -> tuple[int, int]"));
}

}  // namespace deepseek::python
