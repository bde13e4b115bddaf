"""Hypothesis strategies for the arguments of the rule."""

import decimal
import fractions

import numpy as np
from hypothesis import strategies as st

TINY, MAX = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # float32's normal range

rates = st.floats(min_value=TINY, max_value=MAX)


@st.composite
def rule_arguments(draw):
    """Legal arguments of `DecayRule`, warm-up and ramp included."""
    n_warmup_epochs = draw(st.integers(0, 50))
    return {
        "base_lr": draw(rates),
        "target_lr": draw(rates),
        "n_epochs": n_warmup_epochs + draw(st.integers(2, 200)),
        "n_warmup_epochs": n_warmup_epochs,
        "warmup_start_lr": draw(st.none() | st.just(0.0) | rates) if n_warmup_epochs else None,
    }


no_numbers = (
    st.text(max_size=5)
    | st.binary(max_size=3)
    | st.booleans()
    | st.complex_numbers()
    | st.lists(st.floats(), max_size=2)
    | st.just(decimal.Decimal("0.1"))
    | st.just(np.array(0.1))
    | st.just({})
)
negative = st.floats(max_value=-5e-324) | st.integers(max_value=-1)
not_normal = (
    st.floats(min_value=5e-324, max_value=TINY, exclude_max=True)
    | st.floats(min_value=MAX, exclude_min=True)
    | st.just(float("nan"))
    | st.integers(min_value=10**39, max_value=10**400)
    | st.builds(fractions.Fraction, st.just(1), st.integers(10**39, 10**50))
)
no_counts = no_numbers | st.floats() | st.builds(np.float32, st.integers(0, 9))


@st.composite
def illegal_arguments(draw):
    """Arguments of `DecayRule` of which one is illegal, its name, and the error that has to come."""
    arguments = draw(rule_arguments())
    name = draw(st.sampled_from(list(arguments)))
    if name == "warmup_start_lr":
        arguments["n_warmup_epochs"] = draw(st.integers(0, arguments["n_epochs"] - 2))
        values = rates if arguments["n_warmup_epochs"] == 0 else negative | not_normal
        kinds = no_numbers
    elif name in ("base_lr", "target_lr"):
        values, kinds = negative | not_normal | st.sampled_from([0, 0.0, -0.0]), no_numbers | st.none()
    elif name == "n_epochs":
        values = st.integers(max_value=arguments["n_warmup_epochs"] + 1) | st.integers(2**53 + 1)
        kinds = no_counts | st.none()
    else:
        values = st.integers(max_value=-1) | st.integers(min_value=2**53 - 1)
        kinds = no_counts | st.none()
    error = draw(st.sampled_from([TypeError, ValueError]))
    arguments[name] = draw(kinds if error is TypeError else values)
    return arguments, name, error
