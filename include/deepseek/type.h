// What a value of a graph or an executable is: element type, shape, and how often it changes.
#pragma once

#include <cstdint>
#include <string>

#include "deepseek/dtype.h"
#include "deepseek/shape.h"

namespace deepseek {

struct Type {
  DType dtype = DType::F32;
  Shape shape;
  friend bool operator==(const Type&, const Type&) = default;
};
std::string str(const Type& t);  // "float32[2, N]"

enum class Role : std::uint8_t {
  Argument,   // differs from run to run
  Parameter,  // changes rarely: what derives from it is kept until its pointer or version changes
  Constant,   // known now; the node carries the data
};

}  // namespace deepseek
