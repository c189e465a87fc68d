"""Targets on an accelerator."""

OVERHEAD = 1.03  # of a step over its k + 1 gradients, at most
COPIES = 3.0  # of the parameters, in memory beyond a gradient's, at most
FLAT = 0.2  # by how much compile time may differ from k = 2 to 10
FASTER = {2: 1.3, 5: 1.6}  # than PyTorch, eager, in the same precision, by k
FASTER_BF16 = 3.0  # than PyTorch in its default precision, at bfloat16
SHARE = 0.95  # of the bare step's images per second, at least
MINUTES = 15  # for 200 epochs of Lookbehind-SAM, k = 2
