"""Calibrators as modules give what the estimators give, and lie behind a network like any layer."""

from __future__ import annotations

import pytest
import torch

import crossent.sklearn as estimators
import crossent.torch as cet


def rows(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(1500, 4, generator=generator, dtype=torch.float64)
    y = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    return (2.5 * truth).to(dtype), y


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_fitted_layer_is_the_estimator(dtype: torch.dtype) -> None:
    logits, y = rows(dtype)
    values = logits.to(torch.float64 if dtype is torch.float64 else torch.float32).numpy()
    temperature = cet.TemperatureScaling().fit(logits, y)
    assert temperature.temperature.item() == pytest.approx(
        estimators.TemperatureScaling().fit(values, y.numpy()).temperature_, rel=1e-6
    )
    vector, found = cet.VectorScaling(4).fit(logits, y), estimators.VectorScaling().fit(values, y.numpy())
    torch.testing.assert_close(vector.scale.double(), torch.as_tensor(found.scale_), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(vector.bias.double(), torch.as_tensor(found.bias_), rtol=1e-5, atol=1e-7)
    for layer in (temperature, vector):
        assert layer(logits).dtype is dtype
        assert cet.cross_entropy(layer(logits), y) < cet.cross_entropy(logits, y)


def test_it_is_a_layer() -> None:
    logits, y = rows()
    layer = cet.TemperatureScaling().fit(logits, y)
    again = cet.TemperatureScaling()
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(logits), layer(logits), rtol=0, atol=0)
    cet.cross_entropy(layer(logits), y).backward()
    assert layer.temperature.grad.abs() < 1e-4  # it is at the minimum


def test_probabilities_are_refused() -> None:
    logits, y = rows()
    with pytest.raises(ValueError, match="probabilit"):
        cet.TemperatureScaling().fit(logits.softmax(1), y)


def test_weights_are_the_estimators() -> None:
    logits, y = rows(torch.float64)
    weight = 1.0 + torch.arange(len(y)) % 3
    for layer, estimator in (
        (cet.TemperatureScaling(), estimators.TemperatureScaling()),
        (cet.VectorScaling(4), estimators.VectorScaling()),
    ):
        found = layer.fit(logits, y, weight)(logits).softmax(1)
        expected = estimator.fit(logits.numpy(), y.numpy(), weight.numpy()).predict_proba(logits.numpy())
        torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-5, atol=1e-7)


def test_masked_classes_stay_masked_and_give_finite_gradients() -> None:
    logits, y = rows(torch.float64)
    logits[torch.arange(len(y)), (y + 1) % 4] = -torch.inf
    flat = cet.TemperatureScaling(float("inf"))(logits).softmax(1)
    assert flat.isfinite().all()
    torch.testing.assert_close(flat.amax(1), torch.full((len(y),), 1 / 3, dtype=torch.float64))
    for layer in (cet.TemperatureScaling().fit(logits, y), cet.VectorScaling(4)):
        cet.cross_entropy(layer(logits), y).backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    backwards = cet.VectorScaling(4)
    backwards.scale.data.fill_(-1.0)
    assert (backwards(logits)[torch.arange(len(y)), (y + 1) % 4] == -torch.inf).all()
