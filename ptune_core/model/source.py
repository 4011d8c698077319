"""Where a base model comes from, a folder or the Hub, and what to tell when it cannot be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers.utils import cached_file, logging

from ptune_core.demo import DEMO, DEMO_MODEL
from ptune_core.errors import BaseModelError, NotOnThisMachine

_WHILE_LOADING = (
    OSError, ValueError, LookupError, ImportError, HTTPError,
    SafetensorError, StrictDataclassError, ZeroDivisionError,  # files that are cut short, and sizes that cannot be
)  # fmt: skip


_SMALL = 2**16


def place_of(id: str) -> str:
    """Folder or Hub id to load from."""
    if id == DEMO:
        return str(DEMO_MODEL)
    if os.path.isdir(id):
        return str(Path(id).resolve())
    try:
        validate_repo_id(id)
    except HFValidationError:
        raise BaseModelError(
            f"There is no base model {id!r}",
            needed="'demo', a Hub id such as openai-community/gpt2, or a local folder",
        ) from None
    return id


def check_reachable(place: str, revision: str | None) -> None:
    """Ask the Hub once: huggingface_hub repeats for 24 seconds before it says that there is no connection.

    Only a failed connection counts; a slow answer, or one that says no, is left to the loading.
    """
    if os.path.isdir(place) or isinstance(try_to_load_from_cache(place, "config.json", revision=revision), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(place, "config.json", revision=revision), timeout=10)
    except HTTPError as error:
        if type(error).__name__ == "ConnectError":
            raise


def check_here(id: str, place: str, revision: str | None) -> None:
    """Refuse a Hub model of which nothing is on this machine.

    Raises:
        NotOnThisMachine: It would have to be fetched.
    """
    if os.path.isdir(place) or isinstance(try_to_load_from_cache(place, "config.json", revision=revision), str):
        return
    raise NotOnThisMachine(f"The base model {id!r} is not on this machine yet", remedy="A run fetches it from the Hub")


def file_of(id: str, name: str, revision: str | None) -> bytes | None:
    """A small file beside a base model's own, such as what sentence-transformers keeps there; None if there is none.

    Raises:
        BaseModelError: It cannot be fetched.
    """
    with explained(id), quiet():
        path = cached_file(
            place_of(id),
            name,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            return None
        with open(path, "rb") as file:
            return file.read(_SMALL)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and reporting the new head, which is expected; errors still come through."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def explained(id: str) -> Iterator[None]:
    """Turn what transformers and the Hub raise while loading into a `BaseModelError` that says what to do."""
    try:
        yield
    except _WHILE_LOADING as error:
        raise _explain(id, error) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):  # such as memory that ran out
            raise
        raise BaseModelError(
            f"The base model {id!r} cannot be loaded",
            got="weights of other sizes than its config.json says",
            remedy="Fetch or save it again",
        ) from error


def _explain(id: str, error: Exception) -> BaseModelError:
    causes = set()
    cause: BaseException | None = error
    while cause is not None:
        causes.add(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    if GatedRepoError.__name__ in causes:
        return BaseModelError(
            f"The base model {id!r} asks for acceptance on its page",
            remedy=f"Accept at https://huggingface.co/{id}, then set HF_TOKEN to a token of yours",
        )
    if RevisionNotFoundError.__name__ in causes:
        return BaseModelError(f"The base model {id!r} has no such revision", remedy="Leave revision empty")
    if RepositoryNotFoundError.__name__ in causes:
        return BaseModelError(
            f"There is no base model {id!r} on the Hub",
            needed="'demo', a Hub id such as openai-community/gpt2, or a local folder",
            remedy="Check the spelling; a private model needs HF_TOKEN",
        )
    if causes & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "Timeout"}:
        return BaseModelError(
            f"The base model {id!r} is not on this machine and the Hub cannot be reached",
            remedy="Check the connection and try again, use 'demo', or give a local folder",
        )
    if "safetensors" in text:
        return BaseModelError(
            f"The base model {id!r} has no safetensors weights",
            needed="model.safetensors; other weight files can run code when they are opened, so they are never read",
            remedy="Choose another base model, or convert it with transformers' save_pretrained",
        )
    if "trust_remote_code" in text or "custom code" in text:
        return BaseModelError(
            f"The base model {id!r} needs code from its repository, which is never run here",
            remedy="Choose a base model that transformers supports itself",
        )
    return BaseModelError(f"The base model {id!r} cannot be loaded", got=text[:400])
