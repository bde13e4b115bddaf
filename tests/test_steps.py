"""A schedule takes steps of every type, on every backend."""

import models
import numpy as np
import pytest
import tensorflow as tf
from models import as_array, compiled_forms, evaluate, make_tensor, planned
from oracle import float32_rates
from releases import BACKEND, needs_tensorflow, needs_torch

from expdecay_keras import WarmupExponentialSchedule

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
EDGES = [0, 1, 3, 4, 5, 7, 8, 17, 23, 24, 25, 127, 128, 255, 32_767, 65_535, 65_536]
LARGE = [2**31 - 1, 2**31, 2**32 - 1, 5 * 10**9, 2**40, 2**53, 2**63 - 1, 2**64 - 1]
STEPS = [-(2**40) - 5, -(2**31), -129, -128, -5, -1, *EDGES, *LARGE]

FEW = {"base_lr": 0.1, "target_lr": 1e-3, "n_epochs": 6, "steps_per_epoch": 4}
# Of a few rates and of many, and of steps that an int32 cannot hold.
SCHEDULES = {
    "staircase": WarmupExponentialSchedule(**FEW),
    "continuous": WarmupExponentialSchedule(**FEW, staircase=False),
    "two-steps": WarmupExponentialSchedule(0.1, 1e-3, 2, steps_per_epoch=1),
    "tokens": WarmupExponentialSchedule(0.1, 1e-3, 1000, steps_per_epoch=10_000_000),
}
of_each_schedule = pytest.mark.parametrize(
    "schedule", SCHEDULES.values(), ids=list(SCHEDULES)
)


def expected_rates(schedule, steps):
    n = schedule.steps_per_epoch
    epochs = [step // n if schedule.staircase else step / n for step in steps]
    return float32_rates(schedule.rule, epochs)


def held_by(dtype):
    """The steps that a dtype holds exactly."""
    dtype = tf.as_dtype(dtype)
    if dtype.is_floating:
        as_numpy = dtype.as_numpy_dtype
        with np.errstate(over="ignore"):
            return [step for step in STEPS if float(as_numpy(float(step))) == step]
    return [step for step in STEPS if dtype.min <= step <= dtype.max]


# Python's and NumPy's numbers, looked up before a backend narrows them


@of_each_schedule
def test_numbers_and_arrays(schedule):
    for type_ in (int, float, np.float64, np.float32):
        steps = [step for step in STEPS if type_(step) == step]
        rates = [evaluate(schedule, type_(step)).item() for step in steps]
        assert rates == expected_rates(schedule, steps), type_
    for dtype in (*INTEGERS, "float16", "float32", "float64"):
        steps = held_by(dtype)
        rates = evaluate(schedule, as_array(steps, dtype))
        assert rates.dtype == np.float32
        assert rates.tolist() == expected_rates(schedule, steps), dtype


def test_lists_ranges_and_shapes():
    schedule = planned()
    rates = evaluate(schedule, [[17, 17], [4, 0]])
    assert rates.shape == (2, 2)
    assert rates.ravel().tolist() == expected_rates(schedule, [17, 17, 4, 0])
    assert evaluate(schedule, range(3)).tolist() == expected_rates(schedule, range(3))
    assert evaluate(schedule, np.zeros((0, 2), int)).shape == (0, 2)


@of_each_schedule
def test_fractions_are_truncated_and_any_step_may_be_large(schedule):
    for step in (17.75, np.float64(17.999), np.float32(17.5)):
        assert [evaluate(schedule, step).item()] == expected_rates(schedule, [17])
    for function in compiled_forms(schedule):
        rate = evaluate(function, make_tensor([17.5], "float32"))
        assert rate.tolist() == expected_rates(schedule, [17])
    for step in (10**25, 1e30, float("inf")):
        assert evaluate(schedule, step) == np.float32(schedule.rule.target_lr)


# Tensors


@of_each_schedule
def test_tensors_of_each_type_also_compiled(schedule):
    # keras-io#1502, tensorflow#60649: an int64 step could not be multiplied.
    dtypes = [*INTEGERS, *FLOATS]
    if BACKEND == "jax":  # it has no 64 bits by default
        dtypes = [dtype for dtype in dtypes if "64" not in dtype]
    steps = [held_by(dtype) for dtype in dtypes]
    tensors = [make_tensor(*pair) for pair in zip(steps, dtypes, strict=True)]
    expected = [expected_rates(schedule, held) for held in steps]

    def look_up(*tensors):
        return [schedule(tensor) for tensor in tensors]

    is_tensorflow = BACKEND == "tensorflow"
    as_numpy = np.asarray if is_tensorflow else tf.keras.ops.convert_to_numpy
    for function in compiled_forms(look_up):
        found = [as_numpy(rates) for rates in function(*tensors)]
        assert {rates.dtype for rates in found} == {np.dtype("float32")}
        for dtype, rates, right in zip(dtypes, found, expected, strict=True):
            assert rates.tolist() == right, dtype


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the backend's own tensors do")
def test_tensorflows_tensors_on_another_backend():
    schedule = SCHEDULES["tokens"]
    steps = [0, 17, 5 * 10**9]
    rates = evaluate(schedule, tf.constant(steps, tf.int64))
    assert rates.tolist() == expected_rates(schedule, steps)


@needs_tensorflow
@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
def test_more_than_2_to_the_16_rates(staircase):
    """And steps that a float32 would round."""
    n_epochs, n = 2**17, 2**30 + 11
    schedule = planned(n, n_epochs, staircase=staircase)
    epochs = [0, 1, 499, 2**16, n_epochs - 2, n_epochs - 1, n_epochs]
    steps = [epoch * n + offset for epoch in epochs for offset in (-1, 0, 1)]
    expected = expected_rates(schedule, steps)
    assert schedule(steps).numpy().tolist() == expected
    for function in compiled_forms(schedule):
        for dtype in (tf.int64, tf.float64):
            assert function(tf.constant(steps, dtype)).numpy().tolist() == expected
    far = np.float32(1e-4)
    assert schedule(1e30).numpy() == schedule(np.uint64(2**63)).numpy() == far


@of_each_schedule
def test_a_symbolic_step_of_a_functional_model(schedule):
    step = tf.keras.Input((), dtype="int32")
    model = tf.keras.Model(step, schedule(step))
    steps = np.array([-5, 0, 3, 4, 17, 24, 100], "int32")
    assert evaluate(model, steps).tolist() == expected_rates(schedule, steps.tolist())


@needs_tensorflow
@pytest.mark.filterwarnings(
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)
@pytest.mark.parametrize(
    "n_epochs, steps_per_epoch, staircase",
    # TFLite has operations of their own for bounds of 0 and 1, and of 0 and 6.
    [(2, 1, True), (7, 1, True), (4, 2, True), (4, 2, False)],
)
def test_tflite(n_epochs, steps_per_epoch, staircase):
    # tensorflow#54244: training on a device, with operations that are built in.
    schedule = planned(steps_per_epoch, n_epochs, staircase=staircase)
    signature = [tf.TensorSpec([], tf.int64)]
    function = tf.function(schedule, input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()]
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    steps = [-(2**40) - 5, -1, *range(n_epochs * steps_per_epoch + 2), 2**40]
    rates = []
    for step in steps:
        interpreter.set_tensor(source, np.array(step, np.int64))
        interpreter.invoke()
        rates.append(interpreter.get_tensor(target).item())
    assert rates == expected_rates(schedule, steps)


# In a training step


@needs_torch
def test_a_whole_optimizer_step_in_one_graph():
    # pytorch#106802, #117807: an index read back as a number breaks the graph.
    import torch

    model = models.build_model(tf.keras.optimizers.SGD(planned()))
    optimizer, variables = model.optimizer, model.trainable_variables
    optimizer.build(variables)
    gradients = [torch.ones_like(variable.value.data) for variable in variables]
    _, update = compiled_forms(lambda: optimizer.apply(gradients, variables))
    weights = []
    with torch.no_grad():
        for _ in range(7):
            weights.append(float(variables[0].value[0, 0]))
            update()
    taken = -np.diff(weights)
    np.testing.assert_allclose(taken, expected_rates(planned(), range(6)), rtol=1e-5)
