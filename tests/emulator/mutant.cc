// Which of the kernels' primitives is left out, for tests/emulator/mutants.py.
//
//   FASTRNN_MUTANT=FILE:LINE       leaves out the barrier, fence or wait there; an acquire or a
//                                  release becomes a relaxed access
//   FASTRNN_MUTANTS_REACHED=FILE   receives a line NAME FILE:LINE for each that the process reaches
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "emulator.h"

namespace emulator {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class Mutants {
 public:
  Mutants() : left_out_(Variable("FASTRNN_MUTANT")), path_(Variable("FASTRNN_MUTANTS_REACHED")) {
    const size_t colon = left_out_.rfind(':');
    if (colon != std::string::npos) line_ = std::atoi(left_out_.c_str() + colon + 1);
  }
  ~Mutants() {
    if (path_.empty()) return;
    std::ofstream file(path_, std::ios::app);  // a process may have several libraries
    for (const auto& [where, name] : reached_) file << name << " " << where << "\n";
  }

  bool IsLeftOut(const Site& site) {
    if (!path_.empty()) Note(site);
    return site.line == line_ && Place(site) == left_out_;
  }

 private:
  static std::string Place(const Site& site) {
    const std::filesystem::path file = site.file;  // that of an include may go up and down again
    return file.lexically_normal().string() + ":" + std::to_string(site.line);
  }
  void Note(const Site& site) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!seen_.emplace(site.file, site.line, site.what).second) return;
    reached_.emplace(Place(site), site.what);
  }

  const std::string left_out_, path_;
  int line_ = 0;
  std::mutex mutex_;
  std::set<std::tuple<const char*, int, const char*>> seen_;  // by address, which is quick
  std::set<std::pair<std::string, std::string>> reached_;
};

}  // namespace

bool IsLeftOut(Site site) {
  static Mutants mutants;
  return mutants.IsLeftOut(site);
}

}  // namespace emulator
