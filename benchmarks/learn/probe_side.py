"""Logistic regression on the mean hidden states of the frozen base model: what there is to have without training it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from benchmarks.learn.job import Job, Meter
from benchmarks.learn.texts import Texts, mean_states

FOLDS = 3
PENALTIES = np.logspace(-4, 0, 5)
"""What C is chosen from."""

ITERATIONS = 300


def learn(job: Job, meter: Meter) -> None:
    """Fit on training rows, at most `probe_rows` of them drawn by the seed; one point, without a step."""
    rows = job.rows("train")
    if len(rows) > job.probe_rows:
        rows = random.Random(job.seed).sample(rows, job.probe_rows)
    texts = Texts(job.base_model, special=True)
    body = AutoModel.from_pretrained(job.base_model, dtype=torch.float32)

    def features(of: Sequence[str]) -> np.ndarray:
        return mean_states(body, texts, of).numpy()

    probe = fit(features([text for text, _ in rows]), [label for _, label in rows])
    meter.end(meter.note(0, lambda of: probe.predict(features(of)).tolist()))


def fit(features: np.ndarray, labels: Sequence[str]) -> Pipeline | GridSearchCV:
    """Standardise and fit, with the penalty that cross-validation finds best.

    Args:
        features: `[N, H]`.
        labels: N of them. A label with one row leaves nothing to validate on: the middle penalty is taken then.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    folds = min(FOLDS, *Counter(labels).values())
    if folds < 2:
        probe.set_params(logisticregression__C=PENALTIES[len(PENALTIES) // 2])
        return probe.fit(features, labels)
    return GridSearchCV(probe, {"logisticregression__C": PENALTIES}, cv=folds).fit(features, labels)
