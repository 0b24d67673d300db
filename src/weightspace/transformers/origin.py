"""Whether a file or folder holds a transformer that somebody trained, or one that was compiled; without PyTorch."""

from __future__ import annotations

from pathlib import Path

from weightspace.files.checkpoints import outlines


def is_trained_file(source: str | Path) -> bool:
    """Whether there is anything but what our compiler or Tracr names so; a folder is taken for a trained one's."""
    path = Path(source)
    if not path.is_file():
        return path.is_dir()
    if path.suffix == ".npz":
        return False
    # of nested dictionaries, as Haiku has them, each is a part of its own
    names = [".".join([*map(str, outline.part), name]) for outline in outlines(path) for name in outline.shapes]
    if any("token_embed" in name for name in names):
        return False
    # a state dict of TransformerLens without norms: compiled transformers have none
    lens = any(name.endswith("embed.W_E") for name in names)
    return not lens or any(".ln1." in name or "ln_final" in name for name in names)
