"""Descriptions of tags by a language model, from any server of OpenAI's protocol (arXiv 2310.15200, 3.3).

Every answer goes into a journal before the next question is asked, so a call that is stopped, or killed, asks
only what is missing when it comes again.
"""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmill.tag_system import descriptions
from tagmill.tag_system.core import secrets
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.redaction import redacted, remember
from tagmill.tag_system.core.text import parse_json

PATIENCE = 5
"""Requests in a row that bring no new answer to a prompt before it is given up."""

API_KEY = "OPENAI_API_KEY"
"""The environment variable that the client reads; servers of one's own mostly want none."""


@dataclass(frozen=True)
class Server:
    """Who is asked, and how; the sampling is that of the official code."""

    base_url: str
    model: str
    answers: int = descriptions.ANSWERS
    temperature: float = 0.99
    max_tokens: int = 77
    concurrency: int = 8
    retries: int = 5
    timeout: float = 120

    def key(self, prompt: str) -> str:
        """Name a prompt and all that decides how it is answered, but for the place of the server."""
        content = json.dumps([self.model, self.temperature, self.max_tokens, prompt])
        return hashlib.sha256(content.encode()).hexdigest()


class AnswerJournal:
    """Answers by key, in a file of JSON lines to which lines are only ever added. For many threads.

    A line that a killed process did not finish is passed over. Raises ConfigError if the file cannot be
    read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._answers: dict[str, list[str]] = {}
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for line in text.split("\n"):  # an answer may hold what str.splitlines takes for a line's end
                self._take(line)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
            self._file.write("\n" if text and not text.endswith("\n") else "")
        except OSError as error:
            raise ConfigError(f"cannot keep answers in {path}: {error.strerror}") from error

    def answers(self, key: str) -> list[str]:
        """Give the answers so far, in the order in which they came."""
        with self._lock:
            return list(self._answers.get(key, ()))

    def add(self, key: str, prompt: str, model: str, answers: Sequence[str]) -> None:
        """Keep answers; they are in the file when this returns. Prompt and model are for who reads it."""
        line = {"key": key, "model": model, "prompt": prompt, "answers": list(answers)}
        with self._lock:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
            self._answers.setdefault(key, []).extend(answers)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self, line: str) -> None:
        try:
            found = parse_json(line)
            self._answers.setdefault(found["key"], []).extend(map(str, found["answers"]))
        except (ValueError, KeyError, TypeError):
            return


def prompts(name: str) -> list[str]:
    """The questions about a tag."""
    return [prompt.format(name=name) for prompt in descriptions.PROMPTS]


def ask(
    names: Sequence[str],
    server: Server,
    journal: AnswerJournal,
    progress: Callable[[int], None] = lambda left: None,
) -> None:
    """Ask all that the journal does not hold yet, a bounded number of requests at a time.

    `progress` is called after every prompt with the number of prompts left. Raises ConfigError if the server
    cannot be reached, refuses, or goes on failing, and at the end if it had no good answers to some prompts;
    what came is kept.
    """
    asker = _Asker(server, journal)
    left = [
        p for name in names for p in prompts(name) if len(journal.answers(server.key(p))) < server.answers
    ]
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(server.concurrency) as pool:
        jobs = {pool.submit(asker.answer, prompt): prompt for prompt in left}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                if reason := job.result():
                    failed[jobs[job]] = reason
                progress(len(jobs) - done)
        finally:
            asker.stop()
            pool.shutdown(cancel_futures=True)
    if failed:
        prompt, reason = next(iter(failed.items()))
        raise ConfigError(
            f"{len(failed)} prompts did not get {server.answers} good answers, such as {prompt!r}: {reason}; "
            "the others are kept, so run again, with another --model or a higher --temperature"
        )


def describe(name: str, server: Server, journal: AnswerJournal) -> list[str]:
    """Give a tag's texts, in the official order; all its prompts must be answered."""
    answered = (journal.answers(server.key(prompt))[: server.answers] for prompt in prompts(name))
    return [descriptions.first_sentence(name), *(text for texts in answered for text in texts)]


class _Asker:
    """Answers prompts through one client, which many threads may share."""

    def __init__(self, server: Server, journal: AnswerJournal) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError("asking a server needs openai: pip install 'tagmill[describe]'") from error
        self._errors = openai
        self._server, self._journal = server, journal
        self._several, self._stopped = True, False
        try:
            self._client = openai.OpenAI(
                base_url=secrets.resolve_text(server.base_url),
                api_key=_key(),
                max_retries=server.retries,
                timeout=server.timeout,
            )
        except ConfigError:
            raise
        except Exception as error:  # of the client's own library for addresses
            raise ConfigError(f"--base-url {server.base_url!r} is not an address: {error}") from error

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped = True

    def answer(self, prompt: str) -> str | None:
        """Ask until there are enough good answers; say why if there are not."""
        key, patience = self._server.key(prompt), PATIENCE
        have = self._journal.answers(key)
        faults: Counter[str] = Counter()
        while len(have) < self._server.answers and patience and not self._stopped:
            new: list[str] = []
            for text in self._request(prompt, self._server.answers - len(have)):
                if fault := descriptions.fault(text, prompt, [*have, *new]):
                    faults[fault] += 1
                else:
                    new.append(text)
            new = new[: self._server.answers - len(have)]
            if new:
                self._journal.add(key, prompt, self._server.model, new)
                have += new
            patience = PATIENCE if new else patience - 1
        if len(have) >= self._server.answers or self._stopped:
            return None
        said = ", ".join(f"{fault} {count} times" for fault, count in faults.most_common())
        return f"{len(have)} good; {said or 'no text in what the server sends'}"

    def _request(self, prompt: str, count: int) -> list[str]:
        """Send one request; give the texts in it, none if it is malformed."""
        several = self._several and count > 1
        try:
            response: Any = self._client.chat.completions.create(
                model=self._server.model,
                messages=[{"role": "user", "content": prompt}],
                n=count if several else 1,
                temperature=self._server.temperature,
                max_tokens=self._server.max_tokens,
            )
        except (self._errors.BadRequestError, self._errors.UnprocessableEntityError) as error:
            if not several:
                raise ConfigError(self._explain(error)) from error
            self._several = False  # many servers give one answer a request, and some say so
            return self._request(prompt, 1)
        except self._errors.APIResponseValidationError:
            return []
        except self._errors.OpenAIError as error:
            raise ConfigError(self._explain(error)) from error
        except ValueError:  # no JSON
            return []
        return list(_texts(response))

    def _explain(self, error: Exception) -> str:
        status = getattr(error, "status_code", None)
        said = " ".join(redacted(str(error)).split())[:300]
        where = f"{self._server.base_url}, model {self._server.model}"
        if status is None:
            return f"cannot reach {where} ({said}); what was answered is kept: run again"
        advice = {401: f"set {API_KEY}", 403: f"set {API_KEY}", 404: "check --base-url and --model"}
        kept = (
            "what was answered is kept: run again" if status == 429 or status >= 500 else "check the options"
        )
        return f"{where} refuses ({said}); {advice.get(status, kept)}"


def _key() -> str:
    """Give the server's key, which no message may quote."""
    key = os.environ.get(API_KEY) or "none"
    if key != "none":
        remember(key, f"${API_KEY}")
    return key


def _texts(response: Any) -> Iterator[str]:
    """Find the answers in a response, which need not be what the protocol says."""
    for choice in getattr(response, "choices", None) or ():
        content = getattr(getattr(choice, "message", None), "content", None)
        if isinstance(content, str):  # half of a surrogate pair is not a character
            yield " ".join(content.encode("utf-8", "replace").decode().split())
