"""What a processor or a GPU is good for, in one line, derived from its memory and not from a list of products.

The rule: training needs parameters × (weights + gradients + optimizer state), each at the size of its precision.
Activations and data depend on the batch; a kind of job counts as possible if the same amount is left for them. Sizes of
well-known networks stand for kinds of jobs. Never imports torch.
"""

from __future__ import annotations

from epochtop.engine.hardware.facts import Cpu, Gpu, GpuName, GpuProblem, Machine
from epochtop.engine.protocol.quantities import format_bytes, plural

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per value of each precision."""
STATES = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
"""Values per parameter in the state of each optimizer."""

RESNET_50 = 25_557_032
GPT_2 = 124_439_808
GPT_2_XL = 1_557_611_200
SEVEN_B = 6_738_415_616
"""Parameters of torchvision's ResNet-50, of the smallest and the largest GPT-2, and of Llama 2 "7 B"."""

_KINDS = (
    (GPT_2_XL, "trains CNNs and transformers of a few billion parameters"),
    (GPT_2, "trains CNNs and small transformers"),
    (RESNET_50, "trains CNNs"),
)


def training_bytes(parameters: int, precision: str = "float32", optimizer: str = "adam") -> int:
    """Bytes of weights, gradients and optimizer state; 16 per parameter with Adam in float32."""
    return parameters * BYTES[precision] * (2 + STATES[optimizer])


def running_bytes(parameters: int, precision: str = "bfloat16") -> int:
    """Bytes of the weights, the minimum for inference."""
    return parameters * BYTES[precision]


def kinds_of_jobs(memory_bytes: int) -> str:
    """Kind of job that fits into `memory_bytes`, and whether a 7 B model does."""
    kind = next((words for size, words in _KINDS if 2 * training_bytes(size) <= memory_bytes), "trains small networks")
    return f"{kind}; {_seven_b(memory_bytes)}"


def _seven_b(memory_bytes: int) -> str:
    train, run = training_bytes(SEVEN_B), running_bytes(SEVEN_B)
    if train <= memory_bytes:
        return f"it can train a 7 B model ({format_bytes(train, rounded=True)} with Adam in float32, plus activations)"
    if run <= memory_bytes:
        return f"it can run a 7 B model in 16 bit ({format_bytes(run, rounded=True)}) but not train it ({format_bytes(train, rounded=True)})"
    return "a 7 B model does not fit"


# --- GPU --------------------------------------------------------------------------------------------------


def gpu_meaning(gpu: Gpu, system_memory_bytes: int | None = None, problems: tuple[GpuProblem, ...] = ()) -> str:
    """`RTX 4070 Laptop: 40th generation (Ada), upper middle, 8 GiB: trains CNNs and small transformers; …`.

    `system_memory_bytes` is the memory of a GPU that shares the system's. A GPU on which no job runs is good for nothing:
    the problem takes the place of its uses.
    """
    memory = _memory(gpu, system_memory_bytes)
    size = [format_bytes(memory, rounded=True) + _memory_note(gpu)] if memory else []
    facts = [*_place(gpu), *size]
    text = f"{short_name(gpu.name.value)}: {', '.join(facts)}" if gpu.name.value else ", ".join(facts)
    return f"{text}: {gpu_use(gpu, system_memory_bytes, problems)}"


def gpu_use(gpu: Gpu, system_memory_bytes: int | None = None, problems: tuple[GpuProblem, ...] = ()) -> str:
    """The second half of :func:`gpu_meaning`: what the GPU is good for, or why no job runs on it."""
    for problem in problems or gpu.problems:
        if problem.is_fatal:
            return f"no job runs on it: {problem.text}"
    if not gpu.reading.has_cuda:
        return "no job runs on it: a vGPU of this type has no CUDA"
    if gpu.mig_devices.value == ():
        return "no job runs on it: MIG is on, but there is no MIG instance"
    memory = _memory(gpu, system_memory_bytes)
    caveat = "; no tensor cores" if has_tensor_cores(gpu) is False else ""
    return (kinds_of_jobs(memory) if memory else "its memory size is unknown") + caveat


def _memory(gpu: Gpu, system_memory_bytes: int | None) -> int | None:
    """Memory that a job can use: that of the largest MIG instance; the system's only for a chip that is known to share it."""
    if gpu.mig_devices.value:
        return max(instance.memory_bytes.value or 0 for instance in gpu.mig_devices.value)
    return gpu.memory_bytes.value or (system_memory_bytes if gpu.reading.shares_memory else None)


def _memory_note(gpu: Gpu) -> str:
    if gpu.mig_devices.value:
        return " in the largest MIG instance"
    return " shared with the system" if gpu.memory_bytes.value is None else ""


def _place(gpu: Gpu) -> list[str]:
    if gpu.reading.is_known:
        return [generation_text(gpu.reading), *filter(None, [gpu.reading.tier]), *_market(gpu.reading)]
    family = gpu.architecture.value or (
        f"compute capability {gpu.compute_capability.value}" if gpu.compute_capability.value else ""
    )
    return [*([family] if family else []), "name not in the table"]


def _market(reading: GpuName) -> list[str]:
    return [] if reading.market in (None, "consumer") else [reading.market or ""]


def generation_text(reading: GpuName) -> str:
    """`40th generation (Ada)`, `Hopper generation`."""
    architecture = (reading.architecture or "").removesuffix(" Lovelace")
    generation = reading.generation or ""
    if generation.isdigit():
        return f"{generation}th generation ({architecture})"
    return f"MX series ({architecture})" if generation == "MX" else f"{architecture} generation"


def short_name(name: str) -> str:
    """`RTX 4070 Laptop`: the name without vendor and filler words."""
    short = name.removeprefix("NVIDIA ").removeprefix("GeForce ").removesuffix(" GPU").replace(" Laptop GPU", " Laptop")
    return short.replace(" with Max-Q Design", " Max-Q")


def has_tensor_cores(gpu: Gpu) -> bool | None:
    """Whether the GPU has tensor cores, by its name and compute capability; None if unknown."""
    if gpu.reading.has_tensor_cores is not None:
        return gpu.reading.has_tensor_cores
    return float(gpu.compute_capability.value) >= 7 if gpu.compute_capability.value is not None else None


# --- CPU --------------------------------------------------------------------------------------------------

_BFLOAT16 = ("AMX", "AVX-512 BF16", "BF16")
_WIDEST = ("AVX-512", "AVX2", "SVE", "NEON", "AVX")


def cpu_meaning(machine: Machine) -> str:
    """`2 CPUs with AVX-512 and bfloat16 in hardware, 24 GiB: good for tables and small networks; …`."""
    cpus = machine.usable_cpus
    memory = machine.usable_memory_bytes
    parts = f"{plural(cpus, 'CPU')}{_with(machine.cpu)}, {format_bytes(memory, rounded=True)}"
    return f"{parts}: {cpu_use(machine)}; {_seven_b(memory)}"


def cpu_use(machine: Machine) -> str:
    """What the usable CPUs are good for, without a GPU."""
    if machine.usable_cpus < 4:
        return "good for tables and small networks; CNNs are slow"
    if machine.usable_cpus < 16:
        return "good for tables, small networks and small CNNs; transformers are slow"
    return "good for tables, networks and small CNNs; larger ones are many times faster on a GPU"


def _with(cpu: Cpu) -> str:
    instructions = cpu.vector_instructions.value or ()
    words = [next((name for name in _WIDEST if name in instructions), "")]
    words += ["bfloat16 in hardware"] if any(name in instructions for name in _BFLOAT16) else []
    words = [word for word in words if word]
    return f" with {' and '.join(words)}" if words else ""
