"""Train, be killed in the middle of a save, go on, and see what is kept and why: ``make demo``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
DIE_AFTER_STEP = 130


def die_in_a_save(directory: str) -> None:
    """Train until a step, then kill this very process inside the next save, before its fsync."""
    import lightning.pytorch as pl
    from digits import quiet, train

    class Executioner(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == DIE_AFTER_STEP:
                os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)

    quiet()
    train(directory, 8, Executioner())


def run(*arguments: str) -> int:
    """Run a Python process and return its exit code; negative for the signal that ended it."""
    return subprocess.run([sys.executable, *arguments], check=False).returncode  # noqa: S603 - our own scripts


def main() -> int:
    """Tell the story."""
    directory = os.path.join(tempfile.mkdtemp(prefix="holdfast-demo-"), "digits")
    print(f"1. A network learns the digits, with three ModelCheckpoints on {directory}.")
    print(f"   After step {DIE_AFTER_STEP} it is killed (SIGKILL) while a checkpoint is being written.")
    code = run(str(HERE / "demo.py"), directory)
    print(f"   the process ended with {code} ({signal.Signals(-code).name if code < 0 else 'no signal'})")
    if code != -signal.SIGKILL:
        print("   it was not killed: the demo did not show what it should")
        return 1

    print("\n2. What it left behind:")
    for name in sorted(os.listdir(directory)):
        torn = "   <- the save that was cut off: not committed, so it does not count" if ".tmp" in name else ""
        print(f"   {name}{torn}")

    print("\n3. The same script again. It goes on from the newest checkpoint that is whole.")
    if run(str(HERE / "digits.py"), directory) != 0:
        return 1

    print("\n4. What is kept, and why (holdfast ls):")
    code = run("-m", "holdfast", "ls", directory)
    print("\n5. Is every byte of it as it was saved (holdfast verify)?")
    return code or run("-m", "holdfast", "verify", directory)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        die_in_a_save(sys.argv[1])
    else:
        sys.exit(main())
