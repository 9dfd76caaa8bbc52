"""How an exported network runs without torch: by onnxruntime, on the CPU."""

import os
from pathlib import Path
from typing import Any

from tagmill.tag_system.core.config import ConfigT, check_values
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json


def open_session(path: Path) -> Any:
    """Open a graph, to run in as many threads as the engine grants a process.

    Raises ConfigError for a file that onnxruntime does not take.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # else it warns of every input that has a default
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        raise ConfigError(f"{path} is not an ONNX file that runs here: {error}") from error


def open_tokenizer(path: Path) -> Any:
    """Read a tokenizer.json. Raises ConfigError for a file that is none."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # its parser raises Exception itself
        raise ConfigError(f"{path} is not a tokenizer: {error}") from error


def read_config(path: Path, config: type[ConfigT]) -> ConfigT:
    """Read what an exported folder says of itself.

    Raises ConfigError for a file that `tagmill models export` did not write.
    """
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a config of `tagmill models export`: {error}") from error
    if not isinstance(values, dict) or "kind" not in values:
        raise ConfigError(f"{path} was not written by `tagmill models export`, which makes such folders")
    return check_values(str(path), values, config)
