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
    return not any(name.endswith("token_embed/embeddings") for name in outlines(path)[0].shapes)
