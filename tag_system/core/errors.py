"""The project's own exceptions: bad data, bad configuration, a changed input."""

from enum import StrEnum

from tagmill.tag_system.core.redaction import redacted


class Reason(StrEnum):
    """Why an example, a caption or a field became a dead letter; a closed list, counted in the reports."""

    IMAGE_MISSING = "image_missing"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_FORMAT = "image_format"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_THIN = "image_too_thin"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_CHANGED = "image_changed"
    MEMBER_TOO_LARGE = "member_too_large"
    SOURCE_UNREADABLE = "source_unreadable"
    SOURCE_TRUNCATED = "source_truncated"
    LINK_REFUSED = "link_refused"
    RECORD_INVALID = "record_invalid"
    RECORD_TOO_LARGE = "record_too_large"
    KEY_INVALID = "key_invalid"
    KEY_REPEATED = "key_repeated"
    LABEL_INVALID = "label_invalid"
    SPLIT_INVALID = "split_invalid"
    META_INVALID = "meta_invalid"
    CAPTION_EMPTY = "caption_empty"
    CAPTION_NOT_TEXT = "caption_not_text"
    CAPTION_TOO_LONG = "caption_too_long"
    CAPTIONS_TOO_MANY = "captions_too_many"
    MODEL_FAILED = "model_failed"
    PROCESS_DIED = "process_died"


class DataError(Exception):
    """Bad data: the example or caption becomes a dead letter and the run goes on.

    `reason` is counted, `detail` is for the person who looks at the one case.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = redacted(detail)  # it is written down
        super().__init__(reason, self.detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class ConfigError(Exception):
    """Bad usage or configuration; the message says in one line what to do. Exit code 2.

    Several things that are wrong are several arguments, a line each.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class StoppedError(RuntimeError):
    """The machine or a model of the run does not let it go on; one line says why. Exit code 1."""


class TooManyDeadError(Exception):
    """A stage lost more of its input than `max_dead_fraction` allows. Exit code 3."""


class InputChangedError(Exception):
    """A source file changed under a run that had already read it. Exit code 4."""


class DamageError(Exception):
    """Stored data does not match its recorded digest. Exit code 5."""
