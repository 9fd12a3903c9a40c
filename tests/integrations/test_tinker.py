"""The ten lines for tinker in docs/howto/frameworks.md, with its own data instead of stand-ins."""

import re
from pathlib import Path

import pytest

pytest.importorskip("tinker", reason="tinker is not installed: .ci/integrations")

import tinker
import torch

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "frameworks.md"


def the_function():
    """`loss_fn` of the page, as printed."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    source = "".join(blocks[:2]).partition(">>> def tensor")[0]
    names = {}
    exec("\n".join(line[4:] for line in source.splitlines() if line[:4] in (">>> ", "... ")), names)  # noqa: S102
    return names["loss_fn"], names["controller"]


def test_a_loss_of_its_data():
    loss_fn, controller = the_function()
    sampled = [[0.0, 0.0, -0.7, -1.2, -0.1], [0.0, -0.4, -2.0]]
    advantages = [[0.0, 0.0, 0.5, 0.5, 0.5], [0.0, -0.5, -0.5]]
    data = [
        tinker.Datum(
            model_input=tinker.ModelInput.from_ints(list(range(len(logs)))),
            loss_fn_inputs={
                "logprobs": tinker.TensorData.from_torch(torch.tensor(logs)),
                "advantages": tinker.TensorData.from_torch(torch.tensor(signs)),
            },
        )
        for logs, signs in zip(sampled, advantages, strict=True)
    ]
    logprobs = [(torch.tensor(logs) + 0.2).requires_grad_() for logs in sampled]
    loss, metrics = loss_fn(data, logprobs)
    loss.backward()
    w = torch.tensor([3 * 0.2, 2 * 0.2]).exp()
    assert metrics["isdiag/n"] == 2.0
    assert metrics["isdiag/ess_ratio_raw"] == pytest.approx(float(w.sum() ** 2 / (w**2).sum() / 2))
    assert [each.grad.count_nonzero().item() for each in logprobs] == [3, 2]  # prompts teach nothing
    assert controller.state.step == 1
