"""How networks are written as ONNX files: small, and the same bytes each time."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tagmill.models.onnx_session import open_session
from tagmill.tag_system.core.errors import ConfigError

OPSET = 17

HALVED = 64
"""Numbers from which a tensor may be stored as float16; fewer save nothing."""


def require_export() -> None:
    """Raise ConfigError unless what writes and checks ONNX files is installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  torch needs it, and says so only in the middle
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX needs {error.name}: pip install 'tagmill[export]'") from error


def write(
    module: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
    said: Mapping[str, str] | None = None,
    defaults: Mapping[str, NDArray[np.float32]] | None = None,
    *,
    halve: bool = True,
) -> None:
    """Trace a module on example inputs, and write it as one file, of at most 2 GB.

    `free`: of each input and output the dimensions that may have any size, by their place, with a name each.
    `said`: the file's metadata. `defaults`: what inputs hold if they are not given. Raises ConfigError for a
    network that cannot be traced. Unless `halve`, no weights are stored as float16.
    """
    try:
        with torch.no_grad(), _traceable():
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=dict(free),
                opset_version=OPSET,
                # Else batch norms are worked into the weights, which then no float16 holds.
                training=torch.onnx.TrainingMode.PRESERVE,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"this network cannot be written as ONNX: {reason}") from error
    _finish(path, said or {}, defaults or {})
    if halve:
        store_halves(path, list(defaults or ()))


@contextmanager
def _traceable() -> Iterator[None]:
    """Keep torch from its fused attention, which ONNX lacks, and from warnings of every fixed number."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _finish(path: Path, said: Mapping[str, str], defaults: Mapping[str, NDArray[np.float32]]) -> None:
    """Write metadata, and what inputs hold by default."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in defaults.items())
    helper.set_model_props(model, dict(said))
    onnx.save(model, path)


def store_halves(path: Path, inputs: Sequence[str] = ()) -> None:
    """Store as float16 what that holds exactly, weights that were saved so, but for what `inputs` hold.

    Nothing that the graph computes changes: onnxruntime widens such weights once, when it opens the file.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph, widened = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in inputs:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < HALVED or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        widened.append(
            helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_widen", to=TensorProto.FLOAT)
        )
    nodes = [*widened, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def largest_difference(
    module: nn.Module, path: Path, cases: Sequence[Mapping[str, Tensor]], tolerance: float
) -> float:
    """Run a file and its module on the same inputs: the largest difference of what they answer.

    Raises ArithmeticError if it is above the tolerance.
    """
    session, largest = open_session(path), 0.0
    for inputs in cases:
        found = session.run(None, {name: values.numpy() for name, values in inputs.items()})
        with torch.no_grad():
            expected = module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(found, expected, strict=True):
            largest = max(largest, float(np.abs(one - other.numpy()).max()))
    if not largest <= tolerance:
        raise ArithmeticError(f"{path.name}: it differs by {largest:.2g}, more than {tolerance:g}")
    return largest
