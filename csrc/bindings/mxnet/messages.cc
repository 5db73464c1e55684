#include "messages.h"

#include <mxnet/lib_api.h>

namespace fastrnn {
namespace operators {
namespace {

thread_local std::string own_message;

}  // namespace

void SetMessage(const std::string& message) { own_message = message; }

}  // namespace operators
}  // namespace fastrnn

// MXNet calls these two after every call of an operator, on the thread of the call. In lib_api.cc
// they have other names (CMakeLists.txt). What lib_api.cc itself has to say comes last: that an
// operator has no backward pass.
int _msgSize() {
  const int own = fastrnn::operators::own_message.empty() ? 0 : 1;
  return own + mxnet::ext::MXerrorMsgs::get()->size();
}

void _msgGet(int index, const char** message) {
  const std::string& own = fastrnn::operators::own_message;
  if (!own.empty() && index-- == 0) {
    *message = own.c_str();
  } else {
    *message = mxnet::ext::MXerrorMsgs::get()->get(index)->c_str();
  }
}
