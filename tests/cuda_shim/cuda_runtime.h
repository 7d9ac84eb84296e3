// CUDA's run-time interface on the CPU, as far as written code uses it: every thread of a grid is a fiber of one thread.
// Blocks run one after the other between barriers of the grid, the threads of a block in order between __syncthreads.
#ifndef CUDA_SHIM_CUDA_RUNTIME_H
#define CUDA_SHIM_CUDA_RUNTIME_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

#define __global__ static
#define __device__
#define __shared__ static  // blocks take turns only at barriers of the grid, where shared memory is not in use

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

typedef std::vector<std::function<void()>> cuda_shim_list;
typedef cuda_shim_list *cudaGraph_t, *cudaGraphExec_t;
typedef int *cudaStream_t;

namespace cuda_shim {

enum state { ready, at_block_barrier, at_grid_barrier, done };

struct fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  state where;
};

constexpr size_t stack_size = 1 << 14;

inline dim3 block_index, thread_index, grid_size;
inline ucontext_t scheduler;
inline fiber *current;
inline const std::function<void()> *body;
inline cuda_shim_list *captured = nullptr;

inline void wait(state where) {
  fiber *self = current;
  self->where = where;
  swapcontext(&self->context, &scheduler);
}

inline void enter() {
  (*body)();
  current->where = done;
  swapcontext(&current->context, &scheduler);
}

inline void run(dim3 grid, dim3 block, const std::function<void()> &kernel) {
  const unsigned threads = block.x;
  static std::vector<fiber> pool;
  const unsigned count = grid.x * threads;
  if (pool.size() < count)
    pool.resize(count);
  body = &kernel;
  grid_size = grid;
  for (unsigned i = 0; i < count; i++) {
    fiber &f = pool[i];
    if (f.stack == nullptr)
      f.stack.reset(new char[stack_size]);
    f.where = ready;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = stack_size;
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  for (bool left = true; left;) {
    left = false;
    for (unsigned b = 0; b < grid.x; b++) {
      block_index.x = b;
      for (bool again = true; again;) {  // until all threads of the block wait for the grid, or are done
        again = false;
        for (unsigned t = 0; t < threads; t++) {
          fiber &f = pool[b * threads + t];
          if (f.where != ready)
            continue;
          thread_index.x = t;
          current = &f;
          swapcontext(&scheduler, &f.context);
        }
        unsigned waiting = 0;
        for (unsigned t = 0; t < threads; t++)
          waiting += pool[b * threads + t].where == at_block_barrier;
        if (waiting != 0 && waiting != threads)
          abort();  // __syncthreads in a branch that only some threads take
        for (unsigned t = 0; waiting != 0 && t < threads; t++)
          pool[b * threads + t].where = ready;
        again = waiting != 0;
      }
    }
    unsigned waiting = 0;
    for (unsigned i = 0; i < count; i++)
      waiting += pool[i].where == at_grid_barrier;
    if (waiting != 0 && waiting != count)
      abort();  // a barrier of the grid that some threads never reach
    for (unsigned i = 0; waiting != 0 && i < count; i++)
      pool[i].where = ready;
    left = waiting != 0;
  }
}

}  // namespace cuda_shim

#define threadIdx cuda_shim::thread_index
#define blockIdx cuda_shim::block_index
#define gridDim cuda_shim::grid_size

inline void __syncthreads() { cuda_shim::wait(cuda_shim::at_block_barrier); }

template <class A>
cudaError_t cudaLaunchKernel(void (*kernel)(A), dim3 grid, dim3 block, void **arguments, size_t, cudaStream_t) {
  typename std::remove_const<A>::type a = *static_cast<A *>(arguments[0]);
  std::function<void()> launch = [=] { cuda_shim::run(grid, block, [=] { kernel(a); }); };
  if (cuda_shim::captured != nullptr)
    cuda_shim::captured->push_back(launch);
  else
    launch();
  return cudaSuccess;
}

template <class A>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(A), dim3 grid, dim3 block, void **arguments, size_t shared,
                                        cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

template <class K>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, K, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) {
  *value = 3;  // processors: fewer blocks than some kernels have tiles
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  *stream = new int(0);
  return cudaSuccess;
}

inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr)
    return cudaErrorInvalidValue;
  cuda_shim::captured = new cuda_shim_list;
  return cudaSuccess;
}

inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph) {
  *graph = cuda_shim::captured;
  cuda_shim::captured = nullptr;
  return cudaSuccess;
}

inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  *exec = new cuda_shim_list(*graph);
  return cudaSuccess;
}

inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const std::function<void()> &launch : *graph)
    launch();
  return cudaSuccess;
}

template <class T>
cudaError_t cudaMalloc(T **memory, size_t bytes) {
  *memory = static_cast<T *>(malloc(bytes));
  return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

inline cudaError_t cudaFree(void *memory) {
  free(memory);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}

inline const char *cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "success" : "failure"; }

#endif
