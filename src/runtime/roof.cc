// What the machine does at best: multiply-adds in registers, and streams through each level of memory.
#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "deepseek/profile.h"
#include "runtime/recorder.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace deepseek {
namespace {

// As many independent sums as hide a multiply-add's latency (4 or 5 cycles, two a cycle), in 16 registers.
constexpr int kSums = 12;
constexpr std::int64_t kSpinNs = 2'000'000, kPeakNs = 1'000'000, kStreamNs = 1'000'000;
constexpr std::int64_t kKiB = 1024, kMiB = kKiB * kKiB;
constexpr int kRepeats = 5;
constexpr std::int64_t kLineWords = 32;  // four of the widest vectors

// Each runs `count` rounds of kSums multiply-adds of one vector and returns something of their results.
using PeakFn = float (*)(std::int64_t count, float scale, float shift);
constexpr float kScale = 0.998F, kShift = 0.001F;  // sums stay near 0.5

// Vectors as members: as arguments of templates they would lose their attributes.
#if defined(__x86_64__)
struct Zmm {
  __m512 v;
};
struct Ymm {
  __m256 v;
};

[[gnu::target("avx512f")]] float peak_512(std::int64_t count, float scale, float shift) {
  std::array<Zmm, kSums> sums;
  for (Zmm& s : sums) s.v = _mm512_set1_ps(1);
  const __m512 a = _mm512_set1_ps(scale), b = _mm512_set1_ps(shift);
  for (std::int64_t i = 0; i < count; ++i)
    for (Zmm& s : sums) s.v = _mm512_fmadd_ps(s.v, a, b);
  for (int k = 1; k < kSums; ++k) sums[0].v = _mm512_add_ps(sums[0].v, sums[static_cast<std::size_t>(k)].v);
  return _mm512_cvtss_f32(sums[0].v);
}

// The same with products of pairs of bf16: twice the FLOPs a vector.
[[gnu::target("avx512f,avx512bf16")]] float peak_pairs_512(std::int64_t count, float scale, float) {
  std::array<Zmm, kSums> sums;
  for (Zmm& s : sums) s.v = _mm512_set1_ps(1);
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(scale), _mm512_set1_ps(-scale));
  for (std::int64_t i = 0; i < count; ++i)
    for (Zmm& s : sums) s.v = _mm512_dpbf16_ps(s.v, a, a);
  for (int k = 1; k < kSums; ++k) sums[0].v = _mm512_add_ps(sums[0].v, sums[static_cast<std::size_t>(k)].v);
  return _mm512_cvtss_f32(sums[0].v);
}

// And of quads of bytes: four times.
[[gnu::target("avx512f,avx512vnni")]] float peak_quads_512(std::int64_t count, float scale, float) {
  struct Sum {
    __m512i v;
  };
  std::array<Sum, kSums> sums;
  for (Sum& s : sums) s.v = _mm512_set1_epi32(1);
  const __m512i a = _mm512_castps_si512(_mm512_set1_ps(scale));
  for (std::int64_t i = 0; i < count; ++i)
    for (Sum& s : sums) s.v = _mm512_dpbusd_epi32(s.v, a, a);
  for (int k = 1; k < kSums; ++k)
    sums[0].v = _mm512_add_epi32(sums[0].v, sums[static_cast<std::size_t>(k)].v);
  return static_cast<float>(sums[0].v[0]);
}

[[gnu::target("avx2,fma")]] float peak_256(std::int64_t count, float scale, float shift) {
  std::array<Ymm, kSums> sums;
  for (Ymm& s : sums) s.v = _mm256_set1_ps(1);
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift);
  for (std::int64_t i = 0; i < count; ++i)
    for (Ymm& s : sums) s.v = _mm256_fmadd_ps(s.v, a, b);
  for (int k = 1; k < kSums; ++k) sums[0].v = _mm256_add_ps(sums[0].v, sums[static_cast<std::size_t>(k)].v);
  return _mm256_cvtss_f32(sums[0].v);
}
#endif

float peak_128(std::int64_t count, float scale, float shift) {
#if defined(__aarch64__)
  std::array<float32x4_t, kSums> sums;
  for (float32x4_t& s : sums) s = vdupq_n_f32(1);
  const float32x4_t a = vdupq_n_f32(scale), b = vdupq_n_f32(shift);
  for (std::int64_t i = 0; i < count; ++i)
    for (float32x4_t& s : sums) s = vfmaq_f32(b, s, a);
  for (int k = 1; k < kSums; ++k) sums[0] = vaddq_f32(sums[0], sums[static_cast<std::size_t>(k)]);
  return vgetq_lane_f32(sums[0], 0);
#else
  using V [[gnu::vector_size(16)]] = float;
  std::array<V, kSums> sums;
  for (V& s : sums) s = V{1, 1, 1, 1};
  const V a = V{} + scale, b = V{} + shift;
  for (std::int64_t i = 0; i < count; ++i)
    for (V& s : sums) s = s * a + b;
  for (int k = 1; k < kSums; ++k) sums[0] += sums[static_cast<std::size_t>(k)];
  return sums[0][0];
#endif
}

std::pair<PeakFn, int> peak_of(int vector_bits) {
#if defined(__x86_64__)
  if (vector_bits >= 512 && __builtin_cpu_supports("avx512f")) return {peak_512, 512};
  if (vector_bits >= 256 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {peak_256, 256};
#endif
  static_cast<void>(vector_bits);
  return {peak_128, 128};
}

// The compiler must believe that these results are wanted.
void keep(float x) { asm volatile("" : : "g"(x) : "memory"); }
void keep(const void* p) { asm volatile("" : : "g"(p) : "memory"); }

using Words = std::span<std::uint64_t>;

// Whole cache lines, with the widest vectors that both sides of the stream have: four loads in flight.
template <class V>
[[gnu::always_inline]] inline void read_lines(Words words) {
  const auto* p = reinterpret_cast<const V*>(words.data());
  const std::size_t n = words.size_bytes() / sizeof(V) / 4 * 4;
  V a{}, b{}, c{}, d{};
  for (std::size_t i = 0; i < n; i += 4) {
    a += p[i];
    b += p[i + 1];
    c += p[i + 2];
    d += p[i + 3];
  }
  const V sum = a + b + c + d;
  keep(static_cast<float>(sum[0]));
}

template <class V>
[[gnu::always_inline]] inline void write_lines(Words words) {
  auto* p = reinterpret_cast<V*>(words.data());
  const std::size_t n = words.size_bytes() / sizeof(V) / 4 * 4;
  const V one = V{} + 1;
  for (std::size_t i = 0; i < n; i += 4) p[i] = p[i + 1] = p[i + 2] = p[i + 3] = one;
  keep(words.data());
}

using V128 [[gnu::vector_size(16), gnu::may_alias]] = std::uint64_t;
void read_128(Words words) { read_lines<V128>(words); }
void write_128(Words words) { write_lines<V128>(words); }
#if defined(__x86_64__)
using V256 [[gnu::vector_size(32), gnu::may_alias]] = std::uint64_t;
using V512 [[gnu::vector_size(64), gnu::may_alias]] = std::uint64_t;
[[gnu::target("avx2")]] void read_256(Words words) { read_lines<V256>(words); }
[[gnu::target("avx2")]] void write_256(Words words) { write_lines<V256>(words); }
[[gnu::target("avx512f")]] void read_512(Words words) { read_lines<V512>(words); }
[[gnu::target("avx512f")]] void write_512(Words words) { write_lines<V512>(words); }
#endif

struct Streams {
  void (*read)(Words);
  void (*write)(Words);
};
Streams streams_of(int bits) {
#if defined(__x86_64__)
  if (bits == 512) return {read_512, write_512};
  if (bits == 256) return {read_256, write_256};
#endif
  static_cast<void>(bits);
  return {read_128, write_128};
}

// Seconds that all threads take for `work(worker)` each, at best.
template <class F>
double fastest(Executor& executor, int threads, F work) {
  double best = std::numeric_limits<double>::infinity();
  for (int r = 0; r < kRepeats; ++r) {
    const std::int64_t begin = now_ns();
    executor.parallel_for(threads, 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t i = from; i < to; ++i) work(static_cast<int>(i));
    });
    best = std::min(best, static_cast<double>(now_ns() - begin) * 1e-9);
  }
  return best;
}

// The first of 1, 2, 4 ... rounds that take `ns` even when nothing from outside interrupts them.
template <class F>
std::int64_t rounds_for(std::int64_t ns, F work) {
  for (std::int64_t count = 1;; count *= 2) {
    std::int64_t best = std::numeric_limits<std::int64_t>::max();
    for (int r = 0; r < kRepeats && best >= ns; ++r) {
      const std::int64_t begin = now_ns();
      work(count);
      const std::int64_t taken = now_ns() - begin;
      best = std::min(best, taken);
    }
    if (best >= ns) return count;
  }
}

// A data cache of the first core, as the kernel says: sysconf adds up those of other cores. Threads of one core share it.
std::int64_t cache_bytes(int level, std::int64_t otherwise) {
  for (int index = 0;; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::ifstream about(folder + "level"), kind(folder + "type"), size(folder + "size");
    int found = 0;
    std::int64_t kib = 0;
    std::string type;
    if (!(about >> found) || !(kind >> type) || !(size >> kib)) return otherwise;
    if (found == level && type != "Instruction" && kib > 0) return kib * kKiB;
  }
}

Roof measure(int threads, int vector_bits) {
  const std::shared_ptr<Executor> executor = thread_pool(threads);
  const auto [peak, bits] = peak_of(vector_bits);
  Roof roof;
  roof.threads = threads;
  roof.vector_bits = bits;
  // FLOPs per second where a round does so many.
  const auto rate_of = [&](PeakFn fn, double flops_per_round) {
    const std::int64_t rounds = rounds_for(kPeakNs, [&](std::int64_t n) { keep(fn(n, kScale, kShift)); });
    const std::int64_t wake = now_ns();  // threads and clock rates take a moment
    while (now_ns() - wake < kSpinNs)
      fastest(*executor, threads, [&](int) { keep(fn(1000, kScale, kShift)); });
    const double flops = flops_per_round * static_cast<double>(rounds) * static_cast<double>(threads);
    return flops / fastest(*executor, threads, [&](int) { keep(fn(rounds, kScale, kShift)); });
  };
  const int lanes = bits / 32;
  roof.flops_per_s = rate_of(peak, 2.0 * kSums * lanes);
#if defined(__x86_64__)
  if (bits == 512 && __builtin_cpu_supports("avx512bf16"))
    roof.bf16_flops_per_s = rate_of(peak_pairs_512, 4.0 * kSums * lanes);
  if (bits == 512 && __builtin_cpu_supports("avx512vnni"))
    roof.int8_flops_per_s = rate_of(peak_quads_512, 8.0 * kSums * lanes);
#endif

  const std::int64_t l1 = cache_bytes(1, 32 * kKiB) * threads;
  const std::int64_t l2 = std::max(l1, cache_bytes(2, kMiB) * threads);
  const std::int64_t l3 = std::max(l2, cache_bytes(3, 16 * kMiB));
  roof.levels = {{"L1", l1, 0, 0},
                 {"L2", l2, 0, 0},
                 {"L3", l3, 0, 0},
                 {"memory", std::numeric_limits<std::int64_t>::max(), 0, 0}};
  const std::int64_t most = std::clamp(4 * l3, 64 * kMiB, 512 * kMiB);
  const Tensor memory = Tensor::zeros(DType::U64, {most / 8});
  const Streams streams = streams_of(bits);
  for (Roof::Level& level : roof.levels) {
    // Half of a cache, a quarter of one that all cores share: the rest is for whoever else uses it.
    const std::int64_t all = level.capacity > most  ? most
                             : level.capacity == l3 ? level.capacity / 4
                                                    : level.capacity / 2;
    const std::int64_t words = all / 8 / threads / kLineWords * kLineWords;
    const auto part = [&](int worker) {
      return memory.as<std::uint64_t>().subspan(static_cast<std::size_t>(worker * words),
                                                static_cast<std::size_t>(words));
    };
    for (const bool reading : {true, false}) {
      const auto stream = reading ? streams.read : streams.write;
      const auto passes = [&](int worker, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) stream(part(worker));
      };
      const std::int64_t count = rounds_for(kStreamNs, [&](std::int64_t n) { passes(0, n); });
      const double seconds = fastest(*executor, threads, [&](int worker) { passes(worker, count); });
      (reading ? level.read : level.write) = static_cast<double>(words * 8 * threads * count) / seconds;
    }
  }
  return roof;
}

}  // namespace

const Roof::Level& Roof::level(double distance) const {
  const auto holds = [&](const Level& l) { return distance <= static_cast<double>(l.capacity); };
  return *std::find_if(levels.begin(), levels.end() - 1, holds);
}

const Roof& measured_roof(int threads, int vector_bits) {
  if (threads <= 0) threads = default_threads();
  if (vector_bits <= 0) vector_bits = std::numeric_limits<int>::max();
  static std::mutex mutex;
  static std::map<std::pair<int, int>, Roof> measured;
  const std::lock_guard lock(mutex);
  const std::pair<int, int> key(threads, peak_of(vector_bits).second);
  auto it = measured.find(key);
  if (it == measured.end()) it = measured.emplace(key, measure(threads, vector_bits)).first;
  return it->second;
}

}  // namespace deepseek
