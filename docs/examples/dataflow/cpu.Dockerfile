# Workers of Dataflow for the stages without a model. From the top of a checkout:
#   python -m build && pip freeze --exclude-editable > dist/constraints.txt
#   docker build --file docs/examples/dataflow/cpu.Dockerfile --tag IMAGE:0.2.0-cpu .
FROM apache/beam_python3.11_sdk:2.77.0

# The versions that the driver has: a run's libraries are recorded, and another decoder may give other pixels.
COPY dist/constraints.txt dist/tagmill-0.2.0-py3-none-any.whl /tmp/tagmill/
RUN pip install --no-cache-dir --constraint /tmp/tagmill/constraints.txt \
        "/tmp/tagmill/tagmill-0.2.0-py3-none-any.whl[faiss,gcp,images]" \
    && pip check \
    && rm -r /tmp/tagmill

# Everything is installed above: the SDK makes no environment of its own when a worker starts.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
