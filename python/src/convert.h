// Between Python's objects and the C++ API's: dtypes by name, dims as int or text, arrays without copying.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <string>

#include "deepseek/executable.h"
#include "deepseek/graph.h"
#include "deepseek/ops.h"

namespace deepseek::python {

namespace nb = nanobind;

using AnyArray = nb::ndarray<nb::ro, nb::device::cpu>;

DType dtype_from(std::string_view name);  // throws Error for an unknown one
std::string dtype_to(DType t);
Dim dim_from(nb::handle h);  // int, or text in the grammar of Dim::parse
nb::object dim_to(const Dim& d);
Shape shape_from(nb::handle sequence);
nb::tuple shape_to(const Shape& s);
nb::tuple dims_to(const Dims& d);
Dims dims_from(nb::handle sequence);

// How an array of that dtype looks in Python before it is viewed as ml_dtypes' type: 16-bit and 8-bit floats that
// NumPy lacks as unsigned integers of their size, types of less than a byte as one byte per element.
DType array_dtype(DType t);
nb::dlpack::dtype dlpack_dtype(DType t);
// The array's memory as a Tensor of dtype `t`, row-major: shared where it is that already (the Tensor then keeps the
// array), else copied. Throws Error when the array's elements are not those of array_dtype(t).
Tensor tensor_from(const AnyArray& array, DType t, bool copy = false);
// Any object with the buffer protocol or __dlpack__, or a Tensor.
Tensor tensor_from(nb::handle h, DType t, bool copy = false);
// One per port, an undefined one for None; errors name the input.
std::vector<Tensor> tensors_from(const std::vector<Port>& ports, const nb::list& given);
nb::object tensor_to_numpy(const Tensor& t);

// Graph and Values as Python holds them: a Value keeps its Graph.
struct PyGraph {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  bool has_source = false;  // set_source was called: the caller's line does not replace it
};
struct PyValue {
  std::shared_ptr<Graph> graph;
  Value value;
};

Attr attr_from(const OpAttrInfo& info, nb::handle h);
nb::object attr_to(const Attr& a);
// "file.py:12" of the innermost Python frame outside the package.
std::string user_source();

void bind_tensor(nb::module_& m);
void bind_graph(nb::module_& m);
void bind_executable(nb::module_& m);
void bind_exchange(nb::module_& m);  // after bind_executable
void bind_onnx(nb::module_& m);
void bind_profile(nb::module_& m);

}  // namespace deepseek::python
