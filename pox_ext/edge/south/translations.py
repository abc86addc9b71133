"""What controllers' actions are on one switch, remembered until what they depend on changes."""

import logging
from typing import Callable, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.actions import Actions
from edge.openflow.errors import OpenFlowError
from edge.openflow.flowmods import LONGEST_ACTIONS
from edge.openflow.text import actions_text
from edge.south.translate import Ingress, translate

log = logging.getLogger("edge.member")

_MOST_REMEMBERED = 16384


class Translations:
    """
    The translations of one switch.

    name: the switch's, for the log
    warn: tells the operator something, once
    """

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self._name = name
        self._warn = warn
        self._ingress: Optional[Ingress] = None
        # wire form of actions -> the actions, and what they are on this switch
        self._known: dict[bytes, tuple[Actions, bytes]] = {}
        self._knows_all = True  # nothing that was translated has been forgotten

    @property
    def ingress(self) -> Ingress:
        """What the translation knows of this switch and the others (see `use`)."""
        assert self._ingress is not None, "nothing is translated for a switch that is not there"
        return self._ingress

    def use(self, ingress: Ingress) -> Optional[set[bytes]]:
        """
        Translate by this from now on.

        Returns the actions (their wire form) whose translation is the same as before; None if that
        is so for all that were translated.
        """
        before, complete = self._known, self._knows_all
        self._ingress = ingress
        self.forget()
        same = {
            wire
            for wire, (actions, translation) in before.items()
            if self.translated_or_none(actions) == translation
        }
        return None if complete and len(same) == len(before) else same

    def lost(self) -> None:
        """The switch is lost; it may have something else when it comes back."""
        self._ingress = None
        self.forget()

    def forget(self) -> None:
        """Translate everything anew."""
        self._known = {}
        self._knows_all = True

    def translated(self, actions: Actions) -> bytes:
        """
        The actions as this switch has to do them on a packet that enters here.

        Raises OpenFlowError (OFPBAC_TOO_MANY) if no message to the switch has room for them.
        """
        known = self._known.get(actions.wire)
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known = {}
                self._knows_all = False
            known = actions, translate(actions, self.ingress)
            if len(known[1]) > LONGEST_ACTIONS:
                raise OpenFlowError(of.OFPET_BAD_ACTION, of.OFPBAC_TOO_MANY)
            if log.isEnabledFor(logging.DEBUG):
                north, south = map(actions_text, (actions.wire, known[1]))
                log.debug("%s: actions %s are here %s", self._name, north, south)
            self._known[actions.wire] = known
        return known[1]

    def translated_or_none(self, actions: Actions) -> bytes:
        """
        The same, but empty (drop) for actions that have become too long since they were accepted.
        """
        try:
            return self.translated(actions)
        except OpenFlowError:
            self._warn(
                "a flow's actions have become more than a message can hold, since they name so "
                "many ports of other switches; there it drops its packets"
            )
            return b""
