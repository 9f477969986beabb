"""Explanations of predictions (saliency, occlusion, Shapley values, what-if curves) and confidence measures."""
