import numpy as np

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.masks.image import MaskedImage
from medserve_training.export.segmentation.choose import choose_count_error


def image(count: int) -> MaskedImage:
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, 0, :count] = np.arange(1, count + 1)
    return MaskedImage("image", "group", np.zeros((8, 8, 1), np.uint8), labels)


def test_the_true_count_is_between_the_ratios_times_the_count() -> None:
    label = pb.SegmentedLabel()
    images = tuple(image(count) for count in (2, 4, 6))
    choose_count_error(label, 0, images, [image(4).labels[0]] * 3)
    assert 0.5 <= label.count_error.low_ratio < 1 < label.count_error.high_ratio <= 1.5


def test_without_objects_there_is_no_interval_of_counts() -> None:
    label = pb.SegmentedLabel(count_error=pb.CountError(low_ratio=1, high_ratio=1, coverage=0.9))
    choose_count_error(label, 0, (image(3),), [image(0).labels[0]])
    assert not label.HasField("count_error")
