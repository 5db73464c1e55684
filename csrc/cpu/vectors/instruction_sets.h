// Compiles a file of vector code once for each instruction set, in a namespace of that name, and
// chooses between them when the library loads. Define FASTRNN_VECTOR_CODE, the file's name below
// csrc/, and include this where the namespaces belong. The file sees
//   FASTRNN_BYTES   of a vector register
//   FASTRNN_TARGET  the attribute of functions that use the instruction set
//   FASTRNN_INLINE  of functions that must be inlined
// The compiler splits a vector for the instruction set of the function that holds it before it
// inlines that function, so every function has FASTRNN_TARGET. (No guard: it is included for each
// such file.)

#define FASTRNN_INLINE inline __attribute__((always_inline))

namespace baseline {
#define FASTRNN_BYTES 16
#define FASTRNN_TARGET
#include FASTRNN_VECTOR_CODE
#undef FASTRNN_BYTES
#undef FASTRNN_TARGET
}  // namespace baseline

#if defined(__x86_64__)
namespace avx2 {
#define FASTRNN_BYTES 32
#define FASTRNN_TARGET __attribute__((target("avx2,fma")))
#include FASTRNN_VECTOR_CODE
#undef FASTRNN_BYTES
#undef FASTRNN_TARGET
}  // namespace avx2

namespace avx512 {
#define FASTRNN_BYTES 64
#define FASTRNN_TARGET __attribute__((target("avx512f")))
#include FASTRNN_VECTOR_CODE
#undef FASTRNN_BYTES
#undef FASTRNN_TARGET
}  // namespace avx512
#endif

#undef FASTRNN_INLINE
#undef FASTRNN_VECTOR_CODE

// `of` is evaluated in the namespace of the best set that the processor has.
#if defined(__x86_64__)
#define FASTRNN_FOR_THIS_PROCESSOR(of)                                                     \
  (__builtin_cpu_init(), __builtin_cpu_supports("avx512f") ? avx512::of                    \
                         : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") \
                             ? avx2::of                                                    \
                             : baseline::of)
#else
#define FASTRNN_FOR_THIS_PROCESSOR(of) baseline::of
#endif
