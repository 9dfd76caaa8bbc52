"""What is written around the shards of a dataset, so that people and programs find their way."""

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.croissant import shards_croissant
from tagmill.transforms.data_card import data_card

NAMES = (contract.VOCABULARY, contract.DATA_CARD, contract.CROISSANT, contract.MANIFEST)
"""The files; the manifest is written last."""


def dataset_files(manifest: contract.Manifest, vocabulary: Vocabulary) -> dict[str, bytes]:
    """Give the files around the shards that a manifest lists, by `NAMES` and in their order."""
    words = vocabulary.dump()
    texts = (
        words,
        data_card(manifest),
        shards_croissant(manifest, words),
        manifest.model_dump_json(indent=1) + "\n",
    )
    return {name: text.encode() for name, text in zip(NAMES, texts, strict=True)}
