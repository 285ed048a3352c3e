"""A small builder of ONNX graphs: one method a layer, weights in torch's layouts, any batch size.

Values are known by their names; axis 0 is the batch. Layers are those of the torch mirror.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OPSET = 20  # the first with an exact GELU
IR_VERSION = 9
LAYER_NORM_EPSILON = 1e-5


class Graph:
    """Nodes, weights, inputs and outputs of a graph in the making."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.onnx = import_onnx()
        self.weights = weights
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
        self._inputs: list[Any] = []
        self._count = 0

    def input(self, name: str, dtype: Any, shape: Sequence[int | str], default: np.ndarray | None = None) -> str:
        """Declares an input; one with a default need not be fed."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        if default is not None:
            self._constants[name] = np.asarray(default, dtype)
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operator and returns its output."""
        self._count += 1
        name = f"{operator.lower()}_{self._count}"
        self._nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant array."""
        self._count += 1
        name = f"constant_{self._count}"
        self._constants[name] = np.array(value, dtype, order="C")  # ascontiguousarray would make a scalar a vector
        return name

    def weight(self, name: str) -> str:
        """A weight under its own name."""
        self._constants[name] = np.asarray(self.weights[name])
        return name

    def transposed(self, name: str) -> str:
        """A matrix as (in, out), stored once however often it is used."""
        self._constants[f"{name}.T"] = np.ascontiguousarray(self.weights[name].T)
        return f"{name}.T"

    def finish(self, output: str, shape: Sequence[int | str], metadata: Mapping[str, str]) -> Any:
        """The checked model, whose one output is called "actions"."""
        helper = self.onnx.helper
        self._nodes.append(helper.make_node("Identity", [output], ["actions"]))
        constants = [self.onnx.numpy_helper.from_array(value, name) for name, value in self._constants.items()]
        result = helper.make_tensor_value_info("actions", self.onnx.TensorProto.FLOAT, list(shape))
        graph = helper.make_graph(self._nodes, "policy", self._inputs, [result], initializer=constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="simscaleai_jax")
        helper.set_model_props(model, dict(metadata))
        self.onnx.checker.check_model(model)
        return model

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis, -1 takes the rest."""
        return self.node("Reshape", x, self.constant(shape, np.int64))

    def linear(self, x: str, name: str) -> str:
        """x @ weight.T + bias, over the last axis."""
        product = self.node("MatMul", x, self.transposed(f"{name}.weight"))
        return self.node("Add", product, self.weight(f"{name}.bias"))

    def activate(self, x: str, kind: str) -> str:
        """kind: "Relu", "Tanh" or "Gelu" (the exact form)."""
        return self.node(kind, x)

    def perceptron(self, x: str, name: str, indices: Sequence[int], kind: str) -> str:
        """Linear layers at `indices` of a Sequential, with an activation between them."""
        for index in indices[:-1]:
            x = self.activate(self.linear(x, f"{name}.{index}"), kind)
        return self.linear(x, f"{name}.{indices[-1]}")

    def convolution(self, x: str, name: str, stride: int, pad: int = 0) -> str:
        """Over (B, C, H, W)."""
        size = self.weights[f"{name}.weight"].shape[2:]
        inputs = (x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        return self.node("Conv", *inputs, kernel_shape=list(size), strides=[stride] * 2, pads=[pad] * 4)

    def norm(self, x: str, name: str) -> str:
        """Layer normalization over the last axis."""
        inputs = (x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        return self.node("LayerNormalization", *inputs, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def clip(self, x: str, low: Any, high: Any) -> str:
        """Bounds, numbers or one for each of the last axis."""
        return self.node("Max", self.node("Min", x, self.constant(high)), self.constant(low))

    def attention(self, x: str, name: str, num_heads: int, bias: str = "") -> str:
        """Self-attention of (B, N, D); `bias` (B or 1, 1, 1, N) is added to the scores."""
        width = self.weights[f"{name}.out_proj.weight"].shape[0]
        head = width // num_heads
        packed = self.node("MatMul", x, self.transposed(f"{name}.in_proj_weight"))
        packed = self.node("Add", packed, self.weight(f"{name}.in_proj_bias"))
        packed = self.node("Transpose", self.reshape(packed, 0, 0, 3, num_heads, head), perm=[2, 0, 3, 1, 4])
        q, k, v = (self.node("Gather", packed, self.constant(i, np.int64), axis=0) for i in range(3))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.node("Mul", scores, self.constant(head**-0.5))
        weights = self.node("Softmax", self.node("Add", scores, bias) if bias else scores, axis=-1)
        mixed = self.node("Transpose", self.node("MatMul", weights, v), perm=[0, 2, 1, 3])
        return self.linear(self.reshape(mixed, 0, 0, width), f"{name}.out_proj")

    def transformer(self, x: str, name: str, num_layers: int, num_heads: int, bias: str = "") -> str:
        """Layers that normalize first, with GELU; `bias` as in `attention`."""
        for i in range(num_layers):
            layer = f"{name}.layers.{i}"
            x = self.node(
                "Add", x, self.attention(self.norm(x, f"{layer}.norm1"), f"{layer}.self_attn", num_heads, bias)
            )
            hidden = self.activate(self.linear(self.norm(x, f"{layer}.norm2"), f"{layer}.linear1"), "Gelu")
            x = self.node("Add", x, self.linear(hidden, f"{layer}.linear2"))
        return x

    def rows(self, value: np.ndarray, like: str) -> str:
        """A constant (1, ...) repeated for each row of `like`."""
        batch = self.node("Shape", like, start=0, end=1)
        rest = self.constant(np.shape(value)[1:], np.int64)
        return self.node("Expand", self.constant(value), self.node("Concat", batch, rest, axis=0))


def import_onnx() -> Any:
    """onnx, or an ImportError that names the extra to install."""
    try:
        import onnx
    except ImportError:
        raise ImportError("onnx is needed to write .onnx files: pip install 'simscaleai-jax[onnx]'.") from None
    return onnx
