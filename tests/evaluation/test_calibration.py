from __future__ import annotations

import numpy as np
import pytest

from medxfer.evaluation.calibration import fit_temperature
from medxfer.evaluation.classification import scores_of


def calibrated(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the chance by which the labels were drawn."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2.0, size=(count, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (p.cumsum(1) > generator.random((count, 1))).argmax(1)
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_is_what_the_logits_were_scaled_by(classes: int, factor: float) -> None:
    logits, labels = calibrated(6000, classes)

    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.08)


def test_temperature_lowers_the_calibration_error() -> None:
    logits, labels = calibrated(2000, 2)

    def error(temperature: float) -> float:
        p1 = 1 / (1 + np.exp(-4 * (logits[:, 1] - logits[:, 0]) / temperature))
        patients = [str(number) for number in range(2000)]
        return scores_of(
            labels, np.stack([1 - p1, p1], 1), patients, classes=("a", "b"), threshold=0.5, samples=5
        )["ece"].value

    assert error(fit_temperature(logits * 4, labels)) < 0.03 < error(1.0)


def test_a_faultless_val_set_does_not_make_the_network_certain() -> None:
    labels = np.arange(40) % 2
    logits = np.stack([1.0 - 2 * labels, 2 * labels - 1.0], 1)

    temperature = fit_temperature(logits, labels)

    stated = 1 / (1 + np.exp(-2 / temperature))
    assert stated == pytest.approx(21 / 22, abs=1e-3)  # one more of each class would have been seen wrong


@pytest.mark.parametrize("labels", [np.zeros(0, int), np.zeros(5, int)])
def test_nothing_to_fit_leaves_the_logits_alone(labels: np.ndarray) -> None:
    assert fit_temperature(np.ones((len(labels), 2)), labels) == 1.0
