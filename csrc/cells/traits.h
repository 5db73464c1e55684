// The table of the cells, by the mode of a description.
#pragma once

#include "../rnn.h"
#include "gru.h"
#include "lstm.h"
#include "rnn.h"

namespace fastrnn {

template <class Cell>
constexpr CellTraits TraitsOf(const char* name, bool relu = false) {
  return {name, relu, Cell::kGates, Cell::kHasC, Cell::kSplitShares, Cell::kKeepsGates};
}

// In the order of Mode.
inline constexpr CellTraits kCells[] = {TraitsOf<LstmCell>("lstm"), TraitsOf<GruCell>("gru"),
                                        TraitsOf<RnnCell>("rnn_tanh"),
                                        TraitsOf<RnnCell>("rnn_relu", true)};

}  // namespace fastrnn
