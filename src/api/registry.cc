#include "targets/registry.h"

#include "deepseek/error.h"
#include "targets/cpu/cpu_target.h"
#include "targets/interpreter/interpreter_target.h"

namespace deepseek {

std::shared_ptr<Target> find_target(std::string_view name, std::string_view isa) {
  if (name == "auto" || name == "cpu") return isa.empty() ? cpu_target() : cpu_target(isa);
  if (name == "interpreter") return std::make_shared<InterpreterTarget>();
  if (name == "gpu" || name == "npu") return nullptr;
  throw Error(Code::InvalidArgument, "compile", "",
              "target \"auto\", \"cpu\", \"gpu\", \"npu\" or \"interpreter\"",
              "\"" + std::string(name) + "\"");
}

}  // namespace deepseek
