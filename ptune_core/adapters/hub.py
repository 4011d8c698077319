"""Adapters to the Hugging Face Hub. Imports no torch, and the Hub's library only when it is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from ptune_core.adapters.names import EXPORTED, READ
from ptune_core.errors import AdapterError

_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}")

_SECONDS = 10.0
_MOST_BYTES = 2**28


class HubApi(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def model_info(self, repo_id: str, *, files_metadata: bool, timeout: float, token: Any) -> Any:
        """What is in a repository: `siblings` with `rfilename` and `size`, and `sha`."""

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str, token: Any) -> str:
        """Fetch one file; where it is now."""

    def create_repo(self, repo_id: str, *, token: Any, private: bool, repo_type: str, exist_ok: bool) -> Any:
        """Make a repository; its id, as `repo_id`."""

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], **options: Any) -> Any:
        """Put the files of a folder there."""


def pull(name: str, *, api: HubApi | None = None) -> list[Path]:
    """Fetch the files of a public adapter; nothing but those that are ever read of one.

    No token goes along: a visitor of a public page must not read what the owner of the machine may.

    Args:
        name: `OWNER/NAME`.
        api: `HfApi` by default.

    Raises:
        AdapterError: The name is none, there is no such public adapter, its files are too large, or the Hub cannot be
            reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if not _is_name(name) or "/" not in name:
        raise AdapterError("This is no adapter on the Hub", got=name[:200], needed="OWNER/NAME")
    hub: Any = huggingface_hub.HfApi() if api is None else api
    try:
        info = hub.model_info(name, files_metadata=True, timeout=_SECONDS, token=False)
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        wanted = [file for file in READ if file in sizes]
        if large := [file for file in wanted if (sizes[file] or 0) > _MOST_BYTES]:
            raise AdapterError(
                f"{name} is too large for an adapter", got=", ".join(large), needed="at most 256 MiB each"
            )
        return [Path(hub.hf_hub_download(name, file, revision=info.sha, token=False)) for file in wanted]
    except errors.HfHubHTTPError as error:
        raise AdapterError(
            f"There is no public adapter {name} on the Hub",
            remedy="Check the spelling. If it is private, download its files and bring them",
        ) from error
    except (OSError, errors.HTTPError) as error:
        raise _unreachable(error, "or download its files elsewhere and bring them") from error


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

    if not _is_name(name):
        raise AdapterError("This is no name for a repository", got=name[:200], needed="NAME or OWNER/NAME")
    hub: Any = huggingface_hub.HfApi() if api is None else api
    repo_id = name
    try:
        made = hub.create_repo(name, token=token, private=private, repo_type="model", exist_ok=False)
        repo_id = str(getattr(made, "repo_id", name))
        hub.upload_folder(
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
        raise _unreachable(error, "or download the zip and upload its files on huggingface.co") from error
    return f"https://huggingface.co/{repo_id}"


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and ".." not in name and "--" not in name


def _unreachable(error: Exception, otherwise: str) -> AdapterError:
    remedy = f"Check the connection and try again, {otherwise}"
    return AdapterError("The Hub cannot be reached", got=type(error).__name__, remedy=remedy)


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
