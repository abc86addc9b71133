"""A POX that the demo runs."""

import os
import subprocess
import sys
from pathlib import Path

from command import dying_with_parent
from failure import Failure

SCRIPTS = Path(__file__).resolve().parent


class PoxProcess:
    """POX of $POX_HOME, in the network namespace of its caller.

    log: the file that gets what POX prints.
    arguments: POX's command line, which may name the components of pox_ext and of pox_demo.
    """

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        home = os.environ["POX_HOME"]
        paths = [str(SCRIPTS.parent / "pox_ext"), str(SCRIPTS / "pox_demo")]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                dying_with_parent([sys.executable, "-u", f"{home}/pox.py", *arguments]),
                cwd=home,
                # The checkout of POX may be the user's own: no .pyc files are written there.
                env=dict(os.environ, PYTHONPATH=":".join(paths), PYTHONDONTWRITEBYTECODE="1"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the prompt alone.
                start_new_session=True,
            )

    def expect_running(self) -> None:
        """Raise Failure when POX has ended."""
        if self.process.poll() is not None:
            raise Failure(f"POX has ended with status {self.process.returncode}: {self.log}")

    def has_printed(self, text: str) -> bool:
        """Return whether POX has printed `text`; raise Failure when POX has ended."""
        self.expect_running()
        return text in self.log.read_text(errors="replace")
