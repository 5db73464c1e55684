// The self-test's list of cases. Each is a kernel or two; how it has to end is part of the case.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda/runtime/device.cuh"

namespace selftest {

enum class Outcome {
  kPass,    // clean in every build and schedule
  kRefuse,  // the launch fails, and the report contains `report`
  kAsan,    // only AddressSanitizer can see the mistake, and stops the program
  kTsan,    // only ThreadSanitizer can see the mistake, and stops the program
};

struct Case {
  std::string name;
  Outcome outcome;
  std::string report;
  std::function<cudaError_t()> run;
};

// Each file of cases has one of these.
std::vector<Case> ClearCases();
std::vector<Case> FragmentCases();
std::vector<Case> MistakeCases();

// Stops the program with a message unless the condition holds.
void Expect(bool condition, const char* what);

}  // namespace selftest
