import json

from sources import write_squares
from stage_runs import Bench, shared
from tagmill.transforms.candidates import gather
from tagmill.transforms.caption import SCHEMA, Caption, CaptionConfig
from tagmill.transforms.clean import Clean, CleanConfig

CAPTIONER = "square_models:SquareCaptioner"


def test_captions_are_written_and_parsed(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 5))
    (part,) = bench.run(Caption(CaptionConfig(model=CAPTIONER), bench.shared))
    assert part.table.schema.equals(SCHEMA)
    assert [r["row"] for r in part.records] == [0, 1, 2, 3, 4]
    for record, example in zip(part.records, bench.part("ingest").records, strict=True):
        names = json.loads(example["meta"])["truth"]
        assert sorted(m["tag"] for m in record["mentions"]) == sorted(names)
        for mention in record["mentions"]:
            assert record["caption"][mention["start"] : mention["end"]] == mention["surface"]


def test_generated_tags_become_candidates(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 3))
    bench.run(Caption(CaptionConfig(model=CAPTIONER), bench.shared))
    inputs = bench.inputs(Clean(CleanConfig(), bench.shared))
    found = gather(inputs, bench.shared.vocabulary, 0.3)
    for row, candidates in found.items():
        names = json.loads(inputs.examples[row]["meta"])["truth"]
        assert {tag: sources.generated for tag, sources in candidates.items()} == dict.fromkeys(names, 1)


def test_the_parser_is_part_of_the_meaning():
    meaning = Caption(CaptionConfig(model=CAPTIONER), shared()).meaning
    assert set(meaning) == {"config", "model", "parser", "vocabulary"}
    assert json.loads(json.dumps(meaning)) == meaning
