import json

from sources import write_squares
from square_models import SquareCaptioner
from stage_runs import Bench, shared
from tagmill.transforms.caption import SCHEMA, Caption, CaptionConfig
from tagmill.transforms.parse import Parse, ParseConfig

CAPTIONER = "square_models:SquareCaptioner"


def test_captions_are_written_and_parsed(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 5))
    (part,) = bench.run(Caption(CaptionConfig(model=CAPTIONER), bench.shared))
    assert part.table.schema.equals(SCHEMA)
    assert [r["row"] for r in part.records] == [0, 1, 2, 3, 4]
    (parsed,) = bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
    for record, example in zip(part.records, bench.part("ingest").records, strict=True):
        names = json.loads(example["meta"])["truth"]
        (generated,) = [r for r in parsed.of_row(record["row"]) if r["source"] == "generated"]
        assert generated["caption_index"] == 0
        assert sorted(m["tag"] for m in generated["mentions"]) == sorted(names)
        for mention in generated["mentions"]:
            assert record["caption"][mention["start"] : mention["end"]] == mention["surface"]


def test_generated_tags_become_candidates(tmp_path):
    bench = Bench(tmp_path / "run")
    bench.ingest(write_squares(tmp_path / "a.tar", 3))
    bench.run(Caption(CaptionConfig(model=CAPTIONER), bench.shared))
    bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
    (found,) = bench.candidates()
    for example in bench.part("ingest").records:
        names = json.loads(example["meta"])["truth"]
        generated = {r["tag"]: r["generated"] for r in found.of_row(example["row"])}
        assert generated == dict.fromkeys(names, 1)


def test_the_model_is_the_spec_and_no_parser_or_vocabulary():
    spec = Caption(CaptionConfig(model=CAPTIONER, batch_size=3), shared()).spec
    assert spec == {"config": {"model": CAPTIONER}, "model": SquareCaptioner().fingerprint()}
    assert json.loads(json.dumps(spec)) == spec
