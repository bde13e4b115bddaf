"""Legal and illegal arguments of `DecayRule`, drawn by Hypothesis."""

import decimal
import fractions

import numpy as np
from hypothesis import strategies as st

# The range of float32's normal numbers.
SMALLEST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
rates = st.floats(SMALLEST, LARGEST)


@st.composite
def rule_arguments(draw):
    n_warmup_epochs, n_hold_epochs = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    start_lrs = st.none() | st.just(0.0) | rates if n_warmup_epochs else st.none()
    return {
        "base_lr": draw(rates),
        "target_lr": draw(rates),
        "n_epochs": n_warmup_epochs + n_hold_epochs + draw(st.integers(2, 200)),
        "n_warmup_epochs": n_warmup_epochs,
        "warmup_start_lr": draw(start_lrs),
        "n_hold_epochs": n_hold_epochs,
    }


not_numbers = (
    st.text(max_size=5)
    | st.binary(max_size=3)
    | st.booleans()
    | st.complex_numbers()
    | st.lists(st.floats(), max_size=2)
    | st.just(decimal.Decimal("0.1"))
    | st.just(np.array(0.1))
    | st.just({})
)
not_integers = not_numbers | st.floats() | st.builds(np.float32, st.integers(0, 9))
not_rates = (
    st.floats(max_value=-5e-324)
    | st.integers(max_value=-1)
    | st.floats(5e-324, SMALLEST, exclude_max=True)
    | st.floats(LARGEST, exclude_min=True)
    | st.just(float("nan"))
    | st.integers(10**39, 10**400)
    | st.builds(fractions.Fraction, st.just(1), st.integers(10**39, 10**50))
)
not_counts = st.integers(max_value=-1) | st.integers(2**53 + 1)


@st.composite
def illegal_arguments(draw):
    """Arguments, one of them illegal, its name, and the error that must be raised."""
    arguments = draw(rule_arguments())
    name = draw(st.sampled_from(list(arguments)))
    error = draw(st.sampled_from([TypeError, ValueError]))
    is_rate = name.endswith("_lr")
    if error is TypeError:
        values = not_numbers if is_rate else not_integers
        if name != "warmup_start_lr":
            values |= st.none()
    else:
        values = not_rates if is_rate else not_counts
        if name in ("base_lr", "target_lr"):
            values |= st.sampled_from([0, 0.0, -0.0])
    arguments[name] = draw(values)
    return arguments, name, error
