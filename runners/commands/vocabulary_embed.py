"""`tagmill vocab embed`: label embeddings of a vocabulary, by which a tagger gets it as its classes."""

from pathlib import Path
from typing import Annotated

import typer

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system import descriptions as texts_of_tags
from tagmill.tag_system.vocabulary import Vocabulary


def embed(
    vocabulary: Annotated[str, typer.Argument(help="vocabulary file; a name a line will do")],
    clip: Annotated[str, typer.Option(help="local-dir:FOLDER, hf-hub:OWNER/NAME, or ViT-B-16-quickgelu")],
    output: Annotated[Path, typer.Option(help="the .safetensors file to write")],
    pretrained: Annotated[str | None, typer.Option(help="weights of an architecture: FILE or openai")] = None,
    descriptions: Annotated[
        Path | None, typer.Option(help="for RAM++: JSON list of {name: [description, ...]}")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Embed tags for `tagmill models relabel`, by their names (RAM) or their descriptions (RAM++)."""
    from tagmill.models.open_clip import OpenClip
    from tagmill.models.ram import labels

    known = Vocabulary.load(vocabulary)
    names = [tag.name for tag in known]
    model = OpenClip(clip, pretrained=pretrained, device=device)
    described = None if descriptions is None else texts_of_tags.read(descriptions, names)
    texts = [texts_of_tags.sentences(name) for name in names] if described is None else described
    digest = labels.digest_of(model, texts, averaged=described is None)
    console = Terminal()
    old = labels.load(output) if output.exists() else None
    if old is not None and old.digest == digest:
        vectors = old.embeddings
        if (old.classes, old.vocabulary) == (tuple(names), known.digest):
            console.print(f"{output}: up to date", markup=False, highlight=False)
            return
    else:
        model.load()
        vectors = (
            labels.embed_names(names, model)
            if described is None
            else labels.embed_descriptions(described, model)
        )
    labels.save(labels.Labels(tuple(names), vectors, digest, known.digest), output)
    said = f"{output}: {len(names):,} tags, {len(vectors):,} vectors of {vectors.shape[1]} numbers"
    console.print(said, markup=False, highlight=False)
