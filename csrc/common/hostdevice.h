// Marks functions that are compiled for the host and, under nvcc, for the device too.
// Internal linkage: cpu.cpp files are compiled once per instruction set (common/lanes.h), and one
// shared copy of an inline function could hold instructions that the machine does not have.
#pragma once

#ifdef __CUDACC__
#define ECAMP_HD static __host__ __device__ __forceinline__
#else
#define ECAMP_HD static inline
#endif
