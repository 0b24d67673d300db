"""The page of a decompilation: its size, its first paint and a hover in Chromium, for a program of twenty lines."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.lifter import long
from benchmarks.record import keep
from tests.pages import chromium
from weightspace.decompiler.decompile import decompile
from weightspace.decompiler.page import write_decompilation
from weightspace.decompiler.proof.verify import permuted
from weightspace.rasp.compiler.assemble import compile_program
from weightspace.rasp.compiler.bare import BareTransformer

ROUNDS = 5
"""Of the program: four lines each, and one more."""
LOADS = 7
"""Times that the page is opened; the first one, with a cold browser, counts as well."""

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
# From the event to the frame after it: what a person waits for
HOVER = """
async () => {
  const times = [];
  for (const button of document.querySelectorAll('.listing button[data-line]')) {
    const start = performance.now();
    button.dispatchEvent(new PointerEvent('pointerover', { bubbles: true, pointerType: 'mouse' }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - start);
  }
  return times;
}
"""


def measured(file: Path) -> dict[str, Any]:
    """Medians and the largest, in milliseconds, over several loads of a page and all lines of its program."""
    paints: list[float] = []
    ready: list[float] = []
    hovers: list[float] = []
    with chromium.browser() as running:
        windows = chromium.Windows(running)
        for _ in range(LOADS):
            start = time.perf_counter()
            page = windows.open(file, ready="html.alive")
            ready.append(1000 * (time.perf_counter() - start))
            page.wait_for_function(f"({PAINT}) !== null")
            paints.append(page.evaluate(PAINT))
            hovers += page.evaluate(HOVER)
    paints, hovers = sorted(paints), sorted(hovers)
    return {
        "first_paint_ms": round(paints[len(paints) // 2], 1),
        "first_paint_ms_largest": round(paints[-1], 1),
        "window_to_interactive_ms": round(sorted(ready)[len(ready) // 2], 1),
        "hover_ms": round(hovers[len(hovers) // 2], 1),
        "hover_ms_95%": round(hovers[int(0.95 * (len(hovers) - 1))], 1),
        "hovers": len(hovers),
    }


def main() -> None:
    reason = chromium.missing()
    if reason:
        print(f"pages: nothing is measured: {reason}")
        return
    program = long(5, 5, ROUNDS)
    bare = permuted(BareTransformer.of(compile_program(program)), 1)
    found = decompile(bare, budget=120.0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        start = time.perf_counter()
        write_decompilation(found, bare, file, name="long")
        seconds = time.perf_counter() - start
        size = file.stat().st_size
        figures = measured(file)
    keep(
        "pages",
        {
            "lines": len(program),
            "parameters": bare.size,
            "status": found.status,
            "page_bytes": size,
            "seconds_to_write": round(seconds, 2),
            **figures,
            "load": round(os.getloadavg()[0], 1),  # of the machine: paints and hovers wait for a core
            "targets": "under 1.5 MB, first paint under 1 s, hover under 50 ms",
        },
    )


if __name__ == "__main__":
    main()
