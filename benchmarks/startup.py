"""Time of `import weightspace`, `weightspace --help` and `weightspace demo --quick`, each as a whole process."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import keep, seconds

COMMAND = str(Path(sys.executable).with_name("weightspace"))


def main() -> None:
    def run(*words: str) -> float:
        return seconds(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL), 9, 2)

    def cpu(*words: str) -> float:
        """Seconds of CPU, user and system, of one run: what a busy machine does not change."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    bare = run(sys.executable, "-c", "pass")
    with tempfile.TemporaryDirectory() as folder:
        demo = (COMMAND, "demo", "--quick", "--out", folder)
        quick_cpu = cpu(*demo)
        quick = seconds(lambda: subprocess.run(demo, check=True, stdout=subprocess.DEVNULL), 3, 0)
    keep(
        "startup",
        {
            "import_weightspace_s": round(run(sys.executable, "-c", "import weightspace"), 3),
            "help_s": round(run(COMMAND, "--help"), 3),
            "help_cpu_s": round(min(cpu(COMMAND, "--help") for _ in range(5)), 3),
            "verb_help_cpu_s": round(min(cpu(COMMAND, "train", "--help") for _ in range(5)), 3),
            "quick_demo_s": round(quick, 1),
            "quick_demo_cpu_s": round(quick_cpu, 1),
            "bare_python_s": round(bare, 3),
            "import_torch_s": round(run(sys.executable, "-c", "import torch"), 3),
            "targets": "import under 0.3 s, help under 0.2 s of CPU, quick demo under 20 s",
        },
    )


if __name__ == "__main__":
    main()
