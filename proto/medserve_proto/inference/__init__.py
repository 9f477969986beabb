"""inference: the Open Inference Protocol.

Never import it in a process that also imports tritonclient: both register the same messages.
"""
