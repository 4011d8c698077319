"""Test accuracy over wall time: PTune's defaults beside PEFT and a probe of the frozen base model."""
