"""Time to `import weightspace` and to `weightspace --help`, as whole processes, less the interpreter's own."""

import subprocess
import sys
from pathlib import Path

from benchmarks.record import keep, seconds

COMMAND = str(Path(sys.executable).with_name("weightspace"))


def main() -> None:
    def run(*words: str) -> float:
        return seconds(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL), 9, 2)

    bare = run(sys.executable, "-c", "pass")
    keep(
        "startup",
        {
            "import_weightspace_s": round(run(sys.executable, "-c", "import weightspace"), 3),
            "help_s": round(run(COMMAND, "--help"), 3),
            "bare_python_s": round(bare, 3),
            "import_torch_s": round(run(sys.executable, "-c", "import torch"), 3),
            "targets": "import under 0.3 s, help under 0.5 s",
        },
    )


if __name__ == "__main__":
    main()
