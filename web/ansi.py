"""Terminal text as plain text, for places that show no colours. Pure."""

from __future__ import annotations

import re

# Control sequences (CSI), operating system commands (OSC … BEL or ST), other escapes, other control characters.
_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f]"
)


def plain(text: str) -> str:
    """Take terminal sequences out; of a line that was overwritten (progress bars) keep what stood there last."""
    return stripped(text.rstrip("\r").rsplit("\r", 1)[-1])


def stripped(text: str) -> str:
    """Take terminal sequences and control characters out; keep also what was overwritten."""
    return text if text.isprintable() else _SEQUENCES.sub("", text)
