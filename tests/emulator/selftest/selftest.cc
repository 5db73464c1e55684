// selftest            lists the cases: name and outcome
// selftest NAME       runs one; exits with 0 if it ended as it has to. Cases of the outcomes asan
//                     and tsan end in the sanitizer's report, whose exit code is not 0.
#include "selftest.h"

#include <cstdio>
#include <cstdlib>

namespace selftest {

void Expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "selftest: expected that %s\n", what);
  std::exit(1);
}

namespace {

const char* Name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kPass:
      return "pass";
    case Outcome::kRefuse:
      return "refuse";
    case Outcome::kAsan:
      return "asan";
    case Outcome::kTsan:
      return "tsan";
  }
  return "";
}

int Run(const Case& test) {
  const cudaError_t status = test.run();
  const std::string& failure = emulator::LastFailure();
  if (test.outcome != Outcome::kRefuse) {
    if (status != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
    return status == cudaSuccess ? 0 : 1;
  }
  const bool refused = status != cudaSuccess && failure.find(test.report) != std::string::npos;
  if (!refused) {
    std::fprintf(stderr, "selftest: expected '%s', got status %d and '%s'\n", test.report.c_str(),
                 status, failure.c_str());
  }
  return refused ? 0 : 1;
}

int Main(int argc, char** argv) {
  std::vector<Case> cases;
  for (auto part : {ClearCases(), FragmentCases(), MistakeCases()}) {
    cases.insert(cases.end(), part.begin(), part.end());
  }
  for (const Case& test : cases) {
    if (argc < 2) {
      std::printf("%s %s\n", test.name.c_str(), Name(test.outcome));
    } else if (test.name == argv[1]) {
      return Run(test);
    }
  }
  if (argc < 2) return 0;
  std::fprintf(stderr, "selftest: there is no case '%s'\n", argv[1]);
  return 1;
}

}  // namespace
}  // namespace selftest

int main(int argc, char** argv) { return selftest::Main(argc, argv); }
