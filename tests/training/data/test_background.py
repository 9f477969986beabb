import numpy as np
from numpy.typing import NDArray

from medserve_training.data.background import background
from medserve_training.data.schema import Category, EventValue, Number, Schema
from medserve_training.data.splits import Patients

OUTCOME = EventValue("days", "days", "dead", 1, 0, "death")
SEX = Category("sex", "sex", "Sex", ("female", "male"), ("F", "M"))


def constant(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ones((len(rows), 3), dtype=np.float32)


def test_rounded_numbers_stay_in_range() -> None:
    schema = Schema(OUTCOME, (Number("size", "size", "Size", "mm", minimum=101, maximum=119),))
    sizes = np.random.default_rng(0).uniform(101, 119, (200, 1)).astype(np.float32)
    patients = Patients(sizes, np.ones(200), np.ones(200, dtype=np.bool_))
    made_up = background(patients, schema, constant, seed=0)
    assert ((made_up >= 101) & (made_up <= 119)).all()


def test_synthetic_patients_are_combinations_that_occur_if_all_do() -> None:
    schema = Schema(OUTCOME, (SEX,))
    patients = Patients(np.array([[0], [1]] * 50, dtype=np.float32), np.ones(100), np.ones(100, dtype=np.bool_))
    assert set(background(patients, schema, constant, seed=0).ravel().tolist()) <= {0.0, 1.0}
