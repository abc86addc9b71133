"""Mininet's prompt, as the programs here need it."""

from typing import Optional

from mininet.cli import CLI
from mininet.log import output
from mininet.util import quietRun


class AggregatorCLI(CLI):
    """Mininet's prompt, which ends with Ctrl-C.

    While a command runs, Ctrl-C ends that command instead.  A command that fails prints its error
    and the prompt stays.
    """

    def run(self) -> None:
        """Read and do commands until the user leaves.  Mininet's constructor calls this."""
        if self.isatty():
            quietRun("stty echo sane intr ^C")
        try:
            self.cmdloop()
        except KeyboardInterrupt:
            output("\n")

    def onecmd(self, line: str) -> Optional[bool]:
        """Do one command; return True when it leaves the prompt."""
        try:
            return super().onecmd(line)
        except KeyboardInterrupt:
            output("\nInterrupt\n")
        except Exception as error:
            # An error in one of Mininet's commands is no reason to take the network down.
            output(f"*** Error: {error}\n")
        for node in self.mn.values():
            while node.waiting:
                node.sendInt()
                node.waitOutput()
        return None
