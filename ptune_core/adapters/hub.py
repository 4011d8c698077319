"""Adapters to the Hugging Face Hub. Imports no torch, and the Hub's library only when it is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from ptune_core.adapters.names import EXPORTED
from ptune_core.errors import AdapterError

_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}")


class HubApi(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, token: Any, private: bool, repo_type: str, exist_ok: bool) -> Any:
        """Make a repository; its id, as `repo_id`."""

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], **options: Any) -> Any:
        """Put the files of a folder there."""


def push(folder: Path, name: str, *, token: str | None, private: bool, api: HubApi | None = None) -> str:
    """Make a repository with an adapter and its model card; its address.

    Args:
        folder: The adapter, as exported.
        name: `NAME`, in the account of the token, or `OWNER/NAME`.
        token: With write access. None: of the account that this machine is signed in with.
        private: Whether only that account sees it.
        api: `HfApi` by default.

    Raises:
        AdapterError: The name is none, there is no token or it may not write, the repository exists, or the Hub cannot
            be reached. The token is in no message.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise AdapterError("This is no name for a repository", got=name[:200], needed="NAME or OWNER/NAME")
    api = huggingface_hub.HfApi() if api is None else api
    repo_id = name
    try:
        made = api.create_repo(name, token=token, private=private, repo_type="model", exist_ok=False)
        repo_id = str(getattr(made, "repo_id", name))
        api.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            allow_patterns=[*EXPORTED, "base_model/*"],
            repo_type="model",
            commit_message="Upload adapter",
            token=token,
        )
    except errors.LocalTokenNotFoundError as error:
        raise _no_token() from error
    except errors.HfHubHTTPError as error:
        raise _explained(repo_id, error) from error
    except (OSError, errors.HTTPError) as error:
        raise AdapterError(
            "The Hub cannot be reached",
            got=type(error).__name__,
            remedy="Check the connection and try again, or download the zip and upload its files on huggingface.co",
        ) from error
    return f"https://huggingface.co/{repo_id}"


def _no_token() -> AdapterError:
    return AdapterError(
        "Nobody is signed in to the Hub here",
        needed="a token with write access, from huggingface.co/settings/tokens",
        remedy="Paste it, or sign in with `hf auth login` in a terminal",
    )


def _explained(repo_id: str, error: Any) -> AdapterError:
    """Why the Hub refused, by its answer's number."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    match status:
        case 401:
            return _no_token()
        case 403:
            return AdapterError(
                f"The token may not write to {repo_id}",
                needed="a token with write access to that account",
                remedy="Make one at huggingface.co/settings/tokens",
            )
        case 409:
            return AdapterError(
                f"There is a repository {repo_id} already",
                remedy="Choose another name; nothing that is there is ever overwritten",
            )
        case _:
            return AdapterError("The Hub refused the adapter", got=f"status {status}", remedy="Try again later")
