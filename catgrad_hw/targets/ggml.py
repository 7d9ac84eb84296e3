"""C++ against ggml's public headers: the graphs of ``predict`` and ``step``, built once and computed on the CPU.

ggml's tensors have up to four axes, the first one fastest: our axes reversed. Values of more axes are refused, since
views of them cannot be spelled; so are operations that ggml lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import ROLES
from catgrad_hw.ir.graph import Graph, Node
from catgrad_hw.ir.names import output_names, value_names
from catgrad_hw.ir.types import Dtype, NdArrayType
from catgrad_hw.targets.project import Source, graph_of, identifier

MOST_AXES = 4


class Function:
    """The lines that build the graph of one function; ``c`` is ggml's context, ``g`` what is being built."""

    def __init__(self, graph: Graph, group: str) -> None:
        self.graph, self.group = graph, group
        self.names = value_names(graph)
        self.arguments = [i.name for role in ROLES[group] for i in graph.inputs if i.role == role]
        self.results = [f"result{i}" for i in range(len(graph.outputs[group]))]

    def build(self) -> list[str]:
        """Every value gets a line of its own."""
        lines = []
        for T in self.graph.types:
            if T.dtype is not Dtype.float32:
                raise UnsupportedError(
                    f"{T}: the target ggml speaks float32, found {T.dtype.name}; change the dtype, or choose the "
                    "target numpy"
                )
        for value, i in enumerate(self.graph.inputs):
            if i.name in self.arguments:
                lines.append(f"ggml_tensor *{self.names[value]} = g.input({self.shape(i.type)});")
        for node in self.graph.needed([self.group]):
            if isinstance(node.operation, ops.NSplit):
                lines += self.split(node)
                continue
            if isinstance(node.operation, ops.Constant) and not self.is_read(node.outputs[0]):
                continue
            spelling = SPELLINGS.get(type(node.operation))
            if spelling is None:
                raise UnsupportedError(
                    f"{type(node.operation).__name__}: expected an operation that the target ggml speaks, found "
                    f"{node.operation}; choose another target, or build the model from other operations"
                )
            lines.append(f"ggml_tensor *{self.names[node.outputs[0]]} = {spelling(self, node)};")
        lines += [f"g.output({self.names[value]});" for value in self.graph.outputs[self.group]]
        return lines

    def is_read(self, constant: int) -> bool:
        """Whether a constant is read otherwise than as a factor that scales."""
        nodes = [node for node in self.graph.needed([self.group]) if constant in node.inputs]
        scales = [isinstance(n.operation, ops.Multiply) and self.scaling(n)[0] == constant for n in nodes]
        return constant in self.graph.outputs[self.group] or not all(scales)

    def scaling(self, node: Node) -> tuple[int | None, int]:
        """A product's factor that is a constant, if there is one, and the other factor."""
        for factor, other in (node.inputs, node.inputs[::-1]):
            if self.graph.constant(factor) is not None and factor != other:
                return factor, other
        return None, node.inputs[0]

    def shape(self, T: NdArrayType) -> str:
        """The sizes of the axes, ggml's first one first."""
        if len(T.shape) > MOST_AXES:
            raise UnsupportedError(
                f"{T}: the target ggml has {MOST_AXES} axes at most, found {len(T.shape)}; reshape it, or choose "
                "another target"
            )
        sizes = [*reversed(T.shape), *[1] * (MOST_AXES - len(T.shape))]
        return ", ".join(map(str, sizes))

    def type(self, node: Node) -> NdArrayType:
        return self.graph.types[node.outputs[0]]

    def arguments_of(self, node: Node) -> list[str]:
        return [self.names[value] for value in node.inputs]

    def call(self, node: Node, function: str) -> str:
        return f"{function}(c, {', '.join(self.arguments_of(node))})"

    def reshaped(self, text: str, *sizes: int) -> str:
        """A tensor under another shape, sizes in ggml's order."""
        sizes = (*sizes, *[1] * (MOST_AXES - len(sizes)))
        return f"ggml_reshape_4d(c, {text}, {', '.join(map(str, sizes))})"

    def multiply(self, node: Node) -> str:
        factor, other = self.scaling(node)
        if factor is None:
            return self.call(node, "ggml_mul")
        return f"ggml_scale(c, {self.names[other]}, {float(self.graph.constant(factor) or 0)!r}f)"

    def constant(self, node: Node) -> str:
        operation: Any = node.operation
        return f"g.constant({float(operation.x)!r}f, {self.shape(operation.T)})"

    def permute(self, node: Node) -> str:
        operation: Any = node.operation
        n = len(operation.p)
        self.shape(operation.T)
        # Our axis p[i] becomes axis i; both count from the other end in ggml.
        places = list(range(MOST_AXES))
        for i, axis in enumerate(operation.p):
            places[n - 1 - axis] = n - 1 - i
        return f"ggml_cont(c, ggml_permute(c, {self.names[node.inputs[0]]}, {', '.join(map(str, places))}))"

    def reshape(self, node: Node) -> str:
        return f"ggml_reshape_4d(c, {self.names[node.inputs[0]]}, {self.shape(self.type(node))})"

    def ncopy(self, node: Node) -> str:
        operation: Any = node.operation
        outer, inner = operation.N.size, operation.T.size
        column = self.reshaped(self.names[node.inputs[0]], 1, outer)
        repeated = f"ggml_repeat(c, {column}, ggml_new_tensor_2d(c, GGML_TYPE_F32, {inner}, {outer}))"
        return f"ggml_reshape_4d(c, {repeated}, {self.shape(self.type(node))})"

    def nadd(self, node: Node) -> str:
        operation: Any = node.operation
        rows = self.reshaped(self.names[node.inputs[0]], operation.T.size, operation.N.size)
        return f"ggml_reshape_4d(c, ggml_sum_rows(c, {rows}), {self.shape(self.type(node))})"

    def contract(self, node: Node) -> str:
        """ggml multiplies rows by rows, so that the right factor is transposed first."""
        operation: Any = node.operation
        batch = operation.N.size if isinstance(operation, ops.MatrixMultiply) else 1
        a, b, d = (X.size for X in (operation.A, operation.B, operation.C))
        left = self.reshaped(self.names[node.inputs[0]], b, a, batch)
        right = self.reshaped(self.names[node.inputs[1]], d, b, batch)
        product = f"ggml_mul_mat(c, ggml_cont(c, ggml_transpose(c, {right})), {left})"
        return f"ggml_reshape_4d(c, {product}, {self.shape(self.type(node))})"

    def split(self, node: Node) -> list[str]:
        operation: Any = node.operation
        rows, k, word = operation.T.size, operation.k, 4
        lines = []
        for i, value in enumerate(node.outputs):
            view = f"ggml_view_2d(c, {self.names[node.inputs[0]]}, 1, {rows}, {k * word}, {i * word})"
            part = f"ggml_reshape_4d(c, ggml_cont(c, {view}), {self.shape(operation.T)})"
            lines.append(f"ggml_tensor *{self.names[value]} = {part};")
        return lines

    def concatenate(self, node: Node) -> str:
        operation: Any = node.operation
        result = ""
        for name in self.arguments_of(node):
            column = self.reshaped(name, 1, operation.T.size)
            result = f"ggml_concat(c, {result}, {column}, 0)" if result else column
        return f"ggml_reshape_4d(c, {result}, {self.shape(self.type(node))})"

    def sigmoid_derivative(self, node: Node) -> str:
        """σ(z) · σ(-z), which keeps its digits in both tails."""
        z = self.names[node.inputs[0]]
        return f"ggml_mul(c, ggml_sigmoid(c, {z}), ggml_sigmoid(c, ggml_neg(c, {z})))"

    def tanh_derivative(self, node: Node) -> str:
        """4 · σ(2z) · σ(-2z)."""
        z = self.names[node.inputs[0]]
        sides = (f"ggml_sigmoid(c, ggml_scale(c, {z}, {factor}))" for factor in ("2.0f", "-2.0f"))
        return f"ggml_scale(c, ggml_mul(c, {', '.join(sides)}), 4.0f)"

    def gt(self, node: Node) -> str:
        return f"ggml_step(c, {self.call(node, 'ggml_sub')})"


Spelling: TypeAlias = Callable[[Function, Node], str]


def _by(function: str) -> Spelling:
    return lambda f, node: f.call(node, function)


SPELLINGS: Mapping[type[ops.Operation], Spelling] = {
    ops.Add: _by("ggml_add"),
    ops.Subtract: _by("ggml_sub"),
    ops.Divide: _by("ggml_div"),
    ops.Multiply: Function.multiply,
    ops.Negate: _by("ggml_neg"),
    ops.Exp: _by("ggml_exp"),
    ops.Log: _by("ggml_log"),
    ops.Sqrt: _by("ggml_sqrt"),
    ops.Sigmoid: _by("ggml_sigmoid"),
    ops.SigmoidDerivative: Function.sigmoid_derivative,
    ops.Tanh: _by("ggml_tanh"),
    ops.TanhDerivative: Function.tanh_derivative,
    ops.Gt: Function.gt,
    ops.Constant: Function.constant,
    ops.Permute: Function.permute,
    ops.Reshape: Function.reshape,
    ops.NCopy: Function.ncopy,
    ops.NAdd: Function.nadd,
    ops.NConcatenate: Function.concatenate,
    ops.Compose: Function.contract,
    ops.MatrixMultiply: Function.contract,
}
"""How each operation is spelled; NSplit, which has several results, is :meth:`Function.split`."""


def emit(model: Source, name: str) -> dict[str, str]:
    """The files NAME.h and NAME.cpp. Raises :class:`UnsupportedError` for what ggml lacks."""
    return render(graph_of(model), identifier(name))


def render(graph: Graph, name: str) -> dict[str, str]:
    """As :func:`emit`, from a tensor graph."""
    functions = [Function(graph, group) for group in ("predict", "step")]
    sizes = {i.name: prod(i.type.shape) for i in graph.inputs}
    outputs = dict(zip(output_names(graph), graph.outputs["predict"], strict=True))
    sizes |= {output: graph.types[value].size for output, value in outputs.items()}
    parameters = [i.name for i in graph.inputs if i.role in ("parameter", "state")]
    given = {"predict": list(outputs), "step": parameters}
    heads = {f.group: _head(name, f, given[f.group]) for f in functions}
    builders = "\n\n".join(
        f"void build_{f.group}(computation &g) {{\n  ggml_context *c = g.context;\n"
        + "\n".join(f"  {line}" for line in f.build())
        + "\n  (void)c;\n}"
        for f in functions
    )
    calls = "\n\n".join(
        f"{heads[f.group]} {{\n"
        f"  const float *inputs[] = {{{', '.join(f.arguments)}}};\n"
        f"  float *outputs[] = {{{', '.join(given[f.group])}}};\n"
        f"  return model->{f.group}.run(model->backend, inputs, outputs);\n}}"
        for f in functions
    )
    header = f"""\
// {name}: written by catgrad-hw, for ggml. Arrays are the caller's, float32, row-major.
#ifndef {name.upper()}_H
#define {name.upper()}_H

#ifdef __cplusplus
extern "C" {{
#endif

// Entries of each array.
{chr(10).join(f"#define {name.upper()}_{array.upper()} {size}" for array, size in sizes.items())}

struct {name}_model;

// Builds both graphs, to be computed by so many threads; a null pointer where memory runs out.
struct {name}_model *{name}_create(int threads);
void {name}_free(struct {name}_model *model);

// Both return 0 if all went well. {name}_step changes the parameters.
{heads["predict"]};
{heads["step"]};

#ifdef __cplusplus
}}
#endif

#endif
"""
    source = f"""\
#include "{name}.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <utility>
#include <vector>

namespace {{

// A graph that was built once, its arguments and its results in order.
struct computation {{
  ggml_context *context = nullptr;
  ggml_backend_buffer_t buffer = nullptr;
  ggml_cgraph *graph = nullptr;
  std::vector<ggml_tensor *> inputs, outputs;
  std::vector<std::pair<ggml_tensor *, float>> constants;

  ggml_tensor *input(int64_t n0, int64_t n1, int64_t n2, int64_t n3) {{
    inputs.push_back(ggml_new_tensor_4d(context, GGML_TYPE_F32, n0, n1, n2, n3));
    return inputs.back();
  }}

  ggml_tensor *constant(float value, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {{
    constants.emplace_back(ggml_new_tensor_4d(context, GGML_TYPE_F32, n0, n1, n2, n3), value);
    return constants.back().first;
  }}

  void output(ggml_tensor *tensor) {{
    outputs.push_back(ggml_cont(context, tensor));
    ggml_build_forward_expand(graph, outputs.back());
  }}

  bool build(ggml_backend_t backend, void (*describe)(computation &)) {{
    const size_t nodes = {16 * len(graph.nodes) + 64};
    context = ggml_init({{nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(nodes, false), nullptr, true}});
    if (context == nullptr)
      return false;
    graph = ggml_new_graph_custom(context, nodes, false);
    describe(*this);
    buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    if (buffer == nullptr)
      return false;
    for (const auto &[tensor, value] : constants) {{
      const std::vector<float> values(ggml_nelements(tensor), value);
      ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
    }}
    return true;
  }}

  int run(ggml_backend_t backend, const float *const *given, float *const *wanted) const {{
    for (size_t i = 0; i < inputs.size(); i++)
      ggml_backend_tensor_set(inputs[i], given[i], 0, ggml_nbytes(inputs[i]));
    const int status = ggml_backend_graph_compute(backend, graph);
    for (size_t i = 0; i < outputs.size(); i++)
      ggml_backend_tensor_get(outputs[i], wanted[i], 0, ggml_nbytes(outputs[i]));
    return status;
  }}

  ~computation() {{
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
  }}
}};

{builders}

}}  // namespace

struct {name}_model {{
  ggml_backend_t backend = nullptr;
  computation predict, step;
}};

{name}_model *{name}_create(int threads) {{
  auto *model = new {name}_model;
  model->backend = ggml_backend_cpu_init();
  if (model->backend != nullptr) {{
    ggml_backend_cpu_set_n_threads(model->backend, threads);
    if (model->predict.build(model->backend, build_predict) && model->step.build(model->backend, build_step))
      return model;
  }}
  {name}_free(model);
  return nullptr;
}}

void {name}_free({name}_model *model) {{
  if (model == nullptr)
    return;
  ggml_backend_t backend = model->backend;
  delete model;
  ggml_backend_free(backend);
}}

{calls}
"""
    return {f"{name}.h": header, f"{name}.cpp": source}


def _head(name: str, function: Function, given: Sequence[str]) -> str:
    parts = [f"struct {name}_model *model"]
    parts += [f"{'' if a in given else 'const '}float *{a}" for a in function.arguments]
    parts += [f"float *{a}" for a in given if a not in function.arguments]
    return f"int {name}_{function.group}({', '.join(parts)})"


def build_files(name: str) -> Mapping[str, str]:
    """A CMakeLists.txt and a README."""
    return {
        "CMakeLists.txt": f"""\
# cmake -B build -DCMAKE_PREFIX_PATH=DIR && cmake --build build
cmake_minimum_required(VERSION 3.16)
project({name} CXX)
find_package(ggml REQUIRED)
add_library({name} {name}.cpp)
target_compile_features({name} PUBLIC cxx_std_17)
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_link_libraries({name} PUBLIC ggml::all)
""",
        "README.md": f"""\
# {name} in C++ for ggml

`{name}.h` says what the functions take. The graphs of `{name}_predict` and `{name}_step` are built once, by
`{name}_create`. `CMakeLists.txt` builds a library against an installed ggml.
""",
    }
