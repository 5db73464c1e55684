// One binary serves every x86-64 processor: the loader picks the clone of a function with this
// attribute. Clones are named by feature, because an architecture's name matches only its vendor's
// models. Processors other than x86-64 have vectors in their baseline.
#pragma once

#if defined(__x86_64__)
#define FASTRNN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FASTRNN_CLONES
#endif
