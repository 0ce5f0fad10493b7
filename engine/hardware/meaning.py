"""What a processor or a GPU is good for, in one line, from its memory by a rule and not from a list of products.

The rule: training holds parameters × (weights + gradients + optimizer state), each in the bytes of its precision.
Activations and data come on top; they depend on the batch, so a job is called comfortable when they get as much
again. Sizes of known networks stand for kinds of jobs.
"""

from __future__ import annotations

from epochtop.engine.hardware.facts import Cpu, Gpu, GpuName, Machine
from epochtop.engine.protocol.quantities import format_bytes

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
STATES = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
"""Values of the parameters' size that an optimizer keeps."""

RESNET_50 = 25_557_032
GPT_2 = 124_439_808
GPT_2_XL = 1_557_611_200
SEVEN_B = 6_738_415_616
"""Parameters of torchvision's ResNet-50, of GPT-2's smallest and largest, and of Llama 2's "7 B", by their authors."""

_KINDS = (
    (GPT_2_XL, "trains CNNs and transformers of some billion parameters"),
    (GPT_2, "trains CNNs and small transformers"),
    (RESNET_50, "trains CNNs"),
)


def training_bytes(parameters: int, precision: str = "float32", optimizer: str = "adam") -> int:
    """Bytes of weights, gradients and optimizer state; 16 for each parameter with Adam in float32."""
    return parameters * BYTES[precision] * (2 + STATES[optimizer])


def running_bytes(parameters: int, precision: str = "bfloat16") -> int:
    """Bytes of the weights alone, which is what answering needs at least."""
    return parameters * BYTES[precision]


def kinds_of_jobs(memory_bytes: int) -> str:
    """What `memory_bytes` suffice for, and what becomes of a 7 B model."""
    kind = next((words for size, words in _KINDS if 2 * training_bytes(size) <= memory_bytes), "trains small networks")
    return f"{kind}; {_seven_b(memory_bytes)}"


def _seven_b(memory_bytes: int) -> str:
    train, run = training_bytes(SEVEN_B), running_bytes(SEVEN_B)
    if train <= memory_bytes:
        return (
            f"a 7 B model can be trained ({format_bytes(train, whole=True)} with Adam in float32, activations on top)"
        )
    if run <= memory_bytes:
        return f"a 7 B model runs in 16 bit ({format_bytes(run, whole=True)}), to train it does not fit ({format_bytes(train, whole=True)})"
    return "a 7 B model does not fit"


# --- GPU --------------------------------------------------------------------------------------------------


def gpu_meaning(gpu: Gpu, system_memory_bytes: int | None = None) -> str:
    """`RTX 4070 Laptop: 40th generation (Ada), upper middle, 8 GiB: trains CNNs and small transformers; …`.

    `system_memory_bytes` counts where the card shares the system's memory.
    """
    memory = gpu.memory_bytes.value or system_memory_bytes
    size = (
        [format_bytes(memory, whole=True) + (" shared with the system" if gpu.memory_bytes.value is None else "")]
        if memory
        else []
    )
    facts = [*_place(gpu), *size]
    text = f"{short_name(gpu.name.value)}: {', '.join(facts)}" if gpu.name.value else ", ".join(facts)
    return f"{text}: {gpu_use(gpu, system_memory_bytes)}"


def gpu_use(gpu: Gpu, system_memory_bytes: int | None = None) -> str:
    """The second half of :func:`gpu_meaning`: what the card is good for."""
    memory = gpu.memory_bytes.value or system_memory_bytes
    caveat = "; no tensor cores" if has_tensor_cores(gpu) is False else ""
    return (kinds_of_jobs(memory) if memory else "its memory is unknown") + caveat


def _place(gpu: Gpu) -> list[str]:
    if gpu.reading.is_known:
        return [said_generation(gpu.reading), gpu.reading.tier or "", *_market(gpu.reading)]
    told = gpu.architecture.value or (
        f"compute capability {gpu.compute_capability.value}" if gpu.compute_capability.value else ""
    )
    return [*([told] if told else []), "name not in the table"]


def _market(reading: GpuName) -> list[str]:
    return [] if reading.market in (None, "consumer") else [reading.market or ""]


def said_generation(reading: GpuName) -> str:
    """`40th generation (Ada)`, `Hopper generation`."""
    architecture = (reading.architecture or "").removesuffix(" Lovelace")
    generation = reading.generation or ""
    if generation.isdigit():
        return f"{generation}th generation ({architecture})"
    return f"MX series ({architecture})" if generation == "MX" else f"{architecture} generation"


def short_name(name: str) -> str:
    """`RTX 4070 Laptop`: without maker and filler."""
    short = name.removeprefix("NVIDIA ").removeprefix("GeForce ").removesuffix(" GPU").replace(" Laptop GPU", " Laptop")
    return short.replace(" with Max-Q Design", " Max-Q")


def has_tensor_cores(gpu: Gpu) -> bool | None:
    """From the compute capability, save for the GTX 16 cards, which have Turing's number and no tensor cores."""
    if gpu.compute_capability.value is None:
        return None
    return float(gpu.compute_capability.value) >= 7 and gpu.reading.generation != "16"


# --- CPU --------------------------------------------------------------------------------------------------

_BFLOAT16 = ("AMX", "AVX-512 BF16", "BF16")
_WIDEST = ("AVX-512", "AVX2", "SVE", "NEON", "AVX")


def cpu_meaning(machine: Machine) -> str:
    """`2 CPUs with AVX-512 and bfloat16 in hardware, 24 GiB: good for tables and small networks; …`."""
    cpus = machine.usable_cpus
    memory = machine.usable_memory_bytes
    parts = f"{cpus} CPU{'s' * (cpus != 1)}{_with(machine.cpu)}, {format_bytes(memory, whole=True)}"
    return f"{parts}: {cpu_use(machine)}; {_seven_b(memory)}"


def cpu_use(machine: Machine) -> str:
    """What the usable CPUs are good for without a GPU."""
    if machine.usable_cpus < 4:
        return "good for tables and small networks; CNNs are slow"
    if machine.usable_cpus < 16:
        return "good for tables, small networks and small CNNs; transformers are slow"
    return "good for tables, networks and small CNNs; a GPU is many times faster on larger ones"


def _with(cpu: Cpu) -> str:
    known = cpu.vector_instructions.value or ()
    words = [next((name for name in _WIDEST if name in known), "")]
    words += ["bfloat16 in hardware"] if any(name in known for name in _BFLOAT16) else []
    words = [word for word in words if word]
    return f" with {' and '.join(words)}" if words else ""
