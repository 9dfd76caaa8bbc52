"""How much the score of a tag depends on those that share its text, with the demo's detector on its scenes.

    python tests/benchmarks/prompt_mates.py [--scenes N]

Each thing that a scene shows is asked alone; with the other things of its scene, as the engine asks; and
with all things of the demo's world, in as few texts as hold them, or at most eight or three to a text.
Printed are the mean of its best score, the share of things that score over 0.3, the texts that an image was
asked, and how much it cost against asking as the engine does.
"""

import argparse
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from class_subsets import scenes
from figures import say

from tagmill.models.grounding_dino import GroundingDino

BATCH = 16
STRONG = 0.3


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(str(resources.files("tagmill.models.demo") / "data"))
    images, shown = scenes(data, options.scenes)
    rows = pq.read_table(data / "truth.parquet", columns=["tags", "kinds"]).to_pylist()
    things = sorted(
        {t for r in rows for t, kind in zip(r["tags"], r["kinds"], strict=True) if kind == "object"}
    )
    own = [sorted(tags & set(things)) for tags in shown]
    ways = {
        "with the scene's others": (None, own),
        "alone": (1, own),
        "with all things": (None, [things] * len(own)),
        "with all things, eight a text": (8, [things] * len(own)),
        "with all things, three a text": (3, [things] * len(own)),
    }
    first = 0.0
    for way, (most, prompts) in ways.items():
        model = GroundingDino(str(data / "grounding-dino"), device="cpu", box_floor=0.0, tags_a_text=most)
        model.load()
        prepared = [model.prepare(image) for image in images]
        model.predict(prepared[:1], prompts[:1])
        model.read(prompts, BATCH)
        start = time.process_time()
        found = []
        for at in range(0, len(images), BATCH):
            found += model.predict(prepared[at : at + BATCH], prompts[at : at + BATCH])
        spent = time.process_time() - start
        first = first or spent
        scores = np.array(
            [
                boxes.scores[boxes.tags == prompt.index(name)].max(initial=0)
                for boxes, prompt, names in zip(found, prompts, own, strict=True)
                for name in names
            ]
        )
        texts = sum(len(model.lengths_of(prompt)) for prompt in prompts) / len(prompts)
        say("prompt_mates", f"{way}: mean score of a thing that is there", float(scores.mean()))
        say("prompt_mates", f"{way}: share over {STRONG}", float((scores > STRONG).mean()))
        say("prompt_mates", f"{way}: texts", texts, "an image")
        say("prompt_mates", f"{way}: CPU seconds, times those of the first way", spent / first)


if __name__ == "__main__":
    main()
