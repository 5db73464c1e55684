// The message of a failed call, which becomes that of the MXNetError.
//
// lib_api.cc keeps every message for good, in a list that threads share without a lock, and MXNet
// copies the whole list after every call, also a successful one, without freeing the copies: one
// error, and from then on each call costs memory. So fastrnn answers MXNet's question itself. A
// message lives on its thread, until the thread's next call.
#pragma once

#include <string>

namespace fastrnn {
namespace operators {

// Sets the calling thread's message; empty: no message.
void SetMessage(const std::string& message);

}  // namespace operators
}  // namespace fastrnn
