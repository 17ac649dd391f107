// Executables from kernels written as C++ functions: what the runtime promises, whatever the target.
#include "deepseek/executable.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/builder.h"
#include "runtime/executable.h"
#include "unit/test_kernels.h"

namespace deepseek {
namespace {

using namespace test_kernels;

TEST(Executable, RunsAtAnySize) {
  const Executable e = chain(1);
  for (const Dim64 n : {0, 1, 5, 1000}) {
    std::vector<float> x(static_cast<std::size_t>(n), 3), y(static_cast<std::size_t>(n), 8);
    EXPECT_EQ(list(e.run({{"x", vec(x)}}).at("y")), y);
  }
}

TEST(Executable, TemporariesShareTheArena) {
  const Executable e = chain(10);
  Context c(e);
  const Tensor x = vec(std::vector<float>(1000, 0));
  Tensor y;
  c.run({&x, 1}, {&y, 1});
  EXPECT_EQ(y.at(999), 2046);
  EXPECT_LE(c.arena_bytes(), 2u * 4032u);
}

TEST(Executable, RunsLendEachOtherTheirArena) {
  const auto noting = [](void*& seen) {
    ExecutableBuilder b;
    const ValueId x = b.input("x", kVector), kept = b.temp(kVector), y = b.temp(kVector);
    const auto copy = [&seen](void* const* buffers, const Dim64*, Dim64 i) {
      if (i == 0) seen = buffers[1];
      f32(buffers, 1)[i] = f32(buffers, 0)[i];
      return 0;
    };
    b.kernel(Phase::Run, info("copy"), {std::make_shared<TestKernel>(copy), {N}, {x, kept}, {}});
    b.kernel(Phase::Run, info("inc"), {unary([](float v) { return v + 1; }), {N}, {kept, y}, {}});
    b.output("y", y);
    return b.finish();
  };
  void *first = nullptr, *second = nullptr;
  Context one(noting(first)), other(noting(second));
  for (const Dim64 n : {1000, 10, 3000, 10}) {  // it moves as one of them grows
    const auto size = static_cast<std::size_t>(n);
    for (Context* c : {&one, &other}) {
      const Tensor x = vec(std::vector<float>(size, 1));
      Tensor y;
      c->run({&x, 1}, {&y, 1});
      EXPECT_EQ(list(y), std::vector<float>(size, 2));
    }
    EXPECT_EQ(first, second);
  }
}

TEST(Executable, RunsAtOnceHaveArenasOfTheirOwn) {
  const Executable e = chain(3);
  const auto work = [&e](float at) {
    Context c(e);
    for (int i = 0; i < 300; ++i) {
      const auto size = static_cast<std::size_t>(1 + i % 7 * 100);
      const Tensor x = vec(std::vector<float>(size, at));
      Tensor y;
      c.run({&x, 1}, {&y, 1});
      ASSERT_EQ(list(y), std::vector<float>(size, 8 * at + 14));
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back(work, static_cast<float>(t));
  for (std::thread& t : threads) t.join();
}

TEST(Executable, WritesIntoMemoryOfTheCaller) {
  const Executable e = chain(5);
  Context c(e);
  const Tensor x = vec(std::vector<float>(64, 1)), z = vec(std::vector<float>(3, 1));
  Tensor y(DType::F32, {64}), w(DType::F32, {3});
  void* before = y.data();
  c.run({&x, 1}, {&y, 1});
  c.run({&z, 1}, {&w, 1});
  EXPECT_EQ(y.data(), before);
  EXPECT_EQ(y.at(63), 94);
  EXPECT_EQ(w.at(2), 94);
  Tensor wrong(DType::F32, {63});
  EXPECT_THROW(c.run({&x, 1}, {&wrong, 1}), Error);
}

// Inputs go when they have been read, outputs come when they are written, here into the memory of what went.
TEST(Executable, MemoryChangesHandsDuringARun) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), y = b.input("y", kVector), unread = b.input("unread", kVector);
  const ValueId first = b.temp(kVector), inner = b.temp(kVector), second = b.temp(kVector);
  const auto add = [&](float amount, ValueId from, ValueId to) {
    b.kernel(Phase::Run, info("add"), {unary([amount](float v) { return v + amount; }), {N}, {from, to}, {}});
  };
  add(1, b.alias(x, kVector), first);
  add(2, y, inner);
  add(3, inner, second);
  b.output("first", first);
  b.output("second", second);
  b.output("given", y);  // a copy, after which nothing reads y
  (void)unread;
  const Executable e = b.finish();
  Context c(e);
  for (const Dim64 n : {5, 1000, 0}) {
    const auto size = static_cast<std::size_t>(n);
    std::vector<float> memory_of_x(size + 1, 10), memory_of_y(size + 1, 20), more(size + 1), last(size + 1);
    const auto at = [n](std::vector<float>& memory) {
      return Tensor::wrap(DType::F32, {n}, memory.data(), nullptr);
    };
    std::vector<std::string> events;
    const Handover handover{.take =
                                [&](int k, Tensor& to) {
                                  events.push_back("take " + std::to_string(k));
                                  to = at(k == 0 ? more : k == 1 ? memory_of_x : last);
                                },
                            .release = [&](int i) { events.push_back("release " + std::to_string(i)); }};
    std::vector<Tensor> results(3);
    const std::vector<Tensor> given = {at(memory_of_x), at(memory_of_y), at(memory_of_x)};
    c.run(given, results, handover);
    EXPECT_EQ(events, (std::vector<std::string>{"take 0", "release 0", "take 1", "take 2", "release 1"}));
    EXPECT_EQ(list(results[0]), std::vector<float>(size, 11));
    EXPECT_EQ(list(results[1]), std::vector<float>(size, 25));
    EXPECT_EQ(list(results[2]), std::vector<float>(size, 20));
  }
}

TEST(Executable, MemoryThatComesLateIsChecked) {
  Context c(chain(1));
  const Tensor x = vec({1, 2, 3});
  std::vector<Tensor> results(1);
  const Handover handover{.take = [](int /*k*/, Tensor& to) { to = vec({0, 0}); },
                          .release = [](int /*i*/) {}};
  EXPECT_THROW(c.run({&x, 1}, results, handover), Error);
  results = std::vector<Tensor>(1);
  c.run({&x, 1}, results);
  EXPECT_EQ(results[0].numel(), 3);
}

TEST(Executable, OutputsThatNoStepWrites) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", {DType::F32, {N, 2}});
  const ValueId flat = b.alias(x, {DType::F32, {N * 2}});
  const ValueId c = b.constant(vec({7, 8}));
  const ValueId t = b.temp(kVector);
  b.kernel(Phase::Run, info("neg"), {unary([](float v) { return -v; }), {N}, {flat, t}, {}});
  b.output("input", x);
  b.output("reshaped", flat);
  b.output("constant", c);
  b.output("once", t);
  b.output("twice", t);
  b.output("tail", b.alias(flat, {DType::F32, {N}}, N));
  const Executable e = b.finish();
  const auto y = e.run({{"x", vec({1, 2, 3, 4}).reshaped({2, 2})}});
  EXPECT_EQ(list(y.at("input")), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(y.at("input").dims(), (Dims{2, 2}));
  EXPECT_EQ(y.at("reshaped").dims(), (Dims{4}));
  EXPECT_EQ(list(y.at("constant")), (std::vector<float>{7, 8}));
  EXPECT_EQ(list(y.at("once")), (std::vector<float>{-1, -2}));
  EXPECT_EQ(list(y.at("twice")), (std::vector<float>{-1, -2}));
  EXPECT_EQ(list(y.at("tail")), (std::vector<float>{3, 4}));
  EXPECT_NE(y.at("once").data(), y.at("twice").data());
}

TEST(Executable, AliasesWriteIntoPiecesOfOneValue) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector);
  const ValueId joined = b.temp({DType::F32, {N * 2}});
  b.kernel(Phase::Run, info("neg"),
           {unary([](float v) { return -v; }), {N}, {x, b.alias(joined, kVector)}, {}});
  b.copy(Phase::Run, info("copy"), x, b.alias(joined, kVector, N));
  b.output("y", joined);
  EXPECT_EQ(list(b.finish().run({{"x", vec({1, 2})}}).at("y")), (std::vector<float>{-1, -2, 1, 2}));
}

TEST(Executable, WorkspacesAreApart) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), kept = b.temp(kVector), y = b.temp(kVector);
  b.kernel(Phase::Run, info("inc"), {unary([](float v) { return v + 1; }), {N}, {x, kept}, {}});
  const auto dirty = std::make_shared<TestKernel>(
      [](void* const* p, const Dim64*, Dim64 i) {
        if (i == 0) std::memset(p[1], 0xff, 4096);
        if (i == 0) std::memset(p[2], 0xff, 128);
        f32(p, 3)[i] = f32(p, 0)[i];
        return 0;
      },
      1, std::vector<Dim64>{4096, 128});
  b.kernel(Phase::Run, info("dirty"), {dirty, {N}, {kept, kWorkspace, kWorkspace, y}, {}});
  b.output("y", y);
  EXPECT_EQ(list(b.finish().run({{"x", vec({1, 2, 3})}}).at("y")), (std::vector<float>{2, 3, 4}));
}

TEST(Executable, ConstantsArePreparedOnceAndDropped) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector);
  std::weak_ptr<int> watch;
  {
    auto owner = std::make_shared<int>(0);
    static float raw[2] = {1, 2};
    watch = owner;
    const ValueId w = b.constant(Tensor::wrap(DType::F32, {2}, raw, owner));
    const ValueId packed = b.temp({DType::F32, {2}}), more = b.temp({DType::F32, {2}});

    b.kernel(Phase::Prepare, info("pack"), {unary([](float v) { return v * 10; }), {2}, {w, packed}, {}});
    b.kernel(Phase::Prepare, info("pack2"), {unary([](float v) { return v + 1; }), {2}, {packed, more}, {}});
    const ValueId y = b.temp(kVector);
    b.kernel(Phase::Run, info("add"), {add(), {N}, {x, more, y}, {}});
    b.output("y", y);
  }
  const Executable e = b.finish();
  EXPECT_TRUE(watch.expired()) << "the raw weight is gone";
  EXPECT_EQ(e.data().constants.size(), 1u);
  EXPECT_EQ(list(e.run({{"x", vec({1, 1})}}).at("y")), (std::vector<float>{12, 22}));
}

TEST(Executable, AConstantThatStaysDoesNotKeepADroppedModelsMemory) {
  auto file = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  const std::weak_ptr<std::vector<float>> watch = file;
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector);
  const ValueId weight = b.constant(Tensor::wrap(DType::F32, {2}, file->data(), file));
  const ValueId bias = b.constant(Tensor::wrap(DType::F32, {2}, file->data() + 2, file));
  const ValueId packed = b.temp({DType::F32, {2}}), t = b.temp(kVector), y = b.temp(kVector);
  b.kernel(Phase::Prepare, info("pack"), {unary([](float v) { return v * 10; }), {2}, {weight, packed}, {}});
  b.kernel(Phase::Run, info("add"), {add(), {N}, {x, packed, t}, {}});
  b.kernel(Phase::Run, info("add"), {add(), {N}, {t, bias, y}, {}});
  b.output("y", y);
  const Executable e = b.finish();
  file.reset();
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(list(e.run({{"x", vec({1, 1})}}).at("y")), (std::vector<float>{14, 25}));
}

TEST(Executable, ParametersArePreparedWhenTheyChange) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", {DType::F32, {2}}), w = b.input("w", {DType::F32, {2}}, Role::Parameter);
  const ValueId packed = b.temp({DType::F32, {2}}), y = b.temp({DType::F32, {2}});
  std::atomic<int> runs = 0;
  b.kernel(Phase::Prepare, info("pack"),
           {unary([&](float v) { return ++runs, v * 10; }), {2}, {w, packed}, {}});
  b.kernel(Phase::Run, info("add"), {add(), {2}, {x, packed, y}, {}});
  b.output("y", y);
  const Executable e = b.finish();
  EXPECT_EQ(runs, 0);

  Context c(e), other(e);
  Tensor weight = vec({1, 2});
  const std::vector<Tensor> inputs = {vec({0, 1}), Tensor()};
  const auto run = [&](Context& context) {
    std::vector<Tensor> outputs(1);
    context.run(inputs, outputs);
    return list(outputs[0]);
  };
  EXPECT_THROW(run(c), Error) << "no parameter yet";
  c.set_parameter(1, weight, 1);
  other.set_parameter(1, weight, 1);
  EXPECT_EQ(run(c), (std::vector<float>{10, 21}));
  EXPECT_EQ(run(c), (std::vector<float>{10, 21}));
  EXPECT_EQ(run(other), (std::vector<float>{10, 21}));
  EXPECT_EQ(runs, 2) << "once for both elements, in both contexts";
  weight.set(0, 5);
  c.set_parameter(1, weight, 2);
  EXPECT_EQ(run(c), (std::vector<float>{50, 21}));
  EXPECT_EQ(runs, 4);
  c.set_parameter(1, vec({3, 3}), 2);
  EXPECT_EQ(run(c), (std::vector<float>{30, 31}));
  // Passed to run, a parameter has no version: it is never taken for unchanged.
  const std::vector<Tensor> direct = {vec({0, 1}), weight};
  for (const float value : {7.0f, 8.0f}) {
    weight.set(0, value);
    std::vector<Tensor> outputs(1);
    c.run(direct, outputs);
    EXPECT_EQ(outputs[0].at(0), value * 10);
  }
  EXPECT_EQ(run(c), (std::vector<float>{30, 31}));
}

// Copies the positive elements; how many there are is known only then.
TEST(Executable, DimsFromData) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), count = b.temp({DType::I64, {1}}), early = b.temp(kVector);
  b.kernel(Phase::Run, info("inc"), {unary([](float v) { return v + 1; }), {N}, {x, early}, {}});
  struct Once : TestKernel {
    using TestKernel::TestKernel;
    KernelShape shape(std::span<const Dim64>) const override { return {{1}, {256}, {}}; }
  };
  const auto count_once = std::make_shared<Once>([](void* const* p, const Dim64* dims, Dim64) {
    Dim64 n = 0;
    for (Dim64 i = 0; i < dims[0]; ++i) n += f32(p, 0)[i] > 0;
    *static_cast<Dim64*>(p[1]) = n;
    return 0;
  });
  b.kernel(Phase::Run, info("count"), {count_once, {N}, {x, count}, {}});
  b.define(info("count"), count, {"K"});
  const Dim K = Dim::symbol("K");
  const ValueId kept = b.temp({DType::F32, {K}}), y = b.temp({DType::F32, {K}});
  const auto compact = std::make_shared<Once>([](void* const* p, const Dim64* dims, Dim64) {
    Dim64 n = 0;
    for (Dim64 i = 0; i < dims[0]; ++i)
      if (f32(p, 0)[i] > 0) f32(p, 2)[n++] = f32(p, 1)[i];
    return 0;
  });
  b.kernel(Phase::Run, info("compact"), {compact, {N}, {x, early, kept}, {}});
  b.kernel(Phase::Run, info("double"), {unary([](float v) { return v * 2; }), {K}, {kept, y}, {}});
  b.output("y", y);
  b.output("n", count);
  const Executable e = b.finish();
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(list(e.run({{"x", vec({1, -1, 2})}}).at("y")), (std::vector<float>{4, 6}));
    EXPECT_EQ(list(e.run({{"x", vec({-1, -1, 5})}}).at("y")), (std::vector<float>{12}));
    EXPECT_EQ(list(e.run({{"x", vec({-1, -1})}}).at("y")), (std::vector<float>{}));
    EXPECT_EQ(e.run({{"x", vec({9, 9, 9, 9})}}).at("n").to_int64()[0], 4);
  }
}

TEST(Executable, DimsFromAnInputsValues) {
  ExecutableBuilder b;
  const ValueId shape = b.input("shape", {DType::I64, {1}});
  b.define(info("shape"), shape, {"S"});
  const ValueId y = b.temp({DType::F32, {Dim::symbol("S")}});
  const auto iota = std::make_shared<TestKernel>([](void* const* p, const Dim64*, Dim64 i) {
    f32(p, 0)[i] = static_cast<float>(i);
    return 0;
  });
  b.kernel(Phase::Run, info("iota"), {iota, {Dim::symbol("S")}, {y}, {}});
  b.output("y", y);
  const Executable e = b.finish();
  EXPECT_EQ(list(e.run({{"shape", Tensor::of_int64({3})}}).at("y")), (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(list(e.run({{"shape", Tensor::of_int64({0})}}).at("y")), (std::vector<float>{}));
  EXPECT_THROW(e.run({{"shape", Tensor::of_int64({-2})}}), Error);
}

Executable map_of(std::function<float(float)> f) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), y = b.temp(kVector);
  b.kernel(Phase::Run, info("map"), {unary(std::move(f)), {N}, {x, y}, {}});
  b.output("y", y);
  return b.finish();
}

TEST(Executable, Branches) {
  ExecutableBuilder b;
  const ValueId condition = b.input("c", {DType::Bool, {}}), x = b.input("x", kVector);
  ExecutableBuilder half;  // its result has dims of its own
  const ValueId hx = half.input("x", kVector);
  half.output("y", half.alias(hx, {DType::F32, {floordiv(N, 2)}}));
  const ValueId y = b.branch(info("if"), condition, map_of([](float v) { return -v; }), half.finish(), {x},
                             {{DType::F32, {M}}})[0];
  const ValueId z = b.temp({DType::F32, {M}});
  b.kernel(Phase::Run, info("inc"), {unary([](float v) { return v + 1; }), {M}, {y, z}, {}});
  b.output("y", y);
  b.output("z", z);
  const Executable e = b.finish();
  Tensor yes = Tensor::zeros(DType::Bool, {}), no = Tensor::zeros(DType::Bool, {});
  yes.set(0, 1);
  for (int round = 0; round < 2; ++round) {
    const auto a = e.run({{"c", yes}, {"x", vec({1, 2, 3, 4})}});
    EXPECT_EQ(list(a.at("y")), (std::vector<float>{-1, -2, -3, -4}));
    EXPECT_EQ(list(a.at("z")), (std::vector<float>{0, -1, -2, -3}));
    const auto c = e.run({{"c", no}, {"x", vec({1, 2, 3, 4})}});
    EXPECT_EQ(list(c.at("y")), (std::vector<float>{1, 2}));
    EXPECT_EQ(list(c.at("z")), (std::vector<float>{2, 3}));
  }
}

TEST(Executable, LoopsCarryStateAndStoreParts) {
  // while (x[0] < limit[0]) { x = x + step; seen[0:1, x[0]:x[0] + 2] = x }, moved inside
  const auto below = std::make_shared<TestKernel>([](void* const* p, const Dim64*, Dim64) {
    *static_cast<bool*>(p[2]) = f32(p, 0)[0] < f32(p, 1)[0];
    return 0;
  });
  ExecutableBuilder cb;
  const Type kSeen{DType::F32, {2, Dim::symbol("T")}};
  const auto at = std::make_shared<TestKernel>([](void* const* p, const Dim64*, Dim64) {
    static_cast<std::int64_t*>(p[1])[0] = -1;
    static_cast<std::int64_t*>(p[1])[1] = static_cast<std::int64_t>(f32(p, 0)[0]);
    return 0;
  });
  const ValueId cx = cb.input("x", kVector);
  cb.input("seen", kSeen);
  const ValueId limit = cb.input("limit", {DType::F32, {1}});
  cb.input("step", kVector);
  const ValueId go = cb.temp({DType::Bool, {}});
  cb.kernel(Phase::Run, info("below"), {below, {}, {cx, limit, go}, {}});
  cb.output("go", go);
  ExecutableBuilder bb;
  const ValueId bx = bb.input("x", kVector);
  bb.input("seen", kSeen);
  bb.input("limit", {DType::F32, {1}});
  const ValueId step = bb.input("step", kVector), sum = bb.temp(kVector), row = bb.temp({DType::F32, {1, N}}),
                place = bb.temp({DType::I64, {2}});
  bb.kernel(Phase::Run, info("add"), {add(), {N}, {bx, step, sum}, {}});
  bb.kernel(Phase::Run, info("row"), {unary([](float v) { return v; }), {N}, {sum, row}, {}});
  bb.kernel(Phase::Run, info("place"), {at, {}, {sum, place}, {}});
  bb.output("x", sum);
  bb.output("seen", row);
  bb.output("place", place);

  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), first = b.input("seen", kSeen),
                l = b.input("limit", {DType::F32, {1}}), s = b.input("step", kVector);
  const auto out = b.loop(info("while"), cb.finish(), bb.finish(), {x, first}, {l, s}, {1}, {kVector, kSeen});
  b.output("x", out[0]);
  b.output("seen", out[1]);
  const Executable e = b.finish();
  const Tensor zeros = Tensor::zeros(DType::F32, {2, 6});
  auto y = e.run({{"x", vec({0, 10})}, {"seen", zeros}, {"limit", vec({5})}, {"step", vec({2, 1})}});
  EXPECT_EQ(list(y.at("x")), (std::vector<float>{6, 13}));
  EXPECT_EQ(list(y.at("seen")), (std::vector<float>{0, 0, 2, 11, 6, 13, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(list(zeros), std::vector<float>(12)) << "the caller's input is not written";
  const Tensor still = vec({9, 1});
  y = e.run({{"x", still}, {"seen", zeros}, {"limit", vec({5})}, {"step", vec({2, 1})}});
  EXPECT_EQ(list(y.at("x")), (std::vector<float>{9, 1}));
  EXPECT_NE(y.at("x").data(), still.data()) << "the caller's input is not handed back as an output";
  const Tensor narrow = Tensor::zeros(DType::F32, {2, 1});
  EXPECT_THROW(e.run({{"x", vec({0, 10})}, {"seen", narrow}, {"limit", vec({5})}, {"step", vec({2, 1})}}),
               Error);
}

TEST(Executable, HostSteps) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), t = b.temp(kVector);
  b.kernel(Phase::Run, info("inc"), {unary([](float v) { return v + 1; }), {N}, {x, t}, {}});
  const auto twice = [](std::span<const Tensor> in) {
    std::vector<float> v = list(in[0]);
    v.insert(v.end(), v.begin(), v.end());
    return std::vector<Tensor>{vec(v), in[0]};
  };
  const auto out = b.host(Phase::Run, info("twice"), twice, {t}, {{DType::F32, {M}}, kVector});
  b.output("twice", out[0]);
  b.output("same", out[1]);
  const Executable e = b.finish();
  const auto y = e.run({{"x", vec({1, 2})}});
  EXPECT_EQ(list(y.at("twice")), (std::vector<float>{2, 3, 2, 3}));
  EXPECT_EQ(list(y.at("same")), (std::vector<float>{2, 3}));
}

template <class F>
std::string message(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing thrown";
}

TEST(Executable, ErrorsNameTheInput) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", {DType::F32, {N, 2 * N + 1}}), w = b.input("w", kVector);
  b.output("y", w);
  b.output("z", x);
  b.equal({N, 3, "add", "model.py:7"});
  const Executable e = b.finish();
  const Tensor good = Tensor::zeros(DType::F32, {3, 7}), w3 = vec({1, 2, 3});
  EXPECT_EQ(e.run({{"x", good}, {"w", w3}}).size(), 2u);
  EXPECT_EQ(message([&] { e.run({{"x", good}}); }), "run: expected an array for input \"w\", got none");
  EXPECT_EQ(message([&] { e.run({{"x", good}, {"w", w3}, {"v", w3}}); }),
            "run: expected inputs named x, w, got \"v\"");
  EXPECT_EQ(message([&] { e.run({{"x", good}, {"w", vec({1})}}); }),
            "run: expected input \"w\" of float32[N] where N = 3, got float32[1]");
  EXPECT_EQ(message([&] { e.run({{"x", good.reshaped({21})}, {"w", w3}}); }),
            "run: expected input \"x\" of float32[N, 2*N+1], got float32[21]");
  EXPECT_EQ(message([&] { e.run({{"x", Tensor::zeros(DType::F64, {3, 7})}, {"w", w3}}); }),
            "run: expected input \"x\" of float32[N, 2*N+1], got float64[3, 7]");
  EXPECT_EQ(message([&] { e.run({{"x", good.reshaped({7, 3})}, {"w", w3}}); }),
            "run: expected input \"x\" of float32[N, 2*N+1] where N = 7, got float32[7, 3]");
  EXPECT_EQ(message([&] { e.run({{"x", Tensor::zeros(DType::F32, {2, 5})}, {"w", vec({1, 2})}}); }),
            "model.py:7: add: expected equal dims N and 3, got 2 and 3");
}

TEST(Executable, SymbolsMustComeFromSomewhere) {
  ExecutableBuilder b;
  b.input("x", {DType::F32, {N * M}});
  EXPECT_NE(message([&] { b.finish(); }).find("input x"), std::string::npos);
  ExecutableBuilder c;
  const ValueId x = c.input("x", kVector), y = c.temp({DType::F32, {M}});
  c.kernel(Phase::Run, info("map"), {unary([](float v) { return v; }), {M}, {x, y}, {}});
  EXPECT_EQ(message([&] { c.finish(); }),
            "model.py:7: map: expected a symbolic dim that an input's shape defines, got M");
}

TEST(Executable, FailedChecksNameTheOpAndItsSource) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), y = b.temp(kVector);
  const auto checked = std::make_shared<TestKernel>(
      [](void* const* p, const Dim64*, Dim64 i) { return f32(p, 0)[i] < 0 ? 2 : 0; });
  b.kernel(Phase::Run, info("sqrt"), {checked, {N}, {x, y}, {"a", "an argument of at least 0"}});
  b.output("y", y);
  const Executable e = b.finish();
  EXPECT_EQ(message([&] { e.run({{"x", vec({1, -1})}}); }),
            "model.py:7: sqrt: expected an argument of at least 0, got data that break it");
  EXPECT_EQ(e.run({{"x", vec({1, 1})}}).size(), 1u) << "a failure leaves nothing behind";
}

TEST(Executable, TooLargeIsAnErrorNotACrash) {
  ExecutableBuilder b;
  const ValueId x = b.input("x", kVector), t = b.temp({DType::F32, {N, 1 << 30, 1 << 30}}),
                y = b.temp(kVector);
  b.kernel(Phase::Run, info("big"), {unary([](float v) { return v; }), {N}, {x, t}, {}});
  b.kernel(Phase::Run, info("big"), {unary([](float v) { return v; }), {N}, {t, y}, {}});
  b.output("y", y);
  const Executable e = b.finish();
  EXPECT_NE(message([&] { e.run({{"x", vec({1})}}); }).find("memory"), std::string::npos);
  EXPECT_THROW(e.run({{"x", vec(std::vector<float>(100, 1))}}), Error);
}

TEST(Executable, ManyThreadsRunOneExecutable) {
  const Executable e = chain(6);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Context mine(e);
      for (int i = 0; i < 50; ++i) {
        const auto n = static_cast<std::size_t>(10 + 7 * t + i % 3);
        const Tensor x = vec(std::vector<float>(n, static_cast<float>(t)));
        Tensor y;
        mine.run({&x, 1}, {&y, 1});
        const auto shared = e.run(std::vector<Tensor>{x});
        const float want = static_cast<float>(64 * t + 126);
        if (list(y) != std::vector<float>(n, want) || list(shared[0]) != list(y)) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Executable, TracesEachStep) {
  const Executable e = chain(2);
  Context c(e);
  std::vector<std::string> seen;
  c.set_trace(
      [](void* user, const StepTrace& s) {
        EXPECT_LE(s.begin_ns, s.end_ns);
        EXPECT_STREQ(s.source, "model.py:7");
        static_cast<std::vector<std::string>*>(user)->emplace_back(s.name);
      },
      &seen);
  const Tensor x = vec({1});
  Tensor y;
  c.run({&x, 1}, {&y, 1});
  EXPECT_EQ(seen, (std::vector<std::string>{"inc", "double", "inc", "double"}));
  EXPECT_NE(e.explain().find("double"), std::string::npos);
}

}  // namespace
}  // namespace deepseek
