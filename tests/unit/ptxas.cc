#include "support/ptxas.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace deepseek::testing {
namespace {

namespace fs = std::filesystem;

std::string find_ptxas() {
  if (const char* named = std::getenv("DEEPSEEK_PTXAS")) return named;
  // The assembler is a program of its own: a shell runs it.
  // NOLINTNEXTLINE(bugprone-command-processor)
  if (std::system("command -v ptxas > /dev/null") == 0) return "ptxas";
  const fs::path packages = fs::path(DEEPSEEK_SOURCE_DIR) / ".venv" / "lib";
  if (!fs::exists(packages)) return "";
  for (const fs::directory_entry& python : fs::directory_iterator(packages)) {
    const fs::path nvidia = python.path() / "site-packages" / "nvidia";
    if (!fs::exists(nvidia)) continue;
    for (const fs::directory_entry& toolkit : fs::directory_iterator(nvidia))
      if (const fs::path ptxas = toolkit.path() / "bin" / "ptxas"; fs::exists(ptxas)) return ptxas.string();
  }
  return "";
}

}  // namespace

void expect_assembles(const std::string& ptx, const std::string& architecture) {
  static const std::string ptxas = find_ptxas();
  if (ptxas.empty()) GTEST_SKIP() << "hardware: no ptxas";
  const fs::path file = fs::temp_directory_path() / ("deepseek" + std::to_string(getpid()) + ".ptx");
  std::ofstream(file) << ptx;
  const std::string command = ptxas + " -arch=" + architecture + " -o /dev/null " + file.string();
  // NOLINTNEXTLINE(bugprone-command-processor)
  EXPECT_EQ(std::system(command.c_str()), 0) << ptx;
  fs::remove(file);
}

}  // namespace deepseek::testing
