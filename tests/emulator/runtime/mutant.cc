// Which of the kernels' primitives is left out, for tests/emulator/mutants.py.
//
//   FASTRNN_MUTANT=FILE:LINE       leaves out the barrier, fence or wait there; an acquire or a
//                                  release becomes a relaxed access
//                                  (emulator_leave_out says so later on)
//   FASTRNN_MUTANTS_REACHED=FILE   receives a line NAME FILE:LINE for each that the process reaches
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "control.h"
#include "emulator.h"

namespace emulator {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class Mutants {
 public:
  Mutants() : path_(Variable("FASTRNN_MUTANTS_REACHED")) { LeaveOut(Variable("FASTRNN_MUTANT")); }
  ~Mutants() {
    if (path_.empty()) return;
    std::ofstream file(path_, std::ios::app);  // a process may have several libraries
    for (const auto& [where, name] : reached_) file << name << " " << where << "\n";
  }

  // No kernel may run meanwhile.
  void LeaveOut(const std::string& place) {
    left_out_ = place;
    const size_t colon = place.rfind(':');
    line_ = colon == std::string::npos ? 0 : std::atoi(place.c_str() + colon + 1);
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

  std::string left_out_;
  const std::string path_;
  int line_ = 0;
  std::mutex mutex_;
  std::set<std::tuple<const char*, int, const char*>> seen_;  // by address, which is quick
  std::set<std::pair<std::string, std::string>> reached_;
};

Mutants& TheMutants() {
  static Mutants mutants;
  return mutants;
}

// The first value that each exchanged address had in this thread's launch.
std::atomic<int> planted{kNoFault};
thread_local std::map<const void*, uint4> first_loads;

}  // namespace

bool IsLeftOut(Site site) { return TheMutants().IsLeftOut(site); }

bool IsPlanted(Fault fault) { return planted == fault; }

void BeginLoads() { first_loads.clear(); }

uint4 PerhapsStale(const void* p, uint4 value) {
  return IsPlanted(kStaleLoads) ? first_loads.emplace(p, value).first->second : value;
}

}  // namespace emulator

void emulator_leave_out(const char* place) { emulator::TheMutants().LeaveOut(place); }
void emulator_plant(int fault) { emulator::planted = fault; }
