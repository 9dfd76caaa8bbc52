import json
import time
from pathlib import Path

import pytest

from chat_server import completion, error, serving, several
from commands import start
from tagmill.runners.commands.vocabulary_describe import describe
from tagmill.tag_system import descriptions
from tagmill.tag_system.builder.answers import AnswerJournal
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(autouse=True)
def _local(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def tags(tmp_path):
    (tmp_path / "tags.txt").write_text("red dog\ncat\n")
    return tmp_path / "tags.txt"


def asked(chat, tags, **options):
    output = tags.with_name("out.json")
    describe(str(tags), output=output, base_url=chat.url, model="some-model", **options)
    return json.loads(output.read_text())


def test_five_prompts_of_ten_answers_in_the_official_format(tags, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving() as chat:
        found = asked(chat, tags)
    assert [list(item) for item in found] == [["red dog"], ["cat"]]
    texts = found[0]["red dog"]
    assert len(texts) == len(set(texts)) == 51
    assert texts[0] == "a photo of a red dog."
    assert texts[1].endswith("to: Describe concisely what a(n) red dog looks like:")
    assert texts[50].endswith("visual characteristics of red dog:")
    assert descriptions.read(tags.with_name("out.json"), ["cat"])[0][0] == "a photo of a cat."
    assert len(chat.requests) == 10
    assert chat.keys == {"Bearer secret"}
    first = chat.requests[0]
    said = {name: first[name] for name in ("model", "n", "temperature", "max_tokens")}
    assert said == {"model": "some-model", "n": 10, "temperature": 0.99, "max_tokens": 77}
    assert "2 tags, 51 texts each, by some-model" in capsys.readouterr().out
    origin = json.loads(tags.with_name("out.origin.json").read_text())
    assert (origin["by"], origin["texts"]) == ("some-model", 51)


def test_nothing_is_asked_twice_and_new_tags_and_models_are(tags):
    with serving() as chat:
        first = asked(chat, tags)
        assert asked(chat, tags) == first
        assert len(chat.requests) == 10
        with tags.open("a") as stream:
            stream.write("bird\n")
        assert asked(chat, tags)[:2] == first
        assert len(chat.requests) == 15
        describe(str(tags), output=tags.with_name("out.json"), base_url=chat.url, model="other")
        assert len(chat.requests) == 30


def test_a_killed_call_goes_on_where_it_was(tags):
    def slowly(request, number):
        time.sleep(0.05 if number < 7 else 60)
        return several(request, number)

    journal = tags.with_name("out.answers.jsonl")
    output = ["--output", tags.with_name("out.json"), "--model", "m", "--concurrency", 1]
    with serving(slowly) as chat:
        process = start("vocab", "describe", tags, *output, "--base-url", chat.url)
        while len(chat.requests) < 7:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.kill()
        process.communicate()
        chat.reply = several
        assert not tags.with_name("out.json").exists()
        with journal.open("a") as stream:
            stream.write('{"key": "cut of')
        before = len(chat.requests)
        describe(str(tags), output=tags.with_name("out.json"), base_url=chat.url, model="m")
        assert len(chat.requests) - before == 4
    lines = [line for line in journal.read_text().splitlines() if line != '{"key": "cut of']
    assert len([json.loads(line) for line in lines]) == 10


def test_what_separates_lines_elsewhere_loses_no_answer(tags, tmp_path):
    odd = "a \u2028b \u2029c \x85d \x0b\x0c\x1c\x1d\x1e e"
    with serving() as chat:
        for _ in range(2):
            describe(str(tags), output=tags.with_name("out.json"), base_url=chat.url, model=odd)
            assert len(chat.requests) == 10
    journal = AnswerJournal(tmp_path / "answers.jsonl")
    journal.add("key", odd, odd, [odd, "f"])
    journal.close()
    assert AnswerJournal(tmp_path / "answers.jsonl").answers("key") == [odd, "f"]


def test_a_password_is_neither_taken_nor_written(tags, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-clear-0123456789")
    monkeypatch.setenv("CHAT_WORD", "hunter2hunter2")
    output = tags.with_name("out.json")
    with serving(lambda request, number: error(401, "wrong key sk-clear-0123456789")) as chat:
        clear = chat.url.replace("http://", "http://me:hunter2hunter2@")
        with pytest.raises(ConfigError, match="--base-url looks like a secret in clear"):
            describe(str(tags), output=output, base_url=clear, model="m")
        referring = clear.replace("hunter2hunter2", "${ENV:CHAT_WORD}")
        with pytest.raises(ConfigError, match="refuses") as raised:
            describe(str(tags), output=output, base_url=referring, model="m")
        assert "sk-clear" not in str(raised.value)
        chat.reply = several
        describe(str(tags), output=output, base_url=referring, model="m")
    written = "".join(path.read_text() for path in tags.parent.iterdir())
    assert "hunter2" not in written
    assert "sk-clear" not in written
    assert "${ENV:CHAT_WORD}" in written


def test_a_server_that_fails_now_and_then_is_asked_again(tags):
    def sometimes(request, number):
        return {1: error(429, "slow down"), 2: error(500, "oh"), 3: error(503, "no")}.get(
            number % 4, several(request, number)
        )

    with serving(sometimes) as chat:
        assert len(asked(chat, tags, concurrency=1)[0]["red dog"]) == 51
    assert len(chat.requests) == 40


@pytest.mark.parametrize("refuses", [True, False], ids=["says-so", "silent"])
def test_a_server_of_one_answer_at_a_time_is_asked_more_often(tags, refuses):
    def single(request, number):
        if refuses and request["n"] > 1:
            return error(400, "n must be 1")
        return several({**request, "n": 1}, number)

    with serving(single) as chat:
        assert len(asked(chat, tags, answers=3)[1]["cat"]) == 16
        assert len([request for request in chat.requests if request["n"] == 1 or not refuses]) >= 30


def test_answers_that_will_not_do_are_asked_again(tags):
    def carelessly(request, number):
        prompt = request["messages"][0]["content"]
        bad = [
            "",
            "a  cat",
            None,
            "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but no.",
            "As an AI language model, I see no dogs.",
            prompt,
        ]
        bad += [
            "word " * 300,
            "<think> well then, what is a dog",
            "the same small animal",
            "The same small  animal",
            "half of a \ud83d face",
        ]
        odd = [b"{not json", b"<html>busy</html>", {"object": "list"}, {"choices": [{"message": None}]}]
        turn = number % 6
        if turn < 4:
            return 200, odd[turn]
        return completion(bad) if turn == 4 else several(request, number)

    with serving(carelessly) as chat:
        found = asked(chat, tags, concurrency=1)
    for text in (text for item in found for texts in item.values() for text in texts[1:]):
        assert text.startswith("answer") or text in ("the same small animal", "half of a ? face")
    assert all(len(texts) == 51 for item in found for texts in item.values())


def test_a_server_that_repeats_itself_is_given_up_and_the_rest_is_kept(tags):
    def stubborn(request, number):
        prompt = request["messages"][0]["content"]
        if "identify a(n) cat" in prompt:
            return completion(["always this one answer"] * request["n"])
        return several(request, number)

    with serving(stubborn) as chat:
        with pytest.raises(
            ConfigError, match=r"1 prompts did not get 10 good answers.*a\(n\) cat.*1 good; the same"
        ):
            asked(chat, tags)
        assert not tags.with_name("out.json").exists()
        before, chat.reply = len(chat.requests), several
        assert "always this one answer" in asked(chat, tags)[1]["cat"]
        assert len(chat.requests) - before == 1


def test_requests_at_a_time_are_bounded(tags):
    def slowly(request, number):
        time.sleep(0.02)
        return several(request, number)

    with serving(slowly) as chat:
        asked(chat, tags, concurrency=3)
    assert 2 <= chat.most_at_once <= 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (error(401, "who?"), "refuses .*who.*set OPENAI_API_KEY"),
        (error(404, "no such model"), "no such model.*check --base-url and --model"),
        (error(400, "max_tokens is not supported"), "max_tokens is not supported.*check the options"),
        (error(500, "broken"), "broken.*run again"),
    ],
    ids=["key", "model", "option", "broken"],
)
def test_a_server_that_refuses_is_one_line(tags, reply, message):
    with serving(lambda request, number: reply) as chat, pytest.raises(ConfigError, match=message) as raised:
        asked(chat, tags, retries=1)
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_is_one_line(tags):
    message = r"^cannot reach http://127\.0\.0\.1:9/v1, model m \(.*\); what was answered is kept: run again$"
    with pytest.raises(ConfigError, match=message):
        describe(
            str(tags),
            output=tags.with_name("out.json"),
            base_url="http://127.0.0.1:9/v1",
            model="m",
            retries=0,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "http://127.0.0.1:9"}, "both --base-url and --model"),
        ({"model": "m"}, "both --base-url and --model"),
        ({"output": Path("out.txt")}, r"name a \.json file"),
        (
            {"base_url": "http://localhost:80OO/v1", "model": "m"},
            "'http://localhost:80OO/v1' is not an address",
        ),
    ],
    ids=["no-model", "no-server", "no-json", "no-port"],
)
def test_bad_usage_is_said(tags, options, message):
    with pytest.raises(ConfigError, match=message):
        describe(str(tags), **{"output": tags.with_name("out.json"), **options})
