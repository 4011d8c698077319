"""What the base-model, tuning and Run card do: plain values in, updates out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from ptune_core.app import form, texts
from ptune_core.app.command_line import command_line
from ptune_core.app.drafts import Filled, Held, filled_with, suited
from ptune_core.app.measuring import Stage, fingerprint_of
from ptune_core.app.review import Review, Watch, why_not
from ptune_core.app.service import Service
from ptune_core.app.texts import run_card as run_texts
from ptune_core.demo import DEMO, DEMO_TEMPLATE
from ptune_core.errors import PTuneError, SettingsError
from ptune_core.training.plain_yaml import check_plain
from ptune_core.training.presets import PRESETS, Preset, preset_of
from ptune_core.training.settings import RunSettings
from ptune_core.ui.show import inline_error, inline_problems

MOST_FILE_BYTES = 200_000
MOST_MEASURED_UNASKED = {False: 50_000_000, True: 1_500_000_000}
"""Parameters of a base model that is measured where nobody asked, without and with a GPU: some 20 s on two cores."""


class RunHandlers:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._watch = Watch(service, shared=service.is_shared)

    def refresh(self, viewer: str, held: Held) -> dict[str, Any]:
        """Everything that follows from what the controls hold, by what shows it."""
        look = self._look(viewer, held)
        base_model = str(held.values.get("base_model") or "")
        changed = form.changed(held.values, base_model)
        settings = form.settings_values(held.values)
        updates: dict[str, Any] = {
            "about": run_texts.about_model(base_model, look.base, look.machine),
            "preset": preset_of(_preset_values(settings)) or texts.CUSTOM,
            "advanced": gr.update(label=texts.advanced(len(changed))),
            "command": _command(look),
            "sweep_count": texts.trials(len(look.settings.trials)) if look.settings and look.settings.sweep else "",
            **self.show_start(look),
            **self._measured(viewer, look),
            "quiet": gr.Timer(active=self._may_measure(viewer, look)),
        }
        for heading, names in form.groups().items():
            label = texts.group(heading, len(set(changed) & set(names)))
            updates[f"group {heading}"] = gr.update(label=label)
        for name in form.SHOWN_IF:
            updates[f"shown {name}"] = gr.update(visible=form.is_shown(name, held.values))
        return updates

    def show_start(self, look: Review) -> dict[str, Any]:
        """The checks, the button and why it cannot be pressed."""
        listed = [
            {"key": c.key, "level": str(c.level), "text": c.text, "fix": c.fix.label if c.fix else ""}
            for c in look.checks
        ]
        reason = why_not(look)
        said = f'<p class="quiet" role="status">{run_texts.escaped(reason)}</p>' if reason else ""
        return {
            "checks": gr.update(value=listed),
            "start": gr.update(value=texts.start(self._service.active()), interactive=not reason),
            "reason": gr.update(value=said, visible=bool(reason)),
        }

    def start_label(self) -> Any:
        """The button again, when the number of runs before this one has changed."""
        return gr.update(value=texts.start(self._service.active()))

    def fix(self, key: str, viewer: str, held: Held) -> dict[str, Any]:
        """What the controls hold after the change that a check offers; empty if there is none any more."""
        for check in self._look(viewer, held).checks:
            if check.key == key and check.fix is not None:
                return held_values(check.fix.values)
        return {}

    def choose_preset(self, preset: str) -> dict[str, Any]:
        """What a preset sets; Custom leaves all as it is."""
        return held_values(PRESETS[Preset(preset)]) if preset in list(Preset) else {}

    def suit(self, held: Held, before: str) -> dict[str, Any]:
        """Defaults for the chosen base model, of settings that still have the defaults of the one before."""
        return suited(held.values, before, str(held.values.get("base_model") or ""))

    def measure(self, viewer: str, held: Held) -> dict[str, Any]:
        """Begin to measure, or say why not."""
        look = self._watch.look(held)
        if look.settings is None or look.table is None:
            return self._say(why_not(look))
        try:
            self._service.measure_run(viewer, look.settings, look.table)
        except PTuneError as error:
            return self._say(str(error))
        return {**self._measured(viewer, look), "checks": gr.skip()}

    def measure_unasked(self, viewer: str, held: Held) -> dict[str, Any]:
        """Measure which way suits these labels where nobody asked, if that is quick; what is in its way is not told."""
        look = self._watch.look(held)
        if look.settings is not None and look.table is not None and self._may_measure(viewer, look):
            with suppress(PTuneError):
                self._service.measure_run(viewer, look.settings, look.table, unasked=True)
        return {**self._measured(viewer, look), "checks": gr.skip(), "quiet": gr.Timer(active=False)}

    def _may_measure(self, viewer: str, look: Review) -> bool:
        """Whether nobody knows yet which way suits these labels, and finding out is a matter of seconds.

        Not of the example as it comes: it shows what answer words become, and every page begins with it.
        """
        if not self._service.measures_unasked or look.settings is None or look.table is None or look.base is None:
            return False
        if look.settings.data == DEMO and look.settings.template == DEMO_TEMPLATE:
            return False
        if look.rows is None or len(look.rows.labels) < 2:
            return False
        most = MOST_MEASURED_UNASKED[look.machine.has_gpu]
        if not look.base.is_here or look.base.parameters is None or look.base.parameters > most:
            return False
        found = self._service.measures.of(viewer)
        is_known = found is not None and found.is_of(look.settings, look.table.path.parent.name)
        return not is_known and not self._service.active()

    def cancel(self, viewer: str, held: Held) -> dict[str, Any]:
        """Call the measurement off; the next tick says that it ended."""
        self._service.measures.cancel(viewer)
        return self.tick(viewer, held)

    def tick(self, viewer: str, held: Held) -> dict[str, Any]:
        """How the measurement goes; when it is done, the checks too, which know more then."""
        look, found = self._look(viewer, held), self._service.measures.of(viewer)
        is_done = found is not None and found.stage is Stage.DONE
        return {**self._measured(viewer, look), "checks": self.show_start(look)["checks"] if is_done else gr.skip()}

    def _look(self, viewer: str, held: Held) -> Review:
        return self._watch.look(held, self._service.measures.of(viewer))

    def _measured(self, viewer: str, look: Review) -> dict[str, Any]:
        found = self._service.measures.of(viewer)
        is_running = found is not None and found.stage is Stage.RUNNING
        fingerprint = ""
        if look.settings is not None and look.table is not None:
            fingerprint = fingerprint_of(look.settings, look.table.path.parent.name)
        seconds = 0.0 if found is None else time.monotonic() - found.begun
        label = texts.MEASURE_AGAIN if found is not None and found.stage is Stage.DONE else texts.MEASURE
        return {
            "measured": run_texts.measured(found, fingerprint, seconds),
            "measure": gr.update(visible=not is_running, value=label),
            "cancel": gr.update(visible=is_running),
            "timer": gr.Timer(active=is_running),
        }

    def _say(self, text: str) -> dict[str, Any]:
        said = f'<p class="warning" role="status">{run_texts.escaped(text)}</p>'
        return {"measured": said, **dict.fromkeys(("measure", "cancel", "timer", "checks"), gr.skip())}

    def save(self, held: Held) -> dict[str, str]:
        """Text and name of a settings file.

        Raises:
            SettingsError: The form holds no settings that can be.
        """
        look = self._watch.look(held)
        if look.settings is None:
            raise SettingsError("These settings cannot be saved yet", got=why_not(look))
        name = texts.file_name(look.settings.name or look.settings.base_model)
        return {"text": look.settings.to_yaml(), "name": f"{name}-settings.yaml"}

    def load(self, path: str) -> tuple[Filled | None, str]:
        """The form for a settings file, and what to say of it; no form if it cannot be used."""
        try:
            return self.copy(_read(Path(path)))
        except PTuneError as error:
            return None, inline_error(SettingsError(form.in_form_words(str(error))))

    def copy(self, yaml: str) -> tuple[Filled, str]:
        """The form for settings as YAML, and what to say of it.

        Raises:
            PTuneError: They cannot be used; with every problem.
        """
        check_plain(yaml)
        settings = RunSettings.from_yaml(yaml)
        filled = filled_with(settings)
        said = texts.LOADED_DEMO if settings.data == DEMO else texts.LOADED.format(settings.data)
        return filled, f'<p class="quiet" role="status">{run_texts.escaped(said)}</p>' + inline_problems(
            "Left out", filled.left_out
        )

    def example(self) -> str:
        """Token of the embedded rows."""
        return self._service.uploads.demo()


def held_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as controls hold them; collections and the template as they are."""
    own = form.OWN_CONTROLS
    return {name: value if name in own else form.shown_value(name, value) for name, value in values.items()}


def _preset_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's settings as numbers, wrong ones as they are."""
    found = {}
    for name in PRESETS[Preset.BALANCED]:
        try:
            found[name] = getattr(RunSettings.parse({name: values.get(name, form.default(name))}), name)
        except PTuneError:
            found[name] = values.get(name)
    return found


def _command(look: Review) -> str:
    if look.settings is None:
        return ""
    return command_line(look.settings, texts.file_name(look.settings.name or "my-run"))


def _read(path: Path) -> str:
    """An uploaded settings file.

    Raises:
        SettingsError: It is too large, or no text.
    """
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise SettingsError("The file is too large for settings", needed=f"at most {MOST_FILE_BYTES // 1000} kB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("The file is no text in UTF-8", got=type(error).__name__) from None
