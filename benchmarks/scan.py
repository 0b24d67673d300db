"""Processor time to scan a folder of small checkpoints with all checks, and again from kept results."""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.record import keep
from weightspace import EXAMPLES
from weightspace.backdoors.detector import Detector
from weightspace.backdoors.scan import scan

FILES = 1000


def main() -> None:
    torch.set_num_threads(1)
    detector = Detector.load()
    contents = [(EXAMPLES / f"example-{name}.safetensors").read_bytes() for name in ("clean", "backdoored")]
    with tempfile.TemporaryDirectory() as place:
        folder, results = Path(place) / "files", Path(place) / "results"
        folder.mkdir()
        for number in range(FILES):
            (folder / f"{number:05d}.safetensors").write_bytes(contents[number % 2])
        scan([str(folder / "00000.safetensors")], detector, show=False)  # what is loaded once is not counted

        def seconds(results: Path | None) -> float:
            start = time.process_time()
            found = scan([str(folder)], detector, show=False, results=results)
            assert found.counts == {"suspicious": FILES // 2, "clean": FILES - FILES // 2}
            return time.process_time() - start

        plain = min(seconds(None) for _ in range(3))
        seconds(results)
        kept = min(seconds(results) for _ in range(3))
    keep(
        "scan",
        {
            "files": FILES,
            "ms_per_file": round(1000 * plain / FILES, 2),
            "ms_per_file_from_kept_results": round(1000 * kept / FILES, 2),
            "targets": "at most 10 ms a file",
        },
    )


if __name__ == "__main__":
    main()
