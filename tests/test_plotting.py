import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from expdecay_keras import DecayRule, WarmupExponentialDecay, plot_learning_rate


def test_the_curve_is_the_rule_on_a_log_axis():
    ax = Figure().subplots()
    falling, rising = DecayRule(0.1, 1e-4, 20, 2), WarmupExponentialDecay(0.001, 0.1, 12, 4, 1e-5)
    assert plot_learning_rate(falling, rising, ax=ax) is ax
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "learning rate")
    for line, rule in zip(ax.get_lines(), (falling, rising.rule)):
        epochs = np.arange(rule.n_epochs)
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        np.testing.assert_array_equal(line.get_ydata(), rule.learning_rate(epochs, "float64").numpy())
    assert [text.get_text() for text in ax.texts] == ["0.1", "0.0001", "0.001", "0.1"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "0.1 to 0.0001 in 20 epochs",
        "warm-up",
        "0.001 to 0.1 in 12 epochs",
        "warm-up",
    ]


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'expdecay-keras\[plot\]'"):
        plot_learning_rate(DecayRule(0.1, 0.01, 5))
