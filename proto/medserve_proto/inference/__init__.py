"""inference: the Open Inference Protocol.

Do not import it in a process that also imports tritonclient: both register the same messages.
"""
