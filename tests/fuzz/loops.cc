// Loop programs from any text: what parses prints and parses back to the same text, and what the verifier takes
// can be expanded and made into instructions. Errors are the only exceptions.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "deepseek/error.h"
#include "loops/interpreter.h"
#include "loops/ir.h"
#include "loops/math.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace deepseek::loops;
  Program p;
  try {
    p = parse({reinterpret_cast<const char*>(data), size});
  } catch (const deepseek::Error&) {
    return 0;
  }
  const std::string text = print(p);
  if (print(parse(text)) != text) std::abort();
  try {
    verify(p);
  } catch (const deepseek::Error&) {
    return 0;
  }
  interpret(expand_math(p), {.check = true});
  return 0;
}
