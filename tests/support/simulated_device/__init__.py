"""A simulated GPU: an asynchronous device on the CPU, for tests of the order of copies, events and reads.

What it shows: a missing wait between streams, memory that is used again too early, a copy that is read before it is
complete, host memory that is not pinned, waits of the host, and how far the host is ahead, by a virtual clock. Work is
executed in the two extreme orders that the waits allow, so that an error shows every time.

What it cannot show: the speed of a GPU, its numbers (kernels are those of the CPU), CUDA graphs and their captures, errors
of kernels and drivers, several GPUs, libraries such as NCCL, and what torch does in C++ without its dispatcher.
"""

from tests.support.simulated_device.install import simulated_gpu
from tests.support.simulated_device.queues import Device
from tests.support.simulated_device.tensors import on_device

__all__ = ["Device", "on_device", "simulated_gpu"]
