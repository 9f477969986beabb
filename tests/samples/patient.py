"""A typical patient, in the client's format."""

from medserve_client import FeatureValue

PATIENT: dict[str, FeatureValue] = {
    "age": 55,
    "menopause": "post",
    "tumor_size": 22,
    "grade": "II",
    "positive_nodes": 3,
    "progesterone_receptor": 120,
    "estrogen_receptor": 80,
    "hormone_therapy": "yes",
}
