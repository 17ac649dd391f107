// How many threads this process may use.
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "deepseek/executor.h"

namespace deepseek {
namespace {

int affinity_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

// CPUs that a quota of `quota` in each `period` pays for; 0: no limit.
int cpus(double quota, double period) {
  if (quota <= 0 || period <= 0) return 0;
  return std::max(1, static_cast<int>(std::ceil(quota / period)));
}

double read_number(const std::string& path) {
  double value = 0;
  std::ifstream(path) >> value;
  return value;
}

// The tightest CPU quota of this process's control groups (version 2, else 1); 0: none.
int quota_count() {
  const std::string root = "/sys/fs/cgroup";
  std::ifstream groups("/proc/self/cgroup");
  int tightest = 0;
  const auto limit = [&](int count) {
    if (count > 0) tightest = tightest == 0 ? count : std::min(tightest, count);
  };
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string base = v2 ? root : root + "/" + controllers;
    for (;; path.erase(path.rfind('/'))) {
      const std::string folder = base + (path == "/" ? "" : path);
      if (v2) {
        std::ifstream file(folder + "/cpu.max");
        std::string quota;
        double period = 0;
        if (file >> quota >> period && quota != "max")
          limit(cpus(std::strtod(quota.c_str(), nullptr), period));
      } else {
        limit(cpus(read_number(folder + "/cpu.cfs_quota_us"), read_number(folder + "/cpu.cfs_period_us")));
      }
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  return tightest;
}

}  // namespace

int default_threads() {
  if (const char* wanted = std::getenv("OMP_NUM_THREADS")) {
    const long count =
        std::strtol(wanted, nullptr, 10);  // "4,2" is a list by nesting level: the first counts
    if (count > 0) return static_cast<int>(std::min(count, 4096L));
  }
  const int allowed = affinity_count(), quota = quota_count();
  return quota > 0 ? std::min(allowed, quota) : allowed;
}

}  // namespace deepseek
