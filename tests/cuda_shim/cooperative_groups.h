// The one group that written code uses: the whole grid.
#ifndef CUDA_SHIM_COOPERATIVE_GROUPS_H
#define CUDA_SHIM_COOPERATIVE_GROUPS_H

#include "cuda_runtime.h"

namespace cooperative_groups {

struct grid_group {
  void sync() const { cuda_shim::wait(cuda_shim::at_grid_barrier); }
};

inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups

#endif
