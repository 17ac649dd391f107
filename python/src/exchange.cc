// Tensors of another library, read through DLPack's C exchange API: no link against that library, and no Python
// for each tensor.
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "context.h"
#include "deepseek/give_back.h"
#include "deepseek/huge_pages.h"

namespace deepseek::python {
namespace {

// DLPackExchangeAPI (dlpack.h, version 1.3). What is not called here has no type.
struct ExchangeApi {
  using Unused = void (*)();
  std::uint32_t major, minor;
  const ExchangeApi* previous;
  Unused managed_tensor_allocator, managed_tensor_from_py_object, managed_tensor_to_py_object;
  int (*tensor_from_py_object)(void* object,
                               nb::dlpack::dltensor* out);  // a view; not 0: a Python error is set
  Unused current_work_stream;
};
constexpr std::uint32_t kMajor = 1;
constexpr const char* kCapsule = "dlpack_exchange_api";

bool row_major(const nb::dlpack::dltensor& t) {
  std::int64_t expected = 1;
  for (std::int32_t i = t.ndim; i-- > 0;) {
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

void* address_of(const nb::dlpack::dltensor& t) { return static_cast<std::byte*>(t.data) + t.byte_offset; }

Tensor wrap(DType dtype, const nb::dlpack::dltensor& t, std::shared_ptr<void> owner = nullptr) {
  return Tensor::wrap(dtype, Dims(t.shape, t.shape + t.ndim), address_of(t), std::move(owner));
}

// `tensor` becomes a view of `t`. Mostly its dims are those of the run before: then nothing is allocated.
void point(Tensor& tensor, DType dtype, const nb::dlpack::dltensor& t) {
  const Dims& dims = tensor.dims();
  if (tensor.defined() && t.data && std::equal(t.shape, t.shape + t.ndim, dims.begin(), dims.end()))
    tensor.point_to(address_of(t));
  else
    tensor = wrap(dtype, t);
}

// A hash (FNV-1a) of the tensor's strides and of some of its bytes, spread over all: who writes all of its elements
// changes that.
std::uint64_t sample_of(const nb::dlpack::dltensor& t) {
  constexpr std::uint64_t kBasis = 0xcbf29ce484222325, kPrime = 0x100000001b3;
  constexpr std::int64_t kWord = sizeof(std::uint64_t), kWords = 8;
  if (t.device.device_type != nb::device::cpu::value) return 0;
  std::uint64_t hash = kBasis;
  std::int64_t last = 0;  // the element that lies furthest from the first
  for (std::int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 0 || t.strides[i] < 0) return 0;
    last += (t.shape[i] - 1) * t.strides[i];
    hash = (hash ^ static_cast<std::uint64_t>(t.strides[i])) * kPrime;
  }
  const std::int64_t bytes = (last + 1) * t.dtype.bits / 8;
  const auto* const from = static_cast<const std::byte*>(address_of(t));
  const std::int64_t words = std::clamp<std::int64_t>((bytes + kWord - 1) / kWord, 1, kWords);
  for (std::int64_t i = 0; i < words; ++i) {
    const std::int64_t at = words == 1 ? 0 : (bytes - kWord) * i / (words - 1);
    std::uint64_t word = 0;
    std::memcpy(&word, from + at, static_cast<std::size_t>(std::min(kWord, bytes - at)));
    hash = (hash ^ word) * kPrime;
  }
  return hash;
}

std::string text_of(const nb::object& object) { return nb::cast<std::string>(nb::str(object)); }

nb::object call(const nb::object& function, const nb::tuple& arguments) {
  PyObject* made = PyObject_Call(function.ptr(), arguments.ptr(), nullptr);
  if (!made) throw nb::python_error();
  return nb::steal(made);
}

// Bytes of a tensor that is made when it is first written, or let go when it has been read; smaller ones are not worth
// asking for Python's lock.
constexpr std::size_t kChangesHands = std::size_t{256} << 10;

bool may_change_hands(const Port& port) {
  const Type& type = port.type;
  return !is_static(type.shape) ||
         static_cast<std::size_t>(bytes(type.dtype, numel(type.shape).value())) >= kChangesHands;
}

class TensorContext : public PyContext {
 public:
  TensorContext(const Executable& e, const nb::object& exchange, const std::vector<int>& parameters,
                const std::vector<int>& unsettled, const std::vector<int>& written, const nb::tuple& dtypes,
                nb::object empty, nb::object dense)
      : PyContext(e), dtypes_(dtypes), empty_(std::move(empty)), dense_(std::move(dense)) {
    void* api = PyCapsule_GetPointer(exchange.ptr(), kCapsule);
    if (!api) throw nb::python_error();
    api_ = static_cast<const ExchangeApi*>(api);
    if (api_->major != kMajor || !api_->tensor_from_py_object)
      throw Error(Code::Unsupported, "exchange", "", "DLPack's C exchange API, version 1",
                  "version " + std::to_string(api_->major));
    for (const Port& port : e.inputs())
      inputs_.push_back({.dtype = port.type.dtype, .wanted = dlpack_dtype(port.type.dtype)});
    for (const Port& port : e.outputs()) outputs_.push_back(port.type.dtype);
    hands_over_ = std::ranges::any_of(e.inputs(), may_change_hands) ||
                  std::ranges::any_of(e.outputs(), may_change_hands);
    for (const int i : parameters) inputs_.at(static_cast<std::size_t>(i)).is_parameter = true;
    for (const int i : unsettled) inputs_.at(static_cast<std::size_t>(i)).is_unsettled = true;
    for (const int i : written) inputs_.at(static_cast<std::size_t>(i)).is_written = true;
    check(dtypes.size() == outputs_.size(), "a dtype for each output");
  }

  // Takes one tensor per input out of the list; gives a tensor of each of `shapes`.
  nb::list run_tensors(nb::list inputs, const nb::tuple& shapes) {
    if (inputs.size() != inputs_.size() || shapes.size() != outputs_.size())
      throw Error(
          Code::InvalidArgument, "run", "",
          std::to_string(inputs_.size()) + " inputs and " + std::to_string(outputs_.size()) + " shapes",
          std::to_string(inputs.size()) + " and " + std::to_string(shapes.size()));
    std::vector<nb::object> copies;  // live until the run is over
    Views views = take_views();
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const nb::handle tensor = PyList_GET_ITEM(inputs.ptr(), static_cast<Py_ssize_t>(i));
      if (inputs_[i].is_parameter)
        take_parameter(static_cast<int>(i), tensor);
      else
        take(inputs_[i], tensor, views.inputs[i], copies);
    }
    const std::shared_ptr<const Layouts> layouts = layouts_of(shapes);
    nb::list made = nb::steal<nb::list>(PyList_New(static_cast<Py_ssize_t>(shapes.size())));
    const auto make = [&](std::size_t k) {
      nb::object tensor = call(empty_, (*layouts)[k].arguments);
      Tensor& to = views.outputs[k];
      point(to, outputs_[k], view(tensor));
      if (to.bytes() >= kNeverFromHeap) ask_for_huge_pages(to.data(), to.bytes());
      PyList_SET_ITEM(made.ptr(), static_cast<Py_ssize_t>(k), tensor.release().ptr());
    };
    for (std::size_t k = 0; k < outputs_.size(); ++k)
      if (!(*layouts)[k].is_late) make(k);
    const Handover handover{.take =
                                [&](int output, Tensor& /*to*/) {
                                  const auto k = static_cast<std::size_t>(output);
                                  if (!(*layouts)[k].is_late) return;
                                  const nb::gil_scoped_acquire locked;
                                  make(k);
                                },
                            .release =
                                [&](int input) {
                                  if (views.inputs[static_cast<std::size_t>(input)].bytes() < kChangesHands)
                                    return;
                                  const nb::gil_scoped_acquire locked;
                                  inputs[static_cast<std::size_t>(input)] = nb::none();
                                }};
    {
      const nb::gil_scoped_release unlocked;
      if (hands_over_)
        run(views.inputs, views.outputs, handover);
      else
        run(views.inputs, views.outputs);
      if (!has_run_.exchange(true)) settle(*layouts);
    }
    idle_views_.push_back(std::move(views));
    inputs.clear();
    return made;
  }

  static void refresh() { ++epoch; }

 private:
  struct Input {
    DType dtype;
    nb::dlpack::dtype wanted;  // the same to DLPack
    bool is_parameter = false, is_unsettled = false, is_written = false;
    // Of a parameter, as it was set.
    const void* address = nullptr;
    std::uint64_t version = ~std::uint64_t{0};
    nb::object memory;  // an alias of it: while it lives, no other memory has that address
  };
  struct Layout {
    nb::tuple arguments;  // what `empty` is called with
    std::size_t bytes;
    bool is_late;  // made when it is first written
  };
  using Layouts = std::vector<Layout>;
  // Of the tensors of one run; those of parameters stay undefined. Kept for the next run: memory that comes and goes
  // in pieces of over a kilobyte makes malloc merge all small ones that PyTorch has freed.
  struct Views {
    std::vector<Tensor> inputs, outputs;
  };

  Views take_views() {
    if (idle_views_.empty())
      return {std::vector<Tensor>(inputs_.size()), std::vector<Tensor>(outputs_.size())};
    Views views = std::move(idle_views_.back());
    idle_views_.pop_back();
    return views;
  }

  nb::dlpack::dltensor view(nb::handle tensor) const {
    nb::dlpack::dltensor t;
    if (api_->tensor_from_py_object(tensor.ptr(), &t) != 0) throw nb::python_error();
    return t;
  }

  // A copy of the tensor where its memory is not its elements in row-major order, which `t` then describes.
  nb::object settled(const Input& input, nb::handle tensor, nb::dlpack::dltensor& t) const {
    nb::object copy;
    if (input.is_unsettled || !row_major(t)) {
      copy = call(dense_, nb::make_tuple(tensor));
      t = view(copy);
    }
    const nb::dlpack::dtype wanted = input.wanted;
    if (t.dtype.code != wanted.code || t.dtype.bits != wanted.bits ||
        t.device.device_type != nb::device::cpu::value) {
      const Port& port = executable().inputs()[static_cast<std::size_t>(&input - inputs_.data())];
      throw Error(Code::InvalidArgument, "run", port.source,
                  "input \"" + port.name + "\" of " + dtype_to(port.type.dtype) + " on the CPU",
                  text_of(tensor.attr("dtype")) + " on " + text_of(tensor.attr("device")));
    }
    return copy;
  }

  void take(const Input& input, nb::handle tensor, Tensor& to, std::vector<nb::object>& copies) const {
    nb::dlpack::dltensor t = view(tensor);
    if (nb::object copy = settled(input, tensor, t); copy.is_valid()) {
      if (input.is_written)
        throw Error(Code::InvalidArgument, "run", "", "an input in row-major order, as it is written",
                    "other strides");
      copies.push_back(std::move(copy));
    }
    point(to, input.dtype, t);
  }

  void take_parameter(int i, nb::handle tensor) {
    nb::dlpack::dltensor t = view(tensor);
    const void* address = t.data;
    const std::uint64_t version = ((epoch << 32) + version_of(tensor)) ^ sample_of(t);
    Input& input = inputs_[static_cast<std::size_t>(i)];
    if (address == input.address && version == input.version) return;
    const nb::object copy = settled(input, tensor, t);
    const Tensor value = wrap(input.dtype, t, keep(copy.is_valid() ? copy : nb::borrow(tensor)));
    {
      const nb::gil_scoped_release unlocked;
      set_parameter(i, value, version);
    }
    input.address = address;
    input.version = version;
    input.memory = tensor.attr("detach")();
  }

  // After the first run: by now the graphs that this was compiled from, or the file that it was read from, have been
  // freed.
  void settle(const Layouts& layouts) {
    std::size_t from_heap = 0;
    for (const Layout& layout : layouts)
      if (layout.is_late && layout.bytes < kNeverFromHeap) from_heap += layout.bytes;
    stays_.emplace(from_heap);
    give_back_memory();
  }

  static std::uint64_t version_of(nb::handle tensor) {
    static PyObject* const name = PyUnicode_InternFromString("_version");
    const nb::object version = nb::steal(PyObject_GetAttr(tensor.ptr(), name));
    if (version.is_valid()) return static_cast<std::uint64_t>(PyLong_AsLongLong(version.ptr()));
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) throw nb::python_error();
    PyErr_Clear();  // a tensor of PyTorch's inference mode, which counts no writes
    return 0;
  }

  std::shared_ptr<const Layouts> layouts_of(const nb::tuple& shapes) {
    if (shapes.is(shapes_)) return layouts_;
    auto made = std::make_shared<Layouts>();
    for (std::size_t k = 0; k < shapes.size(); ++k) {
      const Dims dims = dims_from(shapes[k]);
      const nb::object strides = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(dims.size())));
      std::int64_t stride = 1;
      for (std::size_t i = dims.size(); i-- > 0; stride *= std::max<std::int64_t>(1, dims[i]))
        PyTuple_SET_ITEM(strides.ptr(), static_cast<Py_ssize_t>(i), PyLong_FromLongLong(stride));
      const auto size = static_cast<std::size_t>(bytes(outputs_[k], numel(dims)));
      made->push_back({nb::make_tuple(shapes[k], strides, dtypes_[k]), size, size >= kChangesHands});
    }
    shapes_ = shapes;
    layouts_ = made;
    return made;
  }

  inline static std::atomic<std::uint64_t> epoch{0};
  const ExchangeApi* api_;
  nb::tuple dtypes_;
  nb::object empty_, dense_;
  std::vector<Input> inputs_;
  std::vector<DType> outputs_;
  bool hands_over_;    // whether there may be tensors that do within a run
  nb::object shapes_;  // of the last run; the same object comes again where sizes are known
  std::shared_ptr<const Layouts> layouts_;
  std::vector<Views> idle_views_;
  std::atomic<bool> has_run_{false};
  std::optional<StaysInHeap> stays_;
};

}  // namespace

void bind_exchange(nb::module_& m) {
  nb::class_<TensorContext, PyContext>(
      m, "TensorContext",
      "A Context that takes and gives tensors of a library with DLPack's C exchange API, as PyTorch's.")
      .def(nb::init<const Executable&, const nb::object&, const std::vector<int>&, const std::vector<int>&,
                    const std::vector<int>&, const nb::tuple&, nb::object, nb::object>(),
           nb::arg("executable"), nb::arg("exchange"), nb::arg("parameters"), nb::arg("unsettled"),
           nb::arg("written"), nb::arg("dtypes"), nb::arg("empty"), nb::arg("dense"),
           nb::sig(
               "def __init__(self, executable: Executable, exchange: object, parameters: Sequence[int], "
               "unsettled: Sequence[int], written: Sequence[int], dtypes: tuple[object, ...], empty: object, "
               "dense: object) -> None"),
           "`exchange`: the tensors' class's __dlpack_c_exchange_api__. `parameters`: inputs whose derived "
           "data is kept until their address, `_version` or a sample of their elements changes. "
           "`unsettled`: inputs whose memory may hold something else than their elements (negated ones). "
           "`written`: inputs that a run writes where they lie. `empty(shape, strides, dtype)` makes a "
           "tensor; `dense(tensor)` gives one whose memory is its elements in row-major order.")
      .def("run_tensors", &TensorContext::run_tensors, nb::arg("inputs"), nb::arg("shapes"),
           nb::sig("def run_tensors(self, inputs: list[object], shapes: tuple[tuple[int, ...], ...]) "
                   "-> list[object]"),
           "One tensor per input, in a list of the caller's alone, which is emptied, of large ones as soon "
           "as they have been read; gives one of each shape.")
      .def_static("refresh", &TensorContext::refresh,
                  "Derived data of every parameter of every context is made anew by its next run.");
}

}  // namespace deepseek::python
