"""Translated actions for one switch, remembered until something changes that they depend on."""

import logging
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.actions import Actions
from edge.openflow.cache import Cache
from edge.openflow.errors import OpenFlowError
from edge.openflow.flowmods import LONGEST_ACTIONS
from edge.openflow.text import actions_text
from edge.south.complaints import Complaints
from edge.south.translate import Ingress, translate

log = logging.getLogger("edge.member")

_MOST_REMEMBERED = 16 << 20  # bytes, for each switch


class Translations:
    """
    The translations of one switch.

    name: the name of the switch in the log
    complaints: tells the operator what is wrong
    """

    def __init__(self, name: str, complaints: Complaints) -> None:
        self._name = name
        self._complaints = complaints
        self._ingress: Optional[Ingress] = None
        # wire form of actions -> the actions, and their translation
        self._known: Cache[bytes, tuple[Actions, bytes]] = Cache(_MOST_REMEMBERED)
        self._knows_all = True  # False once some were forgotten since there were too many

    @property
    def ingress(self) -> Ingress:
        """What the translation knows about this switch and the others (see `use`)."""
        assert self._ingress is not None, "nothing is translated for a switch that is not there"
        return self._ingress

    def use(self, ingress: Ingress) -> Optional[set[bytes]]:
        """
        Use this Ingress for all translations from now on.

        Returns the actions (wire form) whose translation has stayed the same; None if all
        translations have.
        """
        before, complete = self._known, self._knows_all
        self._ingress = ingress
        self.forget()
        same = {
            wire
            for wire, (actions, translation) in before.items()
            if self.translated_or_drop(actions) == translation
        }
        return None if complete and len(same) == len(before) else same

    def forget(self) -> None:
        """Forget all translations."""
        self._known = Cache(_MOST_REMEMBERED)
        self._knows_all = True

    def peek(self, actions: Actions) -> Optional[bytes]:
        """The translation of actions, if it is remembered; else None."""
        known = self._known.get(actions.wire)
        return known[1] if known is not None else None

    def translated_once(self, actions: Actions) -> bytes:
        """Like translated_or_drop(), but what is not remembered is not remembered then, either."""
        known = self.peek(actions)
        if known is None:
            known = translate(actions, self.ingress)
        return known if len(known) <= LONGEST_ACTIONS else b""

    def translated(self, actions: Actions) -> bytes:
        """
        Translate actions for packets that enter at this switch.

        Raises OpenFlowError (OFPBAC_TOO_MANY) if no message to the switch has room for the result.
        """
        known = self._known.get(actions.wire)
        if known is None:
            known = actions, translate(actions, self.ingress)
            if len(known[1]) > LONGEST_ACTIONS:
                raise OpenFlowError(of.OFPET_BAD_ACTION, of.OFPBAC_TOO_MANY)
            if log.isEnabledFor(logging.DEBUG):
                north, south = map(actions_text, (actions.wire, known[1]))
                log.debug("%s: actions %s are here %s", self._name, north, south)
            if not self._known.remember(actions.wire, known, actions.octets + len(known[1])):
                self._knows_all = False
        return known[1]

    def translated_or_drop(self, actions: Actions) -> bytes:
        """
        Like translated(), but return no actions (drop) where that raises.

        Actions that were accepted may become too long when more switches can be reached.
        """
        try:
            return self.translated(actions)
        except OpenFlowError:
            self._complaints.tell("too long", _too_long)
            return b""


def _too_long() -> str:
    return (
        "a flow's actions have become more than a message can hold, since they name so many "
        "ports of other switches; there it drops its packets"
    )
