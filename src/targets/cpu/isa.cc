#include "targets/cpu/isa.h"

#include <llvm/ADT/StringMap.h>
#include <llvm/TargetParser/Host.h>
#include <llvm/TargetParser/Triple.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <thread>

#include "deepseek/error.h"
#include "runtime/amx_permission.h"

namespace deepseek {
namespace {

struct Row {
  std::string_view name;
  std::string_view arch;  // of the triple
  std::string_view cpu;   // LLVM's name for this set of features
  int vector_bits;
  int masked_bits;  // Machine::masked_bits
  std::vector<std::string_view> features;
  // Register tiles (rows, columns) that leave room for a row of operands and a broadcast, best first.
  std::vector<std::pair<std::int64_t, std::int64_t>> tiles;
  // Features beyond those of `cpu`.
  std::vector<std::string_view> more = {};

  bool has(std::string_view feature) const {
    return std::find(more.begin(), more.end(), feature) != more.end();
  }
};

constexpr int kNoMasks = 64 + 1;

Row avx512(std::string_view name, std::vector<std::string_view> more) {
  return {name,
          "x86_64",
          "x86-64-v4",
          512,
          8,
          {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "f16c", "bmi", "bmi2",
           "lzcnt", "movbe"},
          {{14, 32}, {6, 64}, {8, 48}},
          std::move(more)};
}

Row avx2(std::string_view name, std::vector<std::string_view> more) {
  return {name,        "x86_64",
          "x86-64-v3", 256,
          32,          {"avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"},
          {{6, 16}},   std::move(more)};
}

// Best first.
const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      avx512("amx", {"avx512bf16", "avx512vnni", "amx-tile", "amx-bf16", "amx-int8"}),
      avx512("avx512_bf16", {"avx512bf16", "avx512vnni"}),
      avx512("avx512_vnni", {"avx512vnni"}),
      avx512("avx512", {}),
      avx2("avx2_vnni", {"avxvnni"}),
      avx2("avx2", {}),
      {"neon", "aarch64", "generic", 128, kNoMasks, {"neon"}, {{8, 12}, {6, 16}}},
  };
  return table;
}

const Row* find(std::string_view name) {
  for (const Row& r : rows())
    if (r.name == name) return &r;
  return nullptr;
}

std::string host_arch() { return llvm::Triple(llvm::sys::getProcessTriple()).getArchName().str(); }

bool host_has(const Row& row) {
  if (row.arch != host_arch()) return false;
  const auto host = llvm::sys::getHostCPUFeatures();
  const auto there = [&](std::string_view f) {
    const auto it = host.find(llvm::StringRef(f.data(), f.size()));
    return it != host.end() && it->second;
  };
  return std::all_of(row.features.begin(), row.features.end(), there) &&
         std::all_of(row.more.begin(), row.more.end(), there) && (!row.has("amx-tile") || may_use_amx());
}

std::int64_t cache_bytes(int name, std::int64_t otherwise) {
  const long size = sysconf(name);
  return size > 0 ? size : otherwise;
}

// The last cache may serve many more cores than this machine is given: of it a core has its share at most.
std::int64_t kept_bytes() {
  constexpr std::int64_t kShare = 4 << 20;
  const auto cores = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  return std::min(cache_bytes(_SC_LEVEL3_CACHE_SIZE, 2 * kShare), cores * kShare);
}

std::string names() {
  std::string all;
  for (const Row& r : rows()) all += (all.empty() ? "" : ", ") + std::string(r.name);
  return all;
}

}  // namespace

CpuIsa cpu_isa(std::string_view name) {
  const Row* row = find(name);
  if (!row) throw Error(Code::InvalidArgument, "cpu target", "", "an ISA of " + names(), std::string(name));
  CpuIsa isa;
  isa.info.name = "cpu";
  isa.info.isa = row->name;
  isa.info.vector_bytes = row->vector_bits / 8;
  constexpr std::int64_t kUsualL1 = 32 << 10, kUsualL2 = 1 << 20;
  const bool native = row->arch == host_arch();
  isa.info.l1_bytes = native ? cache_bytes(_SC_LEVEL1_DCACHE_SIZE, kUsualL1) : kUsualL1;
  isa.info.l2_bytes = native ? cache_bytes(_SC_LEVEL2_CACHE_SIZE, kUsualL2) : kUsualL2;
  if (native) isa.info.kept_bytes = kept_bytes();
  for (const auto& [m, n] : row->tiles)
    isa.info.tiles.push_back({DType::F32, DType::F32, m, n, 1, true, loops::Space::Global});
  for (const auto& [m, n] : row->tiles)
    isa.info.tiles.push_back({DType::I32, DType::I32, m, n, 1, true, loops::Space::Global});
  if (row->has("amx-int8"))
    isa.info.tiles.push_back({DType::U8, DType::I32, 32, 32, 64, true, loops::Space::Global, 4, DType::I8});
  if (row->has("avx512vnni") || row->has("avxvnni"))
    for (const auto& [m, n] : row->tiles)
      isa.info.tiles.push_back({DType::U8, DType::I32, m, n, 4, true, loops::Space::Global, 4, DType::I8});
  isa.machine.dot_int16 = row->arch == "x86_64" && row->vector_bits == 256 && !row->has("avxvnni");
  if (isa.machine.dot_int16)
    for (const auto& [m, n] : row->tiles)
      isa.info.tiles.push_back({DType::I16, DType::I32, m, n, 2, true, loops::Space::Global, 2});
  // Fewer rows, which leave registers for sums on their way.
  isa.machine.byte_pairs = isa.machine.dot_int16;
  if (isa.machine.byte_pairs)
    isa.info.tiles.push_back({DType::U8, DType::I32, 4, 16, 16, true, loops::Space::Global, 4, DType::I8, 4});
  if (row->has("amx-bf16"))
    isa.info.tiles.push_back({DType::BF16, DType::F32, 32, 32, 32, true, loops::Space::Global, 2});
  if (row->has("avx512bf16"))
    for (const auto& [m, n] : row->tiles)
      isa.info.tiles.push_back({DType::BF16, DType::F32, m, n, 2, true, loops::Space::Global, 2});
  isa.machine.isa = row->name;
  isa.machine.triple = native ? llvm::sys::getProcessTriple() : std::string(row->arch) + "-unknown-linux-gnu";
  isa.machine.cpu = row->cpu;
  isa.machine.lanes = row->vector_bits / 32;
  isa.machine.vector_bits = row->arch == "x86_64" ? row->vector_bits : 0;
  isa.machine.masked_bits = row->masked_bits;
  isa.machine.nan_minmax = row->arch == "aarch64";
  isa.machine.has_ldexp = row->vector_bits == 512;
  isa.machine.amx = row->has("amx-bf16");
  isa.machine.dot_bf16 = row->has("avx512bf16");
  isa.machine.dot_int8 = row->has("avx512vnni") || row->has("avxvnni");
  for (const std::string_view f : row->features)
    isa.features += (isa.features.empty() ? "" : ",") + std::string(f);
  for (const std::string_view f : row->more) {
    isa.features += "," + std::string(f);
    isa.machine.features += (isa.machine.features.empty() ? "+" : ",+") + std::string(f);
  }
  return isa;
}

bool host_has(std::string_view name) {
  const Row* row = find(name);
  return row && host_has(*row);
}

std::vector<std::string> host_isas() {
  std::vector<std::string> names;
  for (const Row& r : rows())
    if (host_has(r)) names.emplace_back(r.name);
  return names;
}

CpuIsa host_cpu_isa() {
  const char* cap = std::getenv("DEEPSEEK_CPU_ISA");
  if (cap && *cap) {
    CpuIsa isa = cpu_isa(cap);
    if (!host_has(cap))
      throw Error(Code::Unsupported, "cpu target", "", "DEEPSEEK_CPU_ISA that this machine has", cap);
    return isa;
  }
  for (const Row& r : rows())
    if (host_has(r)) return cpu_isa(r.name);
  throw Error(Code::Unsupported, "cpu target", "", "a CPU with AVX2 and FMA, or AArch64",
              "one that has neither");
}

}  // namespace deepseek
