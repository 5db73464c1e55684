// Philox's words for a row of units, vectorised for the processor at hand.
#pragma once

#include <cstdint>

#include "../noise.h"

namespace fastrnn {
namespace cpu {

// Writes the words of whole groups of units (noise.h). counter: of the first group's first unit.
void DrawWords(const Key& key, const Counter& counter, int64_t groups, uint32_t* words);

}  // namespace cpu
}  // namespace fastrnn
