"""What raising or choosing each setting does, in one line for people: the help of every control. Plain Python."""

from __future__ import annotations

from ptune_core.training.settings import RunSettings

_HELP = {
    "name": "Shown in lists. Empty: made from model and data.",
    "revision": "Branch, tag or commit of a model from the Hub. Empty: the newest.",
    "encoder_reparameterization_type": "What makes the virtual tokens while they learn. MLP is fast and a good start; "
    "LSTM ties neighbours together and is slower; none trains them directly.",
    "encoder_hidden_size": "Wider: more to learn with, slower. Empty: the base model's width, at most 768.",
    "encoder_num_layers": "More: ties virtual tokens more closely, slower.",
    "encoder_dropout": "More: learns by heart less easily, but also more slowly. 0 to 0.3 is usual.",
    "head_input": "What a classification head reads of the base model. What suits: as the base model was trained, "
    "else what tells the labels apart best. Stock PEFT loads “as in PEFT” alone; the others bring their own loader.",
    "head_start": "A probe is a regression on what the frozen base model makes of the rows: the head starts with what "
    "it gives without virtual tokens. Nothing: the head learns from zero.",
    "head_learning_rate": "Of a classification head. Higher: it learns faster than the virtual tokens. Empty: what "
    "suits its start.",
    "prompt_depth": "In every layer: one or two points better where a head reads, with as many virtual tokens; the "
    "adapter is larger. For virtual tokens in front and a frozen base model. After export stock PEFT runs a decoder’s; "
    "sentence-transformers runs none.",
    "prompt_init": "Words the virtual tokens start from. Random is noise as in PEFT; the others start closer to what "
    "the model knows, which matters most without a prompt encoder.",
    "prompt_init_text": "The virtual tokens start as these words, repeated or cut to their number.",
    "prompt_init_adapter": "Folder or zip of an adapter, or of a run. Its virtual tokens go on learning here.",
    "learning_rate": "Higher: learns faster, until the loss jumps. 0.001 to 0.01 is usual.",
    "base_weights": "Virtual tokens only: the base model is frozen, the adapter is small, and one base model serves "
    "many. The base model too: it is tuned, which takes four times its size in memory, and the download is a whole "
    "model.",
    "base_learning_rate": "Of the tuned base model. Higher: it changes faster and forgets sooner. 0.00001 is usual.",
    "weight_decay": "More: pulls what learns towards zero, against learning by heart.",
    "warmup_ratio": "Share of the steps in which the learning rate grows. More: a gentler start.",
    "max_grad_norm": "Lower: single odd batches change less. 1 is usual.",
    "batch_size": "Rows at once. More: steadier steps, more memory. Empty: 32 for a head, else 16.",
    "gradient_accumulation_steps": "Batches per step. More: as with larger batches, but slower instead of more memory.",
    "max_steps": "More: longer, and better as long as validation improves.",
    "epochs": "Passes over the data, in place of the steps. Empty: the steps count.",
    "eval_every": "Steps between two looks at the validation rows. Fewer: finer curves, slower.",
    "eval_batch_size": "Rows at once when validating. More: faster, more memory.",
    "patience": "Looks without a better result before it stops early. More: longer. 0 never stops early.",
    "checkpoint_every": "Steps between two points a run can resume from. More: loses more when interrupted.",
    "validation_fraction": "Share of the rows to measure on. More: surer results, fewer rows to learn from.",
    "max_validation_rows": "At most this many rows to measure on. More: surer results, slower.",
    "max_length": "Longer texts are cut. More: reads more of each row, slower. Empty: what fits, at most 512.",
    "max_new_tokens": "Longest reply when text is written. More: longer replies, slower.",
    "text_cache_mib": "Memory for text that is computed once instead of in every pass. More: faster. Empty: up to half "
    "of what is free; 0: none.",
    "precision": "Numbers of the frozen base model. Auto takes 16 bits where that is fast; 8 and 4 bits need less "
    "memory and the package bitsandbytes.",
    "gradient_checkpointing": "Less memory for long texts, a third slower.",
    "device": "Auto takes a GPU if there is one.",
    "seed": "Another number: another split, order and start. The same number: the same run.",
    "halving": "Ends the worse half of the trainings early, three times. Much faster; rarely misses the best.",
}


def of(name: str) -> str:
    """The help of a setting's control; for one that has none here its declaration's."""
    return _HELP.get(name) or RunSettings.model_fields[name].description or ""
