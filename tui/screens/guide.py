"""The guide: what makes a GPU slow on small jobs, how to read its name, what calling a module does. Words only.

A line with `#` is a heading, `term | meaning` explains a term, and `> name | what` points at the experiment of the lab
that shows it on the reader's own machine.
"""

from __future__ import annotations

GUIDE = """\
# Why a GPU can be slower than the CPU

A GPU does a huge amount of work at once, but every piece of work has to be brought to it and started. A small job, such as
a few dozen neurons on 120 rows, is over before those costs have paid. Three of them add up:

transfer | rows go from the host's memory to the device's, results come back. Each loss that is read with item() is a copy
of four bytes and a full stop: the host waits until everything that was enqueued is done.

launch | every operator, forward and backward, is a kernel that the host has to start. That costs some microseconds however
little there is to compute, and reading fewer losses does not touch it. Recording a whole step once and replaying it
(executor=graph) does.

idle units | a GPU has thousands of units that work side by side. A small batch keeps a few of them busy; a larger batch, a
wider model or more data fill the others in hardly more time.

> anatomy | how much of a step of your job each of these takes
> reads | what reading the loss costs, and from when on it does not matter
> transfer | how fast data gets to the device, and when pinned memory pays
> crossover | from which model and batch on the GPU is faster here
> matmul | how large a product must be to keep the device busy
> executors | what recording a step saves

# Reading the name of a GeForce

Take "RTX 4070 Ti SUPER" apart from the left:

40 | the generation, each an architecture of its own: 20 is Turing, 30 Ampere, 40 Ada, 50 Blackwell. A newer one knows more
kinds of arithmetic: bf16 from 30 on, fp8 from 40 on.

70 | the tier within the generation: 90 is the flagship, 80 the high end, 70 the upper middle, 60 the mainstream, 50 the
entry, which is weak for deep learning.

Ti, SUPER | an improved version between its tier and the next: 4070, 4070 SUPER, 4070 Ti, 4070 Ti SUPER, and then 4080.

Laptop | the same name on another chip, with its own number of units, its own memory and a power limit that its maker sets.

memory | not in the name, and the most important figure: it bounds the model and the batch. In training a smaller batch is a
noisier estimate of the gradient; in inference a large model may not fit even with a batch of one.

> matmul | what this machine's arithmetic reaches, by precision
> precision | whether bf16 or fp16 is faster here, and what it does to the result
> memory | how the batch fills the memory, and the largest that fits

# What calling a module does

model(x) is more than model.forward(x). Python calls nn.Module.__call__, and that runs the hooks that were registered before
the forward pass, then forward, then the hooks after it. Calling forward by hand leaves all hooks out, and with them what
libraries do there: measuring, pruning, gathering weights that are spread over processes.

The same holds for any object of Python: a class with a method __call__ makes objects that are called like functions and
keep a state between calls.

model.to(device) moves the weights and buffers of a module itself; x.to(device) returns a new tensor and leaves x where it
was. Model, inputs and labels must be on one device, or torch ends the step: it expected a tensor on the GPU that is on the
CPU.

> call | which hooks fire, and the nanoseconds that they cost
"""
