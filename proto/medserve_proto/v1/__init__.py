"""medserve.v1: image classification, patient risk, the model catalogue and the manifest."""
