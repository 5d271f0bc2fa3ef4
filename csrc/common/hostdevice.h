// Marks functions that are compiled for the host and, under nvcc, for the device too.
#pragma once

#ifdef __CUDACC__
#define ECAMP_HD __host__ __device__ __forceinline__
#else
#define ECAMP_HD inline
#endif
