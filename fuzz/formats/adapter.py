"""Adapters (LoRA): names of their arrays, and a configuration beside them that is damaged, deep, a link or a pipe."""

from __future__ import annotations

import json
import random

from fuzz.archives import build
from fuzz.case import Case, Odd
from fuzz.draws import array, spoiled, text
from fuzz.formats.safetensors import packed
from fuzz.torchfiles import sound

WORDS = ("lora_A", "lora_B", "lora_up", "lora_down", "lora_embedding_A", "lora_A.default", "lora_", "xlora_A", "LORA_A")
CONFIG = "adapter_config.json"


def make(drawn: random.Random) -> Case:
    """An adapter, and its configuration."""
    layers = [f"base_model.model.layers.{number}.q_proj" for number in range(drawn.randint(1, 3))]
    arrays = {f"{layer}.{drawn.choice(WORDS)}.weight": array(drawn) for layer in layers}
    if drawn.random() < 0.3:
        arrays[text(drawn, "lora_A.weight").encode("utf-8", "ignore").decode()] = array(drawn)
    zipped = drawn.random() < 0.3
    name = "adapter_model.bin" if zipped else "adapter_model.safetensors"
    content = build(sound(arrays), 64) if zipped else packed(arrays)
    base = drawn.choice(("meta/model", "", text(drawn), 3, None, ["x"], "n" * 9999))
    said = json.dumps({"base_model_name_or_path": base, "r": 8}).encode()
    kind, files, odds = drawn.randrange(8), {name: content}, {}
    if kind == 0:
        odds = {CONFIG: drawn.choice((Odd("fifo"), Odd("folder"), Odd("link", "/dev/zero"), Odd("link", CONFIG)))}
    elif kind == 1:
        odds = {CONFIG: Odd("sparse", 2**33, b"{")}
    elif kind == 2:
        files[CONFIG] = drawn.choice((b"", b"[]", b"{", b"[" * 99_999, b'{"a":' * 99_999, b"\xff\xfe", b"null"))
    elif kind == 3:
        files[CONFIG] = spoiled(drawn, said)
    elif kind == 4:
        files[name], files[CONFIG] = spoiled(drawn, content), said
    elif kind < 7:
        files[CONFIG] = said
    return Case("adapter", name, files, odds, (f"config {kind}",))
