// The kernel cache on disk: privacy, damage, size, and processes that share it.
#include "targets/cpu/kernel_cache.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace deepseek {
namespace {

namespace fs = std::filesystem;

class KernelCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "deepseek-cache-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
    folder_ = root_ / "deep" / "kernels";
  }
  void TearDown() override { fs::remove_all(root_); }

  fs::path root_, folder_;
};

TEST_F(KernelCacheTest, FindsWhatWasStored) {
  const auto cache = KernelCache::open(folder_);
  ASSERT_TRUE(cache);
  const std::string key = KernelCache::key({"program", "avx2"});
  EXPECT_FALSE(cache->find(key));
  cache->store(key, "object");
  EXPECT_EQ(cache->find(key), "object");
  EXPECT_EQ(KernelCache::open(folder_)->find(key), "object");
  EXPECT_EQ(fs::status(folder_).permissions(), fs::perms::owner_all);
}

TEST_F(KernelCacheTest, KeysTellPartsApart) {
  EXPECT_NE(KernelCache::key({"ab", "c"}), KernelCache::key({"a", "bc"}));
  EXPECT_EQ(KernelCache::key({"a", "b"}), KernelCache::key({"a", "b"}));
}

TEST_F(KernelCacheTest, DamagedEntriesAreAbsent) {
  const auto cache = KernelCache::open(folder_);
  const std::string key = KernelCache::key({"program"});
  const std::string object(1000, 'x');
  cache->store(key, object);
  const fs::path file = folder_ / key;
  const auto size = fs::file_size(file);
  for (const std::uintmax_t kept : {std::uintmax_t{0}, std::uintmax_t{5}, std::uintmax_t{32}, size - 1}) {
    fs::resize_file(file, kept);
    EXPECT_FALSE(cache->find(key)) << kept;
    cache->store(key, object);
    EXPECT_EQ(cache->find(key), object);
  }
  {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(static_cast<std::streamoff>(size) - 10);
    f.put('y');
  }
  EXPECT_FALSE(cache->find(key));
}

TEST_F(KernelCacheTest, FoldersOfOthersAreRefused) {
  ASSERT_TRUE(KernelCache::open(folder_));
  fs::permissions(folder_, fs::perms::owner_all | fs::perms::group_write);
  EXPECT_FALSE(KernelCache::open(folder_));
  fs::create_directory_symlink(root_, root_ / "link");
  EXPECT_FALSE(KernelCache::open(root_ / "link"));
  std::ofstream(root_ / "file") << "in the way";
  EXPECT_FALSE(KernelCache::open(root_ / "file"));
  EXPECT_FALSE(KernelCache::open(root_ / "file" / "below"));
}

TEST_F(KernelCacheTest, SizeIsBounded) {
  const std::int64_t limit = 100'000;
  const auto cache = KernelCache::open(folder_, limit);
  const std::string object(10'000, 'x');
  for (int i = 0; i < 50; ++i) cache->store(KernelCache::key({std::to_string(i)}), object);
  std::uintmax_t total = 0;
  for (const auto& entry : fs::directory_iterator(folder_)) total += entry.file_size();
  EXPECT_LE(total, static_cast<std::uintmax_t>(limit) * 5 / 4);
  EXPECT_GT(total, 0u);
}

TEST_F(KernelCacheTest, ProcessesShareIt) {
  constexpr int kProcesses = 4, kEntries = 50;
  std::vector<pid_t> children;
  for (int c = 0; c < kProcesses; ++c) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const auto cache = KernelCache::open(folder_);
      bool good = cache != nullptr;
      for (int i = 0; good && i < kEntries; ++i) {
        const std::string key = KernelCache::key({std::to_string(i)}),
                          object(static_cast<std::size_t>(100 * i), 'x');
        if (const auto found = cache->find(key)) good = *found == object;
        cache->store(key, object);
      }
      _exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const auto cache = KernelCache::open(folder_);
  for (int i = 0; i < kEntries; ++i)
    EXPECT_EQ(cache->find(KernelCache::key({std::to_string(i)})),
              std::string(static_cast<std::size_t>(100 * i), 'x'));
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename().string().find("tmp-"), std::string::npos);
}

}  // namespace
}  // namespace deepseek
