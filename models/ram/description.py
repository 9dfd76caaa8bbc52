"""What a config says of a model, in words."""

from collections import Counter

from tagmill.models.ram.config import IMAGENET_MEAN, IMAGENET_STD, RamConfig

NEVER = 1.0
"""A score is a sigmoid: it never exceeds this threshold."""


def described(config: RamConfig) -> dict[str, str]:
    """Say what a model is, part by part; its classes are counted and not named."""
    head = config.head
    imagenet = " (ImageNet)" if (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD) else ""
    return {
        "kind": config.kind,
        "image": f"{config.image_size} x {config.image_size}, resized {config.resize}",
        "normalisation": f"mean {_numbers(config.mean)}, std {_numbers(config.std)}{imagenet}",
        "encoder": f"{config.encoder.name}, {config.encoder.width} wide",
        "head": f"{head.layers} layers of {head.heads} heads, {head.hidden} wide",
        "text side": _text_side(config),
        "classes": classes_counted(config),
        "thresholds": _thresholds(config.thresholds),
        "vocabulary": config.vocabulary or "not named",
    }


def classes_counted(config: RamConfig) -> str:
    """Count the classes, and the descriptions of each if there are several."""
    each = f" x {config.descriptions} descriptions" if config.descriptions > 1 else ""
    return f"{len(config.classes):,} classes{each}"


def _text_side(config: RamConfig) -> str:
    if config.text is None:
        return "none"
    aligned = (
        "" if config.alignment is None else f", aligned with images in {config.alignment.dimension} numbers"
    )
    return f"{config.text.layers} layers, {config.text.tokens:,} tokens{aligned}"


def _thresholds(thresholds: tuple[float, ...] | None) -> str:
    if thresholds is None:
        return "none"
    never = sum(threshold >= NEVER for threshold in thresholds)
    (usual, count), *_ = Counter(thresholds).most_common(1)
    said = f"{min(thresholds):g} to {max(thresholds):g}, {usual:g} for {count:,} classes"
    return f"{said}; {never} of 1 never fire" if never else said


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
