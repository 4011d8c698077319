"""A side in the process that was started for it; what it needs is imported here alone, on its own time."""

from __future__ import annotations

from benchmarks.learn.job import Clock, Job, Meter
from benchmarks.learn.names import PROBE, PTUNE, PTUNE_ANSWER, PTUNE_DEEP


def main(begun: float, text: str) -> None:
    """Do a job.

    Args:
        begun: When the process was started, by `time.time()`.
        text: From `Job.to_text`.
    """
    job = Job.from_text(text)
    meter = Meter(job, Clock(begun))
    if job.side in (PTUNE, PTUNE_DEEP, PTUNE_ANSWER):
        from benchmarks.learn import ptune_side

        ptune_side.learn(job, meter)
    elif job.side == PROBE:
        from benchmarks.learn import probe_side

        probe_side.learn(job, meter)
    else:
        from benchmarks.learn import peft_side

        peft_side.learn(job, meter)
