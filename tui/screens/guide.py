"""The guide: why a GPU can be slow on small jobs, how to read its name, what calling a module does.

A line with `#` is a heading, `term | meaning` explains a term, and `> name | what` points to the experiment that shows it
on the reader's machine.
"""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from epochtop.engine.lab.catalog import NAMES
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.key_footer import KeyFooter
from epochtop.tui.cells.rows import EMPTY, FIRST, STRONG, TEXT, labeled, row, wrapped
from epochtop.tui.cells.view import Page

GUIDE = """\
# Why a GPU can be slower than the CPU

A GPU does a lot of work at once, but the host has to send it data and start each piece of work. A small job, such as a few
dozen neurons on 120 rows, is over before the GPU can make up for that. Three costs add up:

transfer | rows are copied from host memory to device memory, and results are copied back. Reading a loss with item() copies
four bytes, and the host waits until the device has finished everything in its queue.

launch | the host launches a kernel for every operator, forward and backward. A launch takes some microseconds even for a
tiny operator. Reading fewer losses does not change that; recording a step once and replaying it (executor=graph) does.

idle units | a GPU has thousands of units that work in parallel. A small batch keeps only a few of them busy. A larger batch
or a wider model uses the others and takes hardly longer.

> anatomy | how much time each of these takes in a step of your job
> reads | what reading the loss costs, and when it no longer matters
> transfer | how fast data reaches the device, and when pinned memory helps
> crossover | the model and batch size from which the GPU is faster
> matmul | how large a matrix product must be to keep the device busy
> executors | what recording a step saves

# Reading the name of a GeForce

Read "RTX 4070 Ti SUPER" from the left:

40 | the generation, one architecture each: 20 is Turing, 30 Ampere, 40 Ada, 50 Blackwell. Newer generations support more
number formats: bf16 from 30, fp8 from 40.

70 | the tier: 90 is the flagship, 80 high end, 70 upper middle, 60 mainstream, 50 entry level, which is weak for deep
learning.

Ti, SUPER | improved versions between two tiers: 4070, 4070 SUPER, 4070 Ti, 4070 Ti SUPER, then 4080.

Laptop | another chip under the same name, with fewer units, less memory and a power limit set by the laptop's maker.

memory | the most important figure, and not in the name: it limits the model and the batch size. In training, a smaller batch
gives a noisier gradient; in inference, a large model may not fit even with a batch of one.

> matmul | the arithmetic throughput of this machine, by precision
> precision | whether bf16 or fp16 is faster here, and how it changes the result
> memory | how the batch size fills the memory, and the largest batch that fits

# What calling a module does

model(x) does more than model.forward(x). Python calls nn.Module.__call__, which runs the forward pre-hooks, then forward,
then the forward hooks. Calling forward directly skips all hooks, and with them what libraries do there: measuring, pruning,
gathering weights that are sharded over processes.

This holds for every Python object: a class with a method __call__ has objects that are called like functions and keep state
between calls.

model.to(device) moves the weights and buffers of the module in place; x.to(device) returns a new tensor and leaves x
unchanged. Model, inputs and labels must be on one device; otherwise torch raises an error.

> call | which hooks run, and how many nanoseconds they take
"""

WIDEST = 100
"""Most cells in a line; longer lines are hard to read."""
TERM = 11


def guide(width: int) -> list[Row]:
    """The guide in rows of at most `width` cells, without pointers to experiments that do not exist."""
    cells = min(width, WIDEST)
    rows: list[Row] = []
    for block in GUIDE.strip().split("\n\n"):
        lines = _block(block, cells)
        rows += [*lines, EMPTY] if lines else []
    return rows[:-1]


def _block(block: str, width: int) -> list[Row]:
    if block.startswith("# "):
        return [row((block[2:], STRONG))]
    if block.startswith("> "):
        pairs = [line[2:].split(" | ") for line in block.splitlines()]
        return labeled("See it", [f"{name}: {what}" for name, what in pairs if name in NAMES], width, FIRST)
    text = " ".join(block.split("\n"))
    term, bar, meaning = text.partition(" | ")
    return wrapped(meaning, width, TEXT, term.ljust(TERM)) if bar else wrapped(text, width)


class GuideScreen(ModalScreen[None]):
    """The guide over the whole screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,g,f1", "dismiss", "back", id="guide.back", tooltip="Close the guide"),
        Binding("ctrl+q", "app.quit", "quit", id="guide.quit"),
    ]

    def compose(self) -> ComposeResult:
        """The rows and the keys."""
        page = Page(lambda width, height: guide(width), id="guide")
        page.border_title = "Guide"
        page.border_subtitle = "arrows and page keys scroll"
        yield page
        yield KeyFooter()

    def on_mount(self) -> None:
        """Focus the page, so that keys scroll it."""
        self.query_one(Page).focus()
