"""medserve.v1: image classification, patient risk, the model catalog and the manifest."""
