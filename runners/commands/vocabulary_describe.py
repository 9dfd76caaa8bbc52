"""`tagmill vocab describe`: texts that say what each tag looks like, by which RAM++ knows it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system import descriptions
from tagmill.tag_system.builder import answers as asking
from tagmill.tag_system.builder import glosses
from tagmill.tag_system.core import files, secrets
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary

JOURNAL, ORIGIN = ".answers.jsonl", ".origin.json"
"""What stands in place of the output's ending: every answer as it came, and what wrote the descriptions."""


def describe(
    vocabulary: Annotated[str, typer.Argument(help="vocabulary file; a name a line will do")],
    output: Annotated[Path, typer.Option(help="the .json file to write, in the official format")],
    base_url: Annotated[
        str | None, typer.Option(help="server of OpenAI's protocol, such as http://localhost:8000/v1")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the server's language model")] = None,
    answers: Annotated[int, typer.Option(min=1, help="answers to each of the five prompts")] = 10,
    temperature: Annotated[float, typer.Option(min=0, help="of sampling")] = 0.99,
    max_tokens: Annotated[int, typer.Option(min=1, help="length of an answer")] = 77,
    concurrency: Annotated[int, typer.Option(min=1, help="requests at a time")] = 8,
    retries: Annotated[int, typer.Option(min=0, help="of a request that the server fails")] = 5,
) -> None:
    """Describe tags for `tagmill vocab embed`: by a language model, or without a server by WordNet."""
    if (base_url is None) != (model is None):
        raise ConfigError("a server needs both --base-url and --model; leave both out for WordNet's glosses")
    if output.suffix != ".json":
        raise ConfigError(f"{output}: name a .json file, beside which the answers are kept")
    secrets.check_no_secrets("--base-url", base_url)
    known = Vocabulary.load(vocabulary)
    if base_url is None or model is None:
        made, origin = _by_wordnet(known, answers)
    else:
        server = asking.Server(
            base_url, model, answers, temperature, max_tokens, concurrency=concurrency, retries=retries
        )
        made, origin = _by_server(known, server, output.with_suffix(JOURNAL))
    descriptions.write(made, output)
    origin |= {
        "tags": len(made),
        "texts": 1 + len(descriptions.PROMPTS) * answers,
        "vocabulary": known.digest,
    }
    with files.replacing(str(output.with_suffix(ORIGIN))) as partial:
        partial.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    said = f"{output}: {len(made):,} tags, {origin['texts']} texts each, by {origin['by']}"
    Terminal().print(said, markup=False, highlight=False)


def _by_wordnet(known: Vocabulary, answers: int) -> tuple[dict[str, list[str]], dict[str, Any]]:
    count = 1 + len(descriptions.PROMPTS) * answers
    made = {tag.name: glosses.describe(tag, count) for tag in known}
    unknown = [tag.name for tag in known if glosses.sense_of(tag) is None]
    return made, {"by": "WordNet's glosses and templates", "templates_alone": unknown}


def _by_server(
    known: Vocabulary, server: asking.Server, path: Path
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    names = [tag.name for tag in known]
    journal = asking.AnswerJournal(path)
    try:
        with _bar() as bar:
            total = len(names) * len(descriptions.PROMPTS)
            task = bar.add_task("", total=total)
            asking.ask(names, server, journal, lambda left: bar.update(task, completed=total - left))
        made = {name: asking.describe(name, server, journal) for name in names}
    finally:
        journal.close()
    return made, {
        "by": server.model,
        "server": server.base_url,
        "prompts": descriptions.PROMPTS,
        "temperature": server.temperature,
        "max_tokens": server.max_tokens,
    }


def _bar() -> Progress:
    """Count prompts on a terminal, and say nothing elsewhere."""
    console = Terminal(stderr=True)
    columns = TextColumn("prompts answered"), MofNCompleteColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
