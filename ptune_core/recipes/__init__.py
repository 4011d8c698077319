"""Published protocols as one command: a settings file each, an adapter from raw rows to the template's columns, and
what is measured. They run the same trainings as everything else."""
