#include "gemm.h"

#include <algorithm>

#include "../error.h"

namespace fastrnn {
namespace cpu {
namespace {

using dnnl::memory;

// Never destroyed: other static objects may hold primitives until the process ends.
const dnnl::engine& Engine() {
  static const auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

memory::desc RowMajor(int64_t rows, int64_t columns) {
  return {{rows, columns}, memory::data_type::f32, memory::dims{columns, 1}};
}

memory::desc Stored(int64_t k, int64_t n, Transpose transpose) {
  return {{k, n},
          memory::data_type::f32,
          transpose == Transpose::kYes ? memory::dims{1, k} : memory::dims{n, 1}};
}

template <class Call>
auto Try(const char* what, int line, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const dnnl::error& e) {
    throw LibraryError(std::string("oneDNN: ") + what + ": " + e.what(), __FILE__, line);
  }
}

}  // namespace

void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
          Result<float> c) {
  const dnnl_status_t status =
      dnnl_sgemm(static_cast<char>(a.transpose), static_cast<char>(b.transpose), m, n, k, 1.0f,
                 a.data, a.stride, b.data, b.stride, beta, c.data, c.stride);
  if (status != dnnl_success) {
    throw LibraryError("oneDNN: dnnl_sgemm failed with status " + std::to_string(status), __FILE__,
                       __LINE__);
  }
}

PackedProduct::PackedProduct(int64_t m, int64_t n, int64_t k, Transpose transpose, bool accumulate)
    : plain_weights_(Stored(k, n, transpose)) {
  Try("matmul", __LINE__, [&] {
    // oneDNN's own scratchpad is the creating thread's: no other may execute what has it.
    dnnl::primitive_attr attributes, of_pack;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    of_pack.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const memory::desc any_order({k, n}, memory::data_type::f32, memory::format_tag::any);
    desc_ = dnnl::matmul::primitive_desc(Engine(), RowMajor(m, k), any_order, RowMajor(m, n),
                                         attributes);
    product_ = dnnl::matmul(desc_);
    pack_desc_ = dnnl::reorder::primitive_desc(Engine(), plain_weights_, Engine(),
                                               desc_.weights_desc(), of_pack);
    pack_ = dnnl::reorder(pack_desc_);
  });
}

size_t PackedProduct::scratch_bytes() const {
  return std::max(desc_.scratchpad_desc().get_size(), pack_desc_.scratchpad_desc().get_size());
}

PackedWeights::PackedWeights(const PackedProduct& product, const float* weights, void* packed,
                             void* scratch)
    : product_(product) {
  Try("reorder of weights", __LINE__, [&] {
    const dnnl::matmul::primitive_desc& desc = product.desc_;
    weights_ = memory(desc.weights_desc(), Engine(), packed);
    scratch_ = memory(desc.scratchpad_desc(), Engine(), scratch);
    source_ = memory(desc.src_desc(), Engine(), DNNL_MEMORY_NONE);
    destination_ = memory(desc.dst_desc(), Engine(), DNNL_MEMORY_NONE);
    memory plain(product.plain_weights_, Engine(), const_cast<float*>(weights));
    dnnl::stream stream(Engine());
    memory pack_scratch(product.pack_desc_.scratchpad_desc(), Engine(), scratch);
    product.pack_.execute(
        stream,
        {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, weights_}, {DNNL_ARG_SCRATCHPAD, pack_scratch}});
    stream.wait();
  });
}

void PackedWeights::Run(const float* source, float* destination) {
  Try("matmul", __LINE__, [&] {
    source_.set_data_handle(const_cast<float*>(source));
    destination_.set_data_handle(destination);
    dnnl::stream stream(Engine());
    product_.product_.execute(stream, {{DNNL_ARG_SRC, source_},
                                       {DNNL_ARG_WEIGHTS, weights_},
                                       {DNNL_ARG_DST, destination_},
                                       {DNNL_ARG_SCRATCHPAD, scratch_}});
    stream.wait();
  });
}

std::string OnednnVersion() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

}  // namespace cpu
}  // namespace fastrnn
