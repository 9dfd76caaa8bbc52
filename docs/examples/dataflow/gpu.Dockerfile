# Workers of Dataflow for all stages, with a GPU or without. From the top of a checkout:
#   python -m build && pip freeze --exclude-editable > dist/constraints.txt && cp -r /opt/models dist/weights
#   docker build --file docs/examples/dataflow/gpu.Dockerfile --tag IMAGE:0.2.0-gpu .
FROM apache/beam_python3.11_sdk:2.77.0

# torch of PyPI brings CUDA's libraries; the driver is the worker's (install-nvidia-driver in the hint).
COPY dist/constraints.txt dist/tagmill-0.2.0-py3-none-any.whl /tmp/tagmill/
RUN pip install --no-cache-dir --constraint /tmp/tagmill/constraints.txt \
        "/tmp/tagmill/tagmill-0.2.0-py3-none-any.whl[faiss,gcp,images,models]" \
    && pip check \
    && rm -r /tmp/tagmill

# Where the config names them, as on the driver's machine. A worker that loads them from a hub would do so each
# time that it starts.
COPY dist/weights/ /opt/models/

# Where Dataflow mounts the driver's libraries and programs.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PATH=/usr/local/nvidia/bin:$PATH \
    HF_HOME=/opt/models/huggingface \
    HF_HUB_OFFLINE=1 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
