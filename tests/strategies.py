"""Hypothesis strategies for the arguments of the rule."""

from hypothesis import strategies as st

rates = st.floats(min_value=2.0**-126, max_value=(2 - 2.0**-23) * 2.0**127)


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
