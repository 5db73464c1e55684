#include "gemm.h"

#include <algorithm>
#include <memory>
#include <type_traits>

#include "../../error.h"
#include "../threads.h"
#include "../vectors/number.h"
#include "tile_product.h"

namespace fastrnn {
namespace cpu {
namespace {

using dnnl::memory;

// Never destroyed: other static objects may hold primitives until the process ends.
const dnnl::engine& Engine() {
  static const auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

memory::data_type DataType(DType dtype) {
  if (dtype == DType::kFloat16) return memory::data_type::f16;
  return dtype == DType::kBfloat16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc RowMajor(DType dtype, int64_t rows, int64_t columns, int64_t stride) {
  return {{rows, columns}, DataType(dtype), memory::dims{stride, 1}};
}

memory::desc Stored(DType dtype, int64_t k, int64_t n, Transpose transpose, int64_t stride) {
  return {{k, n},
          DataType(dtype),
          transpose == Transpose::kYes ? memory::dims{1, stride} : memory::dims{stride, 1}};
}

template <class Call>
auto Try(const char* what, int line, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const dnnl::error& e) {
    throw LibraryError(std::string("oneDNN: ") + what + ": " + e.what(), __FILE__, line);
  }
}

// The fewest multiplications that make up for using a thread; writing a number of the result takes
// as long as this many. There are no more parts than threads: sgemm is slower on smaller ones.
constexpr int64_t kPartWork = 1 << 20;
constexpr int64_t kWriteWork = 16;

// oneDNN reads a transposed factor where it is. Rows that are a multiple of 2 KiB apart share few
// sets of the cache. From a copy whose rows are not, weight gradients of an LSTM with 256 units ran
// at 66 GFLOP/s instead of 33 (one thread of an AMD Milan), and the backward pass of one with 512
// units took a tenth less time (two threads of a Zen 4). A few rows do not evict each other. Pieces
// of 512 columns were faster than of 256: backward of LSTMs of 512 and 1024 units took 0.92 of the
// time (one thread of a Zen 3, without the rule below).
constexpr int64_t kSlowStride = 512;
constexpr int64_t kFewRows = 64;
constexpr int64_t kCopyColumns = 512;
constexpr int64_t kCopyStride = kCopyColumns + 16;

// With AVX2, oneDNN packs both factors of large results, which makes the stride harmless (its
// nocopy_checker_avx2, version 3.2): an LSTM of 512 units sums its weight gradients at 77 GFLOP/s,
// from copies at 56 (one thread of a Zen 3).
bool PacksBoth(int64_t m, int64_t n) {
  constexpr double kMaxInverses = 0.0038;
  return TileProduct::vector_bytes() == 32 && 1.0 / m + 1.0 / n < kMaxInverses;
}

void Sgemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
           Result<float> c) {
  const ThreadScope one(1);
  const dnnl_status_t status =
      dnnl_sgemm(static_cast<char>(a.transpose), static_cast<char>(b.transpose), m, n, k, 1.0f,
                 a.data, a.stride, b.data, b.stride, beta, c.data, c.stride);
  if (status != dnnl_success) {
    throw LibraryError("oneDNN: dnnl_sgemm failed with status " + std::to_string(status), __FILE__,
                       __LINE__);
  }
}

void SequentialGemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
                    Result<float> c) {
  const bool slow = a.transpose == Transpose::kYes && a.stride % kSlowStride == 0 && k >= kFewRows;
  if (!slow || PacksBoth(m, n)) {
    return Sgemm(m, n, k, a, b, beta, c);
  }
  const std::unique_ptr<float[]> copy(new float[k * kCopyStride]);
  for (int64_t column = 0; column < m; column += kCopyColumns) {
    const int64_t count = std::min(kCopyColumns, m - column);
    for (int64_t i = 0; i < k; ++i) {
      std::copy_n(a.data + i * a.stride + column, count, &copy[i * kCopyStride]);
    }
    Sgemm(count, n, k, {copy.get(), kCopyStride, Transpose::kYes}, b, beta,
          {c.data + column * c.stride, c.stride});
  }
}

// Calls gemm(m, n, k, a, b, c) for parts of the rows or columns of c, which the threads of the
// scope share.
template <class T, class Out, class Body>
void InParts(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, Result<Out> c, Body gemm) {
  const int64_t work = m * n * std::max(k, kWriteWork);
  const int64_t wanted = std::min<int64_t>(work / kPartWork, ThreadScope::threads());
  if (wanted <= 1) return gemm(m, n, k, a, b, c);
  const bool by_rows = m > n;
  const int64_t size = by_rows ? m : n;
  const int64_t multiples = (size + kPartMultiple - 1) / kPartMultiple;
  const int64_t part = (multiples + wanted - 1) / wanted * kPartMultiple;
  ParallelFor((size + part - 1) / part, [&](int64_t task) {
    const int64_t begin = task * part, count = std::min(part, size - begin);
    if (by_rows) {
      const int64_t offset = a.transpose == Transpose::kYes ? begin : begin * a.stride;
      gemm(count, n, k, Factor<T>{a.data + offset, a.stride, a.transpose}, b,
           Result<Out>{c.data + begin * c.stride, c.stride});
    } else {
      const int64_t offset = b.transpose == Transpose::kYes ? begin * b.stride : begin;
      gemm(m, count, k, a, Factor<T>{b.data + offset, b.stride, b.transpose},
           Result<Out>{c.data + begin, c.stride});
    }
  });
}

template <class T, class Out>
void Matmul(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta, Result<Out> c) {
  const ThreadScope one(1);
  Try("matmul", __LINE__, [&] {
    dnnl::primitive_attr attributes;
    if (beta != 0.0f) {
      dnnl::post_ops sum;
      sum.append_sum(beta);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::primitive_desc desc(Engine(),
                                            Stored(kDType<T>, m, k, a.transpose, a.stride),
                                            Stored(kDType<T>, k, n, b.transpose, b.stride),
                                            RowMajor(kDType<Out>, m, n, c.stride), attributes);
    memory source(desc.src_desc(), Engine(), const_cast<T*>(a.data));
    memory weights(desc.weights_desc(), Engine(), const_cast<T*>(b.data));
    memory destination(desc.dst_desc(), Engine(), c.data);
    dnnl::stream stream(Engine());
    dnnl::matmul(desc).execute(
        stream, {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, destination}});
    stream.wait();
  });
}

// Copies rows that are `stride` and `to_stride` apart.
template <class From, class To>
void ConvertRows(const From* from, int64_t stride, int64_t rows, int64_t columns, To* to,
                 int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    Convert(from + row * stride, columns, to + row * to_stride);
  }
}

// A factor in float32. rows and columns: as it is stored.
template <class T>
class FloatFactor {
 public:
  FloatFactor(Factor<T> factor, int64_t rows, int64_t columns)
      : copy_(new float[rows * columns]), factor_{copy_.get(), columns, factor.transpose} {
    ConvertRows(factor.data, factor.stride, rows, columns, copy_.get(), columns);
  }
  Factor<float> factor() const { return factor_; }

 private:
  std::unique_ptr<float[]> copy_;
  Factor<float> factor_;
};

template <class T, class Out>
void GemmInFloat(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta,
                 Result<Out> c) {
  const bool a_transposed = a.transpose == Transpose::kYes;
  const bool b_transposed = b.transpose == Transpose::kYes;
  const FloatFactor<T> first(a, a_transposed ? k : m, a_transposed ? m : k);
  const FloatFactor<T> second(b, b_transposed ? n : k, b_transposed ? k : n);
  if constexpr (std::is_same<Out, float>::value) {
    Gemm(m, n, k, first.factor(), second.factor(), beta, c);
  } else {
    const std::unique_ptr<float[]> sums(new float[m * n]);
    if (beta != 0.0f) ConvertRows(c.data, c.stride, m, n, sums.get(), n);
    Gemm(m, n, k, first.factor(), second.factor(), beta, Result<float>{sums.get(), n});
    ConvertRows(sums.get(), n, m, n, c.data, c.stride);
  }
}

}  // namespace

void Gemm(int64_t m, int64_t n, int64_t k, Factor<float> a, Factor<float> b, float beta,
          Result<float> c) {
  InParts(m, n, k, a, b, c,
          [beta](int64_t rows, int64_t columns, int64_t depth, Factor<float> left,
                 Factor<float> right, Result<float> part) {
            SequentialGemm(rows, columns, depth, left, right, beta, part);
          });
}

bool Multiplies(DType dtype) {
  static const auto isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  const unsigned needed =
      dtype == DType::kBfloat16 ? dnnl_cpu_isa_avx512_core_bf16 : dnnl_cpu_isa_avx512_core_fp16;
  return (isa & needed) == needed;
}

template <class T, class Out>
void Gemm(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float beta, Result<Out> c) {
  if (!Multiplies(kDType<T>)) return GemmInFloat(m, n, k, a, b, beta, c);
  InParts(m, n, k, a, b, c,
          [beta](int64_t rows, int64_t columns, int64_t depth, Factor<T> left, Factor<T> right,
                 Result<Out> part) { Matmul(rows, columns, depth, left, right, beta, part); });
}

template void Gemm(int64_t, int64_t, int64_t, Factor<Half>, Factor<Half>, float, Result<float>);
template void Gemm(int64_t, int64_t, int64_t, Factor<Half>, Factor<Half>, float, Result<Half>);
template void Gemm(int64_t, int64_t, int64_t, Factor<Bfloat16>, Factor<Bfloat16>, float,
                   Result<float>);
template void Gemm(int64_t, int64_t, int64_t, Factor<Bfloat16>, Factor<Bfloat16>, float,
                   Result<Bfloat16>);

PackedProduct::PackedProduct(DType dtype, int64_t m, bool ragged, int64_t n, int64_t k,
                             Transpose transpose, int64_t stride, int64_t destination_stride,
                             bool accumulate)
    : m_(m), plain_weights_(Stored(dtype, k, n, transpose, stride)) {
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
    memory::desc packed({k, n}, DataType(dtype), memory::format_tag::any);
    for (int64_t rows = m; rows >= (ragged ? m - 1 : m); --rows) {
      const dnnl::matmul::primitive_desc desc(
          Engine(), RowMajor(dtype, rows, k, k), packed,
          RowMajor(DType::kFloat32, rows, n, destination_stride), attributes);
      products_.push_back({desc, dnnl::matmul(desc)});
      packed = desc.weights_desc();  // the same for both
    }
    pack_desc_ = dnnl::reorder::primitive_desc(Engine(), plain_weights_, Engine(), packed, of_pack);
    pack_ = dnnl::reorder(pack_desc_);
  });
}

size_t PackedProduct::scratch_bytes() const {
  size_t bytes = pack_desc_.scratchpad_desc().get_size();
  for (const Product& product : products_) {
    bytes = std::max(bytes, product.desc.scratchpad_desc().get_size());
  }
  return bytes;
}

void PackedProduct::Pack(const void* weights, void* packed, void* scratch) const {
  Try("reorder of weights", __LINE__, [&] {
    memory plain(plain_weights_, Engine(), const_cast<void*>(weights));
    memory to(products_[0].desc.weights_desc(), Engine(), packed);
    memory pack_scratch(pack_desc_.scratchpad_desc(), Engine(), scratch);
    dnnl::stream stream(Engine());
    pack_.execute(stream,
                  {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, pack_scratch}});
    stream.wait();
  });
}

PackedRun::PackedRun(const PackedProduct& product, int64_t m, void* packed, void* scratch)
    : product_(product.products_[m == product.m_ ? 0 : 1]) {
  Try("memory of a matmul", __LINE__, [&] {
    const dnnl::matmul::primitive_desc& desc = product_.desc;
    weights_ = memory(desc.weights_desc(), Engine(), packed);
    scratch_ = memory(desc.scratchpad_desc(), Engine(), scratch);
    source_ = memory(desc.src_desc(), Engine(), DNNL_MEMORY_NONE);
    destination_ = memory(desc.dst_desc(), Engine(), DNNL_MEMORY_NONE);
  });
}

void PackedRun::Run(const void* source, void* destination) {
  Try("matmul", __LINE__, [&] {
    source_.set_data_handle(const_cast<void*>(source));
    destination_.set_data_handle(destination);
    dnnl::stream stream(Engine());
    product_.product.execute(stream, {{DNNL_ARG_SRC, source_},
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
