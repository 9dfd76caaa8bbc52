import pytest

from tagmill.models.ram.word_pieces import WordPieces
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(scope="module")
def pieces(golden):
    return WordPieces(golden.path("vocab.txt"))


def test_captions_begin_with_the_prompt_and_are_cut(golden, pieces):
    data, texts = golden.tensors("tag2text_expected"), golden.values("tag2text_expected")["texts"]
    assert pieces.count == 370
    assert pieces.prompt == [368, 104, 108, 107]
    ids, mask = data["train.decoder_input_ids"], data["train.decoder_attention_mask"].bool()
    for row, kept, text in zip(ids, mask, texts, strict=True):
        ours = pieces.caption(text.removeprefix("a picture of "))
        assert ours == row[kept].tolist()
        assert pieces.caption(text.removeprefix("a picture of "), 6) == [*ours[:5], pieces.end]


def test_tags_are_padded_or_cut_to_forty(golden, pieces):
    data, inputs = golden.tensors("tag2text_expected"), golden.tensors("inputs")
    names = golden.values("config")["tag_list"]
    for row, chosen in zip(data["train.tag_input_ids"], inputs["parse_tag"], strict=True):
        ours = pieces.tags([names[i] for i in chosen.nonzero().flatten()])
        assert ours == row.tolist()
        assert len(ours) == 40
    assert pieces.tags([])[:3] == [369, pieces.end, 0]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "dog", "."], "a dog."),
        (["the", "man", "'", "s", "dog", "!"], "the man's dog!"),
        (["two", "##s", "cat", "##s"], "twos cats"),
        (["[UNK]", "dog", "[PAD]"], "dog"),
    ],
    ids=["stop", "apostrophe", "pieces", "special"],
)
def test_decoding_joins_what_belongs_together(tmp_path, words, text):
    path = tmp_path / "vocab.txt"
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", *dict.fromkeys(words)]
    lines = list(dict.fromkeys(lines))
    path.write_text("\n".join(lines) + "\n")
    ids = [lines.index(word) for word in words]
    pieces = WordPieces(path)
    assert pieces.text([*pieces.prompt, *ids, pieces.end]) == text


@pytest.mark.parametrize("content", [None, "[PAD]\n[UNK]\ndog\n"], ids=["no-file", "no-pieces"])
def test_what_is_no_vocabulary_is_refused(tmp_path, content):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"cannot read .*vocab|it has no \[CLS\], \[SEP\], \[MASK\]"):
        WordPieces(path)
