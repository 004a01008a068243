"""The Hugging Face Hub, asked once before anything is fetched from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from huggingface_hub import constants, get_session

PATIENCE = 5.0
"""Seconds in which the Hub must answer; its library would try each file six times, for a minute and more."""


@contextmanager
def hub_once() -> Iterator[None]:
    """Inside the block nothing is asked of a Hub that does not answer: what is cached is found, the rest fails at once.

    Any answer will do, one through a proxy or of the mirror HF_ENDPOINT too.
    """
    with patch.object(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE or not _answers()):
        yield


def _answers() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of whatever library its session is made: no connection, no name, no time, a proxy's refusal
        return False
    return True
