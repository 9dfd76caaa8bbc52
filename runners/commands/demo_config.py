"""The config of the demo's run, as a file that a reader can learn from and `tagmill run` can take."""

import json
from pathlib import Path

HEAD = """\
# Written again by every `tagmill demo`; copy it to change it. `tagmill run THIS_FILE` takes it as it is.

# Where everything goes: intermediate results, reports and the dataset itself.
run: {run}

inputs:
{input}

# Examples in one unit of work, which is what a crash can cost. Thousands are usual.
part_size: 100

# Threads of one worker. Results may differ in the last bits with another number, so it belongs to the run.
threads: 1

"""

SCENES = """\
  - name: scenes # the first part of every example's key: scenes/200000
    format: webdataset # tars in which KEY.jpg and its caption KEY.txt lie together
    path: {path}
    license: Apache-2.0 # of every image whose source names none"""

PHOTOS = """\
  - name: photos # the first part of every example's key: photos/FOLDER/NAME
    format: folder # jpg, png and webp files; NAME.txt beside NAME.jpg holds captions, one a line
    path: {path}"""

MODELS = """\
# The models are ONNX files, which run without torch. On a GPU one takes `ram`, `grounding-dino` and
# `open-clip`; `tagmill models export` writes theirs as such files.

# Whole image -> scores of tags.
tag:
  model: onnx # a Recognize Anything Plus, tiny, of the demo world's tags
  options: {{path: {tagger}}}
  batch_size: 32 # images in one call of the model

# Image and tags -> boxes.
localize:
  model: onnx-grounding-dino
  options: {{path: {localizer}}}
  batch_size: 32

# Boxes -> embeddings, and how each compares with its own tag and the image's other tags.
embed:
  model: onnx-clip
  options: {{path: {embedder}, template: "a {{}}"}} # the sentence that it was trained on
  batch_size: 64 # regions in one call of the model

# All evidence -> kept, dropped or uncertain. Change the policy, and only this stage and the shards are made
# again: the models' evidence is all there. These constants fit these models: they were chosen on 4,000 other
# scenes (tests/benchmarks/cleaning_rules.py).
clean:
  policy:
    rule: adaptive # or paper
    tagger_threshold: 0.4 # the score from which the tagger alone proposes a tag
    unchecked_threshold: 0.75 # the same for places and colours, which no box can confirm
    adaptive:
      weak_box: 0.15 # a best box under it drops the tag
      strong_box: 0.5 # from it on, only the embedding can speak against the tag
      margin: 0.16 # how much closer a region may be to another tag of its image than to its own
      outlier_rank: 1.0 # distance from the other regions of a tag adds nothing to these

# The dataset: webdataset tars of up to so many examples.
shards:
  size: 1000
"""


def demo_config(run: str, data: Path, photos: Path | None) -> str:
    """Write all but `demo_models`: a run over the scenes in `data`, or over a folder of photographs."""
    path = _quoted(data / "scenes-*.tar") if photos is None else _quoted(photos)
    source = (SCENES if photos is None else PHOTOS).format(path=path)
    return HEAD.format(run=_quoted(run), input=source)


def demo_models(data: Path) -> str:
    """Write the sections of the models and of the rules."""
    return MODELS.format(
        tagger=_quoted(data / "tagger.onnx"),
        localizer=_quoted(data / "grounding-dino-onnx"),
        embedder=_quoted(data / "clip-onnx"),
    )


def _quoted(value: str | Path) -> str:
    """Quote a text for YAML, which takes JSON's strings."""
    return json.dumps(str(value), ensure_ascii=False)
