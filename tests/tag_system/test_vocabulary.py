import pickle
from pathlib import Path

import pytest

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import KINDS
from tagmill.tag_system.vocabulary import Origin, Tag, Vocabulary, normalize_name

COCO = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,
parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,
handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,
surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,
broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,
mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,
teddy bear,hair drier,toothbrush
"""


@pytest.fixture(scope="module")
def built_in() -> Vocabulary:
    return Vocabulary.load()


def test_built_in_holds_every_coco_name(built_in: Vocabulary) -> None:
    names = [name.strip() for name in COCO.split(",")]
    assert len(names) == 80
    assert [name for name in names if name not in built_in] == []


def test_built_in_has_ids_in_order_and_all_kinds(built_in: Vocabulary) -> None:
    assert [tag.id for tag in built_in] == list(range(len(built_in)))
    assert {tag.kind for tag in built_in} == set(KINDS)
    assert sum(1 + len(tag.aliases) for tag in built_in) == 6449
    assert 4500 < len(built_in) < 4900
    assert built_in[3] is list(built_in)[3]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        pytest.param("Sofa", "couch", id="alias"),
        pytest.param("  Hot_Dog ", "hot dog", id="underscore, case and spaces"),
        pytest.param("t shirt", "t-shirt", id="hyphen"),
        pytest.param("TEDDY\u2011BEAR", "teddy bear", id="unicode hyphen"),
        pytest.param("couch", "couch", id="name"),
        pytest.param("quux", None, id="unknown"),
        pytest.param("", None, id="empty"),
    ],
)
def test_resolve(built_in: Vocabulary, name: str, tag: str | None) -> None:
    found = built_in.resolve(name)
    assert (found.name if found else None) == tag
    assert (name in built_in) == (tag is not None)


def test_built_in_file_round_trips(built_in: Vocabulary, tmp_path: Path) -> None:
    text = built_in.dump()
    copy = tmp_path / "copy.tsv"
    copy.write_text(text, encoding="utf-8")
    again = Vocabulary.load(str(copy))
    assert again.dump() == text
    assert again.digest == built_in.digest
    assert list(again) == list(built_in)


def test_plain_list_of_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbfdog\r\n\r\n# pets\r\ncat \r\n")
    assert list(Vocabulary.load(str(path))) == [Tag(0, "dog", "object"), Tag(1, "cat", "object")]


def test_origin_is_kept_and_is_of_no_digest() -> None:
    line = "dog\tobject\tpup\t0\tdog.n.01\tcanine|animal\tcaptions:12|coco\tcategories\t\u72d7\t0.65"
    tag = Vocabulary.from_text(line, "v.tsv")[0]
    assert tag.origin == Origin(
        "dog.n.01", ("canine", "animal"), ("captions:12", "coco"), "categories", "\u72d7", 0.65
    )
    assert Vocabulary([tag]).dump().endswith(f"\n{line}\n")
    assert Vocabulary([tag]).digest == Vocabulary.from_text("dog\tobject\tpup", "v").digest


def test_digest_covers_content_and_order_only() -> None:
    def digest(text: str) -> str:
        return Vocabulary.from_text(text, "v.tsv").digest

    base = digest("dog\tobject\tpuppy\nred\tattribute\n")
    assert digest("# other header\n\ndog\tobject\tpuppy\nred\tattribute") == base
    others = ["red\tattribute\ndog\tobject\tpuppy", "dog\tobject\nred\tattribute"]
    others += ["dog\tobject\tpup\nred\tattribute", "dog\tscene\tpuppy\nred\tattribute"]
    assert len({base, *map(digest, others)}) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("dog\ncat\nDog\n", r"v.tsv:3: 'Dog' repeats .* v.tsv:1", id="duplicate"),
        pytest.param("t-shirt\nt shirt", r"v.tsv:2: 't shirt' repeats", id="same but for hyphen"),
        pytest.param("dog\tobject\tcat\ncat", r"v.tsv:1: the alias 'cat' .*v.tsv:2", id="shadows"),
        pytest.param("a\tobject\tx\nb\tobject\tX", r"v.tsv:2: the alias 'X'", id="alias twice"),
        pytest.param("dog\tobject\tdog", r"v.tsv:1: the alias 'dog'", id="alias of itself"),
        pytest.param("# names\n\tobject", r"v.tsv:2: empty name", id="empty name"),
        pytest.param("dog\tobject\tpup||doggy", r"v.tsv:1: empty name or alias", id="empty alias"),
        pytest.param("dog\tthing", r"v.tsv:1: unknown kind 'thing'.*object", id="unknown kind"),
        pytest.param("a" + "\t" * 10, r"v.tsv:1: 11 columns", id="columns"),
        pytest.param("a\t\t\t0\nb\t\t\t2", r"v.tsv:2: the id is '2' where 1 is due", id="id"),
        pytest.param("a" + "\t" * 9 + "high", r"v.tsv:1: the threshold 'high'", id="threshold"),
        pytest.param("a|b", r"v.tsv:1: 'a\|b' may not hold", id="bar in a name"),
        pytest.param("# nothing\n", r"v.tsv: the vocabulary has no tags", id="no tags"),
    ],
)
def test_bad_files_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Vocabulary.from_text(text, "v.tsv")


def test_unreadable_files_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the vocabulary .*none\.txt"):
        Vocabulary.load(str(tmp_path / "none.txt"))
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Vocabulary.load(str(binary))


def test_ids_of_tags_made_in_code_are_checked() -> None:
    with pytest.raises(ConfigError, match="ids must count from 0"):
        Vocabulary([Tag(1, "dog", "object")])
    assert Vocabulary([Tag(0, "dog", "object")]).dump().endswith("dog\tobject\n")


def test_a_pickle_of_the_built_in_names_it_and_one_of_another_holds_it(built_in: Vocabulary) -> None:
    named = pickle.dumps(built_in)
    assert len(named) < 300
    assert pickle.loads(named) is built_in
    own = Vocabulary([Tag(0, "dog", "object", ("puppy",), Origin(rule="mine", threshold=1 / 3))])
    back = pickle.loads(pickle.dumps(own))
    assert list(back) == list(own)
    assert back.resolve("Puppy") == own[0]
    with pytest.raises(ConfigError, match="install one version of tagmill for both"):
        pickle.loads(named.replace(built_in.digest.encode(), own.digest.encode()))


def test_normalize_name() -> None:
    assert normalize_name(" Fire__Hydrant \u2013 RED ") == "fire hydrant red"
