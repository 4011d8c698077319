"""Every error PTune raises on purpose.

    PTuneError
    ├── SettingsError        a setting, or a combination of settings, that cannot work (also a ValueError)
    ├── TemplateError        the template text; carries the place in it (also a ValueError)
    ├── DataError            rows or files that cannot be used; carries all their problems
    ├── BaseModelError       a base model that cannot be found, loaded or prompted
    │   └── NotOnThisMachine     it is nowhere on this machine; the Hub was not asked
    ├── TrainingError        training cannot go on
    │   ├── TrainingDiverged        the loss or the virtual tokens left all bounds
    │   └── OutOfMemory          RAM or GPU memory ran out
    ├── CheckpointError      no usable checkpoint
    ├── AdapterError         an adapter that cannot be read, written or used here
    ├── RunError             a run that is not there, or not in a state that allows what was asked
    ├── DiskFull             no room for what has to be written
    └── InferenceError       the inference process could not answer
        └── DeviceBusy           a run that trains needs the GPU: the same question can be answered later

A message says what happened, what was found, what is allowed and how to mend it. `ui/` shows it as it is, the command
line prints it, the worker stores it in the run; nothing else is ever shown to a user as an error.
"""

from __future__ import annotations

from collections.abc import Sequence


class PTuneError(Exception):
    """An error whose text is meant for the person who uses PTune.

    Args:
        what: What happened, one sentence.
        got: What was found instead of something usable.
        needed: What is allowed.
        remedy: What to do about it.
    """

    def __init__(self, what: str, *, got: str = "", needed: str = "", remedy: str = "") -> None:
        self.what, self.got, self.needed, self.remedy = what, got, needed, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        # An error told again may end with its place, which is a caret and no sentence.
        parts = [self.what if self.what.endswith("^") else self.what.rstrip(".") + "."]
        if self.got:
            parts.append(f"Got: {self.got.rstrip('.')}.")
        if self.needed:
            parts.append(f"Needed: {self.needed.rstrip('.')}.")
        if self.remedy:
            parts.append(self.remedy.rstrip(".") + ".")
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(kind: type[PTuneError], state: dict[str, object]) -> PTuneError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (str(error),)
    return error


class SettingsError(PTuneError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class TemplateError(PTuneError, ValueError):
    """The template cannot be parsed or used.

    Args:
        position: Index of the offending character in `template`.
        template: The whole template text; the message shows a caret under `position`.
    """

    def __init__(
        self, what: str, *, template: str = "", position: int = 0, got: str = "", needed: str = "", remedy: str = ""
    ) -> None:
        self.template, self.position = template, position
        super().__init__(what, got=got, needed=needed, remedy=remedy)

    def __str__(self) -> str:
        text = super().__str__()
        if not self.template:
            return text
        line_start = self.template.rfind("\n", 0, self.position) + 1
        line = self.template[line_start:].split("\n", 1)[0]
        return f"{text}\n  {line}\n  {' ' * (self.position - line_start)}^"


class DataError(PTuneError):
    """Rows or a file that cannot be used.

    Args:
        problems: Every problem found, one line each, in the order of the rows.
    """

    def __init__(
        self, what: str, *, problems: Sequence[str] = (), got: str = "", needed: str = "", remedy: str = ""
    ) -> None:
        self.problems = tuple(problems)
        super().__init__(what, got=got, needed=needed, remedy=remedy)

    def __str__(self) -> str:
        numbered = [f"{number}. {problem}" for number, problem in enumerate(self.problems, start=1)]
        return "\n".join([super().__str__(), *numbered])


class BaseModelError(PTuneError):
    """A base model that cannot be found, loaded or prompted."""


class NotOnThisMachine(BaseModelError):
    """A base model that is nowhere on this machine, where the Hub was not to be asked."""


class TrainingError(PTuneError):
    """Training cannot go on."""


class TrainingDiverged(TrainingError):
    """The loss became NaN or infinite, or the virtual tokens grew beyond all bounds."""


class OutOfMemory(TrainingError):
    """RAM or GPU memory ran out."""


class CheckpointError(PTuneError):
    """No usable checkpoint."""


class AdapterError(PTuneError):
    """An adapter that cannot be read, written or used here."""


class RunError(PTuneError):
    """A run that is not there, or not in a state that allows what was asked."""


class DiskFull(PTuneError):
    """No room for what has to be written."""


class InferenceError(PTuneError):
    """The inference process could not answer."""


class DeviceBusy(InferenceError):
    """A run that trains needs the GPU; the same question can be answered when it has ended."""
