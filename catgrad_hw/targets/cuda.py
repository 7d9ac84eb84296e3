"""CUDA in float32: the fused kernels on a GPU, a whole function in one launch.

Each kernel is a device function: the 256 threads of a block are L lanes, which take neighbouring points, times S
slices, which share a point's sum; the partial sums meet in shared memory. S is about the root of the sum's length, so
that short sums of many points and long sums of few both keep a GPU busy.

Kernels that need nothing of each other are a phase: blocks take the tiles of all of them in turn. ``NAME_step`` runs
the phases in one cooperative launch, with a barrier across the grid between them. Where the model is too large for that
to pay (:data:`MOST_POINTS`), each phase is a launch. ``NAME_step_graph`` captures what ``NAME_step`` launches, once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import log2, prod, sqrt

from catgrad_hw.ir.kernel import Kernel, KernelProgram, Loop
from catgrad_hw.ir.kernel_check import check, reads, results, stores
from catgrad_hw.targets.c import FUNCTIONS, FloatRenderer, described, refuse_dtypes, scratch_arrays, sizes
from catgrad_hw.targets.clike import Scope, arguments, bare, nested, prepare, shape_of
from catgrad_hw.targets.project import Source, identifier, kernels_of

THREADS = 256
"""Threads of a block."""

FEWEST_LANES = 8
"""Neighbouring words that make one memory transaction of 32 bytes."""

MANY_POINTS = 1 << 15
"""From so many points on, each thread sums by itself."""

MOST_POINTS = 1 << 20
"""Programs with kernels of more points are launched phase by phase."""

ARCHITECTURES = (80, 90)


class CudaRenderer(FloatRenderer):
    """Kernels as the bodies of device functions, in which ``a`` holds the arguments and ``partial`` is shared."""

    def kernel(self, kernel: Kernel) -> list[str]:
        kept = len(kernel.loops) - kernel.reduced
        points = _points(kernel)
        length = prod(loop.size for loop in kernel.loops[kept:])
        slices = _slices(kernel)
        lanes = THREADS // slices
        scope = Scope([(loop.name, 0) for loop in kernel.loops])
        body = bare(self.expression(kernel.body, kernel, scope))
        scope.reduced = "r"
        stored = self.store(kernel, scope)
        start = f"float r = {self.least(kernel) if kernel.reduction == 'max' else '0.0f'};"
        if kernel.reduction == "argmax":
            start += f" float m = {self.least(kernel)};"

        def combine(value: str) -> list[str]:
            if kernel.reduction == "sum":
                return [f"r += {value};"]
            if kernel.reduction == "argmax":
                return [f"const float t = {value};", *_if("t > m", ["m = t;", "r = term;"])]
            return [f"const float t = {value};", "r = t > r ? t : r;"]

        def at_point(lines: Sequence[str]) -> list[str]:
            return [*_decode(kernel.loops[:kept], "point", lines), *lines]

        def at_term(lines: Sequence[str]) -> list[str]:
            return [*_decode(kernel.loops[kept:], "term", lines), *lines]

        lines = [f"const int point = {lanes} * tile + (int)threadIdx.x{f' % {lanes}' if slices > 1 else ''};"]
        if slices == 1:
            if kernel.reduction is None:
                lines += _if(f"point < {points}", at_point([f"const float r = {body};", *stored]))
            else:
                along = nested([("term", "0", str(length), 1)], at_term(combine(body)))
                lines += _if(f"point < {points}", at_point([start, *along, *stored]))
        else:
            along = nested([("term", f"(int)threadIdx.x / {lanes}", str(length), slices)], at_term(combine(body)))
            others = nested([("term", "1", str(slices), 1)], combine(f"partial[{lanes} * term + (int)threadIdx.x]"))
            lines += [
                "{",
                f"  {start}",
                *(f"  {line}" for line in _if(f"point < {points}", at_point(along))),
                "  partial[threadIdx.x] = r;",
                "}",
                "__syncthreads();",
                *_if(
                    f"threadIdx.x < {lanes} && point < {points}",
                    at_point(["float r = partial[threadIdx.x];", *others, *stored]),
                ),
                "__syncthreads();",
            ]
        return lines


def _slices(kernel: Kernel) -> int:
    """Threads that share a reduction: a power of two near the root of its terms; the first maximum is found by one."""
    kept = len(kernel.loops) - kernel.reduced
    alone = _points(kernel) >= MANY_POINTS or kernel.reduction == "argmax"
    length = prod(loop.size for loop in kernel.loops[kept:])
    return 1 if alone else min(1 << round(log2(sqrt(length))), THREADS // FEWEST_LANES)


def _tiles(kernel: Kernel) -> int:
    """Blocks that a kernel can use."""
    return -(-_points(kernel) * _slices(kernel) // THREADS)


def _points(kernel: Kernel) -> int:
    return prod(loop.size for loop in kernel.loops[: len(kernel.loops) - kernel.reduced])


def _shares(kernel: Kernel) -> bool:
    """Whether threads share a sum, by way of shared memory."""
    return _slices(kernel) > 1


def _decode(loops: Sequence[Loop], index: str, lines: Sequence[str]) -> list[str]:
    """Declarations of the loop variables that ``lines`` use, from a linear index, the last loop fastest.

    No loop variable is called as an index is: their names are letters, and merged ones follow the order of loops.
    """
    used = set(re.findall(r"\w+", "\n".join(lines)))
    declarations = []
    below = 1
    for number, loop in reversed(list(enumerate(loops))):
        part = index if below == 1 else f"{index} / {below}"
        if loop.name in used:
            declarations.append(f"const int {loop.name} = {part}{f' % {loop.size}' if number else ''};")
        below *= loop.size
    return declarations[::-1]


def _if(condition: str, lines: Sequence[str]) -> list[str]:
    return [f"if ({condition}) {{", *(f"  {line}" for line in lines), "}"]


def emit(model: Source, name: str) -> dict[str, str]:
    """The files NAME.h and NAME.cu. Raises :class:`UnsupportedError` for what CUDA or kernels do not speak."""
    return render(kernels_of(model), identifier(name))


def render(program: KernelProgram, name: str) -> dict[str, str]:
    """As :func:`emit`, from kernels."""
    check(program)
    refuse_dtypes(program, "cuda")
    program = prepare(program)
    scratch = scratch_arrays(program)
    parts, used = [], dict[str, None]()
    for group in ("predict", "step"):
        places = {array: f"a.{array}" for array in arguments(program, group)}
        places |= {array: f"a.s->{array}" for array in scratch if array not in places}
        renderer = CudaRenderer("cuda", places)
        parts.append(_function(program, group, name, renderer))
        used |= renderer.used
    helpers = [
        FUNCTIONS[function]
        .replace("static inline", "__device__ inline")
        .replace("exp_negative", "expf")
        .replace("/* ", "// ")
        .replace(" */", "")
        for function in used
        if function in FUNCTIONS
    ]
    text = "\n".join(
        [
            f'#include "{name}.h"\n',
            "#include <cooperative_groups.h>\n",
            "namespace {\n",
            *helpers,
            *(device for device, _ in parts),
            "}  // namespace\n",
            *(host for _, host in parts),
        ]
    )
    return {f"{name}.h": _header(program, name, scratch), f"{name}.cu": text}


def _function(program: KernelProgram, group: str, name: str, renderer: CudaRenderer) -> tuple[str, str]:
    """The device part and the host part of ``predict`` or ``step``."""
    phases = _phases(program.programs[group])
    fits = max((_points(kernel) for kernels in phases for kernel in kernels), default=0) <= MOST_POINTS
    members = "\n".join(f"  {declaration};" for declaration in _parameters(program, group, name))
    device = [f"struct {group}_arguments {{\n{members}\n}};\n"]
    for kernel in program.programs[group]:
        partial = ", float *partial" if _shares(kernel) else ""
        device.append(
            f"__device__ void {group}_{kernel.name}(const {group}_arguments &a, int tile{partial}) {{\n"
            + "\n".join(f"  {line}" for line in renderer.kernel(kernel))
            + "\n}\n"
        )
    device += [_phase(group, number, kernels) for number, kernels in enumerate(phases, 1)]
    if fits and phases:
        device.append(_global(f"{group}_whole", group, phases, first=1))
    else:
        device += [_global(f"{group}_launch_{i}", group, [kernels], i) for i, kernels in enumerate(phases, 1)]
    return "\n".join(device), _host(program, group, name, phases, fits)


def _phase(group: str, number: int, kernels: Sequence[Kernel]) -> str:
    """A function that does the tiles of all kernels of a phase: blocks take them in turn."""
    partial = ", float *partial" if any(map(_shares, kernels)) else ""
    lines, before = list[str](), 0
    for kernel in kernels:
        tile, end = f"tile - {before}" if before else "tile", before + _tiles(kernel)
        call = f"{group}_{kernel.name}(a, {tile}{', partial' if _shares(kernel) else ''});"
        if len(kernels) == 1:
            lines = [call]
        else:
            head = "else" if kernel is kernels[-1] else f"{'else ' if before else ''}if (tile < {end})"
            lines += [head, f"  {call}"]
        before = end
    body = "\n".join(f"    {line}" for line in lines)
    return (
        f"__device__ void {group}_phase_{number}(const {group}_arguments &a{partial}) {{\n"
        f"  for (int tile = blockIdx.x; tile < {before}; tile += gridDim.x) {{\n{body}\n  }}\n}}\n"
    )


def _global(name: str, group: str, phases: Sequence[Sequence[Kernel]], first: int) -> str:
    """A kernel in CUDA's sense that does phases one after the other, the ``first`` of this number."""
    lines = list[str]()
    for number, kernels in enumerate(phases, first):
        lines += ["grid.sync();"] * (number > first)
        lines.append(f"{group}_phase_{number}(a{', partial' if any(map(_shares, kernels)) else ''});")
    if any(_shares(kernel) for kernels in phases for kernel in kernels):
        lines.insert(0, f"__shared__ float partial[{THREADS}];")
    if len(phases) > 1:
        lines.insert(0, "const cooperative_groups::grid_group grid = cooperative_groups::this_grid();")
    body = "\n".join(f"  {line}" for line in lines)
    return f"__global__ void {name}(const {group}_arguments a) {{\n{body}\n}}\n"


def _host(program: KernelProgram, group: str, name: str, phases: Sequence[Sequence[Kernel]], fits: bool) -> str:
    """The functions that launch, and that capture the launches as a graph."""
    tiles = [sum(map(_tiles, kernels)) for kernels in phases]
    arguments_of_launch = ", ".join([*arguments(program, group), "s"])
    if not phases:
        launch = "  (void)launched, (void)stream;\n  return cudaSuccess;"
    elif fits:
        launch = f"""\
  int device = 0, processors = 0, resident = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, {group}_whole, {THREADS}, 0);
  if (error != cudaSuccess)
    return error;
  // All blocks of a cooperative launch must be resident at once.
  const int blocks = processors * resident < {max(tiles)} ? processors * resident : {max(tiles)};
  return cudaLaunchCooperativeKernel({group}_whole, dim3(blocks), dim3({THREADS}), launched, 0, stream);"""
    else:
        launch = "  cudaError_t error = cudaSuccess;\n"
        for number, count in enumerate(tiles, 1):
            call = f"cudaLaunchKernel({group}_launch_{number}, dim3({count}), dim3({THREADS}), launched, 0, stream)"
            launch += f"  if (error == cudaSuccess)\n    error = {call};\n"
        launch += "  return error;"
    given = ", ".join([*arguments(program, group), "s", "stream"])
    return f"""\
{prototype(program, group, name)} {{
  {group}_arguments a = {{{arguments_of_launch}}};
  void *launched[] = {{&a}};
{launch}
}}

{prototype(program, group, name, graph=True)} {{
  cudaGraph_t captured = nullptr;
  cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess)
    return error;
  error = {name}_{group}({given});
  const cudaError_t end = cudaStreamEndCapture(stream, &captured);
  if (error == cudaSuccess)
    error = end;
  if (error == cudaSuccess)
    error = cudaGraphInstantiate(graph, captured, 0);
  if (captured != nullptr)
    cudaGraphDestroy(captured);
  return error;
}}
"""


def _phases(kernels: Sequence[Kernel]) -> list[list[Kernel]]:
    """The kernels in order, parted where one needs, or would disturb, what those before it wrote or read."""
    phases, read, written = list[list[Kernel]](), set[str](), set[str]()
    for kernel in kernels:
        takes = {access.array for access in reads(kernel.body)}
        takes.update(access.array for _, value in results(kernel) for access in reads(value))
        gives = {access.array for access in stores(kernel)}
        if not phases or takes & written or gives & (written | read):
            phases.append([])
            read, written = set(), set()
        phases[-1].append(kernel)
        read |= takes
        written |= gives
    return phases


def _parameters(program: KernelProgram, group: str, name: str) -> list[str]:
    written = {access.array for kernel in program.programs[group] for access in stores(kernel)}
    parts = [f"{'' if array in written else 'const '}float *{array}" for array in arguments(program, group)]
    return [*parts, f"{name}_scratch *s"]


def prototype(program: KernelProgram, group: str, name: str, graph: bool = False) -> str:
    """The head of a host function; ``graph``: of the one that captures."""
    head = f"cudaError_t {name}_{group}{'_graph' if graph else ''}("
    parts = [*_parameters(program, group, name), "cudaStream_t stream", *(["cudaGraphExec_t *graph"] if graph else [])]
    return head + f",\n{' ' * len(head)}".join(parts) + ")"


def _header(program: KernelProgram, name: str, scratch: Sequence[str]) -> str:
    guard, arrays = f"{name.upper()}_H", program.arrays
    members = "\n".join(f"  float {a}[{prod(arrays[a].shape)}]; // {shape_of(arrays[a])}" for a in scratch)
    functions = "\n\n".join(
        f"{prototype(program, group, name, graph)};" for group in ("predict", "step") for graph in (False, True)
    )
    return f"""\
// {name}: written by catgrad-hw. All pointers are to the caller's memory on the device, float32, row-major:
//
{described(program, "//")}
//
// {name}_predict computes {", ".join(program.outputs)}; {name}_step changes the parameters by one step of training.
// Both only put work on the stream. The _graph functions capture it as a graph for cudaGraphLaunch; they need a stream
// that is not the default one. Buffers must not overlap.
#ifndef {guard}
#define {guard}

#include <cuda_runtime.h>

#define {name.upper()}_BATCH {program.batch}
// Entries of each buffer.
{sizes(program, name)}

// What a call keeps between its kernels, in memory on the device; its contents have no meaning before and after.
struct {name}_scratch {{
{members or "  char unused;"}
}};

{functions}

#endif
"""


def build_files(name: str) -> Mapping[str, str]:
    """A Makefile and a README."""
    targets = " ".join(f"-gencode arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES)
    makefile = f"""\
# make: lib{name}.a, for the GPUs in ARCHITECTURES.
NVCC ?= nvcc
ARCHITECTURES ?= {targets}

lib{name}.a: {name}.cu {name}.h
\t$(NVCC) -O3 -lib $(ARCHITECTURES) $< -o $@

clean:
\trm -f lib{name}.a

.PHONY: clean
"""
    readme = f"""\
# {name} in CUDA

`make` builds `lib{name}.a` with nvcc; `{name}.h` says what its functions take. `{name}_step` is one launch; for the
least overhead, capture it with `{name}_step_graph` and launch the graph once for each batch.
"""
    return {"Makefile": makefile, "README.md": readme}
